//! One stream of watches: what the client said, what happened, and what is answered in which order
//! (etcd `server/etcdserver/api/v3rpc/watch.go`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};
use tonic::{Code, Request, Status};

use super::codec::{Reply, encode};
use crate::rpc::caller::Credentials;
use crate::rpc::errors::ApiError;
use crate::rpc::member::{Member, needs_leader};
use crate::rpc::metrics::Rpc;
use crate::rpc::pb::etcdserverpb as pb;
use crate::store::types::{KeyRange, Revision};
use crate::store::watch::{Delivery, WatchError, WatchId, WatchRequest, WatchStream};
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;

/// The number that stands for no watcher, or for all of a stream.
const NO_WATCHER: WatchId = -1;

/// About how many bytes of events one response carries, unless one revision has more.
const BATCH_BYTES: usize = 64 * 1024;

/// How often a request for progress that cannot be answered yet is looked at again.
const PROGRESS_RETRY: Duration = Duration::from_millis(100);

/// What the client says, in order.
pub(crate) type Requests = BoxStream<'static, Result<pb::WatchRequest, Status>>;

/// One stream.
pub(super) struct Session {
    member: Member,
    requests: Requests,
    credentials: Credentials,
    /// The client said that it will say no more; its watchers go on.
    heard_all: bool,
    watchers: WatchStream,
    /// Answers that are ready, in order.
    replies: VecDeque<Reply>,
    /// Watchers that want to hear that nothing happened, and whether nothing did since the last
    /// tick.
    quiet: BTreeMap<WatchId, bool>,
    tick: Interval,
    /// Watchers that take a response in parts.
    fragmented: BTreeSet<WatchId>,
    /// The client asked how far the whole stream is.
    progress_wanted: bool,
    /// Becomes ready when the member ends the stream.
    end: BoxFuture<'static, ApiError>,
    /// How it ended.
    ended: Option<Code>,
}

impl Session {
    /// A stream without watchers.
    pub(super) fn new(member: Member, request: Request<Requests>) -> Self {
        member.metrics.watch_streams.inc();
        let end = member.end_of_stream(needs_leader(request.metadata()));
        // Up to a tenth later, so that watchers made together are not told together.
        let interval = member.settings.progress_notify_interval;
        let interval = interval + interval.mul_f64(rand::random_range(0.0..0.1));
        let mut tick = interval_at(Instant::now() + interval, interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            watchers: member.state.watch_stream(),
            credentials: Credentials::of(&request),
            requests: request.into_inner(),
            member,
            heard_all: false,
            replies: VecDeque::new(),
            quiet: BTreeMap::new(),
            tick,
            fragmented: BTreeSet::new(),
            progress_wanted: false,
            end: Box::pin(end),
            ended: None,
        }
    }

    /// The next response; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<Reply, Status>> {
        loop {
            if let Some(reply) = self.replies.pop_front() {
                self.member.metrics.said(Rpc::Watch);
                return Some(Ok(reply));
            }
            if self.ended.is_some() {
                return None;
            }
            if let Err(status) = self.step().await {
                self.ended = Some(status.code());
                return Some(Err(status));
            }
        }
    }

    /// Waits for one thing to happen and queues what is to be said about it.
    async fn step(&mut self) -> Result<(), Status> {
        tokio::select! {
            reason = &mut self.end => return Err(reason.into()),
            request = self.requests.next(), if !self.heard_all => match request.transpose()? {
                Some(request) => {
                    self.member.metrics.heard(Rpc::Watch);
                    self.hear(request.request_union).await;
                }
                None => self.heard_all = true,
            },
            () = self.watchers.ready() => {
                if let Some(delivery) = self.watchers.next_batch(BATCH_BYTES) {
                    self.deliver(delivery);
                }
            }
            _ = self.tick.tick(), if !self.quiet.is_empty() => self.tell_quiet(),
            () = sleep(PROGRESS_RETRY), if self.progress_wanted => {}
        }
        self.answer_progress();
        Ok(())
    }

    async fn hear(&mut self, request: Option<RequestUnion>) {
        match request {
            Some(RequestUnion::CreateRequest(request)) => {
                match permitted(&self.member, &self.credentials, &request).await {
                    Ok(()) => self.create(request),
                    Err(refusal) => self.refuse(as_go_prints(refusal)),
                }
            }
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.progress_wanted = true,
            None => {}
        }
    }

    fn create(&mut self, request: pb::WatchCreateRequest) {
        let filtered = |filter: FilterType| request.filters().any(|given| given == filter);
        let (no_put, no_delete) = (filtered(FilterType::Noput), filtered(FilterType::Nodelete));
        let subscribed = self.watchers.subscribe(WatchRequest {
            watch_id: request.watch_id,
            range: KeyRange { key: request.key, end: request.range_end },
            start_revision: request.start_revision,
            prev_kv: request.prev_kv,
            no_put,
            no_delete,
        });
        let refusal = match subscribed {
            Ok(subscribed) => {
                let watch_id = subscribed.watch_id;
                self.member.metrics.watchers.inc();
                if request.progress_notify {
                    self.quiet.insert(watch_id, true);
                }
                if request.fragment {
                    self.fragmented.insert(watch_id);
                }
                let head = self.head(watch_id, subscribed.revision);
                self.replies.push_back(pb::WatchResponse { created: true, ..head }.into());
                return;
            }
            Err(WatchError::NegativeRevision) => ApiError::COMPACTED.1.to_owned(),
            Err(other) => other.to_string(),
        };
        self.refuse(refusal);
    }

    /// Tells that there will be no watcher.
    fn refuse(&mut self, cancel_reason: String) {
        let head = self.head(NO_WATCHER, self.member.state.revision());
        let reply = pb::WatchResponse { created: true, canceled: true, cancel_reason, ..head };
        self.replies.push_back(reply.into());
    }

    fn cancel(&mut self, watch_id: WatchId) {
        if self.watchers.cancel(watch_id) {
            self.forget(watch_id);
            let head = self.head(watch_id, self.member.state.revision());
            self.replies.push_back(pb::WatchResponse { canceled: true, ..head }.into());
        }
    }

    fn forget(&mut self, watch_id: WatchId) {
        self.member.metrics.watchers.dec();
        self.quiet.remove(&watch_id);
        self.fragmented.remove(&watch_id);
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Events { watch_id, events, revision, prev_kv } => {
                self.member.metrics.events.inc_by(u64::try_from(events.len()).unwrap_or(0));
                if let Some(quiet) = self.quiet.get_mut(&watch_id) {
                    *quiet = false;
                }
                let events = events.iter().map(|event| encode(event, prev_kv)).collect();
                let reply = Reply { head: self.head(watch_id, revision), events };
                if self.fragmented.contains(&watch_id) {
                    let bytes_max = self.member.settings.limits.message_bytes();
                    self.replies.extend(fragments(reply, bytes_max));
                } else {
                    self.replies.push_back(reply);
                }
            }
            Delivery::Compacted { watch_id, compact_revision } => {
                self.forget(watch_id);
                let head = self.head(watch_id, self.member.state.revision());
                let reply = pb::WatchResponse { canceled: true, compact_revision, ..head };
                self.replies.push_back(reply.into());
            }
        }
    }

    /// Tells the watchers that had no event since the last tick how far they are.
    fn tell_quiet(&mut self) {
        let due: Vec<WatchId> =
            self.quiet.iter().filter(|(_, quiet)| **quiet).map(|(id, _)| *id).collect();
        for watch_id in due {
            if let Some(revision) = self.watchers.synced_revision_of(watch_id) {
                self.replies.push_back(self.head(watch_id, revision).into());
            }
        }
        self.quiet.values_mut().for_each(|quiet| *quiet = true);
    }

    /// Tells how far the whole stream is, once everything up to there was queued. Where etcd drops
    /// a request that comes too early, it is kept here until it can be answered.
    fn answer_progress(&mut self) {
        if !self.progress_wanted {
            return;
        }
        if self.watchers.watch_ids().next().is_none() {
            self.progress_wanted = false;
        } else if let Some(revision) = self.watchers.synced_revision() {
            self.progress_wanted = false;
            self.replies.push_back(self.head(NO_WATCHER, revision).into());
        }
    }

    fn head(&self, watch_id: WatchId, revision: Revision) -> pb::WatchResponse {
        let header = Some(self.member.header(revision));
        pb::WatchResponse { header, watch_id, ..Default::default() }
    }
}

/// A refusal as etcd tells it here: as Go prints an error of gRPC, with its code.
fn as_go_prints(ApiError(code, text): ApiError) -> String {
    format!("rpc error: code = {code:?} desc = {text}")
}

/// Whether the client may read what it wants to watch.
async fn permitted(
    member: &Member,
    credentials: &Credentials,
    request: &pb::WatchCreateRequest,
) -> Result<(), ApiError> {
    let caller = member.caller_with(credentials).await?;
    let mut range = KeyRange { key: request.key.clone(), end: request.range_end.clone() };
    if range.key.is_empty() {
        // No key is the first key.
        range.key = Bytes::from_static(&[0]);
    }
    member.permit(|auth, _| auth.permit_read(caller.as_ref(), &range))
}

impl Drop for Session {
    fn drop(&mut self) {
        let metrics = &self.member.metrics;
        let left = i64::try_from(self.watchers.watch_ids().count()).unwrap_or(0);
        metrics.watchers.sub(left);
        metrics.watch_streams.dec();
        // A stream that nobody ended was dropped by the client.
        metrics.handled(Rpc::Watch, self.ended.unwrap_or(Code::Cancelled));
    }
}

/// Splits a response into parts that are smaller than `bytes_max`, or have one event only. All but
/// the last say that more follows.
fn fragments(reply: Reply, bytes_max: usize) -> Vec<Reply> {
    if reply.events.len() < 2 || reply.encoded_len() < bytes_max {
        return vec![reply];
    }
    let Reply { head, events } = reply;
    let part =
        || Reply { head: pb::WatchResponse { fragment: true, ..head.clone() }, events: vec![] };
    let mut parts = vec![];
    let mut current = part();
    let mut size = current.encoded_len();
    for event in events {
        if !current.events.is_empty() && size + event.len() >= bytes_max {
            parts.push(std::mem::replace(&mut current, part()));
            size = current.encoded_len();
        }
        size += event.len();
        current.events.push(event);
    }
    current.head.fragment = false;
    parts.push(current);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(lengths: &[usize], bytes_max: usize) -> Vec<(usize, bool)> {
        let events = lengths.iter().map(|length| Bytes::from(vec![0; *length])).collect();
        let head = pb::WatchResponse { watch_id: 7, ..Default::default() };
        let parts = fragments(Reply { head, events }, bytes_max);
        assert!(parts.iter().all(|part| part.head.watch_id == 7));
        parts.iter().map(|part| (part.events.len(), part.head.fragment)).collect()
    }

    #[test]
    fn a_response_is_split_between_events() {
        assert_eq!(sizes(&[10, 10], 100), [(2, false)]);
        assert_eq!(sizes(&[40, 40, 40], 100), [(2, true), (1, false)]);
        assert_eq!(sizes(&[200, 10, 200], 100), [(1, true), (1, true), (1, false)]);
        assert_eq!(sizes(&[500], 100), [(1, false)]);
    }
}
