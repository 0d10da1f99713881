//! What a client asks for, and what it keeps between its requests.

use bytes::Bytes;
use k3sup_rs::rpc::client::Client;
use k3sup_rs::rpc::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use k3sup_rs::rpc::pb::etcdserverpb::request_op::Request;
use k3sup_rs::rpc::pb::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
};
use rand::RngExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

/// Bytes of each value.
const VALUE_BYTES: usize = 256;

/// Every value.
static VALUE: [u8; VALUE_BYTES] = [b'x'; VALUE_BYTES];

/// Number of different keys, unless more are filled in.
pub(crate) const KEYS: usize = 100_000;

/// Keys of one range.
const RANGE_KEYS: usize = 500;

/// How often a stream of keep-alives is opened at most.
const STREAM_TRIES: usize = 20;

/// How long a lease lives, in seconds: longer than a round.
const LEASE_S: i64 = 600;

/// Of a hundred requests of mixed work, how many are gets.
const GETS_PERCENT: u32 = 80;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Put a value.
    Put,
    /// A linearizable get of one key.
    Get,
    /// A serializable get of one key, which any member answers alone.
    Local,
    /// A linearizable range of 500 keys with their values.
    Range,
    /// What the API server of Kubernetes sends for an update: a put if the key's revision is what the client
    /// knows, else a get (`k8s.io/apiserver/pkg/storage/etcd3/store.go`). Each client has a key of its own.
    Txn,
    /// Four linearizable gets to one put.
    Mixed,
    /// A lease is kept alive; each client has a lease and a stream of its own.
    Keep,
}

impl Work {
    pub(crate) const ALL: [Self; 7] =
        [Self::Put, Self::Get, Self::Local, Self::Range, Self::Txn, Self::Mixed, Self::Keep];

    pub(crate) fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|work| work.name() == name).expect("a kind of work")
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Local => "local",
            Self::Range => "range",
            Self::Txn => "txn",
            Self::Mixed => "mixed",
            Self::Keep => "keep",
        }
    }
}

fn key(number: usize) -> Bytes {
    format!("bench/{number:08}").into()
}

/// A put of the key with this number.
pub(crate) fn put(number: usize) -> PutRequest {
    PutRequest { key: key(number), value: Bytes::from_static(&VALUE), ..PutRequest::default() }
}

/// A client with what it remembers.
pub(crate) struct Asker {
    work: Work,
    number: usize,
    connection: Client,
    /// The revision of its own key.
    revision: i64,
    /// Its lease, and the stream on which it is kept alive.
    lease: Option<Kept>,
}

struct Kept {
    id: i64,
    ask: mpsc::UnboundedSender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl Asker {
    /// The client with this number; its first request may follow at once.
    pub(crate) async fn begin(work: Work, number: usize, connection: Client) -> Self {
        let mut asker = Self { work, number, connection, revision: 0, lease: None };
        if work == Work::Keep {
            asker.lease = Some(asker.grant().await);
        }
        asker
    }

    /// One request and its answer.
    pub(crate) async fn ask(&mut self) {
        let drawn = rand::rng().random_range(0..KEYS);
        match self.work {
            Work::Get => self.get(drawn, false).await,
            Work::Local => self.get(drawn, true).await,
            Work::Range => self.range(drawn.min(KEYS - RANGE_KEYS)).await,
            Work::Mixed if rand::rng().random_range(0..100) < GETS_PERCENT => {
                self.get(drawn, false).await;
            }
            Work::Put | Work::Mixed => self.put(drawn).await,
            Work::Txn => self.update().await,
            Work::Keep => self.keep().await,
        }
    }

    async fn put(&mut self, number: usize) {
        self.connection.kv.put(put(number)).await.expect("a put succeeds");
    }

    async fn get(&mut self, number: usize, serializable: bool) {
        let request = RangeRequest { key: key(number), serializable, ..RangeRequest::default() };
        self.connection.kv.range(request).await.expect("a get succeeds");
    }

    async fn range(&mut self, first: usize) {
        let request = RangeRequest {
            key: key(first),
            range_end: key(first + RANGE_KEYS),
            ..RangeRequest::default()
        };
        let answer = self.connection.kv.range(request).await.expect("a range succeeds");
        assert_eq!(answer.into_inner().kvs.len(), RANGE_KEYS, "all keys are there");
    }

    async fn update(&mut self) {
        let key: Bytes = format!("update/{:08}", self.number).into();
        let unchanged = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(self.revision)),
            ..Compare::default()
        };
        let put = PutRequest { key: key.clone(), ..put(self.number) };
        let get = RangeRequest { key, ..RangeRequest::default() };
        let one = |request| vec![RequestOp { request: Some(request) }];
        let request = TxnRequest {
            compare: vec![unchanged],
            success: one(Request::RequestPut(put)),
            failure: one(Request::RequestRange(get)),
        };
        let answer = self.connection.kv.txn(request).await.expect("a transaction succeeds");
        let answer = answer.into_inner();
        // Only the first of a cluster that has the key from an earlier round fails, and tells.
        self.revision = if answer.succeeded {
            answer.header.expect("a header").revision
        } else {
            known(&answer.responses).expect("the key's revision")
        };
    }

    async fn grant(&mut self) -> Kept {
        let request = LeaseGrantRequest { ttl: LEASE_S, id: 0 };
        let granted = self.connection.lease.lease_grant(request).await.expect("a lease");
        let id = granted.into_inner().id;
        for _ in 0..STREAM_TRIES {
            let (ask, asked) = mpsc::unbounded_channel();
            // The stream is open with its first request.
            ask.send(LeaseKeepAliveRequest { id }).expect("it is heard");
            let stream = UnboundedReceiverStream::new(asked);
            let answers = self.connection.lease.lease_keep_alive(stream).await.expect("a stream");
            let mut answers = answers.into_inner();
            // A member of etcd's that is behind refuses, and ends the stream.
            if answers.message().await.is_ok() {
                return Kept { id, ask, answers };
            }
        }
        panic!("no keep-alive is answered");
    }

    async fn keep(&mut self) {
        let kept = self.lease.as_mut().expect("a lease");
        kept.ask.send(LeaseKeepAliveRequest { id: kept.id }).expect("it is heard");
        kept.answered().await;
    }
}

impl Kept {
    async fn answered(&mut self) {
        let answer = self.answers.message().await.expect("an answer").expect("the stream is open");
        assert!(answer.ttl > 0, "the lease lives");
    }
}

/// The revision of the key that a transaction's `failure` found.
fn known(responses: &[k3sup_rs::rpc::pb::etcdserverpb::ResponseOp]) -> Option<i64> {
    use k3sup_rs::rpc::pb::etcdserverpb::response_op::Response;
    match responses.first()?.response.as_ref()? {
        Response::ResponseRange(range) => Some(range.kvs.first()?.mod_revision),
        _ => None,
    }
}
