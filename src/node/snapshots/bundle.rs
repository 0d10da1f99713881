//! The snapshot bundle: what it takes to restore a snapshot elsewhere, in one encrypted file.
//!
//! The file is `age`'s. Inside: `k3supBDL`, the length of the manifest (u32, little endian), the manifest
//! (JSON), the snapshot to the end. What is in it is believed when the snapshot's hash is the
//! manifest's; `age` itself notices every other change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::str::FromStr as _;

use age::secrecy::SecretString;
use age::{Decryptor, Encryptor, scrypt, x25519};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cluster::layout::Distribution;
use crate::cluster::snapshots::SnapshotView;
use crate::node::wire::Sent;
use crate::secret::Secret;
use crate::store::fs::{create_private_file, parent, sync_dir};

/// First bytes of a bundle's content.
const MAGIC: [u8; 8] = *b"k3supBDL";

/// The format written here, and the newest that can be read.
const FORMAT: u32 = 1;

/// Longest manifest, in bytes.
const MANIFEST_BYTES_MAX: u32 = 1024 * 1024;

/// What an `age` file begins with.
const AGE_MAGIC: &[u8] = b"age-encryption.org/";

const CHUNK_BYTES: usize = 256 * 1024;

/// What a bundle says of the snapshot in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the bundle.
    pub format: u32,
    /// The cluster's name in its inventory.
    pub cluster_name: String,
    /// What the cluster is.
    pub distribution: Distribution,
    /// The snapshot; its `sha256` is that of the bytes that follow.
    pub snapshot: SnapshotView,
    /// When the bundle was made, seconds since 1970.
    pub bundled_unix_s: u64,
    /// Version of the program that made it.
    pub version: String,
    /// Versions of the servers' binaries by node, as far as they told.
    pub versions: BTreeMap<String, String>,
    /// The servers by name, each with its address.
    pub servers: BTreeMap<String, String>,
    /// SHA-256 of the cluster's CA, when a server told it.
    pub ca_hash: Option<String>,
    /// The cluster's token; without it a snapshot of K3s is of no use.
    pub token: Option<Sent>,
}

impl Manifest {
    /// One of this format, for `snapshot` of the cluster `name`.
    pub fn new(name: &str, distribution: Distribution, snapshot: SnapshotView) -> Self {
        Self {
            format: FORMAT,
            cluster_name: name.to_owned(),
            distribution,
            snapshot,
            bundled_unix_s: crate::node::records::unix_now(),
            version: crate::node::host::version(),
            versions: BTreeMap::new(),
            servers: BTreeMap::new(),
            ca_hash: None,
            token: None,
        }
    }
}

/// For whom a bundle is encrypted, or with what it is opened.
#[derive(Clone, Debug)]
pub enum Key {
    /// A passphrase.
    Passphrase(Secret),
    /// `age1…` to encrypt to, lines with `AGE-SECRET-KEY-1…` to open with.
    Keys(Vec<Secret>),
}

/// Why a bundle is not written or opened.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A key is none.
    #[error(
        "`{0}` is not a key of age: recipients begin with age1, identities with AGE-SECRET-KEY-1"
    )]
    Key(String),
    /// It cannot be opened with this key.
    #[error("the bundle cannot be opened: {0}")]
    Sealed(String),
    /// It is none, or a damaged one.
    #[error("it is not a snapshot bundle: {0}")]
    Content(String),
    /// Made by a newer version.
    #[error("the bundle has format {0}, this version reads up to {FORMAT}: use a newer version")]
    Newer(u32),
}

/// Whether a file is encrypted by `age`, by its first bytes.
pub fn is_sealed(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    File::open(path)?.take(AGE_MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok(begin == AGE_MAGIC)
}

/// Writes a bundle of `snapshot` into the new file `path`, 0600; durable afterwards.
///
/// # Errors
/// There is no such file then, unless it was there before.
pub fn seal(
    path: &Path,
    manifest: &Manifest,
    snapshot: &mut dyn Read,
    key: &Key,
) -> Result<(), BundleError> {
    let encryptor = encryptor(key)?;
    let file = create_private_file(path)?;
    let sealed = fill(file, encryptor, manifest, snapshot);
    if sealed.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(path);
    }
    sealed?;
    Ok(sync_dir(parent(path))?)
}

fn fill(
    file: File,
    encryptor: Encryptor,
    manifest: &Manifest,
    snapshot: &mut dyn Read,
) -> Result<(), BundleError> {
    let text = serde_json::to_vec(manifest).map_err(io::Error::other)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= MANIFEST_BYTES_MAX);
    let length = length.ok_or_else(|| BundleError::Content("its manifest is too long".into()))?;
    let mut out = encryptor.wrap_output(BufWriter::with_capacity(CHUNK_BYTES, file))?;
    out.write_all(&MAGIC)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&text)?;
    let written = io::copy(snapshot, &mut out)?;
    if written != manifest.snapshot.bytes {
        let why = format!("{written} bytes of {} came", manifest.snapshot.bytes);
        return Err(BundleError::Content(why));
    }
    let file = out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

fn encryptor(key: &Key) -> Result<Encryptor, BundleError> {
    match key {
        Key::Passphrase(text) => {
            Ok(Encryptor::with_user_passphrase(SecretString::from(text.expose().to_owned())))
        }
        Key::Keys(keys) => {
            let recipients = keys.iter().map(|key| {
                let text = key.expose().trim();
                x25519::Recipient::from_str(text).map_err(|_| BundleError::Key(text.to_owned()))
            });
            let recipients = recipients.collect::<Result<Vec<_>, _>>()?;
            let recipients = recipients.iter().map(|key| -> &dyn age::Recipient { key });
            Encryptor::with_recipients(recipients)
                .map_err(|error| BundleError::Sealed(error.to_string()))
        }
    }
}

/// Opens a bundle: gives its manifest, and puts the snapshot into the new file that `place` names for
/// it, 0600, when its hash is the manifest's.
///
/// # Errors
/// There is no such file then, unless it was there before.
pub fn open(
    path: &Path,
    key: &Key,
    place: impl FnOnce(&Manifest) -> std::path::PathBuf,
) -> Result<Manifest, BundleError> {
    let input = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
    let decryptor =
        Decryptor::new_buffered(input).map_err(|error| BundleError::Content(error.to_string()))?;
    let mut content = decrypt(decryptor, key)?;
    let manifest = read_manifest(&mut content)?;
    let place = place(&manifest);
    let mut file = create_private_file(&place)?;
    let copied = copy(&mut content, &mut file, &manifest);
    if copied.is_err() {
        let _ = std::fs::remove_file(&place);
    }
    copied.map(|()| manifest)
}

fn decrypt<R: io::BufRead>(
    decryptor: Decryptor<R>,
    key: &Key,
) -> Result<age::stream::StreamReader<R>, BundleError> {
    let sealed = |error: age::DecryptError| BundleError::Sealed(error.to_string());
    match (key, decryptor.is_scrypt()) {
        (Key::Passphrase(text), true) => {
            let identity = scrypt::Identity::new(SecretString::from(text.expose().to_owned()));
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).map_err(sealed)
        }
        (Key::Keys(lines), false) => {
            let own = lines.iter().map(|line| line.expose().trim());
            let own = own.filter(|line| !line.is_empty() && !line.starts_with('#'));
            let identities = own.map(|line| {
                // Never repeated: it is a secret.
                x25519::Identity::from_str(line).map_err(|_| BundleError::Key("…".to_owned()))
            });
            let identities = identities.collect::<Result<Vec<_>, _>>()?;
            let identities = identities.iter().map(|key| -> &dyn age::Identity { key });
            decryptor.decrypt(identities).map_err(sealed)
        }
        (_, true) => Err(BundleError::Sealed("it wants a passphrase".to_owned())),
        (_, false) => Err(BundleError::Sealed("it wants an identity of age".to_owned())),
    }
}

fn read_manifest(content: &mut impl Read) -> Result<Manifest, BundleError> {
    let cut = |error: io::Error| BundleError::Content(error.to_string());
    let mut begin = [0; 12];
    content.read_exact(&mut begin).map_err(cut)?;
    let (magic, length) = begin.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(BundleError::Content("it does not begin as one".to_owned()));
    }
    let length = length.try_into().map_or(u32::MAX, u32::from_le_bytes);
    if length > MANIFEST_BYTES_MAX {
        return Err(BundleError::Content("its manifest is too long".to_owned()));
    }
    let mut text = zeroize::Zeroizing::new(Vec::new());
    content.take(u64::from(length)).read_to_end(&mut text).map_err(cut)?;
    let format = serde_json::from_slice::<serde_json::Value>(&text).ok();
    let format = format.and_then(|value| value.get("format")?.as_u64()).unwrap_or(0);
    if format > u64::from(FORMAT) {
        return Err(BundleError::Newer(u32::try_from(format).unwrap_or(u32::MAX)));
    }
    serde_json::from_slice(&text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        BundleError::Content(format!("its manifest cannot be read at {place}"))
    })
}

/// Copies just as many bytes as there should be, and checks their hash.
fn copy(content: &mut impl Read, file: &mut File, manifest: &Manifest) -> Result<(), BundleError> {
    let cut = |error: io::Error| BundleError::Content(error.to_string());
    let expected = manifest.snapshot.bytes;
    let mut content = content.take(expected.saturating_add(1));
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut written = 0;
    loop {
        let read = content.read(&mut chunk).map_err(cut)?;
        let Some(bytes @ [_, ..]) = chunk.get(..read) else { break };
        hash.update(bytes);
        file.write_all(bytes)?;
        written += bytes.len() as u64;
    }
    let found = hex::encode(hash.finalize());
    if written != expected || manifest.snapshot.sha256.as_ref() != Some(&found) {
        return Err(BundleError::Content("its snapshot is not the one it says".to_owned()));
    }
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use age::secrecy::ExposeSecret as _;

    use super::*;

    const CONTENT: &[u8] = b"the snapshot, byte by byte";

    fn manifest() -> Manifest {
        let snapshot = SnapshotView {
            name: "on-demand-s1-7".to_owned(),
            bytes: CONTENT.len() as u64,
            sha256: Some(hex::encode(Sha256::digest(CONTENT))),
            ..SnapshotView::default()
        };
        let token = Some(Sent(Secret::new("hunter2")));
        Manifest { token, ..Manifest::new("c1", Distribution::K3s, snapshot) }
    }

    fn home() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let (bundle, out) = (home.path().join("b.age"), home.path().join("out"));
        (home, bundle, out)
    }

    #[test]
    fn it_comes_back_as_it_was_with_the_right_key_only() {
        let (_home, bundle, out) = home();
        let identity = x25519::Identity::generate();
        let recipient = Key::Keys(vec![Secret::new(identity.to_public().to_string())]);
        seal(&bundle, &manifest(), &mut &*CONTENT, &recipient).unwrap();
        assert!(is_sealed(&bundle).unwrap());
        assert_eq!(std::fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
        let raw = std::fs::read(&bundle).unwrap();
        assert!(!raw.windows(7).any(|part| part == b"hunter2"));

        let other = x25519::Identity::generate();
        let keys = |identity: &x25519::Identity| {
            let text = identity.to_string().expose_secret().to_owned();
            Key::Keys(vec![Secret::new("# a comment"), Secret::new(text)])
        };
        for wrong in [keys(&other), Key::Passphrase(Secret::new("x"))] {
            let error = open(&bundle, &wrong, |_| out.clone()).unwrap_err();
            assert!(matches!(error, BundleError::Sealed(_)), "{error}");
            assert!(!out.exists());
        }
        let found = open(&bundle, &keys(&identity), |_| out.clone()).unwrap();
        assert_eq!(found.token.unwrap().0.expose(), "hunter2");
        assert_eq!(found.snapshot, manifest().snapshot);
        assert_eq!(std::fs::read(&out).unwrap(), CONTENT);
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_passphrase_opens_what_it_closed_and_damage_is_noticed() {
        let (_home, bundle, out) = home();
        let key = Key::Passphrase(Secret::new("correct horse"));
        seal(&bundle, &manifest(), &mut &*CONTENT, &key).unwrap();
        let wrong = Key::Passphrase(Secret::new("battery"));
        assert!(open(&bundle, &wrong, |_| out.clone()).is_err());
        let content = std::fs::read(&bundle).unwrap();
        for cut in [content.len() - 1, content.len() / 2, 10] {
            std::fs::write(&bundle, &content[..cut]).unwrap();
            assert!(open(&bundle, &key, |_| out.clone()).is_err(), "{cut}");
            assert!(!out.exists());
        }
        std::fs::write(&bundle, &content).unwrap();
        assert!(open(&bundle, &key, |_| out.clone()).is_ok());
    }

    #[test]
    fn a_bundle_that_lies_about_its_snapshot_is_refused() {
        let (_home, bundle, out) = home();
        let identity = x25519::Identity::generate();
        let recipient = Key::Keys(vec![Secret::new(identity.to_public().to_string())]);
        let short = seal(&bundle, &manifest(), &mut &CONTENT[1..], &recipient);
        assert!(short.is_err() && !bundle.exists());
        let mut lie = manifest();
        lie.snapshot.sha256 = Some("00".repeat(32));
        seal(&bundle, &lie, &mut &*CONTENT, &recipient).unwrap();
        let key = Key::Keys(vec![Secret::new(identity.to_string().expose_secret().to_owned())]);
        assert!(matches!(open(&bundle, &key, |_| out.clone()), Err(BundleError::Content(_))));
        let newer = Manifest { format: 2, ..manifest() };
        std::fs::remove_file(&bundle).unwrap();
        seal(&bundle, &newer, &mut &*CONTENT, &recipient).unwrap();
        assert!(matches!(open(&bundle, &key, |_| out.clone()), Err(BundleError::Newer(2))));
        assert!(!out.exists());
    }
}
