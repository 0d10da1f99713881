//! Ansible-style modules: typed arguments, what to observe, and a pure plan of changes.
//!
//! A module never talks to a host itself.
