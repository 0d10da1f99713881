//! Leases: the replicated part (which leases there are and what is attached to them) and, for the
//! leader alone, the clock that says when they end. Pure: `now` is passed in.

mod clock;
mod replicated;

pub use self::clock::{LeaseClock, Renewal};
pub use self::replicated::Lease;
pub(crate) use self::replicated::Leases;
