//! The API's procedures, and what is counted of each: begun, ended with which code, for how long; its
//! messages; and which version of the API its client speaks.

use std::collections::HashMap;
use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, Registry,
};
use tonic::Code;

use super::super::gateway;
use super::{counters, registered};

/// What a client that does not tell its version has (etcd `server/etcdserver/api/v3rpc/interceptor.go`).
const UNKNOWN_VERSION: &str = "unknown";

/// Bytes of a version at most. Texts that are none are not counted by themselves: each would be there for ever.
const VERSION_BYTES_MAX: usize = 8;

macro_rules! rpcs {
    ($($name:ident = $kind:literal $service:literal $method:literal $json:literal;)*) => {
        /// A procedure of the API, for counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Rpc { $($name,)* }

        /// All of them, in the order of [`Rpc`].
        const RPCS: &[Procedure] = &[$(Procedure {
            rpc: Rpc::$name,
            labels: [$kind, $service, $method],
            path: concat!("/", $service, "/", $method),
            json: $json,
        },)*];
    };
}

/// A procedure's names.
struct Procedure {
    rpc: Rpc,
    /// Kind, service and method, as go-grpc-prometheus labels them.
    labels: [&'static str; 3],
    /// Where gRPC finds it.
    path: &'static str,
    /// Where the gateway has it, below `/v3/`.
    json: &'static str,
}

impl Procedure {
    /// Of a call with one request and one answer.
    fn is_unary(&self) -> bool {
        self.labels.first() == Some(&"unary")
    }

    /// Of a call with one request, however many answers.
    fn has_one_request(&self) -> bool {
        self.labels.first() != Some(&"bidi_stream")
    }
}

rpcs! {
    Range = "unary" "etcdserverpb.KV" "Range" "kv/range";
    Put = "unary" "etcdserverpb.KV" "Put" "kv/put";
    DeleteRange = "unary" "etcdserverpb.KV" "DeleteRange" "kv/deleterange";
    Txn = "unary" "etcdserverpb.KV" "Txn" "kv/txn";
    Compact = "unary" "etcdserverpb.KV" "Compact" "kv/compaction";
    Watch = "bidi_stream" "etcdserverpb.Watch" "Watch" "watch";
    LeaseGrant = "unary" "etcdserverpb.Lease" "LeaseGrant" "lease/grant";
    LeaseRevoke = "unary" "etcdserverpb.Lease" "LeaseRevoke" "lease/revoke";
    LeaseKeepAlive = "bidi_stream" "etcdserverpb.Lease" "LeaseKeepAlive" "lease/keepalive";
    LeaseTimeToLive = "unary" "etcdserverpb.Lease" "LeaseTimeToLive" "lease/timetolive";
    LeaseLeases = "unary" "etcdserverpb.Lease" "LeaseLeases" "lease/leases";
    MemberAdd = "unary" "etcdserverpb.Cluster" "MemberAdd" "cluster/member/add";
    MemberRemove = "unary" "etcdserverpb.Cluster" "MemberRemove" "cluster/member/remove";
    MemberUpdate = "unary" "etcdserverpb.Cluster" "MemberUpdate" "cluster/member/update";
    MemberList = "unary" "etcdserverpb.Cluster" "MemberList" "cluster/member/list";
    MemberPromote = "unary" "etcdserverpb.Cluster" "MemberPromote" "cluster/member/promote";
    Alarm = "unary" "etcdserverpb.Maintenance" "Alarm" "maintenance/alarm";
    Status = "unary" "etcdserverpb.Maintenance" "Status" "maintenance/status";
    Defragment = "unary" "etcdserverpb.Maintenance" "Defragment" "maintenance/defragment";
    Hash = "unary" "etcdserverpb.Maintenance" "Hash" "maintenance/hash";
    HashKv = "unary" "etcdserverpb.Maintenance" "HashKV" "maintenance/hashkv";
    Snapshot = "server_stream" "etcdserverpb.Maintenance" "Snapshot" "maintenance/snapshot";
    MoveLeader = "unary" "etcdserverpb.Maintenance" "MoveLeader" "maintenance/transfer-leadership";
    Downgrade = "unary" "etcdserverpb.Maintenance" "Downgrade" "maintenance/downgrade";
    AuthEnable = "unary" "etcdserverpb.Auth" "AuthEnable" "auth/enable";
    AuthDisable = "unary" "etcdserverpb.Auth" "AuthDisable" "auth/disable";
    AuthStatus = "unary" "etcdserverpb.Auth" "AuthStatus" "auth/status";
    Authenticate = "unary" "etcdserverpb.Auth" "Authenticate" "auth/authenticate";
    UserAdd = "unary" "etcdserverpb.Auth" "UserAdd" "auth/user/add";
    UserGet = "unary" "etcdserverpb.Auth" "UserGet" "auth/user/get";
    UserList = "unary" "etcdserverpb.Auth" "UserList" "auth/user/list";
    UserDelete = "unary" "etcdserverpb.Auth" "UserDelete" "auth/user/delete";
    UserChangePassword = "unary" "etcdserverpb.Auth" "UserChangePassword" "auth/user/changepw";
    UserGrantRole = "unary" "etcdserverpb.Auth" "UserGrantRole" "auth/user/grant";
    UserRevokeRole = "unary" "etcdserverpb.Auth" "UserRevokeRole" "auth/user/revoke";
    RoleAdd = "unary" "etcdserverpb.Auth" "RoleAdd" "auth/role/add";
    RoleGet = "unary" "etcdserverpb.Auth" "RoleGet" "auth/role/get";
    RoleList = "unary" "etcdserverpb.Auth" "RoleList" "auth/role/list";
    RoleDelete = "unary" "etcdserverpb.Auth" "RoleDelete" "auth/role/delete";
    RoleGrantPermission = "unary" "etcdserverpb.Auth" "RoleGrantPermission" "auth/role/grant";
    RoleRevokePermission = "unary" "etcdserverpb.Auth" "RoleRevokePermission" "auth/role/revoke";
    Lock = "unary" "v3lockpb.Lock" "Lock" "lock/lock";
    Unlock = "unary" "v3lockpb.Lock" "Unlock" "lock/unlock";
    Campaign = "unary" "v3electionpb.Election" "Campaign" "election/campaign";
    Proclaim = "unary" "v3electionpb.Election" "Proclaim" "election/proclaim";
    Leader = "unary" "v3electionpb.Election" "Leader" "election/leader";
    Observe = "server_stream" "v3electionpb.Election" "Observe" "election/observe";
    Resign = "unary" "v3electionpb.Election" "Resign" "election/resign";
}

/// gRPC's codes by number, with the names Prometheus knows them by.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl Rpc {
    /// The procedure that a request's path names, whether it comes as gRPC or as JSON.
    fn at(path: &str) -> Option<Self> {
        static PATHS: LazyLock<HashMap<&str, Rpc>> = LazyLock::new(|| {
            RPCS.iter().flat_map(|p| [(p.path, p.rpc), (p.json, p.rpc)]).collect()
        });
        let path = gateway::procedure(path).map_or(path, |json| {
            // The paths of leases before etcd 3.4.
            if json.starts_with("kv/lease/") { json.trim_start_matches("kv/") } else { json }
        });
        PATHS.get(path).copied()
    }
}

/// What is counted of each procedure, made once so that a call only adds to atomics.
pub(super) struct Calls {
    /// Per procedure.
    started: Vec<IntCounter>,
    /// Per procedure; of those that answer once.
    seconds: Vec<Option<Histogram>>,
    /// Per procedure, then per code.
    handled: Vec<Vec<IntCounter>>,
    /// Per procedure: messages that came.
    received: Vec<IntCounter>,
    /// Per procedure: messages that were sent.
    sent: Vec<IntCounter>,
    /// By kind and the version that the client speaks.
    requests: IntCounterVec,
}

/// A counter for each procedure.
fn per_procedure(
    registry: &Registry,
    name: &str,
    help: &str,
) -> prometheus::Result<Vec<IntCounter>> {
    let labels = ["grpc_type", "grpc_service", "grpc_method"];
    let counters = counters(registry, name, help, &labels)?;
    RPCS.iter().map(|procedure| counters.get_metric_with_label_values(&procedure.labels)).collect()
}

/// A version as clients of etcd tell it (`3.5`), or that it is not known.
fn known_version(told: Option<&str>) -> &str {
    let is_version = |text: &&str| {
        let of_one = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        (1..=VERSION_BYTES_MAX).contains(&text.len()) && text.bytes().all(of_one)
    };
    told.filter(is_version).unwrap_or(UNKNOWN_VERSION)
}

impl Calls {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests = counters(
            registry,
            "etcd_server_client_requests_total",
            "The total number of client requests per client version.",
            &["type", "client_api_version"],
        )?;
        for kind in ["unary", "stream"] {
            requests.get_metric_with_label_values(&[kind, UNKNOWN_VERSION])?;
        }
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "grpc_server_handling_seconds",
                "Histogram of response latency (seconds) of gRPC that had been application-level \
                 handled by the server.",
            ),
            &["grpc_type", "grpc_service", "grpc_method"],
        );
        let seconds = registered(registry, seconds)?;
        let handled = counters(
            registry,
            "grpc_server_handled_total",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        )?;
        let codes = |procedure: &Procedure| {
            let [kind, service, method] = procedure.labels;
            let labels = CODES.iter().map(|code| [kind, service, method, code]);
            labels.map(|labels| handled.get_metric_with_label_values(&labels)).collect()
        };
        let latency = |procedure: &Procedure| {
            procedure
                .is_unary()
                .then(|| seconds.get_metric_with_label_values(&procedure.labels))
                .transpose()
        };
        Ok(Self {
            started: per_procedure(
                registry,
                "grpc_server_started_total",
                "Total number of RPCs started on the server.",
            )?,
            received: per_procedure(
                registry,
                "grpc_server_msg_received_total",
                "Total number of RPC stream messages received on the server.",
            )?,
            sent: per_procedure(
                registry,
                "grpc_server_msg_sent_total",
                "Total number of gRPC stream messages sent by the server.",
            )?,
            requests,
            seconds: RPCS.iter().map(latency).collect::<Result<_, _>>()?,
            handled: RPCS.iter().map(codes).collect::<Result<_, _>>()?,
        })
    }

    /// Counts a call that begins, from a client that tells this version. What is given observes how long it
    /// takes, until it is dropped.
    pub(super) fn begun(&self, path: &str, version: Option<&str>) -> Option<HistogramTimer> {
        let rpc = Rpc::at(path)?;
        self.started.get(rpc as usize)?.inc();
        let procedure = RPCS.get(rpc as usize)?;
        let kind = if procedure.is_unary() { "unary" } else { "stream" };
        self.requests.with_label_values(&[kind, known_version(version)]).inc();
        if procedure.has_one_request() {
            self.heard(rpc);
        }
        Some(self.seconds.get(rpc as usize)?.as_ref()?.start_timer())
    }

    /// Counts a call that ended.
    pub(super) fn handled(&self, rpc: Rpc, code: Code) {
        let counters = self.handled.get(rpc as usize);
        if let Some(counter) = counters.and_then(|codes| codes.get(code as usize)) {
            counter.inc();
        }
        if code == Code::Ok && RPCS.get(rpc as usize).is_some_and(Procedure::is_unary) {
            self.said(rpc);
        }
    }

    /// Counts a message of a stream that came.
    pub(super) fn heard(&self, rpc: Rpc) {
        if let Some(counter) = self.received.get(rpc as usize) {
            counter.inc();
        }
    }

    /// Counts a message of a stream that is sent.
    pub(super) fn said(&self, rpc: Rpc) {
        if let Some(counter) = self.sent.get(rpc as usize) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_version_is_not_known() {
        assert_eq!(known_version(Some("3.5")), "3.5");
        assert_eq!(known_version(None), UNKNOWN_VERSION);
        for text in ["", "3.5-mine", "1.2.3.4.5"] {
            assert_eq!(known_version(Some(text)), UNKNOWN_VERSION, "{text}");
        }
    }

    #[test]
    fn messages_of_streams_are_counted_by_themselves() {
        let calls = Calls::new(&Registry::new()).unwrap();
        let told = |rpc: Rpc| (calls.received[rpc as usize].get(), calls.sent[rpc as usize].get());
        calls.begun("/etcdserverpb.KV/Put", Some("3.5"));
        calls.begun("/v3/kv/put", None);
        calls.handled(Rpc::Put, Code::Ok);
        calls.handled(Rpc::Put, Code::Unavailable);
        assert_eq!(told(Rpc::Put), (2, 1));
        calls.begun("/etcdserverpb.Watch/Watch", Some("3.5"));
        calls.handled(Rpc::Watch, Code::Ok);
        assert_eq!(told(Rpc::Watch), (0, 0));
        calls.heard(Rpc::Watch);
        calls.said(Rpc::Watch);
        assert_eq!(told(Rpc::Watch), (1, 1));
        let of = |kind, version| calls.requests.with_label_values(&[kind, version]).get();
        assert_eq!((of("unary", "3.5"), of("unary", "unknown"), of("stream", "3.5")), (1, 1, 1));
    }

    #[test]
    fn a_procedure_is_found_by_each_of_its_paths() {
        for procedure in RPCS {
            assert_eq!(Rpc::at(procedure.path), Some(procedure.rpc));
            for below in ["/v3/", "/v3beta/"] {
                assert_eq!(Rpc::at(&format!("{below}{}", procedure.json)), Some(procedure.rpc));
            }
        }
        assert_eq!(Rpc::at("/v3/kv/lease/revoke"), Some(Rpc::LeaseRevoke));
        assert_eq!(Rpc::at("/v3/kv/nothing"), None);
        assert_eq!(Rpc::at("/metrics"), None);
    }
}
