//! `etcdctl check perf --load=l` against a member of this node, a member of etcd (both stand-alone and
//! without TLS), and a server that answers every call at once and keeps nothing: what the client can ask
//! for on this machine, which is as far as any server can come.
//!
//! The client takes a request every 125 µs from a bucket with room for one (etcd
//! `etcdctl/ctlv3/command/check.go`): what it misses by waking up late it does not make up for. So
//! what it prints as throughput tells as much of the cores that it shares with the server as of the server.
//!
//! `cargo bench --bench check [-- ROUNDS]` with etcd 3.5 and etcdctl in PATH; a round takes three minutes.
//! The recorded results are in docs/benchmarks.md.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking and tells by printing"
)]

#[allow(dead_code, reason = "this bench needs one member of it")]
#[path = "../store/cluster.rs"]
mod cluster;

use std::net::TcpStream;
use std::process::Command;

use cluster::{ETCDCTL_DEFAULT, wait};
use k3sup_rs::rpc::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

fn main() {
    // Cargo adds `--bench`.
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(1);
    for round in 1..=rounds {
        let ceiling = instant();
        println!("round {round}: answers at once  {ceiling:>5} puts/s");
        let mut ours = Command::new(env!("CARGO_BIN_EXE_k3sup-rs"));
        ours.arg("etcd");
        for (name, command) in [("k3sup-rs", ours), ("etcd", Command::new("etcd"))] {
            let puts = member(command);
            let part = puts as f64 / ceiling as f64;
            println!("round {round}: {name:<15}  {puts:>5} puts/s, {part:.2} of that");
        }
    }
}

/// Puts per second of a member.
fn member(mut command: Command) -> u64 {
    command.args(["--log-level", "error"]);
    let _member = cluster::alone(command);
    check_perf()
}

/// Puts per second of the server that keeps nothing.
fn instant() -> u64 {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let service = pb::kv_server::KvServer::new(Instantly);
    let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(service);
    runtime.spawn(server.serve(ETCDCTL_DEFAULT.parse().expect("an address")));
    wait("the server to listen", || TcpStream::connect(ETCDCTL_DEFAULT).is_ok());
    // The server ends with the runtime.
    check_perf()
}

/// Runs the check; gives the throughput that it prints.
fn check_perf() -> u64 {
    let check = ["check", "perf", "--load=l"];
    let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(check).output();
    let output = output.expect("etcdctl is in PATH");
    let said = String::from_utf8_lossy(&output.stdout);
    let rate = said
        .split("hroughput")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().find_map(|word| word.parse().ok()));
    rate.expect("a throughput")
}

/// Answers at once.
struct Instantly;

type Answer<T> = Result<Response<T>, Status>;

/// An answer that says nothing.
fn empty<T: Default>() -> Response<T> {
    Response::new(T::default())
}

#[tonic::async_trait]
impl pb::kv_server::Kv for Instantly {
    async fn range(&self, _: Request<pb::RangeRequest>) -> Answer<pb::RangeResponse> {
        Ok(empty())
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Answer<pb::PutResponse> {
        // The client looks for the header.
        let header = Some(pb::ResponseHeader::default());
        Ok(Response::new(pb::PutResponse { header, prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Answer<pb::DeleteRangeResponse> {
        Ok(empty())
    }

    async fn txn(&self, _: Request<pb::TxnRequest>) -> Answer<pb::TxnResponse> {
        Ok(empty())
    }

    async fn compact(&self, _: Request<pb::CompactionRequest>) -> Answer<pb::CompactionResponse> {
        Ok(empty())
    }
}
