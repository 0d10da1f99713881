//! The API as JSON over HTTP, on the same port: each procedure is a `POST` to a path below `/v3/`,
//! with the paths, names and forms of the gateway of etcd 3.5.
//!
//! Knows bodies and paths; what is done and refused is for the services, which it calls as a gRPC
//! client would.

mod access;
mod json;
mod socket;
mod stream;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;

pub use self::access::Access;
pub(crate) use self::access::{host_name, unknown_host};
pub(in crate::rpc) use self::json::refused;
use self::json::{BodyLimit, unary};
use self::stream::{bidirectional, downstream};
use super::auth::AuthService;
use super::caller::CertificateName;
use super::cluster::ClusterService;
use super::election::ElectionService;
use super::kv::KvService;
use super::lease::LeaseService;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::member::Member;
use super::pb::etcdserverpb as pb;
use super::pb::v3electionpb::election_server::Election;
use super::pb::v3lockpb::lock_server::Lock;
use super::watch::WatchService;
use pb::auth_server::Auth;
use pb::cluster_server::Cluster;
use pb::kv_server::Kv;
use pb::lease_server::Lease;
use pb::maintenance_server::Maintenance;

/// The services, called by path.
#[derive(Clone)]
pub(crate) struct Gateway {
    kv: KvService,
    watch: WatchService,
    lease: LeaseService,
    cluster: ClusterService,
    maintenance: MaintenanceService,
    auth: AuthService,
    lock: LockService,
    election: ElectionService,
    member: Member,
}

/// The part of a path that names a procedure, if it is one of the gateway's (etcd
/// `server/embed/serve.go` takes `/v3beta/` for `/v3/`).
pub(crate) fn procedure(path: &str) -> Option<&str> {
    path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))
}

impl Gateway {
    /// Over a member.
    pub(crate) fn new(member: &Member) -> Self {
        Self {
            kv: KvService(member.clone()),
            watch: WatchService(member.clone()),
            lease: LeaseService(member.clone()),
            cluster: ClusterService(member.clone()),
            maintenance: MaintenanceService(member.clone()),
            auth: AuthService(member.clone()),
            lock: LockService::new(member),
            election: ElectionService::new(member),
            member: member.clone(),
        }
    }

    /// Answers a request whose path is one of [`procedure`], or makes a WebSocket of it.
    pub(crate) async fn serve(self, request: Request<Incoming>) -> Response<Body> {
        if socket::is_wanted(request.headers()) {
            return socket::open(self, request);
        }
        self.answer(request.map(Body::new)).await
    }

    /// Answers one call.
    async fn answer(self, mut request: Request<Body>) -> Response<Body> {
        let certificate = request.extensions_mut().remove::<CertificateName>();
        if self.member.state.auth_enabled() && certificate.is_some_and(|name| !name.0.is_empty()) {
            return common_name_refused();
        }
        let limit = BodyLimit(self.member.settings.limits.body_bytes());
        request.extensions_mut().insert(limit);
        let path = procedure(request.uri().path()).unwrap_or_default().to_owned();
        match path.split_once('/') {
            None if path == "watch" => {
                bidirectional(request, |requests| self.watch.open(requests)).await
            }
            // The paths of leases before etcd 3.4.
            Some(("kv", name)) if name.starts_with("lease/") => {
                self.lease(name.trim_start_matches("lease/"), request).await
            }
            Some(("kv", name)) => self.kv(name, request).await,
            Some(("lease", "keepalive")) => {
                bidirectional(request, |requests| self.lease.renewals(requests)).await
            }
            Some(("lease", "grant")) => {
                unary(request, |message| self.lease.lease_grant(message)).await
            }
            Some(("lease", name)) => self.lease(name, request).await,
            Some(("cluster", name)) => self.cluster(name, request).await,
            Some(("maintenance", name)) => self.maintenance(name, request).await,
            Some(("auth", name)) => self.auth(name, request).await,
            Some(("lock", name)) => self.lock(name, request).await,
            Some(("election", name)) => self.election(name, request).await,
            _ => not_found(),
        }
    }

    async fn kv(&self, name: &str, request: Request<Body>) -> Response<Body> {
        match name {
            "range" => unary(request, |message| Kv::range(&self.kv, message)).await,
            "put" => unary(request, |message| Kv::put(&self.kv, message)).await,
            "deleterange" => unary(request, |message| Kv::delete_range(&self.kv, message)).await,
            "txn" => unary(request, |message| Kv::txn(&self.kv, message)).await,
            "compaction" => unary(request, |message| Kv::compact(&self.kv, message)).await,
            _ => not_found(),
        }
    }

    async fn lease(&self, name: &str, request: Request<Body>) -> Response<Body> {
        let lease = &self.lease;
        match name {
            "revoke" => unary(request, |message| lease.lease_revoke(message)).await,
            "timetolive" => unary(request, |message| lease.lease_time_to_live(message)).await,
            "leases" => unary(request, |message| lease.lease_leases(message)).await,
            _ => not_found(),
        }
    }

    async fn cluster(&self, name: &str, request: Request<Body>) -> Response<Body> {
        let cluster = &self.cluster;
        match name {
            "member/add" => unary(request, |message| cluster.member_add(message)).await,
            "member/remove" => unary(request, |message| cluster.member_remove(message)).await,
            "member/update" => unary(request, |message| cluster.member_update(message)).await,
            "member/list" => unary(request, |message| cluster.member_list(message)).await,
            "member/promote" => unary(request, |message| cluster.member_promote(message)).await,
            _ => not_found(),
        }
    }

    async fn maintenance(&self, name: &str, request: Request<Body>) -> Response<Body> {
        let service = &self.maintenance;
        match name {
            "alarm" => unary(request, |message| Maintenance::alarm(service, message)).await,
            "status" => unary(request, |message| Maintenance::status(service, message)).await,
            "defragment" => {
                unary(request, |message| Maintenance::defragment(service, message)).await
            }
            "hash" => unary(request, |message| Maintenance::hash(service, message)).await,
            "hashkv" => unary(request, |message| Maintenance::hash_kv(service, message)).await,
            "snapshot" => {
                downstream(request, |message| Maintenance::snapshot(service, message)).await
            }
            "transfer-leadership" => {
                unary(request, |message| Maintenance::move_leader(service, message)).await
            }
            "downgrade" => unary(request, |message| Maintenance::downgrade(service, message)).await,
            _ => not_found(),
        }
    }

    async fn auth(&self, name: &str, request: Request<Body>) -> Response<Body> {
        let auth = &self.auth;
        match name {
            "enable" => unary(request, |message| auth.auth_enable(message)).await,
            "disable" => unary(request, |message| auth.auth_disable(message)).await,
            "status" => unary(request, |message| auth.auth_status(message)).await,
            "authenticate" => unary(request, |message| auth.authenticate(message)).await,
            "user/add" => unary(request, |message| auth.user_add(message)).await,
            "user/get" => unary(request, |message| auth.user_get(message)).await,
            "user/list" => unary(request, |message| auth.user_list(message)).await,
            "user/delete" => unary(request, |message| auth.user_delete(message)).await,
            "user/changepw" => unary(request, |message| auth.user_change_password(message)).await,
            "user/grant" => unary(request, |message| auth.user_grant_role(message)).await,
            "user/revoke" => unary(request, |message| auth.user_revoke_role(message)).await,
            "role/add" => unary(request, |message| auth.role_add(message)).await,
            "role/get" => unary(request, |message| auth.role_get(message)).await,
            "role/list" => unary(request, |message| auth.role_list(message)).await,
            "role/delete" => unary(request, |message| auth.role_delete(message)).await,
            "role/grant" => unary(request, |message| auth.role_grant_permission(message)).await,
            "role/revoke" => unary(request, |message| auth.role_revoke_permission(message)).await,
            _ => not_found(),
        }
    }

    async fn lock(&self, name: &str, request: Request<Body>) -> Response<Body> {
        match name {
            "lock" => unary(request, |message| self.lock.lock(message)).await,
            "unlock" => unary(request, |message| self.lock.unlock(message)).await,
            _ => not_found(),
        }
    }

    async fn election(&self, name: &str, request: Request<Body>) -> Response<Body> {
        let election = &self.election;
        match name {
            "campaign" => unary(request, |message| election.campaign(message)).await,
            "proclaim" => unary(request, |message| election.proclaim(message)).await,
            "leader" => unary(request, |message| election.leader(message)).await,
            "observe" => downstream(request, |message| election.observe(message)).await,
            "resign" => unary(request, |message| election.resign(message)).await,
            _ => not_found(),
        }
    }
}

/// As in etcd, nobody is somebody here by a certificate: a client that thinks so is told.
fn common_name_refused() -> Response<Body> {
    let text = "CommonName of client sending a request against gateway will be ignored and not used \
                as expected\n";
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    response
}

fn not_found() -> Response<Body> {
    refused(&Status::not_found("Not Found"))
}
