//! What was seen: the input of all checks. Plain values; what was not measured is `None` or empty.

use super::counters::Counters;
use crate::cluster::layout::{Distribution, Role};
use crate::cluster::safety::SafetyFinding;
use crate::cluster::view::{CertificateView, ClusterView, DiskView};
use crate::host::protocol::{DiskSpeed, Facts, Reached, ServiceFacts, Vitals};

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// What is provisioned.
    pub distribution: Distribution,
    /// The inventory's path, for commands to do now.
    pub inventory: String,
    /// The hosts, in the inventory's order.
    pub hosts: Vec<HostSeen>,
    /// The CA's hash that the known token names.
    pub ca_hash: Option<String>,
    /// What bootstrap-or-join has to say.
    pub safety: Vec<SafetyFinding>,
    /// Settings that must be equal on all servers and are not, in words.
    pub differences: Vec<String>,
    /// Now, by the control machine's clock, in seconds since 1970.
    pub now_unix_s: u64,
}

impl Scene {
    /// The hosts that shall be servers.
    pub(super) fn servers(&self) -> impl Iterator<Item = &HostSeen> {
        self.hosts.iter().filter(|host| host.is_server())
    }

    /// `k3sup-rs VERB -i INVENTORY`.
    pub(super) fn command(&self, verb: &str) -> String {
        format!("k3sup-rs {verb} -i {}", self.inventory)
    }
}

/// One host.
#[derive(Clone, Debug, Default)]
pub struct HostSeen {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Option<Role>,
    /// Why it cannot be reached.
    pub lost: Option<String>,
    /// The machine's facts.
    pub facts: Option<Facts>,
    /// Its address in the cluster.
    pub node_ip: Option<String>,
    /// The node's service.
    pub service_name: String,
    /// The node's data directory.
    pub data_dir: String,
    /// Its clock.
    pub clock: Option<ClockSeen>,
    /// Load and memory.
    pub vitals: Option<Vitals>,
    /// How fast the disk under its data is, or why that could not be measured.
    pub disk_speed: Option<Result<DiskSpeed, String>>,
    /// Room where something is, or will be, written.
    pub spaces: Vec<SpaceSeen>,
    /// Ports that the node needs; `None` when they were not looked at.
    pub ports: Option<Vec<PortSeen>>,
    /// What it reached of other hosts.
    pub probes: Vec<ProbeSeen>,
    /// What its data directory says.
    pub disk: Option<DiskView>,
    /// The cluster as its node sees it.
    pub view: Option<ClusterView>,
    /// The node's service.
    pub service: Option<ServiceFacts>,
    /// Last lines of a service that does not run.
    pub last_words: Option<String>,
    /// The node's counters.
    pub counters: Option<Counters>,
    /// Certificates on its disk.
    pub certificates: Vec<CertificateView>,
}

impl HostSeen {
    pub(super) fn is_server(&self) -> bool {
        self.role == Some(Role::Server)
    }

    /// A host of a lab, where machines are not what they would be.
    pub fn is_lab(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.lab_root.is_some())
    }
}

/// A clock beside the control machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSeen {
    /// How much it is ahead, in milliseconds.
    pub ahead_ms: i64,
    /// How wrong that may be, in milliseconds: half of the time that asking took.
    pub error_ms: u64,
}

impl ClockSeen {
    /// From what a host's clock said, and the control machine's before and after asking; all in
    /// milliseconds since 1970.
    pub fn new(said_ms: u64, before_ms: u64, after_ms: u64) -> Self {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let error_ms = after_ms.saturating_sub(before_ms).div_ceil(2);
        let middle_ms = before_ms.saturating_add(error_ms);
        Self { ahead_ms: signed(said_ms).saturating_sub(signed(middle_ms)), error_ms }
    }
}

/// Room on a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceSeen {
    /// Where something is written.
    pub path: String,
    /// Bytes that will be written there.
    pub needed_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Size of the file system in bytes.
    pub total_bytes: u64,
    /// Why nothing can be written there.
    pub not_writable: Option<String>,
    /// It is where the node's data is, which grows.
    pub grows: bool,
}

/// A port that the node needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSeen {
    /// Its number.
    pub port: u16,
    /// Who else has it.
    pub taken_by: Option<String>,
}

/// What came of trying a port of another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSeen {
    /// The other host.
    pub to: String,
    /// The address that was tried.
    pub address: String,
    /// The port.
    pub port: u16,
    /// UDP; else TCP.
    pub udp: bool,
    /// What came of it.
    pub reached: Reached,
}
