//! Members talking to each other: frames over mutual TLS, on the peer port.
//!
//! [`wire`] is what a frame looks like, [`identity`] who may speak, [`link`] one outgoing
//! connection, [`links`] all of them, [`server`] the incoming ones, `outbox` how both write, and [`network`] openraft's view
//! of it all; [`traffic`] is told what passes. Knows nothing of the log and the state.

pub(crate) mod identity;
pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod network;
mod outbox;
pub(crate) mod server;
pub(crate) mod traffic;
pub(crate) mod wire;
