//! The private keys of the person who runs this: each file is read, and its passphrase asked for,
//! once for all hosts.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{PrivateKey, PublicKey, decode_secret_key};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// File names that OpenSSH tries (`IdentityFile` of `ssh_config(5)`), without the hardware-backed ones,
/// which only an agent can use here.
const USUAL_NAMES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// How often a passphrase may be wrong, as with ssh's `NumberOfPasswordPrompts`.
const PASSPHRASES_MAX: usize = 3;

/// Asked for the passphrase of a key file; `None` when there is nobody to ask. May block.
pub type AskPassphrase = dyn Fn(&Path) -> Option<Secret> + Send + Sync;

/// Private keys by file.
pub struct KeyRing {
    directory: PathBuf,
    agent: Option<PathBuf>,
    ask: Option<Arc<AskPassphrase>>,
    // Held while a person is asked, so that twenty hosts ask once.
    keys: Mutex<HashMap<PathBuf, Result<Arc<PrivateKey>, String>>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Keys with the usual names are looked for in `directory`. No agent is asked, encrypted keys
    /// cannot be used.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, agent: None, ask: None, keys: Mutex::default() }
    }

    /// The agent that listens on this socket is asked first.
    pub fn with_agent(mut self, socket: Option<PathBuf>) -> Self {
        self.agent = socket;
        self
    }

    /// Encrypted keys are opened with what `ask` gives.
    pub fn with_passphrases(mut self, ask: Arc<AskPassphrase>) -> Self {
        self.ask = Some(ask);
        self
    }

    /// The agent's socket.
    pub(super) fn agent(&self) -> Option<&Path> {
        self.agent.as_deref()
    }

    /// Files of the usual names that are there.
    pub(super) fn usual(&self) -> Vec<PathBuf> {
        let paths = USUAL_NAMES.iter().map(|name| self.directory.join(name));
        paths.filter(|path| path.exists()).collect()
    }

    /// The key in a file, or why it cannot be used.
    pub(super) async fn load(&self, path: &Path) -> Result<Arc<PrivateKey>, String> {
        let mut keys = self.keys.lock().await;
        if let Some(known) = keys.get(path) {
            return known.clone();
        }
        let (file, ask) = (path.to_owned(), self.ask.clone());
        let read = tokio::task::spawn_blocking(move || read(&file, ask.as_deref())).await;
        let loaded = read.unwrap_or_else(|error| Err(error.to_string())).map(Arc::new);
        keys.insert(path.to_owned(), loaded.clone());
        loaded
    }
}

/// The public half beside a private key, to find it in an agent without opening it.
pub(super) fn public_half(path: &Path) -> Option<PublicKey> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PublicKey::from_openssh(std::fs::read_to_string(name).ok()?.trim()).ok()
}

fn read(path: &Path, ask: Option<&AskPassphrase>) -> Result<PrivateKey, String> {
    let failed = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let facts = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if facts.mode() & 0o077 != 0 {
        let mode = facts.mode() & 0o7777;
        return Err(failed(&format!(
            "others may read it (mode {mode:04o}), so it is not used; chmod 600 it"
        )));
    }
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(&error))?;
    match decode_secret_key(&text, None) {
        Ok(key) => Ok(key),
        Err(russh::keys::Error::KeyIsEncrypted) => {
            let mut why = "it is encrypted and there is no passphrase; add it to ssh-agent";
            for _ in 0..PASSPHRASES_MAX {
                let Some(passphrase) = ask.and_then(|ask| ask(path)) else { break };
                match decode_secret_key(&text, Some(passphrase.expose())) {
                    Ok(key) => return Ok(key),
                    Err(_) => why = "the passphrase is wrong",
                }
            }
            Err(failed(&why))
        }
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use russh::keys::Algorithm;
    use russh::keys::ssh_key::LineEnding;

    use super::*;

    fn write(path: &Path, key: &PrivateKey, mode: u32) {
        std::fs::write(path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn key() -> PrivateKey {
        PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
    }

    #[tokio::test]
    async fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        write(&path, &key(), 0o644);
        let ring = KeyRing::new(dir.path().to_owned());
        assert_eq!(ring.usual(), std::slice::from_ref(&path));
        assert!(ring.load(&path).await.unwrap_err().contains("mode 0644"));
        write(&path, &key(), 0o600);
        assert!(KeyRing::new(dir.path().to_owned()).load(&path).await.is_ok());
    }

    #[tokio::test]
    async fn an_encrypted_key_is_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        let plain = key();
        let locked = plain.encrypt(&mut rand::rng(), "open sesame").unwrap();
        write(&path, &locked, 0o600);
        let without = KeyRing::new(dir.path().to_owned());
        assert!(without.load(&path).await.unwrap_err().contains("encrypted"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let ring = KeyRing::new(dir.path().to_owned()).with_passphrases(Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Some("open sesame".into())
        }));
        for _ in 0..2 {
            let opened = ring.load(&path).await.unwrap();
            assert_eq!(opened.public_key().key_data(), plain.public_key().key_data());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let wrong = KeyRing::new(dir.path().to_owned())
            .with_passphrases(Arc::new(|_| Some("guess".into())));
        assert!(wrong.load(&path).await.unwrap_err().contains("wrong"));
    }
}
