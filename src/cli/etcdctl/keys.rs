//! Keys: `get`, `put`, `del`, `watch`.

use std::io::Read as _;

use bytes::Bytes;
use clap::ValueEnum;
use tokio_stream::wrappers::ReceiverStream;

use super::answers::kind;
use super::connection::Connection;
use super::show::Show;
use super::{hex_number, refused};
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::errors::ApiError;
use crate::rpc::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::rpc::pb::etcdserverpb::watch_request::RequestUnion;
use crate::rpc::pb::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    WatchCreateRequest, WatchRequest,
};

/// Which keys.
#[derive(Debug, clap::Args)]
pub(super) struct Keys {
    /// The key, or the first of them
    key: String,

    /// The key behind the last
    range_end: Option<String>,

    /// All keys that begin with the key
    #[arg(long, conflicts_with_all = ["range_end", "from_key"])]
    prefix: bool,

    /// All keys from the key on
    #[arg(long, conflicts_with = "range_end")]
    from_key: bool,
}

impl Keys {
    /// The key as it was given.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Key and end as the API has them.
    pub(super) fn range(self) -> (Bytes, Bytes) {
        let zero = || Bytes::from_static(b"\0");
        let key = if self.key.is_empty() && (self.prefix || self.from_key) {
            return (zero(), zero());
        } else {
            self.key.into_bytes()
        };
        let end = if self.prefix {
            behind(&key)
        } else if self.from_key {
            zero()
        } else {
            self.range_end.unwrap_or_default().into()
        };
        (key.into(), end)
    }
}

/// The first key that does not begin with `prefix`.
pub(super) fn behind(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// `get`.
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    #[command(flatten)]
    keys: Keys,

    /// At most so many keys
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: i64,

    /// As of this revision
    #[arg(long, default_value_t = 0, value_name = "N")]
    rev: i64,

    /// Print keys only
    #[arg(long)]
    keys_only: bool,

    /// Print only how many there are
    #[arg(long)]
    count_only: bool,

    /// Print values only
    #[arg(long)]
    print_value_only: bool,

    /// What the member itself knows, without asking the others (s), or what the cluster agrees on (l)
    #[arg(long, default_value = "l", value_parser = ["l", "s"], value_name = "l|s")]
    consistency: String,

    /// Order of the keys
    #[arg(long, value_enum, ignore_case = true, value_name = "ORDER")]
    order: Option<Order>,

    /// What they are ordered by
    #[arg(long, value_enum, ignore_case = true, value_name = "FIELD")]
    sort_by: Option<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Field {
    Create,
    Key,
    Modify,
    Value,
    Version,
}

impl Get {
    /// What is asked for.
    pub(super) fn request(self) -> RangeRequest {
        let (key, range_end) = self.keys.range();
        let target = match self.sort_by {
            None | Some(Field::Key) => SortTarget::Key,
            Some(Field::Create) => SortTarget::Create,
            Some(Field::Modify) => SortTarget::Mod,
            Some(Field::Value) => SortTarget::Value,
            Some(Field::Version) => SortTarget::Version,
        };
        let order = match self.order {
            None => SortOrder::None,
            Some(Order::Ascend) => SortOrder::Ascend,
            Some(Order::Descend) => SortOrder::Descend,
        };
        RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.consistency == "s",
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        }
    }
}

pub(super) async fn get(connection: &Connection, show: Show, args: Get) -> Result<(), Failure> {
    let (count_only, print_value_only) = (args.count_only, args.print_value_only);
    let request = args.request();
    let mut client = connection.client()?;
    let answer = connection.answer(client.kv.range(request)).await?;
    if show.formal(&answer)? {
        return Ok(());
    }
    if count_only {
        return show.line(answer.count.to_string().as_bytes());
    }
    if print_value_only {
        return answer.kvs.iter().try_for_each(|found| show.line(&found.value));
    }
    show_range(show, &answer)
}

/// Prints what was found, for people.
pub(super) fn show_range(show: Show, answer: &RangeResponse) -> Result<(), Failure> {
    answer.kvs.iter().try_for_each(|found| show.pair(found))
}

/// `put`.
#[derive(Debug, clap::Args)]
pub(super) struct Put {
    /// The key
    key: String,

    /// The value; standard input when it is not given
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,

    /// The lease that the key hangs on, in hex
    #[arg(long, value_parser = hex_number, value_name = "ID")]
    lease: Option<u64>,

    /// Print what was there before
    #[arg(long)]
    prev_kv: bool,

    /// Keep the value
    #[arg(long, conflicts_with = "value")]
    ignore_value: bool,

    /// Keep the lease
    #[arg(long, conflicts_with = "lease")]
    ignore_lease: bool,
}

impl Put {
    /// What is asked for; `read` has the value that was not given.
    pub(super) fn request(
        self,
        read: impl FnOnce() -> Result<Bytes, Failure>,
    ) -> Result<PutRequest, Failure> {
        let value = match self.value {
            Some(value) => value.into(),
            None if self.ignore_value => Bytes::new(),
            None => read()?,
        };
        Ok(PutRequest {
            key: self.key.into(),
            value,
            lease: self.lease.unwrap_or(0).cast_signed(),
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

/// All of standard input.
fn piped() -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(ExitCode::BadInput, format!("standard input: {error}")))?;
    Ok(bytes.into())
}

pub(super) async fn put(connection: &Connection, show: Show, args: Put) -> Result<(), Failure> {
    let request = args.request(piped)?;
    let mut client = connection.client()?;
    let answer = connection.answer(client.kv.put(request)).await?;
    if show.formal(&answer)? {
        return Ok(());
    }
    show_put(show, &answer)
}

/// Prints that it was put, for people.
pub(super) fn show_put(show: Show, answer: &PutResponse) -> Result<(), Failure> {
    output::line("OK")?;
    answer.prev_kv.iter().try_for_each(|before| show.pair(before))
}

/// `del`.
#[derive(Debug, clap::Args)]
pub(super) struct Del {
    #[command(flatten)]
    keys: Keys,

    /// Print what was there before
    #[arg(long)]
    prev_kv: bool,
}

impl Del {
    /// What is asked for.
    pub(super) fn request(self) -> DeleteRangeRequest {
        let (key, range_end) = self.keys.range();
        DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv }
    }
}

pub(super) async fn del(connection: &Connection, show: Show, args: Del) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let answer = connection.answer(client.kv.delete_range(args.request())).await?;
    if show.formal(&answer)? {
        return Ok(());
    }
    show_deleted(show, &answer)
}

/// Prints how many went, for people.
pub(super) fn show_deleted(show: Show, answer: &DeleteRangeResponse) -> Result<(), Failure> {
    output::line(&answer.deleted.to_string())?;
    answer.prev_kvs.iter().try_for_each(|before| show.pair(before))
}

/// `watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    #[command(flatten)]
    keys: Keys,

    /// From this revision on
    #[arg(long, default_value_t = 0, value_name = "N")]
    rev: i64,

    /// Print what was there before
    #[arg(long)]
    prev_kv: bool,
}

pub(super) async fn watch(connection: &Connection, show: Show, args: Watch) -> Result<(), Failure> {
    let (key, range_end) = args.keys.range();
    let create = WatchCreateRequest {
        key,
        range_end,
        start_revision: args.rev,
        prev_kv: args.prev_kv,
        ..WatchCreateRequest::default()
    };
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let closed = |_| Failure::new(ExitCode::Error, "the watch ended");
    requests.send(request).await.map_err(closed)?;
    let mut client = connection.client()?;
    let mut answers = connection.answer(client.watch.watch(ReceiverStream::new(stream))).await?;
    while let Some(answer) = answers.message().await.map_err(refused)? {
        if answer.canceled {
            let why = if answer.compact_revision > 0 {
                ApiError::COMPACTED.text().to_owned()
            } else {
                answer.cancel_reason
            };
            return Err(Failure::new(ExitCode::Error, format!("watch was canceled ({why})")));
        }
        if answer.events.is_empty() {
            continue;
        }
        if show.formal(&answer)? {
            continue;
        }
        for event in &answer.events {
            output::line(kind(event))?;
            event.prev_kv.iter().chain(&event.kv).try_for_each(|pair| show.pair(pair))?;
        }
    }
    Ok(())
}
