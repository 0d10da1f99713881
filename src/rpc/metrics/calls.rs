//! The API's procedures, and what is counted of each: begun, ended with which code, for how long.

use std::collections::HashMap;
use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry,
};
use tonic::Code;

use super::super::gateway;
use super::registered;

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
}

impl Calls {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let started = IntCounterVec::new(
            Opts::new("grpc_server_started_total", "Total number of RPCs started on the server."),
            &["grpc_type", "grpc_service", "grpc_method"],
        );
        let started = registered(registry, started)?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "grpc_server_handling_seconds",
                "Histogram of response latency (seconds) of gRPC that had been application-level \
                 handled by the server.",
            ),
            &["grpc_type", "grpc_service", "grpc_method"],
        );
        let seconds = registered(registry, seconds)?;
        let handled = IntCounterVec::new(
            Opts::new(
                "grpc_server_handled_total",
                "Total number of RPCs completed on the server, regardless of success or failure.",
            ),
            &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        );
        let handled = registered(registry, handled)?;
        let codes = |procedure: &Procedure| {
            let [kind, service, method] = procedure.labels;
            let labels = CODES.iter().map(|code| [kind, service, method, code]);
            labels.map(|labels| handled.get_metric_with_label_values(&labels)).collect()
        };
        let latency = |procedure: &Procedure| {
            let unary = procedure.labels.first() == Some(&"unary");
            unary.then(|| seconds.get_metric_with_label_values(&procedure.labels)).transpose()
        };
        Ok(Self {
            started: RPCS
                .iter()
                .map(|procedure| started.get_metric_with_label_values(&procedure.labels))
                .collect::<Result<_, _>>()?,
            seconds: RPCS.iter().map(latency).collect::<Result<_, _>>()?,
            handled: RPCS.iter().map(codes).collect::<Result<_, _>>()?,
        })
    }

    /// Counts a call that begins. What is given observes how long it takes, until it is dropped.
    pub(super) fn begun(&self, path: &str) -> Option<HistogramTimer> {
        let rpc = Rpc::at(path)?;
        self.started.get(rpc as usize)?.inc();
        Some(self.seconds.get(rpc as usize)?.as_ref()?.start_timer())
    }

    /// Counts a call that ended.
    pub(super) fn handled(&self, rpc: Rpc, code: Code) {
        let counters = self.handled.get(rpc as usize);
        if let Some(counter) = counters.and_then(|codes| codes.get(code as usize)) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
