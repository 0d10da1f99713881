//! The supervisor with real processes: shell scripts that play services.

use std::path::Path;
use std::time::Duration;

use super::*;

/// A host's directory with one service that runs `script`, and its supervisor.
async fn host(script: &str, more: &str) -> (tempfile::TempDir, Arc<Supervisor>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = HostPaths::of_root(dir.path());
    paths.make().unwrap();
    let unit = format!("[Service]\nExecStart=/bin/sh -c '{script}'\n{more}\n");
    std::fs::write(paths.unit("node"), unit).unwrap();
    let supervisor = Supervisor::new(paths);
    tokio::spawn(Arc::clone(&supervisor).serve());
    // The socket is there a moment before anybody listens.
    while std::os::unix::net::UnixStream::connect(supervisor_socket(dir.path())).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (dir, supervisor)
}

async fn ask(root: &Path, request: Request) -> Response {
    let root = root.to_owned();
    tokio::task::spawn_blocking(move || {
        client::call(&root, &request, Duration::from_secs(60)).unwrap()
    })
    .await
    .unwrap()
}

fn name() -> String {
    "node".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn start_waits_until_the_service_says_it_is_ready() {
    let ready = "import os,socket; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); \
                 s.sendto(b\"STATUS=x\\\\nREADY=1\",os.environ[\"NOTIFY_SOCKET\"])";
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        return;
    }
    let script = format!("python3 -c \"{}\"; exec sleep 600", ready.replace('"', "\\\""));
    let (dir, _supervisor) = host(&script, "Type=notify").await;
    let started = ask(dir.path(), Request::Start { name: name() }).await;
    assert_eq!(started.error, None);
    let facts = started.service.unwrap();
    assert!(facts.active && facts.pid.is_some() && facts.active_since_unix_ms.is_some());
    let stopped = ask(dir.path(), Request::Stop { name: name() }).await.service.unwrap();
    assert!(!stopped.active && stopped.pid.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_before_it_is_ready_is_an_error_with_its_status() {
    let (dir, _supervisor) = host("exit 3", "Type=notify").await;
    let response = ask(dir.path(), Request::Start { name: name() }).await;
    assert!(response.error.unwrap().ends_with("ended: exit status: 3"));
    assert!(response.service.unwrap().failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_is_started_again() {
    let (dir, _supervisor) =
        host("echo life; exec sleep 600", "Restart=always\nRestartSec=0").await;
    let first =
        ask(dir.path(), Request::Start { name: name() }).await.service.unwrap().pid.unwrap();
    crate::lab::process::end_group(first);
    loop {
        let facts = ask(dir.path(), Request::Status { name: name() }).await.service.unwrap();
        if facts.active && facts.pid.is_some_and(|pid| pid != first) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ask(dir.path(), Request::Stop { name: name() }).await;
    let log = std::fs::read_to_string(dir.path().join("var/log/node.log")).unwrap();
    assert!(log.lines().filter(|line| *line == "life").count() >= 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_enabled_starts_with_the_host() {
    let (dir, supervisor) = host("exec sleep 600", "").await;
    let facts = ask(dir.path(), Request::Enable { name: name() }).await.service.unwrap();
    assert!(facts.enabled && facts.exists && !facts.active);
    supervisor.start_enabled().await;
    let facts = ask(dir.path(), Request::Start { name: name() }).await.service.unwrap();
    assert!(facts.active);
    let facts = ask(dir.path(), Request::Disable { name: name() }).await.service.unwrap();
    assert!(!facts.enabled);
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_unit_is_named() {
    let (dir, _supervisor) = host("true", "").await;
    let response = ask(dir.path(), Request::Start { name: "other".to_owned() }).await;
    assert!(response.error.unwrap().contains("other.service"));
    assert!(!response.service.unwrap().exists);
}
