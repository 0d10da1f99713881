use std::fmt::Write as _;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::limits::YAML_BYTES_MAX;
use crate::secret::Secret;

fn root(text: &str) -> Node {
    parse("t.yml", text).expect("parses").into_root()
}

fn refused(text: &str) -> String {
    report(&parse("t.yml", text).expect_err("is refused"))
}

#[test]
fn every_key_and_value_knows_its_place() {
    let root = root("a: 1\nb:\n  - x\n  - c: {d: e}\n");
    let b = root.entry("b").unwrap();
    assert_eq!(b.key_mark.to_string(), "t.yml:2:1");
    let items = b.value.as_seq().unwrap();
    assert_eq!(items[0].mark.to_string(), "t.yml:3:5");
    let d = items[1].get("c").unwrap().entry("d").unwrap();
    assert_eq!(
        (d.key_mark.to_string(), d.value.mark.to_string()),
        ("t.yml:4:9".to_owned(), "t.yml:4:12".to_owned())
    );
}

#[test]
fn scalars_mean_what_they_mean_to_ansible() {
    let cases = [
        ("yes", Value::Bool(true)),
        ("Off", Value::Bool(false)),
        ("'yes'", Value::String("yes".into())),
        ("", Value::Null),
        ("~", Value::Null),
        ("0644", Value::Int(0o644)),
        ("0o644", Value::Int(0o644)),
        ("0x1F", Value::Int(31)),
        ("0b11", Value::Int(3)),
        ("-1_000", Value::Int(-1000)),
        ("08", Value::String("08".into())),
        ("12:30", Value::String("12:30".into())),
        ("1.5", Value::Float(1.5)),
        (".5", Value::Float(0.5)),
        ("1.2.3", Value::String("1.2.3".into())),
        ("v1.30.1+k3s1", Value::String("v1.30.1+k3s1".into())),
        ("10.0.0.1", Value::String("10.0.0.1".into())),
        ("99999999999999999999", Value::String("99999999999999999999".into())),
        ("y", Value::String("y".into())),
        ("!!str 12", Value::String("12".into())),
        ("-", Value::Seq(vec![Node { value: Value::Null, mark: Mark::new("t.yml", 1, 5) }])),
    ];
    for (text, expected) in cases {
        let text = if text == "-" { "x:\n- ".to_owned() } else { format!("x: {text}") };
        let value = root(&text).get("x").unwrap().value.clone();
        match (&value, &expected) {
            (Value::Seq(a), Value::Seq(b)) => assert_eq!(a[0].value, b[0].value),
            _ => assert_eq!(value, expected, "{text}"),
        }
    }
}

#[test]
fn what_silently_means_something_else_is_refused() {
    let cases = [
        (
            "a: 1\nb: 2\na: 3\nb: 4\n",
            "t.yml:3:1: duplicate key `a`, first given on line 1\n\
             t.yml:4:1: duplicate key `b`, first given on line 2",
        ),
        ("a: {b: 1, b: 2}", "t.yml:1:11: duplicate key `b`, first given on line 1"),
        (
            "a: {{ x }}",
            "t.yml:1:5: a list or mapping can not be a key \
            (a value that begins with `{` or `[`, like `{{ … }}`, needs quotes)",
        ),
        (
            "a: !vault abc",
            "t.yml:1:4: the tag `!vault` is not supported \
            (keep the secret in a file of its own with mode 0600)",
        ),
        ("a: !!int x", "t.yml:1:4: the text is no `!!int`"),
        ("--- 1\n--- 2\n", "t.yml:2:1: a second document in one file"),
        ("a: &x [*x]", "t.yml:1:8: an alias inside its own anchor"),
        ("<<: 3", "t.yml:1:5: `<<` takes a mapping or a list of mappings, found an integer"),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(text), expected, "{text}");
    }
    assert!(refused("a: [1, 2").starts_with("t.yml:"));
    assert!(refused("a: *nothing").starts_with("t.yml:1:4"));
    assert!(parse_bytes("t.yml", b"a: b\nc: \xff").unwrap_err()[0].line == 2);
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (previous, next) in ('a'..'i').zip('b'..='i') {
        let aliases = vec![format!("*{previous}"); 9].join(",");
        let _ = writeln!(bomb, "{next}: &{next} [{aliases}]");
    }
    assert!(refused(&bomb).contains("repeat too much"));

    assert!(refused(&"[".repeat(100)).contains("nested deeper than 64 levels"));
    assert!(parse("t.yml", &"[".repeat(100_000)).is_err());
    assert!(refused(&"- ".repeat(100_000)).contains("nested deeper than 64 levels"));

    let mut chain = "a0: &a0 [x]\n".to_owned();
    for i in 1..100 {
        let _ = writeln!(chain, "a{i}: &a{i} [*a{}]", i - 1);
    }
    assert!(refused(&chain).contains("nested deeper than 64 levels"));
    assert!(refused(&"#".repeat(YAML_BYTES_MAX + 1)).contains("1048577 bytes"));
}

#[test]
fn merge_keys_do_not_override() {
    let root = root("base: &b {x: 1, y: 2}\nhost:\n  <<: *b\n  y: 3\n");
    assert_eq!(root.get("host").unwrap().to_json(), serde_json::json!({"y": 3, "x": 1}));
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    #[expect(dead_code, reason = "only its decoding is looked at")]
    name: String,
    #[serde(default)]
    retries: u8,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    children: Vec<Task>,
}

#[test]
fn decoding_points_at_the_offending_place() {
    let cases = [
        ("name: x\nretires: 3\n", "t.yml:2:1: unknown key `retires` (did you mean `retries`?)"),
        (
            "name: x\nzzzzzz: 3\n",
            "t.yml:2:1: unknown key `zzzzzz` (known keys: name, retries, password, children)",
        ),
        (
            "name: x\nchildren:\n  - name: y\n    retires: 3\n",
            "t.yml:4:5: unknown key `retires` (did you mean `retries`?)",
        ),
        (
            "name: x\nchildren:\n  - name: y\n    retries: many\n",
            "t.yml:4:14: `retries`: expected u8, found a string",
        ),
        ("name: x\nretries: 300\n", "t.yml:2:10: `retries`: expected u8, the value does not fit"),
        (
            "name: x\npassword: 123456\n",
            "t.yml:2:11: `password`: expected a string, found an integer (write it in quotes)",
        ),
        ("retries: 3\n", "t.yml:1:1: the key `name` is missing"),
    ];
    for (text, expected) in cases {
        let finding = root(text).decode::<Task>().expect_err(text);
        assert_eq!(report(&[finding]), expected, "{text}");
    }
    let good = "name: x\nretries: 3\npassword: '1'\nchildren: [{name: y}]";
    let task: Task = root(good).decode().unwrap();
    assert_eq!((task.retries, task.children.len()), (3, 1));
    assert_eq!(task.password.unwrap().expose(), "1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_bytes("t.yml", &bytes);
    }

    #[test]
    fn no_yamlish_text_makes_it_panic(text in "[-:?&*!|>'\"%@`#,\\[\\]{}<~ \n\ta-c0-2.]{0,120}") {
        if let Ok(document) = parse("t.yml", &text) {
            let _ = document.root().decode::<Task>();
            let _ = document.root().to_json();
        }
    }
}
