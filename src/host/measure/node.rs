//! What a node leaves to be looked at: certificates on disk, and its counters.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster::view::CertificateView;
use crate::error::chain;
use crate::host::error::HostResult;
use crate::host::protocol::{HostError, MetricsSource};
use crate::node::client;
use crate::node::http::{Connector, HttpError};
use crate::pki::inspect::Facts;

/// Where certificates are, under a data directory of ours or of K3s.
const DIRECTORIES: [&str; 8] = [
    "server/tls",
    "server/tls/etcd",
    "server/tls/kube-controller-manager",
    "server/tls/next",
    "server/tls/next/etcd",
    "server/tls/previous",
    "server/tls/previous/etcd",
    "agent",
];

/// Copies of what other files have.
const BUNDLE: &str = "server-ca-bundle.crt";

/// Longer files are no certificates.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// How long the counters may take.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// The first certificate of every `.crt` file, sorted by name; what cannot be read is left out.
pub(crate) fn certificates(data_dir: &str) -> Vec<CertificateView> {
    let root = Path::new(data_dir);
    let mut files: Vec<PathBuf> =
        DIRECTORIES.iter().flat_map(|dir| names(&root.join(dir))).collect();
    files.sort();
    files.iter().filter_map(|file| view(root, file)).collect()
}

/// Regular files only: a link shows what is elsewhere under its own name.
fn names(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let regular = entries.filter(|entry| {
        entry.file_name() != BUNDLE && entry.file_type().is_ok_and(|kind| kind.is_file())
    });
    let paths = regular.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "crt")).collect()
}

fn view(root: &Path, file: &Path) -> Option<CertificateView> {
    if fs::metadata(file).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let facts = Facts::from_pem(&fs::read_to_string(file).ok()?).ok()?;
    Some(CertificateView {
        file: file.strip_prefix(root).ok()?.to_string_lossy().into_owned(),
        subject: facts.common_name,
        issuer: facts.issuer,
        not_after_unix_s: facts.not_after_unix_s,
    })
}

/// The counters' text; `None` when nobody answers.
pub(super) async fn metrics(source: &MetricsSource) -> HostResult<Option<String>> {
    match source {
        MetricsSource::Embedded { data_dir, authority } => {
            let asked = client::metrics(Path::new(data_dir), authority).await;
            asked.map_err(|error| HostError::other(chain(&error)))
        }
        MetricsSource::Plain { authority } => {
            let connector = Connector::plain(METRICS_TIMEOUT);
            match connector.ask(authority, "GET", "/metrics", None, &[]).await {
                Ok(answer) if answer.status < 300 => Ok(Some(answer.text())),
                Ok(answer) => {
                    Err(HostError::other(format!("{authority} answers {}", answer.status)))
                }
                Err(HttpError::Connect(_)) => Ok(None),
                Err(error) => Err(HostError::other(chain(&error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_where_nodes_keep_them() {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        let pem = pem.self_signed(&key).unwrap().pem();
        for file in ["server/tls/etcd/a.crt", "agent/b.crt", "agent/b.key", "elsewhere/c.crt"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &pem).unwrap();
        }
        fs::write(dir.path().join("agent/broken.crt"), "no certificate").unwrap();
        std::os::unix::fs::symlink("b.crt", dir.path().join("agent/link.crt")).unwrap();
        let found = certificates(dir.path().to_str().unwrap());
        let files: Vec<&str> = found.iter().map(|view| view.file.as_str()).collect();
        assert_eq!(files, ["agent/b.crt", "server/tls/etcd/a.crt"]);
        assert!(found.iter().all(|view| view.not_after_unix_s > 0));
        assert!(certificates("/no/such/directory").is_empty());
    }

    #[tokio::test]
    async fn no_node_has_no_counters() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().to_str().unwrap().to_owned();
        let authority = "127.0.0.1:1".to_owned();
        let embedded = MetricsSource::Embedded { data_dir, authority: authority.clone() };
        assert_eq!(metrics(&embedded).await, Ok(None));
        assert_eq!(metrics(&MetricsSource::Plain { authority }).await, Ok(None));
    }
}
