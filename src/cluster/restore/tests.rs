//! A model of hosts that carries out steps, is cut off after any of them, reboots at will, and must
//! always end well.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cluster::quorum::quorum;

const OLD: &str = "a";

/// One server of the model.
#[derive(Clone, Debug, Default)]
struct Server {
    fence: Option<Fence>,
    data: Option<DiskView>,
    aside: Vec<DiskView>,
    running: bool,
    /// Its configuration says that it founds a cluster.
    founds: bool,
}

#[derive(Clone, Debug)]
struct World {
    servers: BTreeMap<String, Server>,
    made: u64,
}

impl World {
    /// `data` says who has data, `running` whose node runs.
    fn new(data: &[bool], running: &[bool]) -> Self {
        let server = |number: usize, has: bool, runs: bool| {
            let disk = DiskView { cluster_id: OLD.into(), ..DiskView::default() };
            let data = has.then_some(disk);
            (format!("s{number}"), Server { running: runs && has, data, ..Server::default() })
        };
        let pairs = data.iter().zip(running).enumerate();
        Self { servers: pairs.map(|(n, (has, runs))| server(n, *has, *runs)).collect(), made: 0 }
    }

    fn see(&self) -> Vec<Seen> {
        let see = |(name, server): (&String, &Server)| Seen {
            name: name.clone(),
            reachable: true,
            fence: server.fence.clone(),
            disk: server.data.clone(),
            running: server.running,
            ready: server.running,
            aside: !server.aside.is_empty(),
        };
        self.servers.iter().map(see).collect()
    }

    fn server(&mut self, name: &str) -> &mut Server {
        self.servers.get_mut(name).unwrap()
    }

    /// Somebody starts everything, as a reboot does. Who has no data joins whom it finds.
    fn reboot(&mut self, name: &str) {
        let found = self.servers.values().find(|server| server.running && server.data.is_some());
        let found = found.and_then(|server| server.data.clone());
        let server = self.server(name);
        if server.data.is_none() && server.fence.as_ref().is_some_and(Fence::is_open) {
            let joined = |disk: DiskView| DiskView { restore_id: None, ..disk };
            server.data = found.map(joined);
        }
        server.running =
            server.data.is_some() && !server.fence.as_ref().is_some_and(Fence::is_closed);
    }

    fn carry_out(&mut self, intent: &Intent, step: &Step) {
        match step {
            Step::Fence(name) => {
                self.server(name).fence = Some(fence_of(intent, Stage::Closed, &Fence::default()));
            }
            Step::Stop(name) => self.server(name).running = false,
            Step::Reset(name) => {
                self.made += 1;
                let cluster_id = format!("new{}", self.made);
                self.stopped_and_fenced();
                let restore_id = Some(intent.id.clone());
                let server = self.server(name);
                let new = DiskView { cluster_id, restore_id, ..DiskView::default() };
                let old = server.data.replace(new);
                server.founds = true;
                server.aside.extend(old);
            }
            Step::SetAside(name) => {
                let server = self.server(name);
                assert!(!server.running, "its node runs");
                let old = server.data.take();
                server.aside.extend(old);
            }
            Step::BringBack(name) => {
                self.stopped_and_fenced();
                let server = self.server(name);
                server.data = server.aside.pop();
            }
            Step::Open(name) => {
                self.server(name).fence = Some(fence_of(intent, Stage::Open, &Fence::default()));
            }
            Step::Start(name) => self.reboot(name),
            Step::Join => {
                self.join();
                if let Some(fence) = &mut self.server(&intent.first).fence {
                    fence.joined = true;
                }
            }
            Step::Finish(name) => self.server(name).fence = None,
        }
    }

    fn stopped_and_fenced(&self) {
        let held = |server: &Server| {
            !server.running && server.fence.as_ref().is_some_and(Fence::is_closed)
        };
        assert!(self.servers.values().all(held), "{self:?}");
    }

    /// `up`: data decides, who has none joins.
    fn join(&mut self) {
        let data: Vec<DiskView> = self.servers.values().filter_map(|s| s.data.clone()).collect();
        let cluster = data.first().expect("some server has data").cluster_id.clone();
        assert!(data.iter().all(|disk| disk.cluster_id == cluster), "two clusters: {self:?}");
        for server in self.servers.values_mut() {
            assert!(!server.fence.as_ref().is_some_and(Fence::is_closed), "fenced");
            let new = DiskView { cluster_id: cluster.clone(), ..DiskView::default() };
            server.data.get_or_insert(new);
            server.running = true;
            server.founds = false;
        }
    }

    /// Never two clusters at a time, and never less than all old data.
    fn check(&self, before: &Self) {
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        for server in self.servers.values().filter(|server| server.running) {
            if let Some(disk) = &server.data {
                *running.entry(disk.cluster_id.as_str()).or_default() += 1;
            }
        }
        let old = running.get(OLD).copied().unwrap_or(0);
        let voters = before.servers.values().filter(|server| server.data.is_some()).count();
        let fresh = running.keys().filter(|id| **id != OLD).count();
        assert!(fresh == 0 || old < quorum(voters.max(1)), "two clusters serve: {self:?}");
        assert!(fresh <= 1, "two new clusters: {self:?}");
        for (name, server) in &self.servers {
            let had = before.servers[name].data.is_some();
            let here = server.data.iter().chain(&server.aside);
            let kept = here.filter(|disk| disk.cluster_id == OLD).count();
            assert!(!had || kept == 1, "{name}'s old data: {self:?}");
        }
    }
}

/// Carries out what is left, cut off after `cuts` many steps, each time with reboots, until it ends.
fn drive(
    world: &mut World,
    before: &World,
    first: &Intent,
    cuts: &[(usize, Vec<bool>)],
    check: bool,
) {
    for (cut, reboots) in cuts.iter().chain([&(usize::MAX, Vec::new())]) {
        // Who comes after a crash knows only what the hosts say, or asks anew.
        let mut intent = unfinished(&world.see(), "9").unwrap_or_else(|| first.clone());
        if first.operation == Operation::Rollback {
            intent = undo(intent, &world.see());
        }
        for _ in 0..*cut.min(&200) {
            let Some(step) = next(&intent, &world.see()).unwrap().into_iter().next() else { break };
            world.carry_out(&intent, &step);
            if check {
                world.check(before);
            }
        }
        let names: Vec<String> = world.servers.keys().cloned().collect();
        for (name, reboot) in names.iter().zip(reboots) {
            if *reboot {
                world.reboot(name);
                if check {
                    world.check(before);
                }
            }
        }
    }
}

fn intent(operation: Operation, servers: usize, first: usize) -> Intent {
    Intent {
        id: "1-x".into(),
        operation,
        first: format!("s{first}"),
        cluster: None,
        servers: (0..servers).map(|n| format!("s{n}")).collect(),
    }
}

fn cuts() -> impl Strategy<Value = Vec<(usize, Vec<bool>)>> {
    prop::collection::vec((0_usize..25, prop::collection::vec(any::<bool>(), 5)), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cut_off_anywhere_and_run_again_it_ends_in_one_new_cluster(
        data in prop::collection::vec(any::<bool>(), 1..6),
        running in prop::collection::vec(any::<bool>(), 5),
        first in 0_usize..5,
        cuts in cuts(),
    ) {
        let before = World::new(&data, &running);
        let mut world = before.clone();
        let intent = intent(Operation::Restore, data.len(), first % data.len());
        drive(&mut world, &before, &intent, &cuts, true);
        // A run that had ended before the last cut is asked for again under its own name: done.
        prop_assert_eq!(next(&intent, &world.see()), Ok(Vec::new()));
        prop_assert!(world.servers.values().all(|server| server.running && server.fence.is_none()));
        let ids: Vec<_> = world.servers.values().filter_map(|s| s.data.clone()).map(|d| d.cluster_id).collect();
        prop_assert!(ids.iter().all(|id| id == "new1"), "{ids:?}");
        prop_assert!(!world.servers.values().any(|server| server.founds), "{world:?}");
    }

    #[test]
    fn from_anywhere_the_way_back_ends_where_it_began(
        data in prop::collection::vec(any::<bool>(), 1..6),
        running in prop::collection::vec(any::<bool>(), 5),
        done in 0_usize..40,
        cuts in cuts(),
    ) {
        let before = World::new(&data, &running);
        let mut world = before.clone();
        let forth = intent(Operation::Restore, data.len(), 0);
        for _ in 0..done {
            let Some(step) = next(&forth, &world.see()).unwrap().into_iter().next() else { break };
            world.carry_out(&forth, &step);
        }
        let back = undo(forth, &world.see());
        // What says that it is the way back must be on the hosts before the first thing is undone.
        drive(&mut world, &before, &back, &cuts, true);
        prop_assert_eq!(next(&back, &world.see()), Ok(Vec::new()));
        let empty = !before.servers.values().any(|server| server.data.is_some());
        for (name, server) in &world.servers {
            prop_assert!(empty || !server.founds, "{world:?}");
            let was = before.servers[name].data.is_some();
            prop_assert!(server.fence.is_none());
            if was {
                prop_assert_eq!(server.data.as_ref().unwrap().cluster_id.as_str(), OLD);
            }
        }
    }
}

#[test]
fn nothing_changes_before_all_are_fenced_and_stopped() {
    let world = World::new(&[true, true, true], &[true, true, false]);
    let steps = next(&intent(Operation::Restore, 3, 1), &world.see()).unwrap();
    let reset = steps.iter().position(|step| matches!(step, Step::Reset(_))).unwrap();
    let (before, after) = steps.split_at(reset);
    let fences = before.iter().filter(|step| matches!(step, Step::Fence(_))).count();
    let stops = before.iter().filter(|step| matches!(step, Step::Stop(_))).count();
    assert_eq!((fences, stops, before.len()), (3, 2, 5));
    assert_eq!(after.iter().filter(|step| matches!(step, Step::SetAside(_))).count(), 2);
    assert!(matches!(after.last(), Some(Step::Finish(_))));
}

#[test]
fn an_unreachable_server_stops_it_before_anything() {
    let mut seen = World::new(&[true, true, true], &[true; 3]).see();
    seen[2] = Seen { name: "s2".into(), ..Seen::default() };
    let halt = next(&intent(Operation::Restore, 3, 0), &seen).unwrap_err();
    assert_eq!(halt, Halt::Unreachable(vec!["s2".into()]));
}

#[test]
fn a_server_that_comes_back_late_is_taken_in() {
    let mut seen = World::new(&[true, true, true], &[true; 3]).see();
    for host in &mut seen[..2] {
        let disk = host.disk.as_mut().unwrap();
        (disk.cluster_id, disk.supersedes) = ("new".into(), vec![OLD.into()]);
    }
    seen[2].running = false;
    seen[2].ready = false;
    seen[2].fence = Some(Fence {
        operation: Operation::Superseded,
        restore_id: "5-superseded".into(),
        ..Fence::default()
    });
    let intent = unfinished(&seen, "9").unwrap();
    assert_eq!(intent.servers, ["s2"]);
    let steps = next(&intent, &seen).unwrap();
    let s2 = || "s2".to_owned();
    let expected =
        [Step::Fence(s2()), Step::SetAside(s2()), Step::Open(s2()), Step::Join, Step::Finish(s2())];
    assert_eq!(steps, expected);
}
