//! How much clients may ask of a member at once: limits of etcd that can be set.

use std::time::Duration;

use crate::limits::{GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX, TXN_OPS_MAX};

/// Largest `--max-request-bytes` that is served: a quarter of the longest record of the log and of
/// the longest frame between members ([`crate::store::wal::PAYLOAD_BYTES_MAX`]).
pub const REQUEST_BYTES_CEILING: usize = 16 * 1024 * 1024;

/// What etcd advises to stay below (`server/etcdserver/server.go`).
pub const REQUEST_BYTES_ADVISED: usize = 10 * 1024 * 1024;

/// Streams on a connection when nothing else is said. A Kubernetes API server holds hundreds of
/// watches on one.
const STREAMS_DEFAULT: u32 = 16 * 1024;

/// The shortest time between pings to a client, as gRPC's Go server has it.
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The shortest time between pings of a client when nothing else is said, …
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// … and when it is said to be 0: gRPC's Go server then has its own (`defaultServerKeepalivePolicyMinTime`).
const PING_INTERVAL_OF_ZERO: Duration = Duration::from_secs(5 * 60);

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most operations in one list of a transaction (`--max-txn-ops`).
    pub txn_ops: usize,
    /// Largest change of keys that one request may make, in bytes (`--max-request-bytes`).
    pub request_bytes: usize,
    /// Calls and streams at once on one connection; more wait (`--max-concurrent-streams`).
    pub streams: u32,
    /// A silent client is asked whether it is there after this long
    /// (`--grpc-keepalive-interval`), …
    pub keepalive_interval: Duration,
    /// … and dropped when it does not answer within this (`--grpc-keepalive-timeout`).
    pub keepalive_timeout: Duration,
    /// A client with a call under way that pings more often than this is sent away
    /// (`--grpc-keepalive-min-time`).
    pub ping_interval: Duration,
}

impl Default for Limits {
    /// etcd's defaults, but for the streams, of which it allows any number.
    fn default() -> Self {
        Self {
            txn_ops: TXN_OPS_MAX,
            request_bytes: REQUEST_BYTES_MAX,
            streams: STREAMS_DEFAULT,
            keepalive_interval: Duration::from_secs(2 * 60 * 60),
            keepalive_timeout: Duration::from_secs(20),
            ping_interval: PING_INTERVAL,
        }
    }
}

impl Limits {
    /// Sets the number of operations of a transaction.
    pub fn set_txn_ops(&mut self, number: u64) -> Result<(), String> {
        let number = u32::try_from(number).map_err(|_| format!("{number} is above 4294967295"))?;
        self.txn_ops = usize::try_from(number).unwrap_or(usize::MAX);
        Ok(())
    }

    /// Sets the size of a request.
    pub fn set_request_bytes(&mut self, bytes: u64) -> Result<(), String> {
        let fits = usize::try_from(bytes).ok().filter(|bytes| *bytes <= REQUEST_BYTES_CEILING);
        self.request_bytes = fits.ok_or_else(|| {
            format!(
                "{bytes} is above {REQUEST_BYTES_CEILING}, beyond which a change does not fit well \
                 into the log and between members; split the request"
            )
        })?;
        Ok(())
    }

    /// Sets the number of streams; 0 is the default, as in gRPC's Go server.
    pub fn set_streams(&mut self, number: u64) -> Result<(), String> {
        let number = u32::try_from(number).map_err(|_| format!("{number} is above 4294967295"))?;
        self.streams = if number == 0 { STREAMS_DEFAULT } else { number };
        Ok(())
    }

    /// Sets when silent clients are asked and dropped. As in etcd, both count only when neither is
    /// 0.
    pub fn set_keepalive(&mut self, interval: Duration, timeout: Duration) {
        if !interval.is_zero() && !timeout.is_zero() {
            self.keepalive_interval = interval.max(KEEPALIVE_INTERVAL_MIN);
            self.keepalive_timeout = timeout;
        }
    }

    /// Sets how often a client may ping.
    pub fn set_ping_interval(&mut self, interval: Duration) {
        self.ping_interval = if interval.is_zero() { PING_INTERVAL_OF_ZERO } else { interval };
    }

    /// Largest message that a client may send, in bytes.
    pub(crate) fn message_bytes(&self) -> usize {
        self.request_bytes + GRPC_OVERHEAD_BYTES
    }

    /// Largest body of JSON, in bytes: the largest message in base64, and names and spaces around it.
    pub(crate) fn body_bytes(&self) -> usize {
        2 * self.message_bytes()
    }
}
