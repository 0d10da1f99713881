//! Measures hosts for the checks of [`crate::cluster::checks`]: what is asked of whom, and what the
//! answers come to. Judges nothing.
//!
//! In three looks: what each host is and has (one round trip), then listeners on the hosts that are
//! to be reached, then probes and the speed of disks. Answers are not kept: each look is a new one.

mod ask;
mod network;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use serde_json::Value as Json;

use super::Run;
use super::gather::lost;
use super::host::HostRun;
use crate::cluster::checks::counters;
use crate::cluster::checks::{ClockSeen, HostSeen, Scene};
use crate::cluster::layout::{Distribution, Role};
use crate::cluster::safety::Rule;
use crate::host::protocol::{Measure, Measured, Observed, Read};
use crate::modules::World;
use crate::node::config::etcd::differences;
use crate::pki::token::Token;

/// How closely a host is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    /// Ports, room, clock, load: one round trip.
    pub(super) basics: bool,
    /// The ways from and to it, and for that listeners.
    pub(super) network: bool,
    /// The speed of its disk.
    pub(super) disk: bool,
    /// Its node: log, certificates, counters.
    pub(super) node: bool,
}

/// One host's answers, and when they were given.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) world: World,
    before_ms: u64,
    after_ms: u64,
}

impl Looked {
    /// The answer to a measurement.
    fn measured(&self, what: &Measure) -> Option<&Measured> {
        match self.world.peek(&Read::Measure(what.clone())) {
            Some(Observed::Measured(measured)) => Some(measured),
            _ => None,
        }
    }
}

/// Milliseconds since 1970 by this machine's clock.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A text, or a list of them.
fn texts(value: &Json) -> Vec<String> {
    match value {
        Json::Array(items) => items.iter().flat_map(texts).collect(),
        Json::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

impl Run<'_> {
    /// Takes `reads` of each host, all hosts at once; who is lost on the way is out.
    async fn look_all(&mut self, reads: Vec<Vec<Read>>) -> Vec<Looked> {
        let context = &self.context;
        let work =
            self.hosts.iter_mut().zip(reads).enumerate().map(async |(number, (host, reads))| {
                let mut looked = Looked { before_ms: now_ms(), ..Looked::default() };
                if host.out || reads.is_empty() {
                    return (number, looked);
                }
                let user = host.user(None, None);
                match host.looks(context, user.as_deref(), reads.clone()).await {
                    Ok(answers) => {
                        looked.after_ms = now_ms();
                        for (read, answer) in reads.into_iter().zip(answers) {
                            looked.world.insert(read, answer);
                        }
                    }
                    Err(error) => lost(context, host, "Looking", &error),
                }
                (number, looked)
            });
        let at_once = context.at_once(1).min(4096);
        let mut looked: Vec<_> =
            futures::stream::iter(work).buffer_unordered(at_once).collect().await;
        looked.sort_by_key(|(number, _)| *number);
        looked.into_iter().map(|(_, looked)| looked).collect()
    }

    /// Looks at each host as closely as `depths` says, one for each, and gives all that is known.
    pub(super) async fn survey(&mut self, depths: &[Depth]) -> Scene {
        let precise = depths.iter().any(|depth| depth.node || depth.disk);
        let clocks = if precise {
            // On its own, so that what takes long does not blur what the time was.
            let vitals =
                |depth: &Depth| if depth.basics { vec![ask::vitals()] } else { Vec::new() };
            Some(self.look_all(depths.iter().map(vitals).collect()).await)
        } else {
            None
        };
        let questions = self.hosts.iter().zip(depths);
        let questions =
            questions.map(|(host, depth)| ask::questions(self.place_of(host), host, *depth));
        let basics = self.look_all(questions.collect()).await;
        let mut seen: Vec<HostSeen> = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(looked) = basics.get(number) else { continue };
            let clock = clocks.as_ref().and_then(|clocks| clocks.get(number)).unwrap_or(looked);
            seen.push(self.host_seen(host, looked, clock));
        }
        let network = self.network(depths).await;
        for (host, (probes, disk_speed)) in seen.iter_mut().zip(network) {
            host.probes = probes;
            host.disk_speed = disk_speed;
        }
        // Who was lost on the way is so in the end.
        for (host, seen) in self.hosts.iter().zip(&mut seen) {
            seen.lost.clone_from(&host.lost_why);
        }
        Scene {
            distribution: self.fleet.distribution,
            inventory: String::new(),
            hosts: seen,
            ca_hash: Token::parse(self.fleet.token.expose()).ok().and_then(|token| token.ca_hash),
            safety: Vec::new(),
            differences: self.differences(),
            now_unix_s: now_ms() / 1000,
        }
    }

    fn place_of(&self, host: &HostRun) -> Option<&super::address::Place> {
        self.cluster.places.get(host.name())
    }

    fn host_seen(&self, host: &HostRun, looked: &Looked, clock: &Looked) -> HostSeen {
        let mut seen = HostSeen {
            name: host.name().to_owned(),
            role: host.fleet.role,
            lost: host.lost_why.clone(),
            facts: host.facts().cloned(),
            view: self.cluster.view(host).cloned(),
            ..HostSeen::default()
        };
        if let Some(Measured::Vitals(vitals)) = clock.measured(&Measure::Vitals) {
            seen.vitals = Some(*vitals);
            seen.clock =
                Some(ClockSeen::new(vitals.clock_unix_ms, clock.before_ms, clock.after_ms));
        }
        let Some(place) = self.place_of(host) else { return seen };
        seen.node_ip = Some(place.node_ip.clone());
        seen.service_name.clone_from(&place.layout.service);
        seen.data_dir.clone_from(&place.layout.data_dir);
        seen.disk = match host.world.peek(&place.disk_read()) {
            Some(Observed::Disk(disk)) => disk.clone(),
            _ => None,
        };
        ask::fill(&mut seen, place, host, &looked.world);
        if let Some(Measured::Certificates(found)) = looked.measured(&ask::certificates(place)) {
            seen.certificates.clone_from(found);
        }
        if let Some(Measured::Metrics(Some(text))) = looked.measured(&ask::metrics(place)) {
            seen.counters = Some(counters::parse(text));
        }
        seen
    }

    /// Settings that must be equal on all servers and are not. K3s's were compared when the hosts were
    /// gathered.
    pub(super) fn differences(&self) -> Vec<String> {
        if self.fleet.distribution == Distribution::K3s {
            return self.cluster.differences.clone();
        }
        let servers = self.hosts.iter().filter(|host| host.fleet.role == Some(Role::Server));
        let settings = servers.map(|host| {
            let expression = "{{ (config | default({}))['etcd-arg'] | default([]) }}";
            let said = self.context.engine.evaluate(&Json::from(expression), &host.fleet.vars);
            (host.name(), said.map(|said| texts(&said.value)).unwrap_or_default())
        });
        let settings: Vec<(&str, Vec<String>)> = settings.collect();
        differences(&settings)
    }

    /// What bootstrap-or-join has to say. That a host which is away may have data is left out: it is
    /// away, and that is said.
    pub(super) fn safety(&mut self) -> Vec<crate::cluster::safety::SafetyFinding> {
        let mut findings = match self.cluster.decide(&self.hosts) {
            Err(findings) => findings,
            Ok(()) => {
                self.cluster.plan.as_ref().map(|plan| plan.warnings.clone()).unwrap_or_default()
            }
        };
        if self.hosts.iter().any(|host| host.out) {
            findings.retain(|finding| finding.rule != Rule::MayHaveData);
        }
        findings
    }
}
