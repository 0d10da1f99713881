//! The format of `known_hosts` (sshd(8)): markers, patterns, negation, hashed names. Pure.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use sha1::Sha1;

use crate::remote::wildcard;

/// The standard port: names on it are written without it.
const STANDARD_PORT: u16 = 22;

/// Of the salt of a hashed name: as many as SHA-1 gives.
pub(super) const SALT_BYTES: usize = 20;

/// What a line says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Nothing: it is a host's key.
    None,
    /// `@revoked`.
    Revoked,
    /// `@cert-authority`.
    Authority,
}

/// One line that has a key.
#[derive(Clone, Debug)]
pub struct Record {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    pub(super) marker: Marker,
    names: String,
    pub(super) key: PublicKey,
}

/// The lines of a file that have a key. Others (comments, blank, damaged) say nothing about any
/// host, as in OpenSSH.
pub fn parse(file: &Path, text: &str) -> Vec<Record> {
    let numbered = (1..).zip(text.lines());
    numbered.filter_map(|(line, content)| record(file, line, content)).collect()
}

fn record(file: &Path, line: usize, content: &str) -> Option<Record> {
    let mut fields = content.split([' ', '\t']).filter(|field| !field.is_empty());
    let first = fields.next().filter(|field| !field.starts_with('#'))?;
    let (marker, names) = match first {
        "@revoked" => (Marker::Revoked, fields.next()?),
        "@cert-authority" => (Marker::Authority, fields.next()?),
        names => (Marker::None, names),
    };
    let (algorithm, blob) = (fields.next()?, fields.next()?);
    let key = PublicKey::from_openssh(&format!("{algorithm} {blob}")).ok()?;
    Some(Record { file: file.to_owned(), line, marker, names: names.to_owned(), key })
}

/// Under which name a host is looked up and written: lower case, `[name]:port` off the standard
/// port.
pub(super) fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == STANDARD_PORT { host } else { format!("[{host}]:{port}") }
}

/// A name as `HashKnownHosts` writes it: `|1|salt|hash`.
pub(super) fn hashed(name: &str, salt: &[u8; SALT_BYTES]) -> String {
    let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(salt).map(|mut mac| {
        mac.update(name.as_bytes());
        mac.finalize().into_bytes()
    });
    // HMAC takes keys of any length.
    let hash = mac.map(|hash| STANDARD.encode(hash)).unwrap_or_default();
    format!("|1|{}|{hash}", STANDARD.encode(salt))
}

impl Record {
    /// Whether the line gives `key` to this name (from [`lookup_name`]).
    pub(super) fn says(&self, name: &str, key: &PublicKey) -> bool {
        self.marker == Marker::None && self.key.key_data() == key.key_data() && self.names(name)
    }

    /// Whether the line is about this name (from [`lookup_name`]).
    pub(super) fn names(&self, name: &str) -> bool {
        if let Some(hashed) = self.names.strip_prefix("|1|") {
            return hash_matches(hashed, name).unwrap_or(false);
        }
        let names = self.names.to_ascii_lowercase();
        wildcard::list_matches(names.split(','), name)
    }
}

/// `salt|HMAC-SHA1(salt, name)`, both base64.
fn hash_matches(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&STANDARD.decode(hash).ok()?).is_ok())
}
