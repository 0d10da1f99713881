use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::secret::Secret;

/// Variables of every kind that a person and a host may give.
fn vars() -> Vars {
    let text = |text: &str| Var::Template(json!(text));
    let layer = BTreeMap::from([
        ("port".to_owned(), Var::Template(json!(6443))),
        ("name".to_owned(), text("server1")),
        ("flag".to_owned(), text("no")),
        ("hosts".to_owned(), Var::Template(json!(["a", "b", "c"]))),
        ("url".to_owned(), text("https://{{ name }}:{{ port }}")),
        ("alias".to_owned(), text("{{ hosts }}")),
        ("deep".to_owned(), Var::Template(json!({"list": ["{{ port }}", "{{ url }}"]}))),
        ("circle".to_owned(), text("{{ square }}")),
        ("square".to_owned(), text("{{ circle }}")),
        ("hole".to_owned(), text("{{ nowhere }}")),
        ("broken".to_owned(), text("{{ name | nosuch }}")),
        ("token".to_owned(), Var::Secret(Secret::new("hunter2"))),
        ("joined".to_owned(), text("x-{{ token }}")),
        ("stdout".to_owned(), Var::Plain(json!("{{ 7 * 7 }} {{ token }}"))),
        ("later".to_owned(), Var::Unknown),
        ("dict".to_owned(), Var::Template(json!({"z": 1, "a": {"b": 2, "c": 3}}))),
        ("nothing".to_owned(), Var::Template(Json::Null)),
        ("result".to_owned(), Var::Plain(json!({"failed": false, "changed": true, "rc": 0}))),
        (
            "servers".to_owned(),
            Var::Plain(json!([
                {"name": "s1", "up": true}, {"name": "s2", "up": false}, {"name": "s3", "up": true}
            ])),
        ),
    ]);
    let other = Vars::for_host("server2").with(BTreeMap::from([
        ("name".to_owned(), text("server2")),
        ("url".to_owned(), text("https://{{ name }}")),
    ]));
    let hosts: Arc<HostVars> = Arc::new(BTreeMap::from([("server2".into(), other)]));
    Vars::for_host("server1").with(layer).with_hosts(hosts)
}

fn evaluate(text: &str) -> Result<Json, TemplateError> {
    Engine::new().evaluate(&json!(text), &vars()).map(|evaluated| evaluated.value)
}

#[test]
fn expressions_keep_their_type() {
    let cases = [
        ("{{ port }}", json!(6443)),
        ("{{ port + 1 }}", json!(6444)),
        (" {{- hosts -}} ", json!(["a", "b", "c"])),
        ("{{ hosts }}!", json!("['a', 'b', 'c']!")),
        ("{{ true }}!", json!("True!")),
        ("{{ port }}{{ port }}", json!("64436443")),
        ("{{ url }}", json!("https://server1:6443")),
        ("{{ alias[1] }}", json!("b")),
        ("{{ deep.list }}", json!([6443, "https://server1:6443"])),
        ("{{ nothing }}", json!(null)),
        ("<{{ nothing }}>", json!("<>")),
        ("{{ true }}", json!(true)),
        ("{% if port > 1 %}\nyes\n{% endif %}\n", json!("yes\n")),
        ("{{ hostvars['server2'].url }}", json!("https://server2")),
        ("{{ hostvars.server2['name'] }}", json!("server2")),
        ("{{ vars['port'] }}", json!(6443)),
        ("{{ dict }}", json!({"z": 1, "a": {"b": 2, "c": 3}})),
        ("{{ \"}}\" }}", json!("}}")),
        ("no template", json!("no template")),
        ("{# gone #}", json!("")),
        ("{{ stdout }}", json!("{{ 7 * 7 }} {{ token }}")),
    ];
    for (text, expected) in cases {
        assert_eq!(evaluate(text), Ok(expected), "{text}");
    }
}

#[test]
fn ansible_filters_and_tests() {
    let cases = [
        ("nowhere | default('x')", json!("x")),
        ("hole | default('x')", json!("x")),
        ("'' | default('x', true)", json!("x")),
        ("flag | bool", json!(false)),
        ("'Yes' | ansible.builtin.bool", json!(true)),
        ("'12' | int + 1", json!(13)),
        ("'x' | int", json!(0)),
        ("'x' | int(7)", json!(7)),
        ("'ff' | int(base=16)", json!(255)),
        ("'3.9' | int", json!(3)),
        ("port | string", json!("6443")),
        ("hosts | join(',')", json!("a,b,c")),
        ("hosts | length", json!(3)),
        ("hosts | first ~ hosts | last", json!("ac")),
        ("hosts | map('upper') | list", json!(["A", "B", "C"])),
        ("servers | selectattr('up') | map(attribute='name') | list", json!(["s1", "s3"])),
        ("servers | rejectattr('up') | map(attribute='name') | list", json!(["s2"])),
        ("hosts | select('match', '[ab]') | list", json!(["a", "b"])),
        ("dict | combine({'a': {'b': 9}})", json!({"z": 1, "a": {"b": 9}})),
        ("dict | combine({'a': {'b': 9}}, recursive=true)", json!({"z": 1, "a": {"b": 9, "c": 3}})),
        ("(port > 1) | ternary('y', 'n')", json!("y")),
        ("none | ternary('y', 'n', 'z')", json!("z")),
        (
            "'v1.30.4' | regex_replace('^v(\\\\d+)\\\\.(\\\\d+).*', '\\\\1-\\\\2 $')",
            json!("1-30 $"),
        ),
        ("'a1b22' | regex_search('[0-9]+')", json!("1")),
        ("'a1b22' | regex_search('b(\\\\d)(\\\\d)', '\\\\1', '\\\\2')", json!(["2", "2"])),
        ("'a' | regex_search('z')", json!(null)),
        ("'a1b22' | regex_findall('[0-9]+')", json!(["1", "22"])),
        ("'a.b*' | regex_escape", json!("a\\.b\\*")),
        ("'hé' | b64encode", json!("aMOp")),
        ("'aMOp' | b64decode", json!("hé")),
        ("dict | to_json", json!("{\"z\":1,\"a\":{\"b\":2,\"c\":3}}")),
        ("dict | to_nice_yaml(indent=2)", json!("z: 1\na:\n  b: 2\n  c: 3\n")),
        ("hosts | to_yaml", json!("- a\n- b\n- c\n")),
        ("'{a: [1, yes]}' | from_yaml", json!({"a": [1, true]})),
        ("'{\"a\": [1]}' | from_json", json!({"a": [1]})),
        ("\"it's; rm\" | quote", json!("'it'\\''s; rm'")),
        ("'/a/b/c.txt' | basename", json!("c.txt")),
        ("'/a/b/c.txt' | dirname", json!("/a/b")),
        ("'/a/b.d/c.tar.gz' | splitext", json!(["/a/b.d/c.tar", ".gz"])),
        ("'a,b' | split(',')", json!(["a", "b"])),
        ("[1, 2, 1] | unique", json!([1, 2])),
        ("[1, [2, [3, none]]] | flatten", json!([1, 2, 3])),
        ("[1, [2, [3]]] | flatten(levels=1)", json!([1, 2, [3]])),
        ("hosts | difference(['b'])", json!(["a", "c"])),
        ("hosts | intersect(['c', 'a'])", json!(["a", "c"])),
        ("['a'] | union(['b', 'a'])", json!(["a", "b"])),
        ("{'k': 1} | dict2items", json!([{"key": "k", "value": 1}])),
        ("[{'key': 'k', 'value': 1}] | items2dict", json!({"k": 1})),
        ("'abc' | hash('sha256') | length", json!(64)),
        ("'abc' | hash", json!("a9993e364706816aba3e25717850c26c9cd0d89d")),
        ("'fd00::1' | ansible.utils.ipwrap", json!("[fd00::1]")),
        ("'10.0.0.1' | ansible.utils.ipwrap", json!("10.0.0.1")),
        ("'a b'.split()[1].upper()", json!("B")),
        ("dict.get('q', 5)", json!(5)),
        ("name is defined and nowhere is not defined and hole is undefined", json!(true)),
        ("'v1.30.4+k3s1' is version('1.30.10', '<')", json!(true)),
        ("'1.31.0-rc1' is version('1.31.0', '<', version_type='semver')", json!(true)),
        ("'1.30' is version('1.30', '>=')", json!(true)),
        ("name is match('serv') and name is search('r1') and not name is match('r1')", json!(true)),
        ("result is succeeded and result is changed and result is not failed", json!(true)),
        ("result is not skipped and hosts is contains('a')", json!(true)),
        ("['a'] is subset(hosts)", json!(true)),
    ];
    for (expression, expected) in cases {
        assert_eq!(evaluate(&format!("{{{{ {expression} }}}}")), Ok(expected), "{expression}");
    }
}

#[test]
fn errors_say_what_and_where() {
    use ErrorKind::{NotYetKnown, Other, Syntax, Undefined};
    let cases = [
        ("{{ nowhere }}", Undefined, "nowhere"),
        ("x{{ nowhere }}", Undefined, "nowhere"),
        ("{{ dict.q }}", Undefined, "dict.q"),
        ("{{ hole }}", Undefined, "in variable `hole`"),
        ("{{ [hole] }}", Undefined, "in variable `hole`"),
        ("{{ circle }}", Other, "variable `circle` needs itself: circle → square → circle"),
        ("{{ circle | default(1) }}", Other, "needs itself"),
        ("{{ broken }}", Other, "in variable `broken`: unknown filter: filter nosuch is unknown"),
        ("{{ later.rc == 0 }}", NotYetKnown, "`later` is not known yet"),
        ("{{ later | default(0) }}", NotYetKnown, "`later` is not known yet"),
        ("{{ 1 + }}", Syntax, "syntax error"),
        ("{% if x %}", Syntax, "syntax error"),
        (
            "{% for i in range(100000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
            Other,
            "the template runs too long",
        ),
        ("{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", Other, "the output is longer"),
        ("{{ lookup('file', '/etc/shadow') }}", Other, "`lookup` is not supported"),
        ("{% include '/etc/passwd' %}", Other, "template not found"),
        ("{{ 'a' | regex_search('(?=x)') }}", Other, "bad regular expression"),
        ("{{ 'x' | b64decode }}", Other, "not base64"),
    ];
    for (text, kind, part) in cases {
        let error = evaluate(text).expect_err(text);
        assert_eq!(error.kind, kind, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
    let error = Engine::new().render("a\nb\n{{ nowhere }}\n", &vars()).unwrap_err();
    assert_eq!(error.line, Some(3));
}

#[test]
fn conditions() {
    let truths = [
        ("port == 6443", true),
        ("hosts", true),
        ("hosts | length", true),
        ("nothing", false),
        ("flag | bool", false),
        ("{{ port == 1 }}", false),
        ("'server2' in hostvars", true),
        ("result.rc == 0 and not result.failed", true),
        ("True and not None", true),
    ];
    for (expression, expected) in truths {
        assert_eq!(Engine::new().condition(expression, &vars()), Ok(expected), "{expression}");
    }
    for (expression, part) in
        [("flag", "| bool"), ("nowhere", "nowhere"), ("nowhere == 1", "nowhere"), ("", "")]
    {
        let error = Engine::new().condition(expression, &vars()).expect_err(expression);
        assert!(error.message.contains(part), "{expression}: {error}");
    }
}

#[test]
fn secrets_leave_a_mark_and_no_trace_in_errors() {
    let engine = Engine::new();
    let rendered = engine.render("t={{ token }}", &vars()).unwrap();
    assert_eq!((rendered.text.as_str(), rendered.secret), ("t=hunter2", true));
    assert!(engine.render("{{ joined | hash }}", &vars()).unwrap().secret);
    assert!(engine.render("{% if token == 'x' %}{% endif %}", &vars()).unwrap().secret);
    assert!(!engine.render("{{ url }}", &vars()).unwrap().secret);
    for text in [
        "{{ token | nosuch }}",
        "{{ (token ~ '') | from_json }}",
        "{{ token + 1 }}",
        "{{ token | regex_search('(') }}",
        "{{ [token] | b64decode }}",
        "{{ {token: 1}.x }}",
    ] {
        let error = engine.render(text, &vars()).expect_err(text);
        assert!(!format!("{error:?}").contains("hunter2"), "{text}: {error:?}");
    }
    assert!(!format!("{:?}", vars()).contains("hunter2"));

    let pair = json!({"agent-token": "hunter3", "port": "{{ 1 }}"});
    for (var, port) in [
        (Var::Sensitive { value: pair.clone(), template: true }, "1"),
        (Var::data(pair, true), "{{ 1 }}"),
    ] {
        let vars = Vars::new().with(BTreeMap::from([("config".to_owned(), var)]));
        let rendered = engine.render("{{ config.port }}", &vars).unwrap();
        assert_eq!((rendered.text.as_str(), rendered.secret), (port, true));
        assert!(!format!("{vars:?}").contains("hunter3"));
    }
}

#[test]
fn omit_drops_the_key() {
    let value = json!({"a": "{{ nowhere | default(omit) }}", "b": "{{ port }}"});
    let evaluated = Engine::new().evaluate(&value, &vars()).unwrap();
    assert_eq!(evaluated.value, json!({"b": 6443}));
}

#[test]
fn includes_stay_in_their_directory() {
    let engine = Engine::with_loader(|name| match name {
        "part.j2" => Ok(Some("port {{ port }}".to_owned())),
        "secret" => Err("it can not be read".to_owned()),
        _ => Ok(None),
    });
    let render = |text: &str| engine.render(text, &vars());
    assert_eq!(render("{% include 'part.j2' %}").unwrap().text, "port 6443");
    for name in
        ["../part.j2", "/part.j2", "a/../part.j2", "./part.j2", "a\\\\b", "missing", "secret"]
    {
        assert!(render(&format!("{{% include '{name}' %}}")).is_err(), "{name}");
    }
}

#[test]
fn layers_of_variables() {
    let one = |name: &str, value: Json| BTreeMap::from([(name.to_owned(), Var::Plain(value))]);
    let mut vars = Vars::new().with(one("a", json!(1))).with(one("a", json!(2)));
    assert_eq!(vars.get("a"), Some(&Var::Plain(json!(2))));
    let before = vars.clone();
    vars.set("a", Var::Plain(json!(3)));
    assert_eq!(
        (before.get("a"), vars.get("a")),
        (Some(&Var::Plain(json!(2))), Some(&Var::Plain(json!(3))))
    );
    assert_eq!(vars.names(), ["a"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_it_panic(text in "(\\{\\{|\\}\\}|\\{%|%\\}|[a-z .|()'\"\\[\\]+*0-9-]){0,40}") {
        let _ = Engine::new().render(&text, &vars());
        let _ = Engine::new().condition(&text, &vars());
    }

    #[test]
    fn host_data_is_never_a_template(text in "\\PC{0,40}") {
        let vars = Vars::new().with(BTreeMap::from([("x".to_owned(), Var::Plain(json!(text)))]));
        prop_assert_eq!(Engine::new().render("{{ x }}", &vars).unwrap().text, text.clone());
        let value = Engine::new().evaluate(&json!("{{ x }}"), &vars).unwrap().value;
        prop_assert_eq!(value, json!(text));
    }
}
