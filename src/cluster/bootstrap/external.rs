//! Servers of K3s whose data is in a datastore outside of them: nobody founds and nobody is a member;
//! each that does not run is set up and started.

use super::decide::{data, dqlite, left_out, names, one_ca};
use super::{Action, BootstrapPlan, Observation, Step};
use crate::cluster::safety::{Rule, SafetyFinding};

/// Decides what each server must do when all of them use one external datastore.
///
/// # Errors
/// A server has a store of its own: K3s would go on with that and ignore the external one, and there
/// is no way from the one to the other.
pub fn decide_external(servers: &[Observation]) -> Result<BootstrapPlan, Vec<SafetyFinding>> {
    let checks = [one_ca(servers), dqlite(servers), own_store(servers)];
    let refusals: Vec<SafetyFinding> = checks.into_iter().flatten().collect();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let action = |server: &Observation| match (&server.view, server.reachable) {
        (_, false) => Action::Absent,
        (Some(view), true) if view.ready => Action::None,
        (_, true) => Action::Join,
    };
    let step = |server: &Observation| Step {
        server: server.name.clone(),
        action: action(server),
        via: None,
        remove: Vec::new(),
    };
    let steps = servers.iter().map(step).collect();
    Ok(BootstrapPlan { cluster_id: None, steps, warnings: warnings(servers) })
}

fn own_store(servers: &[Observation]) -> Option<SafetyFinding> {
    let found: Vec<&Observation> = servers.iter().filter(|server| data(server).is_some()).collect();
    if found.is_empty() {
        return None;
    }
    let message = format!(
        "{} has a store of its own, and `datastore_endpoint` names an external one: K3s would go on \
         with its own, and there is no way from one to the other",
        names(found.into_iter())
    );
    Some(SafetyFinding::new(Rule::TwoDatastores, message).hint(
        "leave `datastore_endpoint` out to keep the cluster, or `k3sup-rs reset` the servers to begin a \
         new one on the external datastore",
    ))
}

fn warnings(servers: &[Observation]) -> Vec<SafetyFinding> {
    let mut warnings = Vec::new();
    if servers.len() == 1 {
        let message = "one server alone survives no failure";
        let finding = SafetyFinding::new(Rule::SingleServer, message);
        warnings.push(finding.hint("use two or more servers with an external datastore"));
    }
    let absent: Vec<&Observation> = servers.iter().filter(|server| !server.reachable).collect();
    if !absent.is_empty() {
        warnings.push(left_out(absent.into_iter()));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{ClusterView, Datastore, DiskView};

    fn server(name: &str, ready: Option<bool>) -> Observation {
        let view = ready.map(|ready| ClusterView { ready, ..ClusterView::default() });
        Observation { name: name.to_owned(), reachable: true, disk: None, view }
    }

    fn disk(datastore: Datastore) -> DiskView {
        DiskView { cluster_id: "ab".into(), datastore, ..DiskView::default() }
    }

    #[test]
    fn whoever_does_not_run_is_set_up_and_nobody_founds() {
        let gone = Observation { name: "s4".to_owned(), ..Observation::default() };
        let servers =
            [server("s1", Some(true)), server("s2", Some(false)), server("s3", None), gone];
        let plan = decide_external(&servers).unwrap();
        let actions: Vec<Action> = plan.steps.iter().map(|step| step.action).collect();
        assert_eq!(actions, [Action::None, Action::Join, Action::Join, Action::Absent]);
        assert_eq!(plan.warnings.len(), 1);
        let alone = decide_external(&[server("s1", None)]).unwrap();
        assert_eq!(alone.warnings[0].rule, Rule::SingleServer);
    }

    #[test]
    fn a_store_of_its_own_is_never_mixed_with_an_external_one() {
        for (datastore, rule) in [
            (Datastore::Etcd, Rule::TwoDatastores),
            (Datastore::Sqlite, Rule::TwoDatastores),
            (Datastore::Dqlite, Rule::UnsupportedData),
        ] {
            let mut servers = [server("s1", None), server("s2", None)];
            servers[1].disk = Some(disk(datastore));
            let findings = decide_external(&servers).unwrap_err();
            assert_eq!(findings[0].rule, rule, "{datastore:?}");
            assert!(findings[0].message.contains("s2"));
        }
    }
}
