//! What is on the servers' disks, how many servers there are, and whether they are set alike.

use super::finding::{Check, Finding};
use super::scene::{HostSeen, Scene};
use crate::cluster::safety::{Rule, SafetyFinding};
use crate::cluster::view::{Datastore, DiskView};

/// All of it.
pub(super) fn check(scene: &Scene) -> Vec<Finding> {
    let looked_at = scene.servers().filter(|host| host.lost.is_none());
    let mut findings: Vec<Finding> = looked_at.map(|host| old_data(scene, host)).collect();
    findings.extend(scene.safety.iter().filter_map(safety));
    let has = |check: Check| findings.iter().any(|found| found.check == check);
    if !has(Check::Servers) {
        let count = scene.servers().count();
        findings.push(Finding::good(Check::Servers, count.to_string()));
    }
    findings.extend(scene.differences.iter().map(|difference| {
        Finding::bad(Check::Settings, "different", difference.clone())
            .action("set it once for the group `servers` in the inventory, and on no single host")
    }));
    if scene.differences.is_empty() {
        findings.push(Finding::good(Check::Settings, "equal"));
    }
    findings
}

fn old_data(scene: &Scene, host: &HostSeen) -> Finding {
    let Some(disk) = &host.disk else {
        return Finding::good(Check::Data, "none").on(&host.name);
    };
    let value = told(disk);
    let foreign = scene.ca_hash.as_ref().zip(disk.ca_hash.as_ref());
    let foreign = foreign.is_some_and(|(known, own)| known != own) && !disk.removed;
    if foreign {
        let message = format!(
            "{} holds data of another cluster ({}) than the token is of",
            host.data_dir, disk.cluster_id
        );
        let action = format!(
            "use the inventory and token of that cluster; or give the data up: {} --limit {}",
            scene.command("reset"),
            host.name
        );
        return Finding::bad(Check::Data, value, message).action(action).on(&host.name);
    }
    Finding::good(Check::Data, value).on(&host.name)
}

fn told(disk: &DiskView) -> String {
    match disk.datastore {
        Datastore::Sqlite => "SQLite".to_owned(),
        Datastore::Dqlite => "Dqlite".to_owned(),
        Datastore::Etcd if disk.removed => "removed member".to_owned(),
        Datastore::Etcd if disk.cluster_id.is_empty() => "unfinished".to_owned(),
        Datastore::Etcd => {
            format!("cluster {}", disk.cluster_id.get(..8).unwrap_or(&disk.cluster_id))
        }
    }
}

/// What bootstrap-or-join has to say; that hosts are away is said by another check.
fn safety(said: &SafetyFinding) -> Option<Finding> {
    let name = said.rule.name();
    let found = match said.rule {
        Rule::LeftOut => return None,
        Rule::EvenServers | Rule::SingleServer => {
            Finding::warning(Check::Servers, name, said.message.clone())
        }
        Rule::QuorumLost => Finding::bad(Check::Quorum, name, said.message.clone()),
        Rule::UnknownMember => Finding::warning(Check::Members, name, said.message.clone()),
        _ => Finding::bad(Check::Data, name, said.message.clone()),
    };
    Some(match &said.hint {
        Some(hint) => found.action(hint.clone()),
        None => found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::Severity;
    use crate::cluster::layout::Role;
    use crate::error::ExitCode;

    fn server(name: &str, disk: Option<DiskView>) -> HostSeen {
        HostSeen { name: name.to_owned(), role: Some(Role::Server), disk, ..HostSeen::default() }
    }

    fn disk(cluster: &str, ca: &str) -> DiskView {
        DiskView {
            cluster_id: cluster.to_owned(),
            ca_hash: Some(ca.to_owned()),
            ..DiskView::default()
        }
    }

    fn one(scene: &Scene, check: Check) -> Finding {
        super::check(scene).into_iter().find(|found| found.check == check).unwrap()
    }

    #[test]
    fn data_is_told_by_what_it_is() {
        let removed = DiskView { removed: true, ..disk("c1", "x") };
        let dqlite = DiskView { datastore: Datastore::Dqlite, ..DiskView::default() };
        for (disk, expected) in [
            (None, "none"),
            (Some(disk("0123456789", "x")), "cluster 01234567"),
            (Some(DiskView::default()), "unfinished"),
            (Some(removed), "removed member"),
            (Some(dqlite), "Dqlite"),
        ] {
            let scene = Scene { hosts: vec![server("s1", disk)], ..Scene::default() };
            assert_eq!(one(&scene, Check::Data).value, expected);
        }
    }

    #[test]
    fn another_clusters_data_is_refused_and_cannot_be_forced() {
        let hosts = vec![server("s1", Some(disk("c1", "aa")))];
        let mut scene = Scene { hosts, ca_hash: Some("aa".to_owned()), ..Scene::default() };
        assert_eq!(one(&scene, Check::Data).severity, Severity::Good);
        scene.ca_hash = Some("bb".to_owned());
        let found = one(&scene, Check::Data);
        assert!(found.stops(true));
        assert_eq!(found.exit_code(), ExitCode::Refused);
        assert!(found.message.contains("another cluster (c1)"), "{}", found.message);
        scene.hosts[0].disk.as_mut().unwrap().removed = true;
        assert_eq!(
            one(&scene, Check::Data).severity,
            Severity::Good,
            "it belongs to none any more"
        );
    }

    #[test]
    fn what_is_decided_for_the_cluster_has_its_place() {
        let finding = |rule| SafetyFinding::new(rule, "words").hint("advice");
        for (rule, expected) in [
            (Rule::EvenServers, Some((Check::Servers, Severity::Warning))),
            (Rule::SingleServer, Some((Check::Servers, Severity::Warning))),
            (Rule::UnknownMember, Some((Check::Members, Severity::Warning))),
            (Rule::QuorumLost, Some((Check::Quorum, Severity::Bad))),
            (Rule::TwoClusters, Some((Check::Data, Severity::Bad))),
            (Rule::UnsupportedData, Some((Check::Data, Severity::Bad))),
            (Rule::MayHaveData, Some((Check::Data, Severity::Bad))),
            (Rule::LeftOut, None),
        ] {
            let found = safety(&finding(rule));
            assert_eq!(found.as_ref().map(|found| (found.check, found.severity)), expected);
            assert!(found.is_none_or(|found| found.action.as_deref() == Some("advice")));
        }
    }

    #[test]
    fn different_settings_are_wrong_input() {
        let hosts = vec![server("s1", None)];
        let mut scene = Scene { hosts, ..Scene::default() };
        assert_eq!(one(&scene, Check::Settings).value, "equal");
        scene.differences = vec!["`service-cidr` must be equal on all servers: a on s1".to_owned()];
        let found = one(&scene, Check::Settings);
        assert!(found.stops(true));
        assert_eq!(found.exit_code(), ExitCode::BadInput);
    }
}
