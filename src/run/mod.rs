//! Effects of the control half: gather, execute, lock, journal, events.

pub mod event;
pub mod reach;
