//! What people and tools need to reach the cluster from this host: token files, a client bundle in
//! the shape of a kubeconfig, and a file of etcdctl's variables.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::config::ServerConfig;
use super::identity::DataDir;
use crate::limits::CLIENT_PORT;
use crate::pki::token::{AGENT_USER, SERVER_USER};
use crate::pki::tree::Leaves;
use crate::pki::{Token, files};
use crate::secret::Secret;
use crate::store::fs::remove_file;

/// Writes the cluster's token, before anything else of the cluster is on disk.
pub fn write_token(data: &DataDir, ca: &str, password: &Secret) -> io::Result<()> {
    let token = Token::full(ca, SERVER_USER, password.clone());
    files::write_private(&data.token(), format!("{}\n", token.text().expose()).as_bytes())
}

/// Writes the token that admits agents alone; without one, the cluster's does.
pub fn write_agent_token(data: &DataDir, ca: &str, password: Option<&Secret>) -> io::Result<()> {
    let path = data.agent_token();
    let Some(password) = password else { return link(Path::new("token"), &path) };
    let token = Token::full(ca, AGENT_USER, password.clone());
    files::write_private(&path, format!("{}\n", token.text().expose()).as_bytes())
}

/// Forgets which token for agents was told: the next start tells its own, if it has one.
pub fn forget_agent_token(data: &DataDir) -> io::Result<()> {
    remove_file(&data.agent_token())
}

/// Writes everything else that is for people, at each start and whenever certificates are replaced:
/// the CAs that servers are believed with.
pub fn write(
    config: &ServerConfig,
    data: &DataDir,
    believed: &str,
    leaves: &Leaves,
) -> io::Result<()> {
    link(Path::new("token"), &data.path().join("server/node-token"))?;
    files::write_private(&data.tree().believed_path(), believed.as_bytes())?;
    files::private_directory(&data.credentials())?;
    files::write_private(
        &data.credentials().join("etcdctl.env"),
        variables(config, data).as_bytes(),
    )?;
    if let Some(parent) = config.bundle_path.parent()
        && !parent.exists()
    {
        files::private_directory(parent)?;
    }
    files::write(
        &config.bundle_path,
        kubeconfig(config, believed, leaves).as_bytes(),
        config.bundle_mode,
    )
}

/// `. etcdctl.env` and etcdctl works.
fn variables(config: &ServerConfig, data: &DataDir) -> String {
    let tree = data.tree();
    let (certificate, key) = tree.admin_paths();
    let endpoint = config.listen(CLIENT_PORT).first().map(ToString::to_string).unwrap_or_default();
    let quoted = |path: &Path| {
        let text = path.to_string_lossy().into_owned();
        shell_words::quote(&text).into_owned()
    };
    format!(
        "export ETCDCTL_API=3\nexport ETCDCTL_ENDPOINTS=https://{endpoint}\n\
         export ETCDCTL_CACERT={}\nexport ETCDCTL_CERT={}\nexport ETCDCTL_KEY={}\n",
        quoted(&tree.believed_path()),
        quoted(&certificate),
        quoted(&key)
    )
}

/// YAML is a superset of JSON, so this is both.
fn kubeconfig(config: &ServerConfig, ca: &str, leaves: &Leaves) -> String {
    let data = |pem: &str| STANDARD.encode(pem);
    let endpoints: Vec<String> = vec![config.url(CLIENT_PORT)];
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default",
            "cluster": {
                "server": config.supervisor_url(),
                "certificate-authority-data": data(ca),
            },
        }],
        "users": [{
            "name": "default",
            "user": {
                "client-certificate-data": data(&leaves.admin.certificate),
                "client-key-data": data(leaves.admin.key.expose()),
            },
        }],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "user": "default" } }],
        "current-context": "default",
        "preferences": {},
        "extensions": [{ "name": "etcd", "extension": { "endpoints": endpoints } }],
    });
    format!("{document:#}\n")
}

/// Makes a symbolic link that leads to `target`, in the place of whatever is there.
fn link(target: &Path, at: &Path) -> io::Result<()> {
    if std::fs::read_link(at).is_ok_and(|found| found == target) {
        return Ok(());
    }
    remove_file(at)?;
    symlink(target, at)
}
