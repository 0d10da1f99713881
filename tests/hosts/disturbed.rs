//! Verbs that are disturbed on the way: a host loses its power, or its link, at some step. Run again, they
//! end as if nothing had been.
//!
//! The points are chosen by a seed that is printed; `K3SUP_TEST_SEED` repeats a run, and
//! `K3SUP_TEST_DISTURBED` says at how many points (docs/hosts.md).

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use k3sup_rs::node::snapshots::inspect::inspect;

use crate::ends::{assert_agreed, assert_up_changes_nothing, in_a_thread, whole};
use crate::fleet::{Fleet, Wanted};
use crate::machines::Login;
use crate::support::cluster::{Writer, Written};
use crate::support::seed::Random;
use crate::support::{build, leader, shown, wait_for};

const HOSTS: [Wanted; 3] =
    [("server1", 11, Login::Root), ("server2", 12, Login::Free), ("server3", 13, Login::Password)];

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

const VERBS: [&str; 4] = ["upgrade", "replace", "restore", "recover"];

/// How many points there are when nobody says: one of each verb.
const POINTS: usize = 4;

/// Another version of the product, of the same length.
const NEXT: &str = "0.2.0";

/// How often a verb is run again at most: each run may find a host that is still on its way up.
const RUNS: usize = 6;

/// What is done to a host in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// Its power is cut, and it boots again.
    Power,
    /// Its cable is pulled, and plugged in again.
    Link,
}

/// One point: what is disturbed, when and how.
#[derive(Debug)]
struct Point {
    verb: &'static str,
    /// After so many lines of its output that say that something was done.
    steps: usize,
    /// And so much later.
    pause: Duration,
    blow: Blow,
    victim: &'static str,
    /// How long the host is away, unless the run ends before.
    away: Duration,
}

struct Bench {
    fleet: Fleet,
    random: Random,
    /// Two builds of one version: an upgrade always has the other one to go to.
    builds: [PathBuf; 2],
    round: usize,
    upgrades: usize,
    /// What must be there.
    written: Vec<Written>,
}

#[test]
fn disturbed_by_a_dead_host_or_link_and_run_again_verbs_end_well() {
    in_a_thread(|| {
        let Some(mut fleet) = Fleet::boot(&HOSTS) else { return };
        fleet.network.enter();
        fleet.groups.insert("servers", SERVERS.map(str::to_owned).to_vec());
        let builds = ["k3sup-rs-a", "k3sup-rs-b"].map(|name| fleet.network.dir.path().join(name));
        build::of_version(fleet.binary(), NEXT, &builds[0]);
        let mut other = std::fs::read(&builds[0]).unwrap();
        other.extend_from_slice(b"another build");
        std::fs::copy(&builds[0], &builds[1]).unwrap();
        std::fs::write(&builds[1], other).unwrap();
        fleet.use_build(&builds[0]);
        fleet.ok("up", &["--yes"]);
        let asked = std::env::var("K3SUP_TEST_DISTURBED").ok().and_then(|count| count.parse().ok());
        let points: usize = asked.unwrap_or(POINTS);
        let random = Random::new();
        let mut bench = Bench { fleet, random, builds, round: 0, upgrades: 0, written: Vec::new() };
        for number in 0..points {
            let point = bench.point(VERBS[number % VERBS.len()]);
            eprintln!("{}/{points}: {point:?}", number + 1);
            bench.disturb(&point);
        }
    });
}

impl Bench {
    fn point(&mut self, verb: &'static str) -> Point {
        // As many as an undisturbed run has.
        let most = match verb {
            "upgrade" => 20,
            "replace" => 6,
            _ => 17,
        };
        let steps = usize::try_from(self.random.below(most)).unwrap();
        let blow = if self.random.below(2) == 0 { Blow::Power } else { Blow::Link };
        let victim = SERVERS[usize::try_from(self.random.below(3)).unwrap()];
        let pause = self.random.upto(Duration::from_secs(2));
        let away = self.random.upto(Duration::from_secs(12));
        Point { verb, steps, pause, blow, victim, away }
    }

    /// A client that writes by all servers.
    fn writer(&self, prefix: &str) -> Writer {
        let writer = Writer::over(self.fleet.store(&SERVERS), prefix);
        writer.wait_for_more(10);
        writer
    }

    fn disturb(&mut self, point: &Point) {
        self.round += 1;
        let before = assert_agreed(&self.fleet);
        let writer = self.writer(&format!("round{}", self.round));
        let (args, snapshot) = self.prepare(point.verb);
        // A restore takes away what is written while it runs: that client stops before.
        let writer = match snapshot {
            Some(_) => {
                writer.wait_for_more(10);
                self.written.push(writer.stop());
                None
            }
            None => Some(writer),
        };
        let over = self.run_and_hit(&args, point);
        if !over {
            self.run_until_it_is_over(&args, point.verb);
        }
        let after = assert_agreed(&self.fleet);
        assert_eq!(after != before, matches!(point.verb, "restore" | "recover"), "the cluster");
        if let Some(writer) = writer {
            writer.wait_for_more(10);
            self.written.push(writer.stop());
        }
        self.check(point.verb, snapshot);
    }

    /// Makes ready what the verb needs, and gives its arguments; of a restore also the snapshot's revision.
    fn prepare(&mut self, verb: &str) -> (Vec<String>, Option<i64>) {
        match verb {
            "upgrade" => {
                self.upgrades += 1;
                let to = self.builds[self.upgrades % 2].to_str().unwrap().to_owned();
                (vec!["upgrade".to_owned(), "--to".to_owned(), to], None)
            }
            "replace" => {
                // Not always the one that is hit.
                let node = SERVERS[usize::try_from(self.random.below(3)).unwrap()];
                eprintln!("  replace {node}");
                (vec!["replace".to_owned(), node.to_owned()], None)
            }
            "restore" => {
                let (path, revision) = self.snapshot();
                (vec!["restore".to_owned(), "--snapshot".to_owned(), path], Some(revision))
            }
            _ => {
                self.lose_quorum();
                (vec!["recover".to_owned()], None)
            }
        }
    }

    /// What was written is there, and the hosts are as they should be.
    fn check(&mut self, verb: &str, snapshot: Option<i64>) {
        let store = self.fleet.store(&SERVERS);
        let (_, pairs) = wait_for("a read", || store.all().ok());
        if let (Some(revision), Some(last)) = (snapshot, self.written.pop()) {
            last.assert_state_of(revision, &pairs);
        }
        self.written.iter().for_each(|written| written.assert_all_in(&pairs));
        if verb == "upgrade" {
            let to = std::fs::read(&self.builds[self.upgrades % 2]).unwrap();
            for server in SERVERS {
                let binary = self.fleet.machine(server).root.join("usr/local/bin/k3sup-rs");
                assert!(std::fs::read(binary).unwrap() == to, "{server} has another binary");
            }
            // `up` brings the build that it is.
            let build = self.builds[self.upgrades % 2].clone();
            self.fleet.use_build(&build);
        }
        assert_up_changes_nothing(&self.fleet);
    }

    /// A snapshot of now, in a file on the control machine, and its revision.
    fn snapshot(&self) -> (String, i64) {
        let path = self.fleet.network.dir.path().join(format!("snapshot{}", self.round));
        let bytes = wait_for("a snapshot", || self.fleet.store(&SERVERS).snapshot().ok());
        std::fs::write(&path, bytes).unwrap();
        let view = inspect(&path).unwrap();
        assert_eq!(view.problem, None);
        (path.to_str().unwrap().to_owned(), view.revision)
    }

    /// All but the leader lose their disks.
    fn lose_quorum(&mut self) {
        let leads = leader(&whole(&self.fleet));
        let others = SERVERS.iter().filter(|server| **server != leads);
        for server in others.clone() {
            self.fleet.switch_off(server);
            std::fs::remove_dir_all(self.fleet.data(server)).unwrap();
        }
        others.clone().for_each(|server| self.fleet.switch_on(server));
        others.for_each(|server| self.fleet.network.wait(self.fleet.machine(server)));
    }

    /// Runs it and strikes when its moment has come; true when it ended well all the same.
    fn run_and_hit(&mut self, args: &[String], point: &Point) -> bool {
        let inventory = self.fleet.inventory();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let args = [&args[..], &["-i", &inventory, "--yes"]].concat();
        let mut command = self.fleet.command(&args);
        let log = self.fleet.network.dir.path().join("disturbed.log");
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut seen, mut said) = (0, Vec::new());
        for line in lines.by_ref().map_while(Result::ok) {
            seen += usize::from(line.starts_with("* ") || line.starts_with("changed"));
            said.push(line);
            if seen >= point.steps {
                break;
            }
        }
        // What it says from here on is read while it is disturbed.
        let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(point.pause);
        match point.blow {
            Blow::Power => self.fleet.switch_off(point.victim),
            Blow::Link => self.fleet.network.cable(self.fleet.machine(point.victim), false),
        }
        let started = std::time::Instant::now();
        while started.elapsed() < point.away && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(50));
        }
        match point.blow {
            Blow::Power => self.fleet.switch_on(point.victim),
            Blow::Link => self.fleet.network.cable(self.fleet.machine(point.victim), true),
        }
        let status = child.wait().unwrap();
        said.extend(rest.join().unwrap());
        let after =
            said.iter().rev().find(|line| line.starts_with("TASK") || line.starts_with("* "));
        eprintln!("  hit after {seen} steps, ended with {:?} at {after:?}", status.code());
        if !status.success() {
            let errors = std::fs::read_to_string(log).unwrap();
            errors.lines().take(4).for_each(|line| eprintln!("  {line}"));
            assert_ne!(status.code(), None, "it crashed");
            assert_ne!(status.code(), Some(101), "it panicked");
        }
        self.fleet.network.wait(self.fleet.machine(point.victim));
        status.success()
    }

    /// The same command again; a restore that has begun goes on.
    fn run_until_it_is_over(&mut self, args: &[String], verb: &str) {
        for run in 1..=RUNS {
            let fenced = SERVERS
                .iter()
                .any(|server| self.fleet.data(server).join("server/fence.json").exists());
            let resume = ["restore".to_owned(), "--resume".to_owned()];
            let args = if verb == "restore" && fenced { &resume[..] } else { args };
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let inventory = self.fleet.inventory();
            let output = self.fleet.run(&[&args[..], &["-i", &inventory, "--yes"]].concat());
            if output.status.success() {
                return;
            }
            let said = shown(&output);
            assert!(run < RUNS, "it does not come to an end: {said}");
            // A cluster that has its quorum again has nothing to recover.
            if verb == "recover" && said.contains("that is a quorum") {
                return;
            }
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("  again, run {run}: {:?}", output.status.code());
            errors.lines().take(4).for_each(|line| eprintln!("  {line}"));
        }
    }
}
