//! YAML with line and column for every value, duplicate keys refused. The one user of `serde_yaml`.
