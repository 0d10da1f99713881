//! From what is recorded and what is offered to a verdict. Pure.

use std::fmt;
use std::path::PathBuf;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::records::{Marker, Record, lookup_name};

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What the records say of an offered key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is recorded for this host.
    Known,
    /// Nothing is recorded for this host.
    Unknown,
    /// Keys are recorded for this host, and it is none of them. Another type of key is another key:
    /// else anybody could get in between by offering one.
    Changed {
        /// Where one of them is recorded; the one of the same type, if there is.
        place: Place,
        /// Its type and fingerprint.
        known: String,
    },
    /// It is revoked.
    Revoked(Place),
    /// Only a certificate authority is recorded for this host.
    Authority(Place),
}

/// Decides on the key that `host` offers on `port`.
pub fn decide(records: &[Record], host: &str, port: u16, key: &PublicKey) -> Verdict {
    let name = lookup_name(host, port);
    let verdict = decide_name(records, &name, key);
    if verdict != Verdict::Unknown {
        return verdict;
    }
    // As in OpenSSH, a host known without its port is known with it too; but another key there
    // says nothing about this port.
    match decide_name(records, &host.to_ascii_lowercase(), key) {
        Verdict::Known => Verdict::Known,
        revoked @ Verdict::Revoked(_) => revoked,
        _ => Verdict::Unknown,
    }
}

/// Whether a line for `host` on `port` trusts the authority `key`. A host known without its port is
/// known with it too.
pub(super) fn trusts(records: &[Record], host: &str, port: u16, key: &KeyData) -> bool {
    records.iter().any(|record| {
        let about =
            record.names(&lookup_name(host, port)) || record.names(&host.to_ascii_lowercase());
        about && record.marker == Marker::Authority && record.key.key_data() == key
    })
}

/// Where `key` is revoked for `host` on `port`.
pub(super) fn revoked(records: &[Record], host: &str, port: u16, key: &KeyData) -> Option<Place> {
    let revokes = |record: &&Record| {
        let about =
            record.names(&lookup_name(host, port)) || record.names(&host.to_ascii_lowercase());
        about && record.marker == Marker::Revoked && record.key.key_data() == key
    };
    records.iter().find(revokes).map(place)
}

/// Whether any authority is trusted for `host` on `port`.
pub(super) fn has_authority(records: &[Record], host: &str, port: u16) -> bool {
    let named = |name: &str| {
        records.iter().any(|record| record.marker == Marker::Authority && record.names(name))
    };
    named(&lookup_name(host, port)) || named(&host.to_ascii_lowercase())
}

/// The types of the plain keys recorded for `host` on `port`; those of the host without its port
/// when there are none.
pub(super) fn algorithms(records: &[Record], host: &str, port: u16) -> Vec<Algorithm> {
    let of = |name: &str| -> Vec<Algorithm> {
        let about = records.iter().filter(|record| record.names(name));
        let plain = about.filter(|record| record.marker == Marker::None);
        plain.map(|record| record.key.algorithm()).collect()
    };
    let exact = of(&lookup_name(host, port));
    if exact.is_empty() { of(&host.to_ascii_lowercase()) } else { exact }
}

fn decide_name(records: &[Record], name: &str, key: &PublicKey) -> Verdict {
    let about: Vec<&Record> = records.iter().filter(|record| record.names(name)).collect();
    let same = |record: &&&Record| record.key.key_data() == key.key_data();
    let with = |marker: Marker| about.iter().filter(move |record| record.marker == marker);
    if let Some(record) = with(Marker::Revoked).find(same) {
        return Verdict::Revoked(place(record));
    }
    if with(Marker::None).any(|record| same(&record)) {
        return Verdict::Known;
    }
    let same_type = with(Marker::None).find(|record| record.key.algorithm() == key.algorithm());
    if let Some(record) = same_type.or_else(|| with(Marker::None).next()) {
        let fingerprint = record.key.fingerprint(HashAlg::Sha256);
        let known = format!("{} {fingerprint}", record.key.algorithm());
        return Verdict::Changed { place: place(record), known };
    }
    with(Marker::Authority)
        .next()
        .map_or(Verdict::Unknown, |record| Verdict::Authority(place(record)))
}

fn place(record: &Record) -> Place {
    Place { file: record.file.clone(), line: record.line }
}
