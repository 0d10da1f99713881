//! Takes secrets out of texts on their way to a person or a file, and control characters out of
//! what hosts say. The second line of defence: the first is that secrets have a type.

use serde_json::{Map, Value as Json};

use crate::secret::{MASK, Secret};

/// Shorter secrets are not looked for: they would mask half of every text.
const LENGTH_MIN: usize = 6;

/// Longest text that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 64 * 1024;

/// Knows the secrets of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Masker {
    secrets: Vec<Secret>,
}

impl Masker {
    /// Learns a secret.
    pub(super) fn learn(&mut self, secret: &Secret) {
        if secret.expose().len() >= LENGTH_MIN && !self.secrets.contains(secret) {
            self.secrets.push(secret.clone());
            self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        }
    }

    /// `text` without secrets and control characters.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = strip(text);
        for secret in &self.secrets {
            if text.contains(secret.expose()) {
                text = text.replace(secret.expose(), MASK);
            }
        }
        text
    }

    /// `map` with all its texts masked.
    pub(super) fn map(&self, map: &Map<String, Json>) -> Map<String, Json> {
        map.iter().map(|(key, value)| (self.text(key), self.value(value))).collect()
    }

    fn value(&self, value: &Json) -> Json {
        match value {
            Json::String(text) => Json::String(self.text(text)),
            Json::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Json::Object(map) => Json::Object(self.map(map)),
            other => other.clone(),
        }
    }
}

/// Without control characters but line breaks and tabs, and not longer than a person can read.
fn strip(text: &str) -> String {
    let mut plain: String = text
        .chars()
        .filter(|each| !each.is_control() || matches!(each, '\n' | '\t'))
        // Right-to-left overrides make a text look like another.
        .filter(|each| !matches!(each, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .take(TEXT_CHARS_MAX)
        .collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        plain.push_str("… (cut)");
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_escapes_are_gone_wherever_they_are() {
        let mut masker = Masker::default();
        masker.learn(&Secret::new("hunter22"));
        masker.learn(&Secret::new("K10ab::server:hunter22"));
        let value = serde_json::json!({ "a": ["x hunter22 y", "K10ab::server:hunter22"], "b\u{7}": "\u{1b}[31mred\r" });
        let Json::Object(map) = value else { unreachable!() };
        let masked = serde_json::to_string(&masker.map(&map)).unwrap();
        assert_eq!(masked, r#"{"a":["x ******** y","********"],"b":"[31mred"}"#);
    }
}
