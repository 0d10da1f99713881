//! Events → text, tables and JSON. Knows nothing of how they came to be.

pub mod checks;
pub mod cluster;
pub mod sink;
pub mod style;
#[cfg(test)]
mod tests;
pub mod text;
