//! Typed values from a tree; an error points at the key or value it is about.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::finding::{Finding, did_you_mean};
use super::node::{Entry, Node, Value};

/// `value` as YAML text, with a line break at the end.
pub fn to_text<T: Serialize>(value: &T) -> Result<String, String> {
    serde_yaml::to_string(value).map_err(|error| error.to_string())
}

impl Node {
    /// The tree as a `T`.
    ///
    /// The finding points at the key that is unknown (with "did you mean") or at the value that
    /// does not fit, and never repeats a value that may be a secret.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        serde_path_to_error::deserialize(self.to_serde_yaml()).map_err(|error| {
            let message = error.inner().to_string();
            self.explain(error.path(), &message)
        })
    }

    fn to_serde_yaml(&self) -> serde_yaml::Value {
        use serde_yaml::Value as Yaml;
        match &self.value {
            Value::Null => Yaml::Null,
            Value::Bool(value) => Yaml::Bool(*value),
            Value::Int(value) => Yaml::Number((*value).into()),
            Value::Float(value) => Yaml::Number((*value).into()),
            Value::String(text) => Yaml::String(text.clone()),
            Value::Seq(items) => Yaml::Sequence(items.iter().map(Node::to_serde_yaml).collect()),
            Value::Map(entries) => Yaml::Mapping(
                entries
                    .iter()
                    .map(|e| (Yaml::String(e.key.to_string()), e.value.to_serde_yaml()))
                    .collect(),
            ),
        }
    }

    fn explain(&self, path: &Path, message: &str) -> Finding {
        let (node, key) = self.follow(path);
        if let Some((field, expected)) = unknown_field(message) {
            // The path ends at the unknown key itself or at the mapping that holds it.
            let entry = key.filter(|entry| &*entry.key == field).or_else(|| node.entry(field));
            let mark = entry.map_or(&node.mark, |entry| &entry.key_mark);
            let finding = mark.finding(format!("unknown key `{field}`"));
            return match did_you_mean(field, expected.iter().copied()) {
                Some(near) => finding.hint(format!("did you mean `{near}`?")),
                None if expected.is_empty() => finding.hint("no key is known here"),
                None => finding.hint(format!("known keys: {}", expected.join(", "))),
            };
        }
        if let Some(field) = message.strip_prefix("missing field ") {
            return node.finding(format!("the key {field} is missing"));
        }
        let subject = key.map(|entry| format!("`{}`: ", entry.key)).unwrap_or_default();
        let found = node.kind();
        match without_value(message) {
            Some(("invalid type", expected)) => {
                let finding = node.finding(format!("{subject}expected {expected}, found {found}"));
                let number_for_text = expected.contains("string")
                    && matches!(node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
                if number_for_text { finding.hint("write it in quotes") } else { finding }
            }
            Some((_, expected)) => {
                node.finding(format!("{subject}expected {expected}, the value does not fit"))
            }
            None => node.finding(format!("{subject}{message}")),
        }
    }

    /// The node that `path` leads to, as far as it leads, and the last entry on the way.
    fn follow(&self, path: &Path) -> (&Node, Option<&Entry>) {
        let mut node = self;
        let mut last = None;
        for segment in path {
            let next = match segment {
                Segment::Map { key } | Segment::Enum { variant: key } => {
                    node.entry(key).map(|entry| {
                        last = Some(entry);
                        &entry.value
                    })
                }
                Segment::Seq { index } => node.as_seq().and_then(|items| items.get(*index)),
                Segment::Unknown => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        (node, last)
    }
}

/// Takes serde's "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

/// Takes serde's "invalid type: string "text", expected a number" apart, without the text.
fn without_value(message: &str) -> Option<(&str, &str)> {
    let (what, rest) = message.split_once(": ")?;
    if !matches!(what, "invalid type" | "invalid value") {
        return None;
    }
    let (_, expected) = rest.rsplit_once(", expected ")?;
    Some((what, expected))
}
