//! Patterns of hosts, for `--limit` and a play's `hosts`: `a:b`, `a,b`, `!a`, `&a`, globs, `~regex`,
//! `group[0]`, `group[0:2]`.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};

use crate::yaml::did_you_mean;

use super::model::Inventory;

/// Why a pattern selects nothing that could be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A part names no host and no group.
    #[error("no host or group matches `{part}`{}", near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    NoMatch {
        /// The part of the pattern.
        part: String,
        /// A name that is near.
        near: Option<String>,
    },
    /// A part cannot be understood.
    #[error("the pattern `{part}` cannot be understood: {why}")]
    Syntax {
        /// The part of the pattern.
        part: String,
        /// Why.
        why: String,
    },
}

impl Inventory {
    /// The names of the hosts that `pattern` selects; see [`select`].
    pub fn select(&self, pattern: &str) -> Result<Vec<String>, PatternError> {
        let hosts: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        select(pattern, &hosts, &self.groups)
    }
}

/// The names of the `hosts` that `pattern` selects, in their order. As in Ansible, what is added
/// counts first, then what must be in it too (`&`), then what must not (`!`).
///
/// An empty result without an error is possible: an empty pattern or group, or all excluded.
pub fn select(
    pattern: &str,
    hosts: &[&str],
    groups: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<String>, PatternError> {
    let names = Names { hosts, groups };
    let parts = split(pattern);
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    if !parts.is_empty() && parts.iter().all(|part| part.starts_with(['!', '&'])) {
        chosen.extend(hosts);
    }
    for part in parts.iter().filter(|part| !part.starts_with(['!', '&'])) {
        chosen.extend(names.matching(part)?);
    }
    for part in parts.iter().filter_map(|part| part.strip_prefix('&')) {
        let other = names.matching(part)?;
        chosen.retain(|name| other.contains(name));
    }
    for part in parts.iter().filter_map(|part| part.strip_prefix('!')) {
        let other = names.matching(part)?;
        chosen.retain(|name| !other.contains(name));
    }
    Ok(hosts.iter().filter(|name| chosen.contains(**name)).map(ToString::to_string).collect())
}

/// All hosts, in order, and the groups.
struct Names<'a> {
    hosts: &'a [&'a str],
    groups: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> Names<'a> {
    fn matching(&self, part: &str) -> Result<Vec<&'a str>, PatternError> {
        let syntax =
            |why: &str| PatternError::Syntax { part: part.to_owned(), why: why.to_owned() };
        if part.starts_with('@') {
            return Err(syntax("files of host names are not supported"));
        }
        if let Some(text) = part.strip_prefix('~') {
            // Python's `re.match`: from the start, not necessarily to the end.
            let regex =
                Regex::new(&format!("^(?:{text})")).map_err(|error| syntax(&error.to_string()))?;
            return self.named(part, |name| regex.is_match(name));
        }
        if let Some((group, subscript)) = subscript(part) {
            let hosts = self.matching(group)?;
            return slice(&hosts, subscript).ok_or_else(|| syntax("the subscript is out of range"));
        }
        if part.contains(['*', '?', '[']) {
            let regex = glob(part).ok_or_else(|| syntax("a bracket is not closed"))?;
            return self.named(part, |name| regex.is_match(name));
        }
        self.named(part, |name| name == part)
    }

    /// The hosts of all groups, and the hosts themselves, whose name is wanted. `all` is a group
    /// even where nobody lists it.
    fn named(
        &self,
        part: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<&'a str>, PatternError> {
        if is_wanted("all") {
            return Ok(self.hosts.to_vec());
        }
        let groups: Vec<_> = self.groups.iter().filter(|(name, _)| is_wanted(name)).collect();
        let members: BTreeSet<&str> =
            groups.iter().flat_map(|(_, hosts)| hosts.iter().map(String::as_str)).collect();
        let hosts = self.hosts.iter().copied();
        let found: Vec<&str> =
            hosts.filter(|name| members.contains(name) || is_wanted(name)).collect();
        if found.is_empty() && groups.is_empty() {
            let known = self.hosts.iter().copied().chain(self.groups.keys().map(String::as_str));
            let near = did_you_mean(part, known).map(str::to_owned);
            return Err(PatternError::NoMatch { part: part.to_owned(), near });
        }
        Ok(found)
    }
}

/// The parts of a pattern: between commas if it has any, else between colons outside brackets.
fn split(pattern: &str) -> Vec<&str> {
    let separator = if pattern.contains(',') { ',' } else { ':' };
    let mut depth = 0_u32;
    pattern
        .split(|c: char| {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == separator && (depth == 0 || separator == ',')
        })
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

/// `[3]`, `[-1]`, `[0:2]`, `[1:]` at the end of a part.
#[derive(Clone, Copy)]
enum Subscript {
    One(isize),
    /// Both ends belong to it, as in Ansible.
    Span(usize, Option<usize>),
}

fn subscript(part: &str) -> Option<(&str, Subscript)> {
    let (group, inside) = part.strip_suffix(']')?.rsplit_once('[')?;
    if group.is_empty() {
        return None;
    }
    let subscript = match inside.split_once(':') {
        None => Subscript::One(inside.parse().ok()?),
        Some((first, "")) => Subscript::Span(first.parse().ok()?, None),
        Some((first, last)) => Subscript::Span(first.parse().ok()?, Some(last.parse().ok()?)),
    };
    Some((group, subscript))
}

fn slice<'a>(hosts: &[&'a str], subscript: Subscript) -> Option<Vec<&'a str>> {
    match subscript {
        Subscript::One(index) => {
            let index = if index < 0 {
                hosts.len().checked_sub(index.unsigned_abs())?
            } else {
                index.unsigned_abs()
            };
            hosts.get(index).map(|host| vec![*host])
        }
        Subscript::Span(first, last) => {
            let last = last.unwrap_or(usize::MAX).min(hosts.len().checked_sub(1)?);
            hosts.get(first..=last).map(<[_]>::to_vec)
        }
    }
}

/// A shell glob as a regular expression; `None` when a bracket is not closed.
fn glob(pattern: &str) -> Option<Regex> {
    let mut regex = String::from("^");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => {
                let (class, after) = rest.split_once(']')?;
                let (negated, class) =
                    class.strip_prefix('!').map_or(("", class), |class| ("^", class));
                let escaped = class.replace('\\', "\\\\").replace('[', "\\[").replace('^', "\\^");
                regex.extend(["[", negated, escaped.as_str(), "]"]);
                rest = after;
            }
            other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    RegexBuilder::new(&regex).build().ok()
}
