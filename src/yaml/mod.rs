//! YAML with line and column for every key and value. The one user of `saphyr-parser` and
//! `serde_yaml`.
//!
//! [`parse()`] turns a text into a tree and refuses what silently means something else than it says:
//! duplicate keys, alias bombs, deep nesting, unknown tags, several documents. [`Node::decode`]
//! turns a part of the tree into a typed value, and an error of it points at the offending key.
//!
//! Plain scalars mean what they mean to Ansible, which reads YAML 1.1: `yes`, `no`, `on`, `off` are
//! booleans, `0644` is an octal number, `1_000` is a number. Unlike it, `12:30` stays a string
//! (not 750), and so do dates and integers beyond 64 bits.
//!
//! Knows nothing of files, inventories and playbooks.

mod decode;
mod finding;
mod node;
mod parse;
mod scalar;

pub use decode::to_text;
pub use finding::{Finding, Mark, did_you_mean, report};
pub use node::{Entry, Node, Value};
pub use parse::{DEPTH_MAX, Document, parse, parse_bytes, parse_bytes_partial, parse_partial};

#[cfg(test)]
mod tests;
