use serde_json::{Value as Json, json};

use super::*;
use crate::cluster::view::{ClusterView, MemberView};
use crate::host::protocol::{
    Change, FileContent, Observed, PackageAction, PackageFacts, PathFacts, PathKind, Read,
    ServiceAction, ServiceFacts,
};

fn input(args: Json) -> Input {
    let Json::Object(args) = args else { panic!("arguments are a mapping") };
    Input { args, diff: true, ..Input::default() }
}

/// Plans `name`, answering each missing read by `answer`; gives the plan and the changes as text.
fn plan_with(
    name: &str,
    input: &Input,
    answer: impl Fn(&Read) -> Observed,
) -> Result<ModulePlan, String> {
    let spec = find(name).unwrap();
    let mut world = World::default();
    for read in (spec.observe)(&input.args) {
        let observed = answer(&read);
        world.insert(read, Ok(observed));
    }
    loop {
        match (spec.plan)(input, &world) {
            Ok(plan) => return Ok(plan),
            Err(PlanError::Failed(why)) => return Err(why),
            Err(PlanError::Missing(reads)) => {
                for read in reads {
                    assert!(!world.has(&read), "asked again for {read:?}");
                    let observed = answer(&read);
                    world.insert(read, Ok(observed));
                }
            }
        }
    }
}

fn file_facts(sha256: &str, mode: u32) -> PathFacts {
    PathFacts {
        kind: PathKind::File,
        mode,
        owner: "root".into(),
        group: "root".into(),
        size: 3,
        sha256: Some(sha256.into()),
        target: None,
    }
}

const SHA256_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn names_are_sorted_and_found_in_every_spelling() {
    let names: Vec<_> = names().collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    assert_eq!(find("ansible.builtin.copy").unwrap().name, "copy");
    assert!(find("community.general.ufw").is_none());
}

#[test]
fn a_file_is_written_only_when_its_hash_differs() {
    let args = input(json!({ "dest": "/etc/x", "content": "abc", "mode": "0644" }));
    let answer = |facts: Option<PathFacts>| {
        move |read: &Read| match read {
            Read::Path { .. } => Observed::Path(facts.clone()),
            Read::File { .. } => Observed::File(Some("abd".into())),
            other => panic!("{other:?}"),
        }
    };
    let same = plan_with("copy", &args, answer(Some(file_facts(SHA256_ABC, 0o644)))).unwrap();
    assert!(same.changes.is_empty() && same.reasons.is_empty());
    let mode = plan_with("copy", &args, answer(Some(file_facts(SHA256_ABC, 0o600)))).unwrap();
    assert!(matches!(mode.changes[..], [Change::SetAttributes { mode: Some(0o644), .. }]));
    assert_eq!(mode.reasons, ["/etc/x: mode is 0600, should be 0644"]);
    let other = plan_with("copy", &args, answer(Some(file_facts("00", 0o644)))).unwrap();
    assert!(matches!(other.changes[..], [Change::PutFile { mode: 0o644, .. }]));
    assert!(other.diffs[0].unified().contains("-abd"), "{}", other.diffs[0].unified());
    let absent = plan_with("copy", &args, answer(None)).unwrap();
    assert_eq!(absent.reasons, ["/etc/x is not there"]);
    assert!(absent.diffs[0].unified().contains("+abc"));
}

#[test]
fn a_secret_is_neither_shown_nor_put_where_others_can_read_it() {
    let mut args = input(json!({ "dest": "/etc/token", "content": "hunter2" }));
    args.secrets.insert("content".to_owned());
    let answer = |_: &Read| Observed::Path(Some(file_facts("00", 0o600)));
    let plan = plan_with("copy", &args, answer).unwrap();
    assert!(matches!(
        plan.changes[..],
        [Change::PutFile { content: FileContent::Secret(_), mode: 0o600, .. }]
    ));
    let shown = format!("{:?} {:?} {}", plan.changes, plan.diffs, plan.diffs[0].unified());
    assert!(!shown.contains("hunter2") && shown.contains("********"), "{shown}");
    args.args.insert("mode".to_owned(), "0644".into());
    assert!(plan_with("copy", &args, answer).unwrap_err().contains("open to everybody"));
}

#[test]
fn a_secret_never_gets_into_argv() {
    let mut args = input(json!({ "cmd": "login hunter2" }));
    args.secrets.insert("cmd".to_owned());
    let error = plan_with("command", &args, |read| panic!("{read:?}")).unwrap_err();
    assert!(error.contains("stdin") && !error.contains("hunter2"), "{error}");
}

#[test]
fn permission_bits_that_yaml_would_misread_are_refused() {
    for (mode, bits) in
        [(json!("0750"), Some(0o750)), (json!(0o600), Some(0o600)), (json!(644), None)]
    {
        let args = input(json!({ "path": "/x", "state": "directory", "mode": mode }));
        let made = plan_with("file", &args, |_| Observed::Path(None)).map(|plan| plan.changes);
        match (bits, made) {
            (Some(bits), Ok(changes)) => {
                assert!(
                    matches!(changes[..], [Change::MakeDirectory { mode, .. }] if mode == bits)
                );
            }
            (None, Err(why)) => assert!(why.contains("in quotes"), "{why}"),
            (bits, made) => panic!("{bits:?} {made:?}"),
        }
    }
}

#[test]
fn a_service_is_acted_on_only_as_far_as_its_state_differs() {
    let table = [
        ("started", true, true, vec![]),
        ("started", false, true, vec![ServiceAction::Start]),
        ("started", false, false, vec![ServiceAction::Enable, ServiceAction::Start]),
        ("stopped", true, true, vec![ServiceAction::Stop]),
        ("stopped", false, true, vec![]),
        ("restarted", true, true, vec![ServiceAction::Restart]),
        ("restarted", false, true, vec![ServiceAction::Start]),
    ];
    for (state, active, enabled, expected) in table {
        let args = input(json!({ "name": "x.service", "state": state, "enabled": true }));
        let facts = ServiceFacts { exists: true, active, enabled, ..ServiceFacts::default() };
        let plan = plan_with("service", &args, |_| Observed::Service(facts.clone())).unwrap();
        let actions: Vec<_> = plan
            .changes
            .iter()
            .map(|change| match change {
                Change::Service { name, action, .. } if name == "x" => *action,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(actions, expected, "{state} {active} {enabled}");
    }
    let args = input(json!({ "name": "x", "state": "started" }));
    let error =
        plan_with("service", &args, |_| Observed::Service(ServiceFacts::default())).unwrap_err();
    assert!(error.contains("no service `x`"), "{error}");
}

#[test]
fn a_command_with_creates_runs_once() {
    let args = input(json!({ "cmd": "touch '/a b'", "creates": "/a b" }));
    let plan = plan_with("command", &args, |_| Observed::Path(None)).unwrap();
    assert!(
        matches!(&plan.changes[..], [Change::Run(spec)] if spec.argv == ["touch", "/a b"]),
        "{plan:?}"
    );
    let there = |_: &Read| Observed::Path(Some(file_facts("00", 0o644)));
    assert!(plan_with("command", &args, there).unwrap().changes.is_empty());
}

#[test]
fn only_packages_that_are_missing_are_installed() {
    let answer = |manager: Option<&str>, installed: &[&str]| {
        let installed = installed.iter().map(ToString::to_string).collect();
        let facts = PackageFacts { manager: manager.map(str::to_owned), installed };
        move |_: &Read| Observed::Packages(facts.clone())
    };
    let args = input(json!({ "name": ["haproxy", "curl"] }));
    assert!(
        plan_with("package", &args, answer(Some("apt"), &["haproxy", "curl"]))
            .unwrap()
            .changes
            .is_empty()
    );
    let plan = plan_with("package", &args, answer(Some("apt"), &["curl"])).unwrap();
    assert_eq!(plan.reasons, ["haproxy is not installed"]);
    assert!(
        matches!(&plan.changes[..], [Change::Packages { names, action: PackageAction::Install, .. }] if names == &["haproxy"])
    );
    let error = plan_with("package", &args, answer(None, &[])).unwrap_err();
    assert!(error.contains("haproxy, curl") && error.contains("apk"), "{error}");
    assert!(plan_with("package", &args, answer(None, &["haproxy", "curl"])).is_ok());
    let gone = input(json!({ "name": "haproxy, curl", "state": "absent" }));
    let plan = plan_with("package", &gone, answer(Some("apk"), &["curl"])).unwrap();
    assert!(
        matches!(&plan.changes[..], [Change::Packages { names, action: PackageAction::Remove, .. }] if names == &["curl"])
    );
}

#[test]
fn what_validate_says_goes_to_the_host_as_words() {
    let answer = |_: &Read| Observed::Path(None);
    let args =
        |validate: &str| input(json!({ "dest": "/etc/x", "content": "abc", "validate": validate }));
    let plan = plan_with("copy", &args("check -c '%s'"), answer).unwrap();
    assert!(
        matches!(&plan.changes[..], [Change::PutFile { validate, .. }] if validate == &["check", "-c", "%s"])
    );
    let error = plan_with("copy", &args("check"), answer).unwrap_err();
    assert!(error.contains("%s"), "{error}");
}

#[test]
fn a_member_is_waited_for_until_it_votes_and_removed_only_if_listed() {
    let member = |id: &str, name: &str, voter| MemberView {
        id: id.into(),
        name: name.into(),
        voter,
        healthy: true,
        ..MemberView::default()
    };
    let view = |members| {
        let view = ClusterView { members, ..ClusterView::default() };
        move |_: &Read| Observed::Cluster(Some(Box::new(view.clone())))
    };
    let place = |mut args: Json| {
        args["data_dir"] = "/d".into();
        args["supervisor"] = "127.0.0.1:6443".into();
        input(args)
    };
    let voter = place(json!({ "state": "voter", "node": "server1" }));
    let learner = vec![member("1", "server1-0a1b2c3d", false)];
    let plan = plan_with("member", &voter, view(learner)).unwrap();
    assert!(plan.wait.is_some() && plan.changes.is_empty());
    let member1 = vec![member("1", "server1-0a1b2c3d", true)];
    assert!(plan_with("member", &voter, view(member1.clone())).unwrap().wait.is_none());
    let absent = place(json!({ "state": "absent", "ids": ["1", "9"] }));
    let plan = plan_with("member", &absent, view(member1)).unwrap();
    assert!(
        matches!(&plan.changes[..], [Change::RemoveMember { member_id, .. }] if member_id == "1")
    );
}

#[test]
fn families_of_systems_have_ansibles_names() {
    for (id, like, expected) in [
        ("debian", "", "Debian"),
        ("ubuntu", "debian", "Debian"),
        ("linuxmint", "ubuntu debian", "Debian"),
        ("rocky", "rhel centos fedora", "RedHat"),
        ("fedora", "", "RedHat"),
        ("alpine", "", "Alpine"),
        ("nixos", "", "nixos"),
    ] {
        let (os_id, os_like) = (id.to_owned(), like.to_owned());
        let facts = facts(&crate::host::protocol::Facts { os_id, os_like, ..Default::default() });
        assert_eq!(facts["ansible_os_family"], expected, "{id}");
    }
}

#[test]
fn hostile_facts_lose_what_is_not_plain() {
    let facts = facts(&crate::host::protocol::Facts {
        hostname: "a\x1b[31m;rm -rf {{ x }}".into(),
        addresses: vec!["10.0.0.1".into(), "$(reboot)".into(), "fe80::1".into()],
        default_address: Some("; ls".into()),
        ..Default::default()
    });
    assert_eq!(facts["ansible_hostname"], "a31mrm-rfx");
    assert_eq!(facts["ansible_all_ipv4_addresses"], json!(["10.0.0.1"]));
    assert_eq!(facts["ansible_default_ipv4"]["address"], Json::Null);
}

#[test]
fn a_token_is_given_to_k3s_only_when_the_cluster_has_another() {
    use crate::cluster::layout::{Distribution, Layout, Role};

    let with = |value: &str, role: Role| {
        let node = Layout::new(Distribution::K3s, role, None).k3s_node(role, "s1");
        input(json!({ "value": value, "data_dir": "/d", "supervisor": "a:1", "k3s": node }))
    };
    let server = |value: &str| with(value, Role::Server);
    // The first digits of the hash of `secret`.
    let cluster_has = |_: &Read| Observed::Text("2bb80d537b1d".to_owned());
    let full = format!("K10{}::server:secret", "ab".repeat(32));
    for same in ["secret", &full] {
        assert!(plan_with("token", &server(same), cluster_has).unwrap().changes.is_empty());
    }
    let plan = plan_with("token", &server("new"), cluster_has).unwrap();
    let [Change::RotateK3sToken { token, .. }] = &plan.changes[..] else { panic!("{plan:?}") };
    assert_eq!(token.0.expose(), "new");
    assert!(!format!("{plan:?}").contains("\"new\""), "{plan:?}");
    let refused = |input: &Input| plan_with("token", input, cluster_has).unwrap_err();
    assert!(refused(&server("abcdef.0123456789abcdef")).contains("bootstrap"));
    assert!(refused(&with("new", Role::Agent)).contains("server of K3s"));
    let embedded = input(json!({ "value": "new", "data_dir": "/d", "supervisor": "a:1" }));
    assert!(refused(&embedded).contains("server of K3s"));
}
