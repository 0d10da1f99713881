//! The limits that more than one room must agree on, each with its unit and where it comes from.
//!
//! Knows nothing but numbers.

use std::time::Duration;

/// Largest request a client may send, in bytes: etcd's `--max-request-bytes` default
/// (etcd `server/embed/config.go`).
pub const REQUEST_BYTES_MAX: usize = 3 * 512 * 1024;

/// What gRPC framing may add on top of [`REQUEST_BYTES_MAX`], in bytes (etcd
/// `server/etcdserver/api/v3rpc/grpc.go`, `grpcOverheadBytes`).
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Most operations in one list of a transaction: etcd's `--max-txn-ops` default.
pub const TXN_OPS_MAX: usize = 128;

/// Longest lease, in seconds (etcd `server/lease/lessor.go`, `MaxLeaseTTL`).
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// Backend quota in bytes: etcd's default of 2 GiB (`server/storage/quota.go`).
pub const QUOTA_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;

/// Supervisor and join API over HTTPS: K3s's `--https-listen-port`.
pub const SUPERVISOR_PORT: u16 = 6443;

/// The etcd v3 client API.
pub const CLIENT_PORT: u16 = 2379;

/// Raft traffic between members.
pub const PEER_PORT: u16 = 2380;

/// The agent's local load balancer: K3s's `--lb-server-port`.
pub const AGENT_LB_PORT: u16 = 6444;

/// Kubernetes' kubelet on a node of K3s.
pub const KUBELET_PORT: u16 = 10250;

/// Flannel's VXLAN between nodes of K3s, over UDP.
pub const VXLAN_PORT: u16 = 8472;

/// Counters of K3s's etcd: plain HTTP, on loopback only (K3s's `--listen-metrics-urls`).
pub const K3S_METRICS_PORT: u16 = 2381;

/// The agent's health endpoint: plain HTTP, on loopback only.
pub const AGENT_HEALTH_PORT: u16 = 6445;

/// Largest YAML document accepted from a person, in bytes.
pub const YAML_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of a command's output that a host sends back.
pub const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// How long the installation of packages may take, in milliseconds: a slow mirror, or another
/// installation that goes on.
pub const PACKAGES_TIMEOUT_MS: u64 = 600_000;

/// Largest frame between control machine and host executor, in bytes.
pub const HOST_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest part of a file that follows a message as it is, in bytes: so much is sent in vain when a
/// host has no room for it, times [`PARTS_IN_FLIGHT_MAX`].
pub const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Parts that are on their way without an answer: together more than any link holds.
pub const PARTS_IN_FLIGHT_MAX: usize = 4;

/// How long a TCP and SSH handshake may take before the host counts as unreachable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
