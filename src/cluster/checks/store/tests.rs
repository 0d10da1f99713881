use super::*;
use crate::cluster::checks::counters::Counters;
use crate::cluster::layout::Role;
use crate::cluster::view::{DiskView, NodeView};
use crate::host::protocol::ServiceFacts;

const NOW: u64 = 1_800_000_000;

fn member(node: &str, healthy: bool) -> MemberView {
    MemberView {
        id: format!("{node}id"),
        name: format!("{node}-01234567"),
        voter: true,
        healthy,
        ..MemberView::default()
    }
}

fn view(members: Vec<MemberView>) -> ClusterView {
    ClusterView { leader_id: Some("s1id".to_owned()), members, ..ClusterView::default() }
}

fn server(name: &str) -> HostSeen {
    let disk = Some(DiskView::default());
    HostSeen { name: name.to_owned(), role: Some(Role::Server), disk, ..HostSeen::default() }
}

/// Servers s1, s2, s3, of which the first sees `view`.
fn scene(view: Option<ClusterView>) -> Scene {
    let mut hosts = ["s1", "s2", "s3"].map(server).to_vec();
    hosts[0].view = view;
    Scene { hosts, now_unix_s: NOW, inventory: "inv.yaml".to_owned(), ..Scene::default() }
}

fn found(scene: &Scene, check: Check) -> Vec<Finding> {
    let all = super::check(scene, &Symptoms(&[])).into_iter();
    all.filter(|found| found.check == check).collect()
}

#[test]
fn quorum_is_counted_in_healthy_voters() {
    for (healthy, expected, words) in [
        (vec![true], Severity::Good, ""),
        (vec![true, true, true], Severity::Good, ""),
        (vec![true, true, false], Severity::Warning, "2 of 3 voters are healthy, 2 are needed"),
        (vec![true, true], Severity::Warning, "2 of 2 voters are healthy, 2 are needed"),
        (vec![true, false, false], Severity::Bad, "the quorum is lost: 1 of 3"),
        (vec![true, true, true, false, false], Severity::Warning, "3 of 5"),
    ] {
        let members = healthy.iter().enumerate().map(|(n, up)| member(&format!("s{}", n + 1), *up));
        let found = found(&scene(Some(view(members.collect()))), Check::Quorum).remove(0);
        assert_eq!(found.severity, expected, "{healthy:?}");
        assert!(found.message.contains(words), "{}", found.message);
    }
}

#[test]
fn silence_is_a_lost_cluster_or_none_at_all() {
    let mut scene = scene(None);
    assert_eq!(found(&scene, Check::Quorum)[0].severity, Severity::Bad);
    scene.hosts.iter_mut().for_each(|host| host.disk = None);
    assert_eq!(found(&scene, Check::Quorum)[0].severity, Severity::Unknown);
    scene.hosts[1].lost = Some("down".to_owned());
    assert_eq!(found(&scene, Check::Quorum)[0].severity, Severity::Bad);
    // An external datastore has no members to count.
    scene.hosts[0].view = Some(view(Vec::new()));
    assert!(found(&scene, Check::Quorum).is_empty());
}

#[test]
fn a_member_that_is_down_is_told_with_its_cause() {
    let members = vec![member("s1", true), member("s2", false), member("gone", true)];
    let mut scene = scene(Some(view(members.clone())));
    let message = |scene: &Scene| {
        let found = found(scene, Check::Members).into_iter();
        let down: Vec<Finding> = found.filter(|found| found.value == "down").collect();
        assert_eq!(down.len(), 1);
        (down[0].host.clone(), down[0].message.clone())
    };
    scene.hosts[1].lost = Some("no route to host".to_owned());
    assert_eq!(
        message(&scene),
        (
            Some("s2".to_owned()),
            "its member s2-01234567 is down: its host cannot be reached: no route to host"
                .to_owned()
        )
    );
    scene.hosts[1].lost = None;
    scene.hosts[1].service =
        Some(ServiceFacts { exists: true, failed: true, ..ServiceFacts::default() });
    scene.hosts[1].last_words = Some("error: no space left on device".to_owned());
    let (_, said) = message(&scene);
    assert!(
        said.ends_with("its service failed; its last words: error: no space left on device"),
        "{said}"
    );
    scene.hosts[1].view = Some(view(members));
    assert!(message(&scene).1.ends_with("the others do not reach it"));
    let mut stranger = member("gone", false);
    stranger.id = "abc".to_owned();
    scene.hosts[0].view = Some(view(vec![member("s1", true), stranger]));
    let (host, said) = message(&scene);
    assert_eq!(host, None);
    assert!(said.ends_with("its host is not in the inventory"), "{said}");
}

#[test]
fn learners_are_stuck_when_they_are_silent_or_old() {
    let of = |healthy, age_s: u64| {
        let learner = MemberView { voter: false, lag: Some(12), ..member("s2", healthy) };
        let mut view = view(vec![member("s1", true), learner]);
        let created_unix_s = NOW - age_s;
        view.nodes =
            vec![NodeView { name: "s2".to_owned(), created_unix_s, ..NodeView::default() }];
        found(&scene(Some(view)), Check::Learners).remove(0)
    };
    assert_eq!(of(true, 10).severity, Severity::Good);
    let old = of(true, 600);
    assert_eq!(old.severity, Severity::Bad);
    assert_eq!(
        old.message,
        "its member s2-01234567 is still a learner, 12 entries behind, 10 min after its node came"
    );
    assert!(of(false, 10).message.contains("does not answer"));
}

#[test]
fn lag_is_judged_by_etcds_limits_with_its_cause() {
    for (lag, expected) in [
        (0, Severity::Good),
        (999, Severity::Good),
        (1_000, Severity::Warning),
        (5_000, Severity::Bad),
    ] {
        let behind = MemberView { lag: Some(lag), ..member("s2", true) };
        let found = found(&scene(Some(view(vec![behind]))), Check::Lag).remove(0);
        assert_eq!(found.severity, expected, "{lag}");
    }
    let slow = Finding::warning(Check::DiskSpeed, "", "its disk is slow").on("s2");
    let found = behind("s2", 2_000, &Symptoms(&[slow]));
    assert_eq!(found.message, "its member is 2000 entries behind; likely because its disk is slow");
}

#[test]
fn alarms_are_told_once_with_what_to_do() {
    let mut seen = view(vec![member("s1", true)]);
    seen.alarms = vec!["NOSPACE on member 1f".to_owned()];
    let mut scene = scene(Some(seen.clone()));
    scene.hosts[1].view = Some(seen);
    scene.hosts[1].counters =
        Some(Counters { store_bytes: 1 << 20, quota_bytes: 1 << 20, ..Counters::default() });
    let alarms = found(&scene, Check::Alarms);
    assert_eq!(alarms.len(), 1);
    assert_eq!(
        alarms[0].message,
        "the alarm NOSPACE on member 1f stands: the store has 1 MiB of 1 MiB"
    );
    assert!(alarms[0].action.as_ref().unwrap().contains("etcdctl alarm disarm"));
    let quiet =
        Scene { hosts: vec![HostSeen { view: Some(view(vec![])), ..server("s1") }], ..scene };
    assert_eq!(found(&quiet, Check::Alarms)[0].severity, Severity::Good);
}

#[test]
fn a_store_near_its_quota_is_pointed_out_before_the_alarm() {
    for (used, expected) in [
        (79, Severity::Good),
        (80, Severity::Warning),
        (94, Severity::Warning),
        (95, Severity::Bad),
        (120, Severity::Bad),
    ] {
        let counters =
            Counters { store_bytes: used << 20, quota_bytes: 100 << 20, ..Counters::default() };
        let host = HostSeen { counters: Some(counters), ..server("s1") };
        assert_eq!(quota(&host).unwrap().severity, expected, "{used}");
    }
    assert!(quota(&HostSeen { counters: Some(Counters::default()), ..server("s1") }).is_none());
}
