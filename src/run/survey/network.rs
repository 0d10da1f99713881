//! Listeners, probes and disks: what hosts find when they try each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Depth, Looked};
use crate::cluster::checks::{Need, ProbeSeen, Wiring};
use crate::cluster::layout::Role;
use crate::host::protocol::{DiskSpeed, Door, Measure, Measured, Observed, Opened, Reached, Read};
use crate::run::Run;

/// How long one port is tried, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 2_000;

/// How long listeners stay open if nobody closes them, in milliseconds.
const LISTEN_MS: u64 = 60_000;

/// How many writes show how fast a disk is: enough for the slowest of a hundred to be seen ten times.
const DISK_WRITES: u32 = 1_000;

/// How long a slow disk may take to show it, in milliseconds.
const DISK_TIMEOUT_MS: u64 = 4_000;

/// What one host found: the others' ports, and its disk.
pub(super) type Found = (Vec<ProbeSeen>, Option<Result<DiskSpeed, String>>);

/// A port of a host that another one must reach.
#[derive(Clone, Debug)]
struct Way {
    from: usize,
    to: usize,
    door: Door,
}

impl Run<'_> {
    /// Every host that is asked for tries all ports that it must reach, and is tried by the others;
    /// then all listeners are closed.
    pub(super) async fn network(&mut self, depths: &[Depth]) -> Vec<Found> {
        let ways = self.ways(depths);
        if ways.is_empty() && !depths.iter().any(|depth| depth.disk) {
            return self.hosts.iter().map(|_| (Vec::new(), None)).collect();
        }
        let doors = self.doors(&ways);
        let listen = self.listens(depths, &doors);
        let opened = self.look_all(listen.clone()).await;
        let opened: Vec<BTreeMap<String, Opened>> = opened
            .iter()
            .zip(&listen)
            .zip(&doors)
            .map(|((looked, listen), doors)| answers(looked, listen, doors))
            .collect();
        let tries: Vec<Vec<Try>> = self.tries(&ways, &opened);
        let mut reads: Vec<Vec<Read>> = Vec::new();
        for (number, tries) in tries.iter().enumerate() {
            let mut wanted: Vec<Read> = tries.iter().filter_map(|one| one.read.clone()).collect();
            wanted.extend(self.disk_read(number, depths));
            reads.push(wanted);
        }
        let looked = self.look_all(reads).await;
        let close = |read: &Read| {
            matches!(read, Read::Measure(_)).then_some(Read::Measure(Measure::StopListening))
        };
        let close = listen.iter().map(|reads| reads.iter().filter_map(close).collect()).collect();
        self.look_all(close).await;
        let mut found = Vec::new();
        for (number, (looked, tries)) in looked.iter().zip(tries).enumerate() {
            let speed = self.disk_read(number, depths).and_then(|read| disk_speed(looked, &read));
            found.push((tries.into_iter().filter_map(|one| one.seen(looked)).collect(), speed));
        }
        found
    }

    /// All ways of which at least one end is asked for.
    fn ways(&self, depths: &[Depth]) -> Vec<Way> {
        let wiring =
            Wiring { distribution: self.fleet.distribution, external: self.cluster.external };
        let asked = |number: usize| depths.get(number).is_some_and(|depth| depth.network);
        let mut ways = Vec::new();
        for (from, source) in self.hosts.iter().enumerate().filter(|(_, host)| !host.out) {
            for (to, target) in self.hosts.iter().enumerate().filter(|(_, host)| !host.out) {
                let (Some(source_role), Some(role)) = (source.fleet.role, target.fleet.role) else {
                    continue;
                };
                let Some(place) = self.place_of(target).filter(|_| from != to) else { continue };
                if !asked(from) && !asked(to) {
                    continue;
                }
                for Need { port, udp } in wiring.needs(source_role, role, place.port) {
                    let door = Door { address: place.node_ip.clone(), port, udp };
                    ways.push(Way { from, to, door });
                }
            }
        }
        ways
    }

    /// By host: the doors that others try.
    fn doors(&self, ways: &[Way]) -> Vec<Vec<Door>> {
        let mut doors: Vec<BTreeMap<String, Door>> = vec![BTreeMap::new(); self.hosts.len()];
        for way in ways {
            if let Some(doors) = doors.get_mut(way.to) {
                doors.insert(key(&way.door), way.door.clone());
            }
        }
        doors.into_iter().map(|doors| doors.into_values().collect()).collect()
    }

    /// A host that is asked for opens its doors. One that is not may run a node, which nobody gets in
    /// the way of: who listens there is read.
    fn listens(&self, depths: &[Depth], doors: &[Vec<Door>]) -> Vec<Vec<Read>> {
        let read = |(number, doors): (usize, &Vec<Door>)| {
            if doors.is_empty() {
                return Vec::new();
            }
            let doors = doors.iter().map(|door| self.local(number, door));
            if !depths.get(number).is_some_and(|depth| depth.network) {
                return doors.map(listener).collect();
            }
            let doors = doors.collect();
            let greeting = self.greeting(number);
            vec![Read::Measure(Measure::Listen { doors, greeting, for_ms: LISTEN_MS })]
        };
        doors.iter().enumerate().map(read).collect()
    }

    /// Where the host itself listens for a door: on its address if it has it, else on all, for there
    /// may be a translation in between.
    fn local(&self, number: usize, door: &Door) -> Door {
        let facts = self.hosts.get(number).and_then(|host| host.facts());
        if facts.is_none_or(|facts| facts.addresses.contains(&door.address)) {
            return door.clone();
        }
        let any = if door.address.contains(':') { "::" } else { "0.0.0.0" };
        Door { address: any.to_owned(), ..door.clone() }
    }

    /// What the listeners of a host say: nobody else says it.
    fn greeting(&self, number: usize) -> String {
        let name = self.hosts.get(number).map_or("", |host| host.name());
        format!("k3sup-rs {} {name}", self.context.id)
    }

    /// By host: what it tries.
    fn tries(&self, ways: &[Way], opened: &[BTreeMap<String, Opened>]) -> Vec<Vec<Try>> {
        let mut tries: Vec<Vec<Try>> = self.hosts.iter().map(|_| Vec::new()).collect();
        let mut done = BTreeSet::new();
        for way in ways.iter().filter(|way| done.insert((way.from, way.to, key(&way.door)))) {
            let to = self.hosts.get(way.to).map_or("", |host| host.name()).to_owned();
            let opened = opened.get(way.to).and_then(|opened| opened.get(&key(&way.door)));
            // Where nobody listens nothing can be tried, and what is off there others find.
            let one = opened.map(|opened| attempt(to, &way.door, opened, || self.greeting(way.to)));
            if let Some(tries) = tries.get_mut(way.from) {
                tries.extend(one);
            }
        }
        tries
    }

    fn disk_read(&self, number: usize, depths: &[Depth]) -> Option<Read> {
        let host = self.hosts.get(number).filter(|host| host.fleet.role == Some(Role::Server))?;
        let place = self.place_of(host)?;
        depths.get(number).filter(|depth| depth.disk)?;
        Some(Read::Measure(Measure::DiskSpeed {
            directory: place.layout.data_dir.clone(),
            writes_max: DISK_WRITES,
            timeout_ms: DISK_TIMEOUT_MS,
        }))
    }
}

fn key(door: &Door) -> String {
    format!("{} {} {}", door.address, door.port, door.udp)
}

fn listener(door: Door) -> Read {
    Read::Listener { address: door.address, port: door.port }
}

/// What came of opening `doors`, or who has them: those that nobody has are left out.
fn answers(looked: &Looked, reads: &[Read], doors: &[Door]) -> BTreeMap<String, Opened> {
    let answer = |read| match looked.world.peek(read) {
        Some(Observed::Measured(Measured::Listening(opened))) => opened.clone(),
        Some(Observed::Listener(Some(_))) => vec![Opened::Taken],
        _ => Vec::new(),
    };
    if let [read @ Read::Measure(_)] = reads {
        return doors.iter().map(key).zip(answer(read)).collect();
    }
    let taken = doors.iter().zip(reads).filter(|(door, _)| !door.udp);
    taken.filter_map(|(door, read)| Some((key(door), answer(read).pop()?))).collect()
}

/// One port to try.
#[derive(Clone, Debug)]
struct Try {
    to: String,
    door: Door,
    /// `None` when it cannot be tried, and why.
    read: Option<Read>,
    why_not: String,
}

/// `opened`: what came of opening the door.
fn attempt(to: String, door: &Door, opened: &Opened, greeting: impl FnOnce() -> String) -> Try {
    let probe = |greeting| {
        let door = door.clone();
        Some(Read::Measure(Measure::Probe { door, greeting, timeout_ms: PROBE_TIMEOUT_MS }))
    };
    let (read, why_not) = match opened {
        Opened::Open => (probe(Some(greeting())), String::new()),
        Opened::Failed(why) => (None, format!("{to} cannot listen there: {why}")),
        // Whoever has a port of UDP does not answer what it does not understand.
        Opened::Taken if door.udp => (None, "in use".to_owned()),
        Opened::Taken => (probe(None), String::new()),
    };
    Try { to, door: door.clone(), read, why_not }
}

impl Try {
    /// `None` when the host that was to try is gone.
    fn seen(self, looked: &Looked) -> Option<ProbeSeen> {
        let reached = match &self.read {
            None => Reached::Failed(self.why_not),
            Some(read) => match looked.world.peek(read)? {
                Observed::Measured(Measured::Probe(reached)) => reached.clone(),
                _ => return None,
            },
        };
        let Door { address, port, udp } = self.door;
        Some(ProbeSeen { to: self.to, address, port, udp, reached })
    }
}

fn disk_speed(looked: &Looked, read: &Read) -> Option<Result<DiskSpeed, String>> {
    match looked.world.answer(read)? {
        Ok(Observed::Measured(Measured::DiskSpeed(speed))) => Some(Ok(*speed)),
        Ok(_) => None,
        Err(error) => Some(Err(error.message.clone())),
    }
}
