//! Measurements: what is asked and answered about a host's disk, clock, network and node. They
//! change nothing that stays: what one makes for itself, it removes.

use serde::{Deserialize, Serialize};

use crate::cluster::view::CertificateView;

/// Something to measure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Measure {
    /// Clock, load and memory now: [`Measured::Vitals`].
    Vitals,
    /// How long a small write and its fdatasync take, as etcd's log does it:
    /// [`Measured::DiskSpeed`]. A file is written beside what is there and removed.
    DiskSpeed {
        /// Absolute path; the nearest existing parent counts.
        directory: String,
        /// How many writes at most.
        writes_max: u32,
        /// No further write after this many milliseconds.
        timeout_ms: u64,
    },
    /// Listen on ports for a short while, so that others' probes have an answer:
    /// [`Measured::Listening`], at once. What listened before because of this request stops.
    Listen {
        /// Where.
        doors: Vec<Door>,
        /// What whoever connects is told.
        greeting: String,
        /// For this many milliseconds, or until [`Measure::StopListening`] or the session's end.
        for_ms: u64,
    },
    /// Stop what [`Measure::Listen`] began: [`Measured::Stopped`].
    StopListening,
    /// Try to reach a port: [`Measured::Probe`].
    Probe {
        /// Where.
        door: Door,
        /// What must be said there, when it is our own listener; else it is enough that it answers.
        greeting: Option<String>,
        /// How long to try, in milliseconds.
        timeout_ms: u64,
    },
    /// The certificates under a node's data directory: [`Measured::Certificates`].
    Certificates {
        /// The node's data directory.
        data_dir: String,
    },
    /// The node's counters, in Prometheus' text form: [`Measured::Metrics`].
    Metrics(MetricsSource),
}

/// A port at an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Door {
    /// IP address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// UDP; else TCP.
    pub udp: bool,
}

/// Where a node's counters are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetricsSource {
    /// On the client API, over TLS with the administrator's certificate.
    Embedded {
        /// The node's data directory, which has the certificate.
        data_dir: String,
        /// Address and port.
        authority: String,
    },
    /// Over plain HTTP on loopback, as K3s's etcd has them.
    Plain {
        /// Address and port.
        authority: String,
    },
}

/// The answer to a [`Measure`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measured {
    /// To [`Measure::Vitals`].
    Vitals(Vitals),
    /// To [`Measure::DiskSpeed`].
    DiskSpeed(DiskSpeed),
    /// To [`Measure::Listen`]: one for each door, in order.
    Listening(Vec<Opened>),
    /// To [`Measure::StopListening`].
    Stopped,
    /// To [`Measure::Probe`].
    Probe(Reached),
    /// To [`Measure::Certificates`].
    Certificates(Vec<CertificateView>),
    /// To [`Measure::Metrics`]; `None` when nothing answers.
    Metrics(Option<String>),
}

/// Clock, load and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// Milliseconds since 1970 by this host's clock.
    pub clock_unix_ms: u64,
    /// Load of the last minute, in thousandths.
    pub load_milli: u64,
    /// Memory that can be had without swapping, in bytes.
    pub memory_available_bytes: u64,
    /// How long the machine is up, in seconds.
    pub uptime_s: u64,
}

/// How long writes took, each with its fdatasync, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpeed {
    /// How many were made.
    pub writes: u32,
    /// Half were at most this long.
    pub p50_us: u64,
    /// 99 of 100 were at most this long.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Whether a listener was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opened {
    /// It listens.
    Open,
    /// Somebody listens there already.
    Taken,
    /// It could not be opened, and why.
    Failed(String),
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reached {
    /// It answered; the shortest round trip of a few, in microseconds.
    Yes {
        /// How long.
        rtt_us: u64,
    },
    /// The host says that nobody listens there.
    Refused,
    /// Something answered that is not our listener on that host.
    Stranger,
    /// No answer.
    TimedOut,
    /// It could not even be tried.
    Failed(String),
}
