//! What is tried with the program itself, as people use it: each suite on addresses of its own, so that all can
//! run beside each other.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and tells by printing"
)]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod balancers;
mod becoming;
mod beside;
mod clients;
mod downgrade;
mod etcd;
mod etcdctl;
mod failures;
mod formats;
mod interrupted;
mod joining;
mod jwt;
mod k3s;
mod k3s_life;
mod k3s_restore;
mod k3s_token;
mod k3s_verify;
mod members;
mod moving;
mod patroni;
mod play;
mod power_cut;
mod preflight;
mod remote_openssh;
mod remote_ssh;
mod render;
mod restore;
mod rotate;
mod runs;
mod snapshot_s3;
mod snapshots;
mod ssh_ways;
mod trying;
mod up;
mod upgrade;
mod verify;
