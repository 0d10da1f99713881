//! What would stop a node from coming up on a host, found before anything is changed on any: taken
//! ports, full or read-only disks.
//!
//! Only hosts whose node is not ready are looked at, so that a run that changes nothing asks no
//! more than before.

use super::Run;
use super::cluster::Place;
use super::host::HostRun;
use crate::cluster::layout::Role;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Listener, Observed, Read};
use crate::modules::World;

/// What a server's store needs at first: two segments of the log, a snapshot and certificates.
const STORE_BYTES_MIN: u64 = 128 * 1024 * 1024;

/// What an agent's files need.
const AGENT_BYTES_MIN: u64 = 4 * 1024 * 1024;

impl Run<'_> {
    /// Looks at the hosts where a node will be started.
    ///
    /// # Errors
    /// All that would go wrong, each with its host.
    pub(super) async fn preflight(&mut self) -> Result<(), Failure> {
        let reads: Vec<Vec<Read>> = self.hosts.iter().map(|host| self.questions(host)).collect();
        if reads.iter().all(Vec::is_empty) {
            return Ok(());
        }
        self.read_all(reads).await;
        let binary_bytes = std::fs::metadata("/proc/self/exe").map_or(0, |own| own.len());
        let mut problems = Vec::new();
        for host in self.hosts.iter().filter(|host| self.starts(host)) {
            if let Some(place) = self.cluster.places.get(host.name()) {
                let found = problems_of(place, host.fleet.role, &host.world, binary_bytes);
                problems.extend(found.into_iter().map(|what| format!("{}: {what}", host.name())));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure::new(ExitCode::HostFailed, problems.join("\n"))
            .hint("nothing was changed on any host; mend this and run the same command again"))
    }

    /// Whether a node will be started on `host`, as far as that is known.
    fn starts(&self, host: &HostRun) -> bool {
        let has_node = matches!(host.fleet.role, Some(Role::Server | Role::Agent));
        has_node && !host.out && !host.witness && !self.cluster.is_ready(host.name())
    }

    fn questions(&self, host: &HostRun) -> Vec<Read> {
        match self.cluster.places.get(host.name()) {
            Some(place) if self.starts(host) => questions(place),
            _ => Vec::new(),
        }
    }
}

fn questions(place: &Place) -> Vec<Read> {
    let layout = &place.layout;
    let path = |path: &str| Read::Path {
        path: path.to_owned(),
        follow: false,
        hash: path == layout.binary,
    };
    let listeners = place.listens.iter().map(listener);
    let mut reads: Vec<Read> = listeners.collect();
    reads.push(Read::Service { name: layout.service.clone() });
    reads.extend(targets(place).map(|path| Read::Space { path }));
    reads.extend([path(&layout.binary), path(&unit(place))]);
    reads
}

fn listener((address, port): &(String, u16)) -> Read {
    Read::Listener { address: address.clone(), port: *port }
}

fn unit(place: &Place) -> String {
    place.layout.unit_file.clone()
}

/// Where something will be written: data, configuration, binary, unit.
fn targets(place: &Place) -> impl Iterator<Item = String> {
    let layout = &place.layout;
    [&layout.data_dir, &layout.config_dir, &layout.binary, &unit(place)]
        .map(Clone::clone)
        .into_iter()
}

/// What would stop the node of a host, from what was seen of it. Pure.
fn problems_of(place: &Place, role: Option<Role>, world: &World, binary_bytes: u64) -> Vec<String> {
    let mut problems = ports(place, world);
    let there = |path: &str| {
        let read =
            Read::Path { path: path.to_owned(), follow: false, hash: path == place.layout.binary };
        match world.peek(&read) {
            Some(Observed::Path(Some(facts))) => Some(facts),
            _ => None,
        }
    };
    let executor = match world.peek(&Read::Facts) {
        Some(Observed::Facts(facts)) => Some(facts.executor_sha256.as_str()),
        _ => None,
    };
    let same_binary = there(&place.layout.binary)
        .is_some_and(|facts| facts.sha256.is_some() && facts.sha256.as_deref() == executor);
    let data_bytes = match role {
        Some(Role::Server) if !has_data(place, world) => STORE_BYTES_MIN,
        Some(Role::Server) => 0,
        _ => AGENT_BYTES_MIN,
    };
    let wanted = [
        (place.layout.data_dir.clone(), data_bytes, true),
        (place.layout.config_dir.clone(), 0, true),
        (place.layout.binary.clone(), binary_bytes, !same_binary),
        (unit(place), 0, there(&unit(place)).is_none()),
    ];
    let mut last = None;
    for (path, bytes, is_written) in wanted {
        let Some(Observed::Space { free_bytes, writable, .. }) =
            world.peek(&Read::Space { path: path.clone() })
        else {
            continue;
        };
        let problem = match writable {
            _ if !is_written => continue,
            Err(why) => format!("{why}; {path} cannot be written"),
            Ok(()) if *free_bytes < bytes => format!(
                "{path} needs {} of space, {} are free",
                mebibytes(bytes),
                mebibytes(*free_bytes)
            ),
            Ok(()) => continue,
        };
        // The same file system is told of once.
        let cause = writable.clone().err();
        if cause.is_none() || cause != last {
            problems.push(problem);
        }
        last = cause;
    }
    problems
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

fn has_data(place: &Place, world: &World) -> bool {
    matches!(world.peek(&place.disk_read()), Some(Observed::Disk(Some(_))))
}

/// Ports that another process has.
fn ports(place: &Place, world: &World) -> Vec<String> {
    let service = match world.peek(&Read::Service { name: place.layout.service.clone() }) {
        Some(Observed::Service(facts)) => facts.clone(),
        _ => return Vec::new(),
    };
    let own = |found: &Listener| match (found.pid, service.pid) {
        (Some(pid), Some(own)) => pid == own,
        // Who it is cannot be seen: the node, if it runs.
        _ => service.active || service.starting,
    };
    let mut problems: Vec<String> = Vec::new();
    for at in &place.listens {
        if let Some(Observed::Listener(Some(found))) = world.peek(&listener(at))
            && !own(found)
        {
            let problem = format!("port {} is taken by {}", at.1, holder(found));
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems
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
    use crate::host::protocol::ServiceFacts;

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
        world.insert(Read::Facts, Ok(Observed::Facts(Box::default())));
        for (read, answer) in answers {
            world.insert(read, Ok(answer));
        }
        world
    }

    fn taken(by: u32) -> Vec<(Read, Observed)> {
        let found = Listener {
            pid: Some(by),
            process: Some("nginx".to_owned()),
            executable: Some("/usr/sbin/nginx".to_owned()),
        };
        let service = ServiceFacts { active: true, pid: Some(7), ..ServiceFacts::default() };
        vec![
            (listener(&("10.0.0.1".to_owned(), 2380)), Observed::Listener(Some(found))),
            (Read::Service { name: "k3sup".to_owned() }, Observed::Service(service)),
        ]
    }

    #[test]
    fn a_port_is_taken_by_another_but_not_by_the_node_itself() {
        let found = |by| problems_of(&place(), Some(Role::Server), &world(taken(by)), 0);
        assert_eq!(found(8), ["port 2380 is taken by nginx (pid 8)"]);
        assert!(found(7).is_empty());
    }

    #[test]
    fn space_and_writing_are_judged_by_what_will_be_written() {
        let place = place();
        let space = |path: &str, free: u64, writable: Result<(), String>| {
            let answer = Observed::Space { free_bytes: free, total_bytes: 1 << 40, writable };
            (Read::Space { path: path.to_owned() }, answer)
        };
        let layout = &place.layout;
        let read_only = || Err("/etc is on a read-only file system".to_owned());
        let answers = vec![
            space(&layout.data_dir, 1 << 20, Ok(())),
            space(&layout.config_dir, 1 << 40, read_only()),
            space(&layout.binary, 1 << 20, Ok(())),
            space(&unit(&place), 1 << 40, read_only()),
        ];
        assert_eq!(
            problems_of(&place, Some(Role::Server), &world(answers.clone()), 30 << 20),
            [
                "/var/lib/k3sup needs 128 MiB of space, 1 MiB are free",
                "/etc is on a read-only file system; /etc/k3sup cannot be written",
                "/usr/local/bin/k3sup-rs needs 30 MiB of space, 1 MiB are free",
                "/etc is on a read-only file system; /etc/systemd/system/k3sup.service cannot be written",
            ]
        );
        let disk = Observed::Disk(Some(crate::cluster::view::DiskView::default()));
        let with_data = [answers, vec![(place.disk_read(), disk)]].concat();
        let problems = problems_of(&place, Some(Role::Server), &world(with_data), 0);
        assert!(!problems.iter().any(|problem| problem.contains("/var/lib")), "{problems:?}");
    }
}
