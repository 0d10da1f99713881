//! What a check has to say.

use serde::{Serialize, Serializer};

use crate::error::{ExitCode, Failure};

macro_rules! checks {
    ($($name:ident $word:literal $why:literal;)*) => {
        /// What is checked, in the order of tables.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Check { $(#[doc = $why] $name,)* }

        impl Check {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, as it is printed and documented.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Why it matters.
            pub const fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }
        }
    };
}

checks! {
    Reach "reach" "what cannot be reached can neither be looked at nor changed";
    System "system" "services are run by systemd or OpenRC, and the binaries are for 64-bit Intel and ARM";
    Processors "cpus" "a server that waits for a processor misses heartbeats, and the leader is lost";
    Memory "memory" "the kernel kills what asks for memory that is not there";
    Disk "disk" "a store that cannot write stops, and with it what needs it";
    DiskSpeed "fsync" "each write is acknowledged when a quorum has it on disk; a slow disk makes all writes slow, and a very slow one loses the leader";
    Clock "clock" "certificates and leases are judged by the clock, and K3s ends when files seem newer than the datastore";
    Identity "identity" "two machines with one name, id or address take each other's place";
    Ports "ports" "a node does not start when another process has its port";
    Network "network" "members and nodes talk to each other on these ports";
    RoundTrip "rtt" "each write waits for a round trip to another server, and heartbeats must arrive in time";
    Route "route" "a node's address is found by the default route, and K3s does not start without one";
    Data "data" "old data decides what a server does: another cluster's must not be taken over";
    Servers "servers" "an even number of servers survives no more failures than one fewer";
    Settings "settings" "servers with different settings do not form a cluster: the second one is refused at its join";
    Node "node" "a node that is not ready does nothing for the cluster";
    Quorum "quorum" "without a majority of the voters nothing can be written";
    Members "members" "each member that is away is one failure less that the cluster survives";
    Learners "learners" "a learner does not vote, and while there is one no other server can join";
    Lag "lag" "a member that is far behind serves old data and cannot take over";
    Leader "leader" "while there is no leader nothing can be written, and watches may break";
    Alarms "alarms" "while an alarm stands, writes are refused";
    Quota "quota" "a store at its quota raises the alarm NOSPACE and refuses all writes";
    Certificates "certificates" "when a certificate is over, nobody who checks it talks to the node any more";
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// It was not measured.
    Unknown,
    /// It works, and should be mended.
    Warning,
    /// It does not work, or will not for long.
    Bad,
}

impl Severity {
    /// As a word in tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// What one check has to say of one host, or of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// Which host; `None` for the whole cluster.
    pub host: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What was measured, short.
    pub value: String,
    /// What is wrong, with its likely cause; empty when nothing is.
    pub message: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do now.
    pub action: Option<String>,
    /// Who insists may go on all the same.
    pub forceable: bool,
}

impl Finding {
    fn new(check: Check, severity: Severity, value: String, message: String) -> Self {
        let (host, action) = (None, None);
        Self { check, host, severity, value, message, why: check.why(), action, forceable: false }
    }

    /// All is well.
    pub(super) fn good(check: Check, value: impl Into<String>) -> Self {
        Self::new(check, Severity::Good, value.into(), String::new())
    }

    /// Not measured, and why.
    pub(super) fn unknown(check: Check, why: impl Into<String>) -> Self {
        Self::new(check, Severity::Unknown, "-".to_owned(), why.into())
    }

    /// Should be mended.
    pub(super) fn warning(
        check: Check,
        value: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(check, Severity::Warning, value.into(), message.into())
    }

    /// Does not work.
    pub(super) fn bad(check: Check, value: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Bad, value.into(), message.into())
    }

    /// Adds what to do now.
    pub(super) fn action(mut self, action: impl Into<String>) -> Self {
        self.action = Some(action.into());
        self
    }

    /// Who insists may go on.
    pub(super) fn forceable(mut self) -> Self {
        self.forceable = true;
        self
    }

    /// It is about this host.
    pub(super) fn on(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Whether a run must not go on; `force` is whether a person insists.
    pub fn stops(&self, force: bool) -> bool {
        self.severity == Severity::Bad && !(force && self.forceable)
    }

    /// What is wrong on one line, with its host.
    pub fn line(&self) -> String {
        match &self.host {
            Some(host) => format!("{host}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// How a run that it stops ends.
    pub fn exit_code(&self) -> ExitCode {
        match self.check {
            Check::Reach => ExitCode::Unreachable,
            Check::Settings => ExitCode::BadInput,
            Check::Data | Check::Quorum => ExitCode::Refused,
            _ if self.forceable => ExitCode::Refused,
            _ => ExitCode::HostFailed,
        }
    }
}

/// What a run says that these findings stop before it changes anything.
pub fn refusal(stopping: &[&Finding]) -> Failure {
    let lines: Vec<String> = stopping.iter().map(|found| found.line()).collect();
    let failure = Failure::new(exit_code(stopping), lines.join("\n"))
        .hint("nothing was changed on any host; mend this and run the same command again");
    if stopping.iter().all(|found| found.forceable) {
        return failure.hint("`--force` goes on all the same");
    }
    failure
}

/// How a run ends that these findings stop: what may cost data counts first, then wrong input, then
/// hosts.
pub fn exit_code(findings: &[&Finding]) -> ExitCode {
    let order = [ExitCode::Refused, ExitCode::BadInput, ExitCode::HostFailed];
    let has = |code: &ExitCode| findings.iter().any(|finding| finding.exit_code() == *code);
    order.into_iter().find(has).unwrap_or(ExitCode::Unreachable)
}
