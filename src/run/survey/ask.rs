//! What is asked of one host, and what its answers say. Pure.

use super::Depth;
use crate::cluster::checks::{HostSeen, PortSeen, SpaceSeen};
use crate::cluster::layout::Role;
use crate::host::protocol::{Listener, Measure, MetricsSource, Observed, Read, ServiceFacts};
use crate::limits::{CLIENT_PORT, K3S_METRICS_PORT};
use crate::modules::World;
use crate::run::address::Place;
use crate::run::host::HostRun;

/// What a server's store needs at first: two segments of the log, a snapshot and certificates.
const STORE_BYTES_MIN: u64 = 128 * 1024 * 1024;

/// What an agent's files need.
const AGENT_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// How many lines of a service's log are looked at.
const LOG_LINES: u32 = 20;

pub(super) fn vitals() -> Read {
    Read::Measure(Measure::Vitals)
}

pub(super) fn certificates(place: &Place) -> Measure {
    Measure::Certificates { data_dir: place.layout.data_dir.clone() }
}

pub(super) fn metrics(place: &Place) -> Measure {
    if place.k3s.is_some() {
        let authority = format!("127.0.0.1:{K3S_METRICS_PORT}");
        return Measure::Metrics(MetricsSource::Plain { authority });
    }
    let address = &place.node_ip;
    let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
    Measure::Metrics(MetricsSource::Embedded {
        data_dir: place.layout.data_dir.clone(),
        authority: format!("{address}:{CLIENT_PORT}"),
    })
}

/// All that is asked of `host` in one request.
pub(super) fn questions(place: Option<&Place>, host: &HostRun, depth: Depth) -> Vec<Read> {
    if !depth.basics {
        return Vec::new();
    }
    let mut reads = vec![vitals()];
    let has_node = matches!(host.fleet.role, Some(Role::Server | Role::Agent));
    let Some(place) = place.filter(|_| has_node) else { return reads };
    let layout = &place.layout;
    let path = |path: &str| Read::Path {
        path: path.to_owned(),
        follow: false,
        hash: path == layout.binary,
    };
    reads.extend(place.listens.iter().map(listener));
    reads.push(service(place));
    reads.extend(targets(place).map(|path| Read::Space { path }));
    reads.extend([path(&layout.binary), path(&layout.unit_file)]);
    if depth.node {
        reads.push(log(place));
        reads.push(Read::Measure(certificates(place)));
        if host.fleet.role == Some(Role::Server) {
            reads.push(Read::Measure(metrics(place)));
        }
    }
    reads
}

fn listener((address, port): &(String, u16)) -> Read {
    Read::Listener { address: address.clone(), port: *port }
}

fn service(place: &Place) -> Read {
    Read::Service { name: place.layout.service.clone() }
}

fn log(place: &Place) -> Read {
    Read::ServiceLog { name: place.layout.service.clone(), lines: LOG_LINES }
}

/// Where something will be written: data, configuration, binary, unit.
fn targets(place: &Place) -> impl Iterator<Item = String> {
    let layout = &place.layout;
    [&layout.data_dir, &layout.config_dir, &layout.binary, &layout.unit_file]
        .map(Clone::clone)
        .into_iter()
}

/// Puts the answers into `seen`.
pub(super) fn fill(seen: &mut HostSeen, place: &Place, host: &HostRun, world: &World) {
    let Some(Observed::Service(service)) = world.peek(&service(place)) else { return };
    seen.ports = Some(ports(place, service, world));
    seen.service = Some(service.clone());
    if let Some(Observed::Text(text)) = world.peek(&log(place)) {
        seen.last_words = Some(text.clone());
    }
    let executor = host.facts().map(|facts| facts.executor_sha256.as_str());
    // A node that is there and runs is not written anew.
    let is_new = seen.view.as_ref().is_none_or(|view| !view.ready);
    let binary_bytes = std::fs::metadata("/proc/self/exe").map_or(0, |own| own.len());
    let has_data = seen.disk.is_some();
    let data_bytes = match host.fleet.role {
        Some(Role::Server) if !has_data => STORE_BYTES_MIN,
        Some(Role::Server) => 0,
        _ => AGENT_BYTES_MIN,
    };
    seen.spaces =
        spaces(place, world, executor, if is_new { (data_bytes, binary_bytes) } else { (0, 0) });
}

/// Room where something will be written: `bytes` of data and of the binary.
fn spaces(
    place: &Place,
    world: &World,
    executor: Option<&str>,
    bytes: (u64, u64),
) -> Vec<SpaceSeen> {
    let layout = &place.layout;
    let there = |path: &str| {
        let hash = path == layout.binary;
        let read = Read::Path { path: path.to_owned(), follow: false, hash };
        match world.peek(&read) {
            Some(Observed::Path(Some(facts))) => Some(facts),
            _ => None,
        }
    };
    let same_binary = there(&layout.binary)
        .is_some_and(|facts| facts.sha256.is_some() && facts.sha256.as_deref() == executor);
    let (data_bytes, binary_bytes) = bytes;
    let wanted = [
        (&layout.data_dir, data_bytes, true),
        (&layout.config_dir, 0, true),
        (&layout.binary, binary_bytes, !same_binary),
        (&layout.unit_file, 0, there(&layout.unit_file).is_none()),
    ];
    let space = |(path, needed_bytes, _): (&String, u64, bool)| {
        let read = Read::Space { path: path.clone() };
        let Some(Observed::Space { free_bytes, total_bytes, writable }) = world.peek(&read) else {
            return None;
        };
        Some(SpaceSeen {
            path: path.clone(),
            needed_bytes,
            free_bytes: *free_bytes,
            total_bytes: *total_bytes,
            not_writable: writable.clone().err(),
            grows: *path == layout.data_dir,
        })
    };
    wanted.into_iter().filter(|(.., is_written)| *is_written).filter_map(space).collect()
}

/// The ports that the node needs, and who else has them.
fn ports(place: &Place, service: &ServiceFacts, world: &World) -> Vec<PortSeen> {
    let own = |found: &Listener| match (found.pid, service.pid) {
        (Some(pid), Some(own)) => pid == own,
        // Who it is cannot be seen: the node, if it runs.
        _ => service.active || service.starting,
    };
    let port = |at: &(String, u16)| {
        let taken_by = match world.peek(&listener(at)) {
            Some(Observed::Listener(Some(found))) if !own(found) => Some(holder(found)),
            _ => None,
        };
        PortSeen { port: at.1, taken_by }
    };
    place.listens.iter().map(port).collect()
}

/// Who has a port, as far as that could be seen.
fn holder(found: &Listener) -> String {
    match (&found.process, found.pid) {
        (Some(process), Some(pid)) => format!("{process} (pid {pid})"),
        (None, Some(pid)) => format!("process {pid}"),
        _ => "a process that may not be seen".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::layout::{Distribution, Layout};
    use crate::host::protocol::{PathFacts, PathKind};

    fn place() -> Place {
        Place {
            layout: Layout::new(Distribution::Embedded, Role::Server, None),
            node_ip: "10.0.0.1".to_owned(),
            supervisor: "10.0.0.1:6443".to_owned(),
            port: 6443,
            listens: vec![("10.0.0.1".to_owned(), 2380)],
            k3s: None,
        }
    }

    fn world(answers: Vec<(Read, Observed)>) -> World {
        let mut world = World::default();
        for (read, answer) in answers {
            world.insert(read, Ok(answer));
        }
        world
    }

    #[test]
    fn a_port_is_taken_by_another_but_not_by_the_node_itself() {
        let taken = |by: u32| {
            let found = Listener { pid: Some(by), process: Some("nginx".to_owned()) };
            let read = listener(&("10.0.0.1".to_owned(), 2380));
            let service = ServiceFacts { active: true, pid: Some(7), ..ServiceFacts::default() };
            ports(&place(), &service, &world(vec![(read, Observed::Listener(Some(found)))]))
        };
        let seen =
            |taken_by: Option<&str>| PortSeen { port: 2380, taken_by: taken_by.map(Into::into) };
        assert_eq!(taken(8), [seen(Some("nginx (pid 8)"))]);
        assert_eq!(taken(7), [seen(None)]);
    }

    #[test]
    fn only_where_something_will_be_written_room_is_wanted() {
        let place = place();
        let layout = &place.layout;
        let space = |path: &str| {
            let free = Observed::Space { free_bytes: 7, total_bytes: 9, writable: Ok(()) };
            (Read::Space { path: path.to_owned() }, free)
        };
        let file = |path: &str, hash: bool| {
            let facts = PathFacts {
                kind: PathKind::File,
                mode: 0o644,
                owner: "root".to_owned(),
                group: "root".to_owned(),
                size: 1,
                sha256: hash.then(|| "abc".to_owned()),
                target: None,
            };
            let read = Read::Path { path: path.to_owned(), follow: false, hash };
            (read, Observed::Path(Some(facts)))
        };
        let mut answers: Vec<(Read, Observed)> = targets(&place).map(|path| space(&path)).collect();
        let paths = |answers: &[(Read, Observed)], executor| -> Vec<(String, u64)> {
            let seen = spaces(&place, &world(answers.to_vec()), Some(executor), (20, 10));
            seen.into_iter().map(|space| (space.path, space.needed_bytes)).collect()
        };
        let (data, config) = ((layout.data_dir.clone(), 20), (layout.config_dir.clone(), 0));
        let (binary, unit) = ((layout.binary.clone(), 10), (layout.unit_file.clone(), 0));
        let all = [data.clone(), config.clone(), binary.clone(), unit];
        assert_eq!(paths(&answers, "abc"), all);
        answers.extend([file(&layout.binary, true), file(&layout.unit_file, false)]);
        assert_eq!(paths(&answers, "other"), [data.clone(), config.clone(), binary]);
        assert_eq!(paths(&answers, "abc"), [data, config]);
    }
}
