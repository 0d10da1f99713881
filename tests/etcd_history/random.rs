//! Random requests to a store, and its answers without what must differ between two stores.

use futures::{StreamExt, stream};
use k3sup_rs::rpc::client::Client;
use k3sup_rs::rpc::pb::etcdserverpb as pb;
use k3sup_rs::rpc::pb::mvccpb;
use pb::request_op::Request as Inner;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::Status;

/// Few keys, so that they meet; no more than 12, because etcd's sorting is stable only that far.
const KEYS: [&[u8]; 12] =
    [b"a", b"a\0", b"a/1", b"a/2", b"a/3", b"b", b"b/1", b"c", b"\0", b"zz", b"\xff", b"\xff\xff"];
/// Numbers of leases, granted or not.
const LEASES: std::ops::RangeInclusive<i64> = 1..=5;
/// So long that none expires.
const TTL: i64 = 100_000;

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    Hash(pb::HashKvRequest),
}

impl Op {
    /// A plain put.
    pub(crate) fn put(key: &'static str, value: &'static str) -> Self {
        Self::Put(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() })
    }

    /// A compaction that is waited for.
    pub(crate) fn compact(revision: i64) -> Self {
        Self::Compact(pb::CompactionRequest { revision, physical: true })
    }
}

/// What a store answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    Delete(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(pb::LeaseRevokeResponse),
    TimeToLive(pb::LeaseTimeToLiveResponse),
    Leases(pb::LeaseLeasesResponse),
    Hash(pb::HashKvResponse),
    Refused(tonic::Code, String),
}

impl Answer {
    /// Whether it was a refusal.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(..))
    }

    /// The store's revision.
    pub(crate) fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(answer) => &answer.header,
            Self::Put(answer) => &answer.header,
            Self::Delete(answer) => &answer.header,
            Self::Txn(answer) => &answer.header,
            Self::Compact(answer) => &answer.header,
            Self::Grant(answer) => &answer.header,
            Self::Revoke(answer) => &answer.header,
            Self::TimeToLive(answer) => &answer.header,
            Self::Leases(answer) => &answer.header,
            Self::Hash(answer) => &answer.header,
            Self::Refused(..) => return None,
        };
        header.as_ref().map(|header| header.revision)
    }
}

/// Keeps of a header only the revision.
fn plain(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
        *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
    }
}

macro_rules! answer {
    ($kind:ident, $asked:expr, $($more:tt)*) => {
        match $asked.await {
            Ok(answer) => {
                let mut answer = answer.into_inner();
                plain(&mut answer.header);
                let change: fn(&mut _) = $($more)*;
                change(&mut answer);
                Answer::$kind(answer)
            }
            Err(status) => refused(&status),
        }
    };
}

fn refused(status: &Status) -> Answer {
    Answer::Refused(status.code(), status.message().to_owned())
}

/// Asks a store.
pub(crate) async fn ask(client: &Client, op: &Op) -> Answer {
    let (mut kv, mut lease) = (client.kv.clone(), client.lease.clone());
    match op.clone() {
        Op::Range(request) => answer!(Range, kv.range(request), |_| ()),
        Op::Put(request) => answer!(Put, kv.put(request), |_| ()),
        Op::Delete(request) => answer!(Delete, kv.delete_range(request), |_| ()),
        Op::Txn(request) => answer!(Txn, kv.txn(request), |_| ()),
        Op::Compact(request) => answer!(Compact, kv.compact(request), |_| ()),
        Op::Grant(request) => answer!(Grant, lease.lease_grant(request), |_| ()),
        Op::Revoke(request) => answer!(Revoke, lease.lease_revoke(request), |_| ()),
        Op::TimeToLive(request) => answer!(
            TimeToLive,
            lease.lease_time_to_live(request),
            |answer: &mut pb::LeaseTimeToLiveResponse| {
                answer.ttl = answer.ttl.signum();
                answer.keys.sort();
            }
        ),
        Op::Leases => answer!(
            Leases,
            lease.lease_leases(pb::LeaseLeasesRequest {}),
            |answer: &mut pb::LeaseLeasesResponse| answer.leases.sort_by_key(|lease| lease.id)
        ),
        Op::Hash(request) => {
            answer!(
                Hash,
                client.maintenance.clone().hash_kv(request),
                |answer: &mut pb::HashKvResponse| {
                    // etcd 3.4 does not tell it.
                    answer.hash_revision = 0;
                }
            )
        }
    }
}

/// What a watcher was told: a refusal, or its events up to the one at revision `end`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    created: bool,
    canceled: Option<(i64, String)>,
    events: Vec<mvccpb::Event>,
}

/// Opens a watcher that has to come to `end`, and gives what it was told.
pub(crate) async fn events(client: &Client, request: pb::WatchCreateRequest, end: i64) -> Heard {
    let create = pb::watch_request::RequestUnion::CreateRequest(request);
    let requests = stream::iter([pb::WatchRequest { request_union: Some(create) }]);
    let requests = requests.chain(stream::pending());
    let mut answers = client.watch.clone().watch(requests).await.expect("a watch").into_inner();
    let mut heard = Heard::default();
    while let Some(answer) = answers.next().await {
        let answer = answer.expect("an answer");
        heard.created |= answer.created;
        heard.events.extend(answer.events);
        if answer.canceled {
            heard.canceled = Some((answer.compact_revision, answer.cancel_reason));
            break;
        }
        let last = heard.events.last().and_then(|event| event.kv.as_ref());
        if last.is_some_and(|kv| kv.mod_revision >= end) {
            break;
        }
    }
    heard
}

/// Makes requests.
pub(crate) struct Random(StdRng);

impl Random {
    /// The same seed gives the same requests.
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// A number, mostly 0.
    fn rarely(&mut self, value: i64) -> i64 {
        if self.one_in(4) { value } else { 0 }
    }

    fn key(&mut self) -> bytes::Bytes {
        let key = if self.one_in(100) { b"" } else { KEYS[self.below(KEYS.len())] };
        bytes::Bytes::from_static(key)
    }

    /// The end of a range; none, more often than not.
    fn end(&mut self) -> bytes::Bytes {
        match self.below(8) {
            0 => bytes::Bytes::from_static(b"\0"),
            1..=3 => bytes::Bytes::from_static(KEYS[self.below(KEYS.len())]),
            _ => bytes::Bytes::new(),
        }
    }

    /// A revision from well before `head` to a little after it, or none.
    fn revision(&mut self, head: i64) -> i64 {
        match self.below(6) {
            0 => self.0.random_range(-1..=2),
            1 | 2 => (head - self.0.random_range(-2..=20)).max(0),
            _ => 0,
        }
    }

    /// A request to a store whose revision is `head`.
    pub(crate) fn op(&mut self, head: i64, compacts: bool) -> Op {
        match self.below(100) {
            0..30 => Op::Range(self.range(head)),
            30..58 => Op::Put(self.put()),
            58..68 => Op::Delete(self.delete()),
            68..90 => Op::Txn(self.txn(head, 2)),
            90..93 => Op::Grant(self.grant()),
            93..95 => Op::Revoke(pb::LeaseRevokeRequest { id: self.0.random_range(LEASES) }),
            95..97 => {
                let (id, keys) = (self.0.random_range(LEASES), self.one_in(2));
                Op::TimeToLive(pb::LeaseTimeToLiveRequest { id, keys })
            }
            97 => Op::Leases,
            _ if compacts => {
                let revision = (head - self.0.random_range(-2..=30)).max(0);
                Op::Compact(pb::CompactionRequest { revision, physical: self.one_in(2) })
            }
            _ => Op::Range(self.range(head)),
        }
    }

    fn grant(&mut self) -> pb::LeaseGrantRequest {
        let ttl = if self.one_in(8) { 9_000_000_001 } else { TTL };
        pb::LeaseGrantRequest { id: self.0.random_range(LEASES), ttl }
    }

    fn range(&mut self, head: i64) -> pb::RangeRequest {
        let revision = self.revision(head);
        let near = |random: &mut Self| {
            let revision = head - random.0.random_range(0..=40);
            random.rarely(revision.max(0))
        };
        pb::RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: self.0.random_range(-1..=5_i64).min(4),
            revision,
            sort_order: self.0.random_range(0..3),
            sort_target: self.0.random_range(0..5),
            serializable: self.one_in(4),
            keys_only: self.one_in(5),
            count_only: self.one_in(5),
            min_mod_revision: near(self),
            max_mod_revision: near(self),
            min_create_revision: near(self),
            max_create_revision: near(self),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let lease = self.0.random_range(LEASES);
        let value = format!("value {}", self.below(5));
        let (ignore_value, ignore_lease) = (self.one_in(12), self.one_in(12));
        // Now and then beside the flag that forbids it.
        let given = self.one_in(4) || !ignore_value;
        pb::PutRequest {
            key: self.key(),
            value: if given { value.into() } else { bytes::Bytes::new() },
            lease: if ignore_lease && !self.one_in(4) { 0 } else { self.rarely(lease) },
            prev_kv: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        // Few: there should be something to be deleted.
        let range_end = if self.one_in(4) { self.end() } else { bytes::Bytes::new() };
        pb::DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.one_in(2) }
    }

    fn txn(&mut self, head: i64, depth: usize) -> pb::TxnRequest {
        let compares = self.below(3);
        let (then, otherwise) = (self.below(4), self.below(4));
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare(head)).collect(),
            success: (0..then).map(|_| self.inner(head, depth)).collect(),
            failure: (0..otherwise).map(|_| self.inner(head, depth)).collect(),
        }
    }

    fn inner(&mut self, head: i64, depth: usize) -> pb::RequestOp {
        let request = match self.below(10) {
            0..3 => Inner::RequestRange(self.range(head)),
            3..7 => Inner::RequestPut(self.put()),
            7 | 8 => {
                let request = self.delete();
                // Those that etcd checks otherwise than it says (docs/etcd-api.md).
                let odd = request.range_end.as_ref() <= request.key.as_ref();
                let range_end = if odd { bytes::Bytes::new() } else { request.range_end };
                Inner::RequestDeleteRange(pb::DeleteRangeRequest { range_end, ..request })
            }
            _ if depth > 0 => Inner::RequestTxn(self.txn(head, depth - 1)),
            _ => Inner::RequestRange(self.range(head)),
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&mut self, head: i64) -> pb::Compare {
        use pb::compare::TargetUnion as T;
        let target = self.0.random_range(0..5);
        let revision = (head - self.0.random_range(-1..=30)).max(0);
        let value = format!("value {}", self.below(5));
        let small = self.0.random_range(0..=3);
        pb::Compare {
            result: self.0.random_range(0..4),
            target,
            key: self.key(),
            range_end: if self.one_in(4) { self.end() } else { bytes::Bytes::new() },
            target_union: match target {
                0 => Some(T::Version(small)),
                1 => Some(T::CreateRevision(self.rarely(revision))),
                2 => Some(T::ModRevision(self.rarely(revision))),
                3 => Some(T::Value(value.into())),
                _ => Some(T::Lease(small)),
            },
        }
    }

    /// Watchers of everything up to the revision `end`, from revisions between `start` and it.
    pub(crate) fn watches(&mut self, start: i64, end: i64) -> Vec<pb::WatchCreateRequest> {
        let starts =
            [start, start + 1, i64::midpoint(start, end), end - 60, end - 30, end - 10, end];
        let watch = |start_revision: i64| pb::WatchCreateRequest {
            key: bytes::Bytes::from_static(b"\0"),
            range_end: bytes::Bytes::from_static(b"\0"),
            start_revision,
            filters: if self.one_in(4) { vec![1] } else { Vec::new() },
            prev_kv: self.one_in(2),
            ..Default::default()
        };
        starts.into_iter().map(watch).collect()
    }
}
