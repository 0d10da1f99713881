use super::*;
use crate::cluster::view::{ClusterView, MemberView};
use crate::host::protocol::{Change, FileContent, Read, SecretText, ServiceAction};
use crate::secret::Secret;

fn put(path: &str) -> Change {
    Change::PutFile {
        path: path.into(),
        content: FileContent::Secret(SecretText(Secret::new("hunter2"))),
        mode: 0o600,
        owner: None,
        group: None,
        backup: false,
        validate: Vec::new(),
    }
}

fn path(path: &str) -> Read {
    Read::Path { path: path.into(), follow: false, hash: true }
}

#[test]
fn a_change_makes_stale_what_it_touches_and_no_more() {
    let make = Change::MakeDirectory { path: "/a/b".into(), mode: 0o755, owner: None, group: None };
    let remove = Change::Remove { path: "/a/b".into() };
    let service = |name: &str| Read::Service { name: name.into() };
    let start = Change::Service { name: "n".into(), action: ServiceAction::Start, timeout_ms: 0 };
    let table = [
        (put("/a/b"), path("/a/b"), true),
        (put("/a/b"), path("/a"), true),
        (put("/a/b"), path("/a/bc"), false),
        (put("/a/b"), path("/a/b/c"), false),
        (make.clone(), path("/a/b/c"), false),
        (make, path("/a"), true),
        (remove.clone(), path("/a/b/c"), true),
        (remove, path("/a/c"), false),
        (put("/u/n.service"), service("n"), true),
        (put("/u/m.service"), service("n"), false),
        (start.clone(), service("n"), true),
        (start, path("/a"), true),
    ];
    for (change, read, expected) in table {
        assert_eq!(affects(&change, &read), expected, "{change:?} {read:?}");
    }
}

#[test]
fn words_about_a_change_have_no_secret() {
    assert_eq!(describe(&put("/t")), "write a secret to /t (mode 0600)");
}

fn view(healthy: [bool; 3]) -> ClusterView {
    let member = |n: usize| MemberView {
        id: n.to_string(),
        name: format!("s{n}-0123abcd"),
        voter: true,
        healthy: healthy[n],
        ..MemberView::default()
    };
    ClusterView { members: (0..3).map(member).collect(), ..ClusterView::default() }
}

#[test]
fn one_server_at_a_time_may_stop() {
    let all = view([true; 3]);
    let stop = |nodes: &[&'static str]| {
        nodes.iter().map(|node| (*node, Danger::Stops)).collect::<Vec<_>>()
    };
    assert!(check(&stop(&["s0"]), Some(&all)).is_empty());
    let findings = check(&stop(&["s0", "s1"]), Some(&all));
    assert_eq!(
        findings[0].to_string(),
        "quorum-risk: stopping s0, s1 at once would leave 1 of 3 voters, 2 are needed"
    );
    assert_eq!(check(&stop(&["s0"]), Some(&view([true, true, false]))).len(), 1);
    assert!(check(&stop(&["s0", "s1"]), None).is_empty());
    let mut two = view([true; 3]);
    two.members.pop();
    assert_eq!(check(&stop(&["s0"]), Some(&two)).len(), 1);
    assert!(check(&[("s0", Danger::Restarts)], Some(&two)).is_empty(), "no other way");
}

#[test]
fn a_member_may_go_when_the_rest_still_has_a_quorum() {
    let remove = |id: &str| [("s0", Danger::Removes { member_id: id.to_owned() })];
    assert!(check(&remove("2"), Some(&view([true, true, false]))).is_empty());
    assert_eq!(check(&remove("1"), Some(&view([true, true, false]))).len(), 1);
    assert_eq!(check(&remove("2"), Some(&view([true, false, false]))).len(), 1);
}
