//! What a change does to a file, as a person reads it.

use serde::Serialize;
use similar::TextDiff;

use crate::secret::MASK;

/// A file before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The file.
    pub path: String,
    /// As it is.
    pub before: Side,
    /// As it will be.
    pub after: Side,
}

/// One side of a [`Diff`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Nothing is there.
    Absent,
    /// A text.
    Text(String),
    /// Something that is described, not shown: a binary, a directory, attributes.
    Note(String),
    /// Something secret.
    Secret,
}

impl Side {
    /// `bytes` as text, or how many there are when they are none.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Self::Text(text.to_owned()),
            _ => Self::Note(format!("binary, {} bytes", bytes.len())),
        }
    }

    fn lines(&self) -> String {
        match self {
            Self::Absent => String::new(),
            Self::Text(text) => text.clone(),
            Self::Note(note) => format!("({note})\n"),
            Self::Secret => format!("{MASK}\n"),
        }
    }
}

impl Diff {
    /// The unified diff, with `--- before` and `+++ after`.
    pub fn unified(&self) -> String {
        let after = match (&self.before, &self.after) {
            (Side::Secret, Side::Secret) => format!("{MASK} (changed)\n"),
            _ => self.after.lines(),
        };
        let before = self.before.lines();
        let title = |what: &str, side: &Side| match side {
            Side::Absent => format!("{what}: (absent)"),
            _ => format!("{what}: {}", self.path),
        };
        TextDiff::from_lines(&before, &after)
            .unified_diff()
            .context_radius(3)
            .header(&title("before", &self.before), &title("after", &self.after))
            .to_string()
    }
}
