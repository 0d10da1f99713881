//! Real hosts: systemd, OpenSSH, sudo and HAProxy of Debian, in systemd-nspawn machines.
//!
//! They need root, and the tree that `.ci/hosts` makes: where there is none, tests say SKIPPED.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails by panicking, and tells by printing"
)]

mod cgroups;
mod disturbed;
mod ends;
mod faults;
mod fleet;
mod k3s;
mod life;
mod machines;
mod secrets;
mod serving;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod trees;
mod units;
mod verbs;
