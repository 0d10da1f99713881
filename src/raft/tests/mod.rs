//! Clusters in one process: real sockets, TLS and files; each member has a runtime of its own, so
//! that a crash takes all its tasks at once.

mod cluster;
mod journal;
mod proxy;
mod tally;
mod tls;

mod basics;
mod crashes;
mod failures;
mod greetings;
mod leases;
mod membership;
mod snapshots;
mod throughput;
