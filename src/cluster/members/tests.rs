//! Leaving, for chosen clusters and for all small ones, with every prefix of a replacement.

use proptest::prelude::*;

use super::*;
use crate::cluster::view::NodeView;

fn view(up: &[bool]) -> ClusterView {
    let member = |(at, up): (usize, &bool)| MemberView {
        id: format!("{:x}", at + 1),
        name: format!("server{}-0123abcd", at + 1),
        voter: true,
        healthy: *up,
        ..MemberView::default()
    };
    let members: Vec<_> = up.iter().enumerate().map(member).collect();
    let healthy = up.iter().filter(|up| **up).count();
    let leader = members.iter().find(|member| member.healthy && healthy >= quorum(up.len()));
    let node = |member: &MemberView| NodeView {
        name: node_of(&member.name).to_owned(),
        ..NodeView::default()
    };
    ClusterView {
        leader_id: leader.map(|leader| leader.id.clone()),
        nodes: members.iter().map(node).collect(),
        members,
        ..ClusterView::default()
    }
}

#[test]
fn a_dead_server_of_three_leaves_and_a_live_one_beside_it_does_not() {
    let two_of_three = view(&[true, true, false]);
    let leaving = leave(&two_of_three, "server3").unwrap();
    assert_eq!((leaving.voters_left, leaving.survives, leaving.healthy), (2, 0, false));
    assert_eq!(
        leave(&two_of_three, "server1").unwrap_err().to_string(),
        "quorum-risk: without server1, 1 of 2 voters are left and 2 are needed: server3 is down"
    );
    let leaving = leave(&view(&[true, true, true]), "server2").unwrap();
    assert_eq!(leaving.member.as_deref(), Some("server2-0123abcd"));
    assert!(adds_first(&leaving));
}

#[test]
fn the_last_server_and_one_without_a_quorum_stay() {
    let only = leave(&view(&[true]), "server1").unwrap_err();
    assert_eq!(only.to_string(), "quorum-lost: server1 is the only server: the cluster would end");
    let lost = leave(&view(&[true, false]), "server2").unwrap_err();
    assert_eq!(
        lost.to_string(),
        "quorum-lost: the cluster has no leader: 1 of 2 voters beside server2 answer, and nothing can be decided"
    );
}

#[test]
fn who_does_not_vote_leaves_whenever_it_likes() {
    let mut cluster = view(&[true, false, false]);
    cluster.nodes.push(NodeView { name: "agent1".to_owned(), ..NodeView::default() });
    let leaving = leave(&cluster, "agent1").unwrap();
    assert!(leaving.member.is_none() && leaving.node);
    assert_eq!(leave(&cluster, "stranger").map(|leaving| leaving.node), Ok(false));
}

/// The steps of a replacement, as the playbook has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Remove,
    Stop,
    SetAside,
    Join,
}

/// Servers and members while one of them is replaced.
#[derive(Clone, Debug)]
struct Sim {
    /// By server: it runs, it has data, its member's number.
    servers: Vec<(bool, bool, Option<u32>)>,
    next: u32,
}

impl Sim {
    fn view(&self) -> ClusterView {
        let mut members = Vec::new();
        for (at, (runs, _, member)) in self.servers.iter().enumerate() {
            if let Some(number) = member {
                members.push(MemberView {
                    id: format!("{number:x}"),
                    name: format!("server{}-{number:08x}", at + 1),
                    voter: true,
                    healthy: *runs,
                    ..MemberView::default()
                });
            }
        }
        let up = members.iter().filter(|member| member.healthy).count();
        let leader_id = members
            .iter()
            .find(|member| member.healthy && up >= quorum(members.len()))
            .map(|leader| leader.id.clone());
        ClusterView { leader_id, members, ..ClusterView::default() }
    }

    fn step(&mut self, step: Step, at: usize) {
        let server = &mut self.servers[at];
        match step {
            Step::Remove => server.2 = None,
            Step::Stop => server.0 = false,
            Step::SetAside => server.1 = false,
            Step::Join if server.2.is_none() => {
                self.next += 1;
                *server = (true, true, Some(self.next));
            }
            Step::Join => server.0 = true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// A replacement that dies after any step, any number of times, and is run again: a quorum that was
    /// there stays, and at the end every server is a running member, the replaced one a new one.
    #[test]
    fn a_replacement_run_again_ends_as_if_undisturbed(
        count in prop::sample::select(vec![3_usize, 5]),
        which in 0_usize..5,
        dead in any::<bool>(),
        prefixes in prop::collection::vec(0_usize..4, 0..6),
    ) {
        let at = which % count;
        let name = format!("server{}", at + 1);
        let mut sim = Sim {
            servers: (0..count).map(|at| (true, true, u32::try_from(at).ok())).collect(),
            next: 100,
        };
        sim.servers[at].0 = !dead;
        let steps = [Step::Remove, Step::Stop, Step::SetAside, Step::Join];
        for prefix in prefixes.into_iter().chain([steps.len()]) {
            prop_assert!(leave(&sim.view(), &name).is_ok(), "refused when run again: {sim:?}");
            for step in steps.iter().take(prefix) {
                sim.step(*step, at);
                prop_assert!(sim.view().leader_id.is_some(), "no quorum after {step:?}: {sim:?}");
            }
        }
        prop_assert!(sim.servers.iter().all(|(runs, data, member)| *runs && *data && member.is_some()));
        prop_assert!(sim.servers[at].2 > Some(100));
    }

    /// What is allowed never costs a quorum.
    #[test]
    fn leaving_never_costs_quorum(up in prop::collection::vec(any::<bool>(), 1..8), who in 0_usize..8) {
        let cluster = view(&up);
        let name = format!("server{}", who + 1);
        if let Ok(leaving) = leave(&cluster, &name) {
            let left: Vec<bool> =
                up.iter().enumerate().filter(|(at, _)| *at != who).map(|(_, up)| *up).collect();
            if leaving.member.is_some() {
                prop_assert!(left.iter().filter(|up| **up).count() >= quorum(left.len()));
                prop_assert!(!left.is_empty());
            }
        }
    }
}
