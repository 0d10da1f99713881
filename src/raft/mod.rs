//! Consensus: openraft behind a small interface of our own.
//!
//! [`api`] is all that the layers above see. Knows nothing of the etcd API and of K3s.

pub mod api;
