//! Comparing versions as Ansible's `version` test does.

use std::cmp::Ordering;

/// A part of a loose version: numbers count as numbers and stand above letters.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Letters(&'a str),
    Number(u128),
}

/// Compares loosely: `v1.30.4+k3s2` is cut into numbers and runs of letters, compared in order; the
/// longer one is greater.
pub(super) fn compare_loose(left: &str, right: &str) -> Ordering {
    loose(left).cmp(&loose(right))
}

fn loose(text: &str) -> Vec<Part<'_>> {
    let text = text.trim();
    parts(text.strip_prefix(['v', 'V']).unwrap_or(text))
}

fn parts(text: &str) -> Vec<Part<'_>> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .flat_map(runs)
        .map(|run| run.parse().map_or(Part::Letters(run), Part::Number))
        .collect()
}

/// Cuts `k3s1` into `k`, `3`, `s`, `1`.
fn runs(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let is_digit = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        rest = tail;
        Some(run)
    })
}

/// Compares by the rules of semantic versions: build metadata does not count, and a pre-release is
/// less than its release.
pub(super) fn compare_semantic(left: &str, right: &str) -> Ordering {
    let (left_core, left_pre) = semantic(left);
    let (right_core, right_pre) = semantic(right);
    left_core.cmp(&right_core).then_with(|| match (left_pre, right_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => identifiers(left).cmp(&identifiers(right)),
    })
}

fn semantic(text: &str) -> (Vec<Part<'_>>, Option<&str>) {
    let text = text.trim();
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let release = text.split('+').next().unwrap_or(text);
    match release.split_once('-') {
        Some((core, pre)) => (parts(core), Some(pre)),
        None => (parts(release), None),
    }
}

/// Numeric identifiers stand below the others (semver.org, item 11).
fn identifiers(pre: &str) -> Vec<(bool, u128, &str)> {
    pre.split('.')
        .map(|id| id.parse().map_or((true, 0, id), |number| (false, number, "")))
        .collect()
}
