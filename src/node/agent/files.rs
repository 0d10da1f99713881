//! What an agent keeps under `<data-dir>/agent`.

use std::io;
use std::path::{Path, PathBuf};

use crate::node::client::LOCAL_TOKEN_FILE;
use crate::node::identity::DataDir;
use crate::pki::inspect::Facts;
use crate::pki::{KeyPairPem, files, token};
use crate::secret::Secret;

const CA: &str = "server-ca.crt";
const CERTIFICATE: &str = "client.crt";
const KEY: &str = "client.key";

/// The agent's directory.
pub(super) struct AgentFiles {
    dir: PathBuf,
    /// The secret that the health endpoint's status asks for.
    pub(super) local_token: Secret,
    /// Where the secret that proves the node's name is.
    pub(super) password: PathBuf,
}

impl AgentFiles {
    /// Makes the directory, 0700, and what is made once.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let data = DataDir::new(data_dir);
        files::private_directory(data.path())?;
        let dir = data.agent();
        files::private_directory(&dir)?;
        files::private_directory(&dir.join("etc"))?;
        let path = dir.join(LOCAL_TOKEN_FILE);
        let kept = files::read_private(&path)?.filter(|text| !text.trim().is_empty());
        let local_token = if let Some(text) = kept {
            Secret::new(text.trim())
        } else {
            let made = token::generate_password().map_err(io::Error::other)?;
            files::write_private(&path, made.expose().as_bytes())?;
            made
        };
        Ok(Self { dir, local_token, password: data.node_password() })
    }

    /// The list of servers.
    pub(super) fn servers(&self) -> PathBuf {
        self.dir.join("etc/k3sup-agent-load-balancer.json")
    }

    /// The cluster's CA as it was once verified.
    pub(super) fn ca(&self) -> io::Result<Option<String>> {
        files::read_private(&self.dir.join(CA))
    }

    /// The certificate and its key.
    pub(super) fn pair(&self) -> io::Result<Option<KeyPairPem>> {
        let certificate = files::read_private(&self.dir.join(CERTIFICATE))?;
        let key = files::read_private(&self.dir.join(KEY))?;
        Ok(certificate
            .zip(key)
            .map(|(certificate, key)| KeyPairPem { certificate, key: Secret::new(key) }))
    }

    /// Keeps what registration gave. The certificate comes last: it says that all else is there.
    pub(super) fn keep(&self, ca: &str, pair: &KeyPairPem) -> io::Result<()> {
        files::write_private(&self.dir.join(CA), ca.as_bytes())?;
        files::write_private(&self.dir.join(KEY), pair.key.expose().as_bytes())?;
        files::write_private(&self.dir.join(CERTIFICATE), pair.certificate.as_bytes())
    }

    /// What the certificate says, for the status.
    pub(super) fn facts(&self) -> Option<Facts> {
        Facts::from_pem(&std::fs::read_to_string(self.dir.join(CERTIFICATE)).ok()?).ok()
    }
}

/// Whether an agent has a certificate from an earlier run: then it starts without a token.
pub fn is_registered(data_dir: &Path) -> bool {
    let dir = DataDir::new(data_dir).agent();
    [CA, CERTIFICATE, KEY].iter().all(|name| dir.join(name).exists())
}
