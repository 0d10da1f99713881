//! Orders and gates, for chosen clusters and for thousands of them.

use proptest::prelude::*;

use super::*;

fn member(number: usize, voter: bool, healthy: bool, lag: u64) -> MemberView {
    MemberView {
        id: format!("{number:x}"),
        name: format!("server{number}-0123abcd"),
        voter,
        healthy,
        lag: Some(lag),
        ..MemberView::default()
    }
}

/// Voters `server1`…, each up or not; the first that is up leads.
fn view(up: &[bool]) -> ClusterView {
    let members: Vec<_> =
        up.iter().enumerate().map(|(at, up)| member(at + 1, true, *up, 0)).collect();
    let quorate = up.iter().filter(|up| **up).count() >= quorum(up.len());
    let leader = members.iter().find(|member| member.healthy && quorate);
    ClusterView {
        leader_id: leader.map(|leader| leader.id.clone()),
        ready: true,
        members,
        ..ClusterView::default()
    }
}

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("server{number}")).collect()
}

#[test]
fn who_is_down_comes_first_and_who_leads_last() {
    let mut servers = names(5);
    order(Some(&view(&[true, true, true, false, true])), &mut servers);
    assert_eq!(servers, ["server4", "server2", "server3", "server5", "server1"]);
    order(None, &mut servers);
    assert_eq!(servers[0], "server4", "without a view the order is kept");
}

#[test]
fn a_server_stops_only_when_the_others_are_enough() {
    let three = view(&[true, true, true]);
    assert_eq!(spare(Some(&three), "server1"), Ok(()));
    assert_eq!(
        spare(Some(&view(&[true, true, false])), "server1").unwrap_err(),
        "without server1, 1 of 3 voters are left and 2 are needed: server3 does not answer"
    );
    let mut behind = three.clone();
    behind.members[1].lag = Some(LAG_ENTRIES_MAX + 1);
    assert_eq!(
        spare(Some(&behind), "server1").unwrap_err(),
        "without server1, 1 of 3 voters are left and 2 are needed: server2 is 1001 entries behind"
    );
    let mut learner = three.clone();
    learner.members.push(member(4, false, true, 0));
    assert_eq!(spare(Some(&learner), "server1").unwrap_err(), "server4 does not vote yet");
    let headless = ClusterView { leader_id: None, ..three };
    assert_eq!(spare(Some(&headless), "server1").unwrap_err(), "the cluster has no leader");
    assert_eq!(spare(None, "server1"), Ok(()), "nobody misses one that does not answer");
    assert_eq!(spare(Some(&view(&[true])), "server1"), Ok(()));
    assert_eq!(spare(Some(&view(&[true, true])), "server2"), Ok(()));
}

#[test]
fn a_server_is_back_when_it_votes_and_has_caught_up() {
    let mut seen = view(&[true, true, true]);
    assert_eq!(caught_up(Some(&seen), "server2"), Ok(()));
    assert_eq!(caught_up(None, "server2").unwrap_err(), "the node does not answer");
    seen.members[1].lag = Some(5_000);
    assert_eq!(caught_up(Some(&seen), "server2").unwrap_err(), "server2 is 5000 entries behind");
    seen.members[1].voter = false;
    assert_eq!(caught_up(Some(&seen), "server2").unwrap_err(), "server2 does not vote yet");
    seen.members.remove(1);
    let missing = "no member of the cluster belongs to server2";
    assert_eq!(caught_up(Some(&seen), "server2").unwrap_err(), missing);
    seen.ready = false;
    seen.not_ready_reason = Some("it starts".to_owned());
    assert_eq!(caught_up(Some(&seen), "server2").unwrap_err(), "server2 is not ready: it starts");
}

#[test]
fn what_cannot_be_done_is_refused_before_the_first() {
    let two_of_three = view(&[true, true, false]);
    let finding = feasible(Some(&two_of_three), &names(2)).unwrap_err();
    assert_eq!(
        finding.to_string(),
        "quorum-risk: stopping server1 would leave 1 of 3 voters, 2 are needed: server3 is down"
    );
    assert_eq!(feasible(Some(&two_of_three), &names(3)), Ok(()), "server3 is started first");
    let only_it = vec!["server3".to_owned()];
    assert_eq!(feasible(Some(&two_of_three), &only_it), Ok(()), "nothing is stopped by that");
    let lost = feasible(Some(&view(&[true, false, false])), &names(3)).unwrap_err();
    assert_eq!(lost.rule, Rule::QuorumLost);
    assert_eq!(feasible(Some(&view(&[true])), &names(1)), Ok(()));
    assert_eq!(feasible(None, &names(3)), Ok(()));
}

#[test]
fn only_a_leader_with_an_heir_hands_over() {
    assert!(hands_over(Some(&view(&[true, true, true])), "server1"));
    assert!(!hands_over(Some(&view(&[true, true, true])), "server2"));
    assert!(!hands_over(Some(&view(&[true])), "server1"));
    assert!(!hands_over(None, "server1"));
}

/// A cluster while one server after another is restarted.
#[derive(Clone, Debug)]
struct Sim {
    view: ClusterView,
}

impl Sim {
    fn healthy(&self) -> usize {
        self.view.members.iter().filter(|member| member.voter && member.healthy).count()
    }

    fn set(&mut self, node: &str, up: bool) {
        let own = self.view.members.iter_mut().find(|member| node_of(&member.name) == node);
        own.expect("a member").healthy = up;
        let quorate = self.healthy() >= quorum(self.view.members.len());
        let stands =
            self.view.leader_id.clone().filter(|id| {
                self.view.members.iter().any(|member| member.id == *id && member.healthy)
            });
        let heir = self.view.members.iter().find(|member| member.healthy);
        self.view.leader_id =
            stands.or_else(|| heir.map(|heir| heir.id.clone())).filter(|_| quorate);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Killed after any number of steps and run again, with servers that fail in between: a gate that
    /// lets a server stop never costs a quorum that was there.
    #[test]
    fn no_prefix_of_a_rolling_change_costs_quorum(
        count in prop::sample::select(vec![3_usize, 5, 7]),
        down in prop::collection::vec(any::<bool>(), 7),
        prefixes in prop::collection::vec(0_usize..30, 1..4),
        accident in prop::option::of((0_usize..30, 0_usize..7)),
    ) {
        let up: Vec<bool> = (0..count).map(|at| !down[at] || at < quorum(count)).collect();
        let mut sim = Sim { view: view(&up) };
        let mut steps = 0;
        for (run, prefix) in prefixes.iter().enumerate() {
            let last = run + 1 == prefixes.len();
            let mut left = names(count);
            if feasible(Some(&sim.view), &left).is_err() {
                prop_assert!(sim.view.leader_id.is_none());
                return Ok(());
            }
            let mut budget = if last { usize::MAX } else { *prefix };
            while !left.is_empty() && budget > 0 {
                order(Some(&sim.view), &mut left);
                let node = left[0].clone();
                steps += 1;
                budget -= 1;
                if let Some((at, who)) = accident && steps == at && who < count {
                    sim.set(&format!("server{}", who + 1), false);
                }
                let own = member_of(&sim.view, &node).is_some_and(|member| member.healthy);
                let had_quorum = sim.view.leader_id.is_some();
                let seen = own.then_some(&sim.view);
                // The gate waits: what was down by accident comes back on its own or the run ends.
                if spare(seen, &node).is_err() {
                    return Ok(());
                }
                sim.set(&node, false);
                prop_assert!(!had_quorum || sim.healthy() >= quorum(count));
                // The executor ends what it began, also when its caller is gone.
                sim.set(&node, true);
                if sim.view.leader_id.is_some() {
                    prop_assert_eq!(caught_up(Some(&sim.view), &node), Ok(()));
                }
                left.remove(0);
            }
        }
        if accident.is_none() {
            prop_assert_eq!(sim.healthy(), count);
        }
    }
}
