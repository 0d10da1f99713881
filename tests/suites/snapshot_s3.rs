//! Copies of snapshots in a real S3 server, and what happens when it refuses, hangs, or is cut off.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::s3::S3;
use crate::support::seed::Random;
use k3sup_rs::cluster::snapshots::SnapshotView;
use k3sup_rs::node::config::S3Config;
use k3sup_rs::node::snapshots::s3::{Bucket, S3Error};
use k3sup_rs::node::wire::Sent;
use k3sup_rs::secret::Secret;

fn config(endpoint: &str, timeout: Duration) -> S3Config {
    S3Config {
        endpoint: endpoint.to_owned(),
        bucket: "backups".to_owned(),
        folder: "lab".to_owned(),
        access_key: "key".to_owned(),
        secret_key: Sent(Secret::new("hunter2")),
        insecure: true,
        timeout,
        ..S3Config::default()
    }
}

/// A file of `bytes` bytes that no compression shortens, as a snapshot's view.
fn file(dir: &Path, bytes: usize) -> (std::path::PathBuf, SnapshotView) {
    let path = dir.join("etcd-snapshot-s1-7");
    let mut random = Random::new();
    let content: Vec<u8> = (0..bytes).map(|_| random.next().to_le_bytes()[0]).collect();
    std::fs::write(&path, content).unwrap();
    let name = "etcd-snapshot-s1-7".to_owned();
    let view = SnapshotView { name, bytes: bytes as u64, revision: 7, ..SnapshotView::default() };
    (path, view)
}

/// Leads to `to` until `bytes` went there, and closes everything from then on.
fn cut_after(address: &str, to: String, bytes: usize) -> String {
    let listener = TcpListener::bind(format!("{address}:0")).unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let left = Arc::new(AtomicUsize::new(bytes));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (left, to) = (left.clone(), to.clone());
            std::thread::spawn(move || carry(client, &to, &left));
        }
    });
    endpoint
}

fn carry(mut client: TcpStream, to: &str, left: &AtomicUsize) {
    let Ok(mut server) = TcpStream::connect(to) else { return };
    let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = client.read(&mut chunk) {
        let before = left.load(Ordering::SeqCst);
        left.store(before.saturating_sub(read), Ordering::SeqCst);
        if before <= read || server.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_off_leaves_no_object_and_the_file_as_it_was() {
    let Some(s3) = S3::start("127.84.7.1") else { return };
    let home = tempfile::tempdir().unwrap();
    // Three parts: the cut is in the second.
    let (path, view) = file(home.path(), 20 * 1024 * 1024);
    let before = std::fs::read(&path).unwrap();
    let through = cut_after("127.84.7.2", s3.endpoint(), 12 * 1024 * 1024);
    let cut = Bucket::open(&config(&through, Duration::from_secs(120))).unwrap();
    let error = cut.upload(&path, &view).await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(s3.objects(), Vec::<String>::new());
    assert!(std::fs::read(&path).unwrap() == before);

    let direct = Bucket::open(&config(&s3.endpoint(), Duration::from_secs(120))).unwrap();
    direct.upload(&path, &view).await.unwrap();
    let listed = direct.list().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((listed[0].bytes, listed[0].revision), (view.bytes, 7));
    let fetched = home.path().join("fetched");
    direct.download(&view.name, &fetched).await.unwrap();
    assert!(std::fs::read(&fetched).unwrap() == before);
    assert!(direct.download(&view.name, &fetched).await.is_err(), "never overwrites");
    let missing = direct.download("etcd-snapshot-s1-8", &home.path().join("x")).await.unwrap_err();
    assert!(matches!(missing, S3Error::Missing { .. }), "{missing}");
    assert!(!home.path().join("x").exists());
    direct.remove(&view.name).await.unwrap();
    direct.remove(&view.name).await.unwrap();
    assert_eq!(s3.objects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_said_to_be_wrong() {
    let Some(s3) = S3::start_guarded("127.84.7.3") else { return };
    let home = tempfile::tempdir().unwrap();
    let (path, view) = file(home.path(), 1000);
    let bucket = Bucket::open(&config(&s3.endpoint(), Duration::from_secs(120))).unwrap();
    let error = bucket.upload(&path, &view).await.unwrap_err();
    assert!(matches!(error, S3Error::Denied { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let error = bucket.list().await.unwrap_err();
    assert!(matches!(error, S3Error::Denied { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.84.7.4:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let (path, view) = file(home.path(), 1000);
    let bucket = Bucket::open(&config(&endpoint, Duration::from_secs(1))).unwrap();
    let error = bucket.upload(&path, &view).await.unwrap_err();
    assert!(matches!(error, S3Error::Timeout { .. }), "{error}");
    drop(listener);
}
