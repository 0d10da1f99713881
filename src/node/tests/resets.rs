//! `--cluster-reset`, and what becomes of servers that were away meanwhile.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::error::ExitCode;
use crate::node::{fence, reset};
use crate::rpc::disk::Disk;

/// What `etcdctl snapshot save` gets.
async fn snapshot(server: &Server, to: PathBuf) -> String {
    let mut file = server.context().disk.snapshot().await.unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    std::fs::write(&to, bytes).unwrap();
    to.to_string_lossy().into_owned()
}

impl Site {
    fn reset(&self, number: u32, more: &[(&'static str, &str)]) -> Result<(), Failure> {
        let more = [&[("cluster-reset", "true")], more].concat();
        reset::run(&self.server(number, &more))
    }

    /// Starts a server whose cluster is no more: it learns that while it starts, or soon after if nobody
    /// told it in time.
    async fn fenced(&self, number: u32) -> Failure {
        match self.start(number, &[]).await {
            Err(refused) => refused,
            Ok(server) => {
                let ended = tokio::time::timeout(PATIENCE, server.ended()).await.unwrap();
                server.stop().await;
                ended
            }
        }
    }

    fn aside(&self, number: u32) -> Vec<String> {
        let entries = std::fs::read_dir(self.data(number).db()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("etcd-old-")).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_becomes_a_new_cluster_and_the_old_one_is_kept_aside() {
    let site = Site::new(6);
    let one = site.start(1, &[("token", "s3cret")]).await.unwrap();
    put(&one, "before").await;
    let path = snapshot(&one, site.directory.path().join("snapshot")).await;
    put(&one, "after").await;
    let (before, revision) =
        (site.view(1, SUPERVISOR_PORT).await, one.context().state.revision() - 1);
    one.stop().await;

    let from = [("cluster-reset-restore-path", path.as_str())];
    let missing = [("cluster-reset-restore-path", "/nowhere")];
    let missing = site.reset(1, &missing).unwrap_err();
    assert_eq!(missing.message, "etcd: snapshot path does not exist: /nowhere");
    let mut damaged = std::fs::read(&path).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let bad = site.directory.path().join("damaged");
    std::fs::write(&bad, damaged).unwrap();
    let bad = bad.to_string_lossy().into_owned();
    assert!(site.reset(1, &[("cluster-reset-restore-path", &bad)]).is_err());
    assert!(site.aside(1).is_empty());

    site.reset(1, &from).unwrap();
    assert_eq!(site.aside(1).len(), 1);
    assert!(site.data(1).db().join("reset-flag").exists());
    let one = site.start(1, &[]).await.unwrap();
    assert!(!site.data(1).db().join("reset-flag").exists());
    assert!(has(&one, "before").await && !has(&one, "after").await);
    assert_eq!(one.context().state.revision(), revision);
    let after = site.view(1, SUPERVISOR_PORT).await;
    assert_ne!(after.cluster_id, before.cluster_id);
    assert_ne!(after.member_id, before.member_id);
    assert_eq!((after.members.len(), after.ca_hash), (1, before.ca_hash));
    assert!(after.term >= before.term);
    put(&one, "again").await;
    one.stop().await;
    // It is that cluster for good.
    let one = site.start(1, &[]).await.unwrap();
    assert!(has(&one, "again").await && !has(&one, "after").await);
    one.stop().await;

    // A snapshot on a fresh host, which has no CA and no token of its own.
    let fresh = site.reset(2, &from).unwrap_err();
    assert!(fresh.message.contains("token of the snapshot's cluster is needed"), "{fresh}");
    let wrong = site.reset(2, &[from[0], ("token", "another")]).unwrap_err();
    assert!(wrong.message.contains("token is not the one"), "{wrong}");
    site.reset(2, &[from[0], ("token", "s3cret")]).unwrap();
    let two = site.start(2, &[]).await.unwrap();
    assert!(has(&two, "before").await && !has(&two, "after").await);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_is_recovered_and_who_comes_back_with_old_data_fences_itself() {
    let site = Site::new(7);
    let one = site.start(1, &[]).await.unwrap();
    put(&one, "a").await;
    let two = site.joined(2).await;
    let three = site.joined(3).await;
    put(&three, "b").await;
    let old = one.context().identity.cluster_id;
    three.stop().await;
    two.stop().await;
    one.stop().await;

    site.reset(1, &[]).unwrap();
    let again = site.reset(1, &[]).unwrap_err();
    assert!(again.message.contains("was previously reset, please remove"), "{again}");
    let one = site.start(1, &[]).await.unwrap();
    assert!(has(&one, "a").await && has(&one, "b").await);
    assert_eq!(one.context().identity.supersedes, [old]);

    // Two of three: a quorum of the old cluster, but for the one that tells them.
    let (two, three) = tokio::join!(site.fenced(2), site.fenced(3));
    for (number, refused) in [(2, two), (3, three)] {
        assert_eq!(refused.code, ExitCode::Refused, "{refused}");
        assert!(refused.message.contains("this server is fenced"), "{refused}");
        assert!(fence::read(&site.data(number)).unwrap().unwrap().is_closed());
        let refused = site.start(number, &[]).await.map(drop).unwrap_err();
        assert!(refused.message.contains("this server is fenced"), "{refused}");
    }
    // Who joined the restored cluster knows of it as well.
    std::fs::rename(site.data(2).store(), site.data(2).db().join("etcd-old-1")).unwrap();
    std::fs::remove_file(site.data(2).path().join("server/fence.json")).unwrap();
    let two = site.joined(2).await;
    assert_eq!(two.context().identity.supersedes, [old]);
    assert!(has(&two, "b").await);
    one.stop().await;
    std::fs::remove_file(site.data(3).path().join("server/fence.json")).unwrap();
    let refused = site.start(3, &[]).await.map(drop).unwrap_err();
    assert!(refused.message.contains("this server is fenced"), "{refused}");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_member_that_is_told_stops() {
    let site = Site::new(8);
    let one = site.start(1, &[]).await.unwrap();
    let two = site.joined(2).await;
    one.stop().await;
    // The second server runs on without a quorum while the first one is reset.
    site.reset(1, &[]).unwrap();
    let one = site.start(1, &[]).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, two.ended()).await.unwrap();
    assert_eq!(ended.code, ExitCode::Refused, "{ended}");
    assert!(fence::read(&site.data(2)).unwrap().unwrap().is_closed());
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_died_is_finished_by_whoever_starts_next() {
    let site = Site::new(9);
    let one = site.start(1, &[]).await.unwrap();
    put(&one, "a").await;
    let old = one.context().identity.clone();
    one.stop().await;
    site.reset(1, &[]).unwrap();
    let db = site.data(1).db();
    let aside = db.join(&site.aside(1)[0]);
    // As after the first rename, and as before it.
    std::fs::rename(db.join("etcd"), db.join("etcd-reset")).unwrap();
    let one = site.start(1, &[]).await.unwrap();
    assert!(has(&one, "a").await);
    assert_ne!(one.context().identity.cluster_id, old.cluster_id);
    one.stop().await;
    std::fs::rename(db.join("etcd"), db.join("etcd-reset")).unwrap();
    std::fs::rename(aside, db.join("etcd")).unwrap();
    let one = site.start(1, &[]).await.unwrap();
    assert!(has(&one, "a").await);
    assert_ne!(one.context().identity.cluster_id, old.cluster_id);
    one.stop().await;
    assert_eq!(site.aside(1).len(), 1);
}
