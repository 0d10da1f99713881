//! Host keys: is this the host that is known under this name?
//!
//! The rules are OpenSSH's (`sshd(8)` on the format of `known_hosts`, `ssh_config(5)`
//! `StrictHostKeyChecking`), and stricter in three places: a file that cannot be read is an error,
//! a revoked key is refused even where checking is off, and a host that only a `@cert-authority`
//! line covers is refused when it shows a plain key or a certificate that is not good.
//!
//! [`parse`] parses, [`decide()`] decides (both pure), [`HostKeys`] reads and learns. Knows nothing
//! of connections.

mod certificate;
mod decide;
mod learn;
mod records;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};

pub use decide::{Place, Verdict, decide};
pub use records::{Record, parse};

use super::RemoteError;

/// What to do about host keys: `ansible_host_key_checking` and `--host-key-checking`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyMode {
    /// Only hosts that are known already.
    Yes,
    /// Learn the key of a host that is not known; refuse a changed or revoked one.
    #[default]
    AcceptNew,
    /// Accept any key, with a warning each time. A revoked key is refused even so.
    Off,
}

/// The files that say which host has which key, and the policy.
#[derive(Clone, Debug)]
pub struct HostKeys {
    /// Read in this order; a file that is not there is empty.
    pub files: Vec<PathBuf>,
    /// Where a new key is written; `None` where none is to be (`/dev/null`).
    pub learn_into: Option<PathBuf>,
    /// Names are written hashed (`HashKnownHosts`).
    pub hashed: bool,
    /// The policy.
    pub mode: HostKeyMode,
}

/// What is recorded for a host, so that a server with several keys can be asked for one that can be
/// compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The types of its keys.
    pub algorithms: Vec<Algorithm>,
    /// An authority is trusted to sign its certificate.
    pub certificate: bool,
}

/// A key that was accepted, and what a person should be told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is the known one.
    Known,
    /// It was not known and is now.
    Learned {
        /// Its fingerprint.
        fingerprint: String,
    },
    /// It was accepted only because checking is off.
    Unchecked {
        /// Why a check would have objected.
        warning: String,
    },
}

impl HostKeys {
    /// Checks the key that a host offers, and learns it where the policy says so.
    ///
    /// # Errors
    /// The key is changed, revoked, or not known and may not be learned; a file cannot be read or
    /// written.
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> Result<Accepted, RemoteError> {
        let records = self.read(host)?;
        let verdict = decide(&records, host, port, key);
        let name = records::lookup_name(host, port);
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        match (verdict, self.mode) {
            (Verdict::Known, _) => Ok(Accepted::Known),
            (Verdict::Revoked(place), _) => Err(refused(
                format!("the key of {name} is REVOKED ({place}): {fingerprint}"),
                "do not connect; ask who runs the host for its new key".to_owned(),
            )),
            (verdict, HostKeyMode::Off) => Ok(Accepted::Unchecked {
                warning: format!(
                    "host key checking is off: {name} offers {fingerprint} ({verdict})"
                ),
            }),
            (Verdict::Unknown, HostKeyMode::AcceptNew) => match &self.learn_into {
                Some(file) => {
                    learn::learn(file, &name, self.hashed, key)?;
                    Ok(Accepted::Learned { fingerprint })
                }
                None => Ok(Accepted::Unchecked {
                    warning: format!("the key of {name} is recorded nowhere: {fingerprint}"),
                }),
            },
            (Verdict::Unknown, HostKeyMode::Yes) => Err(refused(
                format!("the key of {name} is not known: {fingerprint}"),
                format!(
                    "compare it with the host's own, then: ssh-keyscan -p {port} {host} >> {}",
                    self.place()
                ),
            )),
            (Verdict::Changed { place, known }, _) => Err(refused(
                format!(
                    "the key of {name} has CHANGED: known is {known} ({place}), it offers \
                     {fingerprint}"
                ),
                format!(
                    "if the host was rebuilt: ssh-keygen -R '{name}' -f '{}'",
                    place.file.display()
                ),
            )),
            (Verdict::Authority(place), _) => Err(refused(
                format!("{name} must show a host certificate ({place}), it offers {fingerprint}"),
                format!("record the host's own key in {}", self.place()),
            )),
        }
    }

    /// Checks the certificate that a host shows at `now`, in seconds since 1970. One that no
    /// `@cert-authority` line covers counts as the plain key inside it.
    ///
    /// # Errors
    /// As of [`HostKeys::check`]; or the certificate is not good for this host.
    pub fn check_certificate(
        &self,
        host: &str,
        port: u16,
        certificate: &Certificate,
        now: u64,
    ) -> Result<Accepted, RemoteError> {
        let records = self.read(host)?;
        let key = PublicKey::new(certificate.public_key().clone(), "");
        let authority = certificate.signature_key();
        if let Some(place) = decide::revoked(&records, host, port, authority) {
            let fingerprint = authority.fingerprint(HashAlg::Sha256);
            return Err(refused(
                format!("the authority of {host} is REVOKED ({place}): {fingerprint}"),
                "do not connect; ask who runs the host for its new key".to_owned(),
            ));
        }
        let plain = decide(&records, host, port, &key);
        if matches!(plain, Verdict::Known | Verdict::Revoked(_))
            || !decide::trusts(&records, host, port, authority)
        {
            return self.check(host, port, &key);
        }
        match (certificate::problem(certificate, host, now), self.mode) {
            (None, _) => Ok(Accepted::Known),
            (Some(why), HostKeyMode::Off) => Ok(Accepted::Unchecked {
                warning: format!("host key checking is off: the certificate of {host}: {why}"),
            }),
            (Some(why), _) => Err(refused(
                format!("the certificate of {host} is not accepted: {why}"),
                format!("have it signed anew, or record the host's own key in {}", self.place()),
            )),
        }
    }

    /// What to ask a server for first, so that it shows what can be compared.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn wanted(&self, host: &str, port: u16) -> Result<Wanted, RemoteError> {
        let records = self.read(host)?;
        Ok(Wanted {
            algorithms: decide::algorithms(&records, host, port),
            certificate: decide::has_authority(&records, host, port),
        })
    }

    /// Where a person shall write a key.
    fn place(&self) -> String {
        let file = self.learn_into.as_ref().or(self.files.first());
        file.map_or_else(|| "~/.ssh/known_hosts".to_owned(), |file| file.display().to_string())
    }

    fn read(&self, host: &str) -> Result<Vec<Record>, RemoteError> {
        let mut records = Vec::new();
        for file in &self.files {
            match std::fs::read_to_string(file) {
                Ok(text) => records.extend(parse(file, &text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(refused(
                        format!("cannot check the key of {host}: {}: {error}", file.display()),
                        "make the file readable, or remove it".to_owned(),
                    ));
                }
            }
        }
        Ok(records)
    }
}

fn refused(message: String, hint: String) -> RemoteError {
    RemoteError::HostKey { message, hint: Some(hint) }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => f.write_str("known"),
            Self::Unknown => f.write_str("not known"),
            Self::Changed { place, known } => write!(f, "changed, known is {known} ({place})"),
            Self::Revoked(place) => write!(f, "revoked ({place})"),
            Self::Authority(place) => write!(f, "covered by an authority ({place})"),
        }
    }
}
