//! What changes are made of.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Who holds the operators' lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The run's own name, unique.
    pub id: String,
    /// Person, machine and process: `ada@laptop pid 4711`.
    pub owner: String,
    /// What the run does, for example `up`.
    pub purpose: String,
    /// When it was taken, milliseconds since 1970 by the host's clock; the executor fills it in.
    pub since_unix_ms: u64,
    /// When it runs out by the host's clock, milliseconds since 1970; the executor fills it in.
    pub expires_unix_ms: u64,
}

/// What a file shall hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FileContent {
    /// These bytes.
    Bytes(Bytes),
    /// A secret text; never printed.
    Secret(SecretText),
    /// A copy of another file on the host (the pushed binary), verified by its SHA-256 in hex.
    CopyOf {
        /// Absolute path on the host.
        path: String,
        /// Expected hash.
        sha256: String,
    },
    /// A file of the control machine, too long for a message. The session sends it in parts; it never
    /// travels as such.
    Local {
        /// Its path there.
        path: String,
        /// Its hash.
        sha256: String,
        /// Its length.
        size: u64,
    },
}

/// A [`Secret`] that really travels over the (encrypted) channel, unlike `Secret` itself, which
/// serialises as a mask.
#[derive(Clone, Debug)]
pub struct SecretText(pub Secret);

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Secret::deserialize(deserializer).map(Self)
    }
}

/// What to do with packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageAction {
    /// Install those that are missing; their services may be started by that, as is the custom of
    /// the host's distribution.
    Install,
    /// Remove them with the configuration that came with them.
    Remove,
}

/// What to do with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceAction {
    /// Start it if it is not running and wait until it says it is ready.
    Start,
    /// Stop it if it is running.
    Stop,
    /// Stop and start.
    Restart,
    /// Ask it to read its configuration again.
    Reload,
    /// Start it at boot.
    Enable,
    /// Do not start it at boot.
    Disable,
}

impl ServiceAction {
    /// What it is called in messages and by both service managers.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}
