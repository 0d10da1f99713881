//! Values that are dangerous where text becomes a command, a path or a terminal's output.

use proptest::prelude::*;
use serde_json::json;

use super::tests::{good, refused, value};
use super::*;
use crate::yaml;

const HOSTILE: [&str; 10] = [
    "'; touch /tmp/pwn #",
    "$(touch /tmp/pwn)",
    "`id`",
    "a\nb",
    "-oProxyCommand=id",
    "-x",
    "a\0b",
    "../../etc",
    "\u{1b}[31m",
    "{{ 7 * 7 }}{% raw %}",
];

#[test]
fn hostile_values_arrive_as_they_are_or_are_refused() {
    for hostile in HOSTILE {
        let quoted = serde_json::to_string(hostile).unwrap();
        for name in [
            "ansible_host",
            "ansible_user",
            "ansible_become_user",
            "cluster_name",
            "distribution",
            "ansible_port",
            "ansible_connection",
            "ansible_become_method",
        ] {
            let text = format!("servers: {{hosts: {{s1: {{{name}: {quoted}}}}}}}");
            assert!(refused(&text).starts_with("i.yml:1:"), "{text}");
        }
        let text = format!("a: {{hosts: {{{quoted}: }}}}");
        let report = refused(&text);
        assert!(!report.contains(|c: char| c.is_control() && c != '\n'), "{text}: {report:?}");
        // Free text stays what it is; only a template is one.
        if !hostile.contains("{{") {
            let inventory = good(&format!("a: {{hosts: {{x: {{motd: {quoted}}}}}}}"));
            assert_eq!(value(&inventory, "x", "motd"), json!(hostile));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_inventory_makes_it_panic(
        text in "(all:|servers:|hosts:|vars:|children:|a\\[1:3\\]:|token: x|ansible_port: 1|[ \n{},:a-c\\[\\]\"'-]|\n  |\n    ){0,40}",
        pattern in "[a-c*?!&~:,\\[\\]0-9-]{0,20}",
    ) {
        if let Ok(document) = yaml::parse("i.yml", &text) {
            let source = Source { name: "i.yml".into(), document };
            let sources = Sources { inventory: vec![source], ..Sources::default() };
            if let Ok(inventory) = Inventory::resolve(&sources) {
                let _ = inventory.select(&pattern);
            }
        }
        let _ = ini::parse("i", &text);
        let _ = Inventory::extra_vars(&[text.trim_start_matches('@')]);
        let _ = range::expand(&pattern);
    }
}
