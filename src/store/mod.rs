//! The store: log, state and snapshots of one member.
//!
//! Knows nothing of Raft's rules, of gRPC and of the network. Rooms:
//! [`types`] (the words all layers share), then, each in a file or folder of its own, `wal`,
//! `mvcc`, `lease`, `checkpoint`, `snapshot` and `bolt`.

pub mod auth;
pub mod bolt;
pub mod checkpoint;
pub mod codec;
pub mod fs;
pub mod lease;
pub mod mvcc;
pub mod snapshot;
pub mod state;
pub mod types;
pub mod wal;
pub mod watch;
