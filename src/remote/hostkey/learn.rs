//! Writing down the key of a new host: append under a lock, so that runs at once lose no line.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::{HashAlg, PublicKey};
use rustix::fs::FlockOperation;

use super::super::RemoteError;
use super::records::{self, Marker, Record};

/// Appends `name key`, the name `hashed` if so, unless it is there already.
///
/// # Errors
/// The file cannot be written; or another connection has just recorded another key of the same host,
/// so that one of the two does not lead to it.
pub(super) fn learn(
    path: &Path,
    name: &str,
    hashed: bool,
    key: &PublicKey,
) -> Result<(), RemoteError> {
    let other = append(path, name, hashed, key).map_err(|error| RemoteError::HostKey {
        message: format!("cannot record the key of {name} in {}: {error}", path.display()),
        hint: Some(
            "make the file writable: a key that is not recorded cannot be checked".to_owned(),
        ),
    })?;
    let Some(other) = other else { return Ok(()) };
    let (known, offered) =
        (other.key.fingerprint(HashAlg::Sha256), key.fingerprint(HashAlg::Sha256));
    Err(RemoteError::HostKey {
        message: format!(
            "{name} shows two different keys: another connection has just recorded {known} ({}:{}), \
             this one offers {offered}",
            path.display(),
            other.line
        ),
        hint: Some(format!(
            "compare both with the host's own; if the recorded one is wrong: ssh-keygen -R '{name}' -f \
             '{}'",
            path.display()
        )),
    })
}

/// The other key that `name` has in the file by now, if it has.
fn append(path: &Path, name: &str, hashed: bool, key: &PublicKey) -> io::Result<Option<Record>> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut file =
        OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // Somebody else may have learned it since it was looked up, or another one.
    let records = records::parse(path, &text);
    if records.iter().any(|record| record.says(name, key)) {
        return Ok(None);
    }
    let of_host = |record: &Record| record.marker == Marker::None && record.names(name);
    if let Some(other) = records.into_iter().find(of_host) {
        return Ok(Some(other));
    }
    let public = key.to_openssh().map_err(io::Error::other)?;
    // Without the comment, which says nothing about the host.
    let public: Vec<&str> = public.splitn(3, ' ').take(2).collect();
    let name = if hashed { records::hashed(name, &rand::random()) } else { name.to_owned() };
    let line = format!("{name} {}", public.join(" "));
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    file.seek(SeekFrom::End(0))?;
    // One write: a reader never sees half a line.
    file.write_all(format!("{gap}{line}\n").as_bytes())?;
    file.sync_data()?;
    Ok(None)
}
