//! Takes secrets out of texts on their way to a person or a file, and control characters out of
//! what hosts say. The second line of defence: the first is that secrets have a type.

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
        let text = "x hunter22 y K10ab::server:hunter22 \u{1b}[31mred\r\u{202e}";
        assert_eq!(masker.text(text), "x ******** y ******** [31mred");
    }
}
