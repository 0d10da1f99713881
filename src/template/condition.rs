//! When a value counts as true.

use minijinja::value::{Value, ValueKind};

use super::error::{ErrorKind, TemplateError};

/// Whether `value` counts as true in a condition.
///
/// A text that reads like a boolean is refused: Ansible takes `"false"` for true, which nobody
/// means.
pub(super) fn truth(value: &Value) -> Result<bool, TemplateError> {
    match value.kind() {
        ValueKind::Bool | ValueKind::Number | ValueKind::None => Ok(value.is_true()),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            if reads_like_boolean(text) {
                Err(TemplateError::new(
                    ErrorKind::Other,
                    "the condition is a text that reads like a boolean; write `| bool` behind it",
                ))
            } else {
                Ok(!text.is_empty())
            }
        }
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Bytes => {
            Ok(value.len() != Some(0))
        }
        _ => Err(TemplateError::new(ErrorKind::Other, "the condition is no plain value")),
    }
}

fn reads_like_boolean(text: &str) -> bool {
    matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "0" | "1"
    )
}
