//! Events → text, tables and JSON. Knows nothing of how they came to be.

pub mod cluster;
