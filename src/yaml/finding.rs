//! Where something stands in a file, and what is wrong there.

use std::fmt;
use std::sync::Arc;

/// A place in a named text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The file's name, as the person gave it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Mark {
    /// The place `line`:`column` (both from 1) of `file`.
    pub fn new(file: impl Into<Arc<str>>, line: usize, column: usize) -> Self {
        Self { file: file.into(), line, column }
    }

    /// A finding at this place. Control characters in the message, which may quote a file, are made
    /// visible.
    pub fn finding(&self, message: impl Into<String>) -> Finding {
        let message: String = message.into();
        Finding {
            file: Arc::clone(&self.file),
            line: self.line,
            column: self.column,
            message: visible(message),
            hint: None,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `text` with its control characters as escapes: a file must not drive the terminal.
fn visible(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    text.chars()
        .map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() })
        .collect()
}

/// Something wrong, or worth a warning, at a place in a file. Never holds a secret's text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct Finding {
    /// The file's name, as the person gave it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, lower case, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Finding {
    /// Adds advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Where it is.
    pub fn mark(&self) -> Mark {
        Mark::new(Arc::clone(&self.file), self.line, self.column)
    }
}

/// The findings as text, one line each in the order of files and lines, the advice behind it in
/// parentheses.
pub fn report(findings: &[Finding]) -> String {
    let mut sorted: Vec<_> = findings.iter().collect();
    sorted.sort();
    sorted.dedup();
    let lines: Vec<_> = sorted
        .into_iter()
        .map(|finding| match &finding.hint {
            Some(hint) => format!("{finding} ({hint})"),
            None => finding.to_string(),
        })
        .collect();
    lines.join("\n")
}

/// The candidate that `name` probably means: few enough edits away for its length. `None` when
/// nothing is near.
pub fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let edits_max = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}
