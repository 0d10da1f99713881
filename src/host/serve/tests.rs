use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;
use crate::host::protocol::{CommandSpec, FileContent, LockHolder};

struct Caller {
    stream: DuplexStream,
    server: JoinHandle<std::io::Result<()>>,
}

impl Caller {
    /// An executor on the far end of a pipe.
    fn new() -> Self {
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(async move {
            let host = Host {
                lab_root: None,
                manager: Manager::None,
                sha256: None,
                doors: crate::host::measure::Doors::default(),
            };
            let (input, output) = tokio::io::split(far);
            serve(&host, input, output).await
        });
        Self { stream: near, server }
    }

    async fn greeted() -> Self {
        let mut caller = Self::new();
        let welcome = caller.ask(Request::Hello { protocol: PROTOCOL_VERSION }).await;
        assert!(matches!(welcome, Some(Response::Welcome { protocol: PROTOCOL_VERSION, .. })));
        caller
    }

    async fn ask(&mut self, request: Request) -> Option<Response> {
        let body = frame::encode(&request).unwrap();
        frame::write(&mut self.stream, &body).await.unwrap();
        frame::read(&mut self.stream).await.unwrap()
    }

    async fn change(&mut self, changes: Vec<Change>) -> Vec<Result<Done, HostError>> {
        match self.ask(Request::Change(changes)).await {
            Some(Response::Changed(results)) => results,
            other => panic!("{other:?}"),
        }
    }

    async fn read(&mut self, reads: Vec<Read>) -> Vec<Result<Observed, HostError>> {
        match self.ask(Request::Read(reads)).await {
            Some(Response::Read(results)) => results,
            other => panic!("{other:?}"),
        }
    }
}

fn command(argv: &[&str]) -> CommandSpec {
    let argv = argv.iter().map(ToString::to_string).collect();
    CommandSpec { argv, timeout_ms: 20_000, ..CommandSpec::default() }
}

#[tokio::test]
async fn reads_are_answered_in_order_whatever_they_take() {
    let mut caller = Caller::greeted().await;
    let reads = vec![
        Read::Command(command(&["sh", "-c", "sleep 0.3; echo slow"])),
        Read::Path { path: "/".to_owned(), follow: true, hash: false },
        Read::User { name: "root".to_owned() },
        Read::Facts,
        Read::File { path: "relative".to_owned(), bytes_max: 1 },
        Read::Service { name: "x".to_owned() },
        Read::Directory { path: "/no/such".to_owned() },
    ];
    let answers = caller.read(reads).await;
    let [slow, path, user, facts, file, service, names] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert!(matches!(slow, Ok(Observed::Output(output)) if output.stdout == "slow\n"));
    assert!(matches!(path, Ok(Observed::Path(Some(_)))));
    assert!(matches!(user, Ok(Observed::User(Some(_)))));
    assert!(matches!(facts, Ok(Observed::Facts(_))));
    assert!(file.is_err());
    assert!(matches!(service, Ok(Observed::Service(facts)) if !facts.exists));
    assert!(matches!(names, Ok(Observed::Names(None))));
}

#[tokio::test]
async fn changes_stop_at_the_first_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let put = |path: String| Change::PutFile {
        path,
        content: FileContent::Bytes(Bytes::from_static(b"x")),
        mode: 0o600,
        owner: None,
        group: None,
        backup: false,
        validate: Vec::new(),
    };
    let mut caller = Caller::greeted().await;
    let results =
        caller.change(vec![put(path("one")), put(path("no/dir/two")), put(path("three"))]).await;
    assert_eq!(results.len(), 2);
    assert_eq!(results[0], Ok(Done::Ok));
    assert_eq!(results[1].as_ref().unwrap_err().kind, HostErrorKind::NotFound);
    assert!(dir.path().join("one").exists() && !dir.path().join("three").exists());
}

#[tokio::test]
async fn a_lost_lock_stops_every_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock").to_str().unwrap().to_owned();
    let lock = |id: &str, steal| Change::Lock {
        path: path.clone(),
        holder: LockHolder { id: id.to_owned(), ..LockHolder::default() },
        ttl_ms: 60_000,
        steal,
    };
    let run = || Change::Run(command(&["true"]));
    let (mut ada, mut bob) = (Caller::greeted().await, Caller::greeted().await);
    assert!(ada.change(vec![lock("ada", false), run()]).await.iter().all(Result::is_ok));
    let refused = bob.change(vec![lock("bob", false), run()]).await;
    assert_eq!(refused.len(), 1);
    assert!(bob.change(vec![lock("bob", true), run()]).await.iter().all(Result::is_ok));
    let lost = ada.change(vec![run()]).await;
    assert_eq!(lost[0].as_ref().unwrap_err().kind, HostErrorKind::Locked);
    let unlock = Change::Unlock { path: path.clone(), id: "bob".to_owned() };
    assert_eq!(bob.change(vec![unlock]).await, [Ok(Done::Ok)]);
    assert_eq!(bob.change(vec![run()]).await.len(), 1);
}

#[tokio::test]
async fn another_protocol_is_told_ours_and_left() {
    let mut caller = Caller::new();
    let answer = caller.ask(Request::Hello { protocol: PROTOCOL_VERSION + 1 }).await;
    assert!(matches!(answer, Some(Response::Welcome { protocol: PROTOCOL_VERSION, .. })));
    caller.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_is_done_before_the_greeting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made").to_str().unwrap().to_owned();
    let mut caller = Caller::new();
    let change =
        Change::MakeDirectory { path: path.clone(), mode: 0o700, owner: None, group: None };
    let answer = caller.ask(Request::Change(vec![change])).await;
    assert!(matches!(answer, Some(Response::Welcome { .. })));
    assert!(!std::path::Path::new(&path).exists());
}

#[tokio::test]
async fn an_answer_longer_than_a_frame_is_said_and_the_session_goes_on() {
    let mut caller = Caller::greeted().await;
    let big = || Read::Command(command(&["head", "-c", "1048576", "/dev/zero"]));
    let answers = caller.read((0..20).map(|_| big()).collect()).await;
    assert_eq!(answers.len(), 20);
    assert!(answers.iter().all(|answer| {
        answer.as_ref().is_err_and(|error| error.kind == HostErrorKind::TooLarge)
    }));
    assert!(caller.read(vec![big()]).await[0].is_ok());
}

#[tokio::test]
async fn noise_ends_the_session_with_an_error() {
    let mut caller = Caller::greeted().await;
    frame::write(&mut caller.stream, &[0xff; 40]).await.unwrap();
    assert!(caller.server.await.unwrap().is_err());
}
