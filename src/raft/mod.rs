//! Consensus: openraft behind a small interface of our own.
//!
//! [`api`] is all that the layers above see, [`RaftNode`] what they start. Inside, data flows like
//! this: `forward` (a proposal or question finds the leader) → openraft → `log` over `journal`
//! (durable), `net` (replicated) → `machine` (applied, over `store::state`) with `snapshot` and
//! `checkpoint`.
//! `read` makes reads linearizable, `members` changes the membership, `leader` and `leases` are
//! what only a leader does, `contact` whether there still is one, `status` tells how it stands.
//!
//! Knows nothing of the etcd API and of K3s.

pub mod api;
mod applied;
mod checkpoint;
mod config;
mod contact;
mod entry;
mod forward;
mod journal;
mod leader;
mod leases;
mod log;
mod machine;
mod members;
mod net;
mod node;
mod read;
pub mod reset;
mod shared;
pub(crate) mod snapfile;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod types;

pub use checkpoint::{CHECKPOINT, CheckpointHandle};
pub use config::{Observer, Observers, RaftOptions, StartError, Timing};
pub use net::identity::{Identify, PeerClaim, PeerTls};
pub use net::link::who_is_there;
pub use net::traffic::{Traffic, Way};
pub use net::wire::About;
pub use node::RaftNode;
