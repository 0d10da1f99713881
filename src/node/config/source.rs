//! Where a value comes from, and the rule of which one counts: command line, then configuration
//! file, then environment.

use std::collections::BTreeMap;
use std::fmt;

use super::schema::{Command, FLAGS, Flag, Kind};
use crate::secret::Secret;
use crate::yaml::Mark;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    CommandLine,
    /// In a file.
    File(Mark),
    /// In the environment variable of this name.
    Environment(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::File(mark) => mark.fmt(f),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A value as it was given. Any of them may be a secret, so none is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The text.
    pub text: Secret,
    /// Where.
    pub origin: Origin,
}

/// The values of one source, or of all: flag name → values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<&'static str, Vec<Given>>);

impl Values {
    /// What was given for a flag; empty when nothing was.
    pub fn all(&self, name: &str) -> &[Given] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value that counts of a flag that takes one: the last.
    pub fn last(&self, name: &str) -> Option<&Given> {
        self.all(name).last()
    }

    /// Sets all values of a flag. An empty list is a value too: it hides what a lower source says.
    pub fn set(&mut self, name: &'static str, values: Vec<Given>) {
        self.0.insert(name, values);
    }

    /// Adds values to a flag.
    pub fn append(&mut self, name: &'static str, values: Vec<Given>) {
        self.0.entry(name).or_default().extend(values);
    }

    /// Adds what the command line says; nothing is not an empty list.
    pub fn from_command_line<'a>(
        given: impl IntoIterator<Item = (&'static str, Vec<&'a str>)>,
    ) -> Self {
        let mut values = Self::default();
        for (name, texts) in given {
            if !texts.is_empty() {
                let given = |text: &str| Given { text: text.into(), origin: Origin::CommandLine };
                values.set(name, texts.into_iter().map(given).collect());
            }
        }
        values
    }

    /// What the environment says, for the flags of `command`. An empty variable counts as unset.
    pub fn from_environment(command: Command, read: impl Fn(&str) -> Option<String>) -> Self {
        let mut values = Self::default();
        for flag in FLAGS.iter().filter(|flag| command.has(flag)) {
            if let Some(name) = flag.env
                && let Some(text) = read(name).filter(|text| !text.is_empty())
            {
                let given = Given { text: text.into(), origin: Origin::Environment(name) };
                values.set(flag.name, vec![given]);
            }
        }
        values
    }

    /// Puts `self` above `lower`: per flag the upper source's values count as a whole, for lists
    /// too.
    pub fn over(mut self, lower: Self) -> Self {
        for (name, values) in lower.0 {
            self.0.entry(name).or_insert(values);
        }
        self
    }
}

/// Splits what `flag` separates by commas.
pub(crate) fn split(flag: &Flag, text: &str) -> Vec<String> {
    match flag.kind {
        Kind::List => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => vec![text.to_owned()],
    }
}
