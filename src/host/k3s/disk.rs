//! What K3s's data directory says, without a running node.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;

use crate::cluster::fence::{K3S_MARK, K3sMark};
use crate::cluster::view::{Datastore, DiskView};
use crate::host::error::HostResult;
use crate::host::protocol::HostError;
use crate::pki::token;

/// A cluster whose CA is not on the disk: it belongs to some cluster, and to none that is known.
const UNKNOWN_CLUSTER: &str = "unknown";

/// How many digits of the CA's hash stand for the cluster: K3s keeps no number of it on disk.
const CLUSTER_DIGITS: usize = 16;

/// To [`crate::host::protocol::Read::K3sDisk`]. Blocks. `None` when the server has no datastore of its
/// own. A member's name stands for its number, which is only in the store.
pub(crate) fn disk(data_dir: &str) -> HostResult<Option<DiskView>> {
    let db = Path::new(data_dir).join("server/db");
    // `member/wal` is what K3s itself takes for "initialized" (`pkg/etcd/etcd.go`).
    let datastore = if db.join("etcd/member/wal").is_dir() {
        Datastore::Etcd
    } else if db.join("state.db").is_file() {
        Datastore::Sqlite
    } else if db.join("state.dqlite").is_dir() {
        Datastore::Dqlite
    } else {
        return Ok(None);
    };
    let name = db.join("etcd/name");
    let member_name = match fs::read_to_string(&name) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(HostError::io("read", name.display(), &error)),
    };
    let ca_hash = ca_hash(data_dir);
    let cluster = ca_hash.as_deref().and_then(|hash| hash.get(..CLUSTER_DIGITS));
    Ok(Some(DiskView {
        cluster_id: cluster.unwrap_or(UNKNOWN_CLUSTER).to_owned(),
        member_id: member_name.clone(),
        member_name,
        removed: db.join("etcd/tombstone").exists(),
        ca_hash,
        datastore,
        restore_id: mark(data_dir),
        ..DiskView::default()
    }))
}

/// Which reset made the store, if one of ours did. What cannot be read is no mark: it is reset again then.
fn mark(data_dir: &str) -> Option<String> {
    let text = fs::read(Path::new(data_dir).join(K3S_MARK)).ok()?;
    serde_json::from_slice::<K3sMark>(&text).ok().map(|mark| mark.restore_id)
}

/// The hash of the cluster's CA as K3s's token has it (`pkg/clientaccess/token.go`): of the file when
/// it holds one certificate, else of the root's DER.
pub(super) fn ca_hash(data_dir: &str) -> Option<String> {
    let paths = ["server/tls/server-ca.crt", "agent/server-ca.crt"];
    let text = paths.iter().find_map(|path| fs::read(Path::new(data_dir).join(path)).ok())?;
    let shown = String::from_utf8_lossy(&text);
    if shown.matches("-----BEGIN CERTIFICATE-----").count() < 2 {
        return Some(token::ca_hash(&shown));
    }
    let blocks: Vec<Pem> = Pem::iter_from_buffer(&text).collect::<Result<_, _>>().ok()?;
    let is_root = |block: &&Pem| {
        block.parse_x509().is_ok_and(|certificate| certificate.subject() == certificate.issuer())
    };
    blocks.iter().find(is_root).map(|root| hex::encode(Sha256::digest(&root.contents)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn each_kind_of_data_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let seen = || disk(root.to_str().unwrap()).unwrap();
        assert_eq!(seen(), None);
        put(root, "server/tls/server-ca.crt", "not really a certificate\n");
        assert_eq!(seen(), None, "certificates alone are no data");
        put(root, "server/db/state.dqlite/1", "");
        assert_eq!(seen().unwrap().datastore, Datastore::Dqlite);
        put(root, "server/db/state.db", "");
        assert_eq!(seen().unwrap().datastore, Datastore::Sqlite);
        put(root, "server/db/etcd/member/wal/0.wal", "");
        put(root, "server/db/etcd/name", "server1-0123abcd\n");
        let view = seen().unwrap();
        assert_eq!((view.datastore, view.removed), (Datastore::Etcd, false));
        assert_eq!((view.member_id.as_str(), view.cluster_id.len()), ("server1-0123abcd", 16));
        assert_eq!(view.ca_hash.unwrap(), token::ca_hash("not really a certificate\n"));
        put(root, "server/db/etcd/tombstone", "");
        assert!(seen().unwrap().removed);
        fs::remove_file(root.join("server/tls/server-ca.crt")).unwrap();
        assert_eq!(seen().unwrap().cluster_id, "unknown", "still data, never overwritten");
    }
}
