//! Every state that a run may find, and: whatever the state, wherever it is cut off, it ends the
//! same.

use proptest::prelude::*;

use super::world::World;
use super::*;
use crate::cluster::safety::Rule;

/// `server: action` of each step, in order.
fn shown(plan: &BootstrapPlan) -> String {
    let step = |step: &Step| {
        let via = step.via.as_ref().map_or(String::new(), |via| format!(" via {via}"));
        let remove = if step.remove.is_empty() { "" } else { " (replaces a member)" };
        format!("{}: {:?}{via}{remove}", step.server, step.action)
    };
    plan.steps.iter().map(step).collect::<Vec<_>>().join("; ")
}

fn run(world: &mut World) -> BootstrapPlan {
    let plan = decide(&world.observe(), false).unwrap();
    for step in &plan.steps {
        assert!(world.carry_out(step), "{step:?} in {world:?}");
    }
    plan
}

/// Three servers, all up.
fn cluster() -> World {
    let mut world = World::new(3);
    run(&mut world);
    world
}

#[test]
fn nothing_there_the_first_founds_and_the_others_join_it() {
    let plan = decide(&World::new(3).observe(), false).unwrap();
    assert_eq!(shown(&plan), "server1: Init; server2: Join via server1; server3: Join via server1");
    assert_eq!(plan.cluster_id, None);
}

#[test]
fn all_there_nothing_to_do() {
    let plan = decide(&cluster().observe(), false).unwrap();
    assert!(plan.is_settled() && plan.warnings.is_empty(), "{plan:?}");
}

#[test]
fn the_first_server_without_its_disk_joins_the_others() {
    let mut world = cluster();
    *world.server("server1") = super::world::Server { reachable: true, ..Default::default() };
    assert_eq!(
        shown(&run(&mut world)),
        "server2: None; server3: None; server1: Join via server2 (replaces a member)"
    );
    assert_eq!((world.founded, world.members.len()), (1, 1));
    assert_eq!(world.members.values().next().unwrap().len(), 3);
}

#[test]
fn down_with_data_is_started_first() {
    let mut world = cluster();
    for name in ["server1", "server2", "server3"] {
        world.server(name).running = false;
    }
    world.server("server2").disk = None;
    assert_eq!(
        shown(&run(&mut world)),
        "server1: Start; server3: Start; server2: Join via server1"
    );
}

#[test]
fn a_half_finished_run_goes_on() {
    let mut world = World::new(3);
    let plan = decide(&world.observe(), false).unwrap();
    assert!(world.carry_out(&plan.steps[0]));
    assert_eq!(
        shown(&decide(&world.observe(), false).unwrap()),
        "server1: None; server2: Join via server1; server3: Join via server1"
    );
}

#[test]
fn an_unreachable_server_may_hold_the_cluster() {
    let mut world = World::new(3);
    world.server("server2").reachable = false;
    let findings = decide(&world.observe(), false).unwrap_err();
    assert_eq!(findings[0].rule, Rule::MayHaveData);
    assert!(findings[0].message.contains("server2"));
    let plan = decide(&world.observe(), true).unwrap();
    assert_eq!(shown(&plan), "server1: Init; server2: Absent; server3: Join via server1");
}

#[test]
fn an_unreachable_member_is_left_as_it_is() {
    let mut world = cluster();
    world.server("server3").reachable = false;
    world.server("server3").running = false;
    let plan = decide(&world.observe(), false).unwrap();
    assert_eq!(shown(&plan), "server1: None; server2: None; server3: Absent");
    assert_eq!(plan.warnings[0].rule, Rule::LeftOut);
}

#[test]
fn two_clusters_are_never_merged() {
    let mut world = cluster();
    world.server("server3").disk = Some(("ff".into(), "fe".into()));
    world.server("server3").running = false;
    let findings = decide(&world.observe(), false).unwrap_err();
    assert_eq!(findings[0].rule, Rule::TwoClusters);
    assert_eq!(
        findings[0].message,
        "servers hold data of different clusters: server1, server2 of cluster 1, server3 of cluster ff"
    );
}

#[test]
fn a_removed_member_sets_its_data_aside() {
    let mut world = cluster();
    let member = world.server("server3").disk.clone().unwrap().1;
    world.server("server3").running = false;
    world.members.values_mut().for_each(|members| members.retain(|id, _| *id != member));
    assert_eq!(
        shown(&decide(&world.observe(), false).unwrap()),
        "server1: None; server2: None; server3: Rejoin via server1"
    );
}

#[test]
fn a_member_removed_from_a_cluster_elsewhere_does_not_found_another() {
    let mut servers = World::new(3).observe();
    servers[0].disk =
        Some(DiskView { cluster_id: "ab".into(), removed: true, ..DiskView::default() });
    let findings = decide(&servers, false).unwrap_err();
    assert_eq!(
        findings[0].to_string(),
        "may-have-data: server1 was removed from cluster ab, which no server of the inventory has"
    );
    assert_eq!(decide(&servers, true).unwrap_err(), findings, "nobody can vouch for it");
}

#[test]
fn a_quorum_that_cannot_come_back_is_refused_with_the_arithmetic() {
    let mut world = cluster();
    for name in ["server2", "server3"] {
        *world.server(name) = super::world::Server { reachable: true, ..Default::default() };
    }
    let findings = decide(&world.observe(), false).unwrap_err();
    assert_eq!(findings[0].rule, Rule::QuorumLost);
    assert!(findings[0].message.contains("3 voters and needs 2 of them; only 1"));
}

#[test]
fn different_cas_are_refused() {
    let mut servers = cluster().observe();
    servers[0].view.as_mut().unwrap().ca_hash = "a".into();
    servers[1].view.as_mut().unwrap().ca_hash = "b".into();
    assert_eq!(decide(&servers, false).unwrap_err()[0].rule, Rule::DifferentCa);
}

#[test]
fn an_even_number_of_servers_and_unknown_members_are_warned_about() {
    let plan = decide(&World::new(2).observe(), false).unwrap();
    assert_eq!(plan.warnings[0].rule, Rule::EvenServers);
    let mut world = cluster();
    world.servers.remove("server3");
    world.servers.remove("server2");
    let rules: Vec<Rule> =
        decide(&world.observe(), false).unwrap_err().iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::QuorumLost]);
}

proptest! {
    /// From any state that failures can make (as long as a quorum of disks is left), a run that is
    /// cut off after any number of steps and run again ends with all servers in the one cluster.
    #[test]
    fn whatever_happened_and_wherever_it_is_cut_off_it_ends_the_same(
        count in 1_usize..6,
        founded in any::<bool>(),
        stopped in proptest::collection::vec(any::<bool>(), 5),
        wiped in proptest::collection::vec(any::<bool>(), 5),
        cuts in proptest::collection::vec((0_usize..6, any::<bool>()), 0..4),
    ) {
        let mut world = World::new(count);
        if founded {
            run(&mut world);
            // As many disks may be lost as the cluster survives.
            let mut may_lose = (count - 1) / 2;
            for (n, name) in (1..=count).map(|n| format!("server{n}")).enumerate() {
                world.server(&name).running &= !stopped[n];
                if wiped[n] && may_lose > 0 {
                    may_lose -= 1;
                    world.server(&name).disk = None;
                    world.server(&name).running = false;
                }
            }
        }
        for (cut, in_the_middle) in cuts {
            let plan = decide(&world.observe(), false).unwrap();
            for step in plan.steps.iter().take(cut) {
                prop_assert!(world.carry_out(step));
            }
            if let Some(step) = plan.steps.get(cut).filter(|_| in_the_middle) {
                world.begin(step);
            }
        }
        run(&mut world);
        prop_assert!(decide(&world.observe(), false).unwrap().is_settled());
        prop_assert_eq!(world.founded, 1);
        prop_assert_eq!(world.members.len(), 1);
        prop_assert_eq!(world.members.values().next().unwrap().len(), count);
    }
}

#[test]
fn a_single_servers_sqlite_becomes_the_store_before_others_join() {
    let mut servers = World::new(3).observe();
    let disk =
        |datastore| Some(DiskView { cluster_id: "ab".into(), datastore, ..DiskView::default() });
    servers[1].disk = disk(crate::cluster::view::Datastore::Sqlite);
    assert_eq!(
        shown(&decide(&servers, false).unwrap()),
        "server2: Migrate; server1: Join via server2; server3: Join via server2"
    );
    servers[1].disk = disk(crate::cluster::view::Datastore::Dqlite);
    let findings = decide(&servers, false).unwrap_err();
    assert_eq!(findings[0].rule, Rule::UnsupportedData);
    assert!(findings[0].message.starts_with("server2 has data in Dqlite"), "{}", findings[0]);
}
