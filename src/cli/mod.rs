//! The commands: one file each, arguments → one typed request. Effects live in the rooms they call.
