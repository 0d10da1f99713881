//! Names of snapshots: `<base>-<node>-<unix seconds>[.zip]`, as K3s has them.

use std::fmt;

/// What the names of the snapshots begin with that a restore takes of the state before it.
pub const SAFETY_BASE: &str = "before-restore";

/// Whether it is one of the state that a restore was to put right: never the newest that is meant.
pub fn is_safety(name: &str) -> bool {
    name.strip_prefix(SAFETY_BASE).is_some_and(|rest| rest.starts_with('-'))
}

/// What a compressed snapshot's name ends with.
const ZIP: &str = ".zip";

/// Longest base of a name, in bytes: with node and time it stays below what a file's name may have.
const BASE_BYTES_MAX: usize = 100;

/// A snapshot's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    /// What stands before the time: base and node, which a `-` in either makes one.
    pub stem: String,
    /// When it was taken, seconds since 1970.
    pub unix_s: u64,
    /// It is in a zip archive.
    pub compressed: bool,
}

impl SnapshotName {
    /// The name of a snapshot that `node` takes at `unix_s`.
    pub fn new(base: &str, node: &str, unix_s: u64, compressed: bool) -> Self {
        Self { stem: format!("{base}-{node}"), unix_s, compressed }
    }

    /// Takes a name apart; `None` when it is not of this form.
    pub fn parse(name: &str) -> Option<Self> {
        let (bare, compressed) = name.strip_suffix(ZIP).map_or((name, false), |bare| (bare, true));
        let (stem, time) = bare.rsplit_once('-')?;
        let digits = !time.is_empty() && time.bytes().all(|digit| digit.is_ascii_digit());
        let unix_s = time.parse().ok().filter(|_| digits)?;
        (!stem.is_empty()).then(|| Self { stem: stem.to_owned(), unix_s, compressed })
    }

    /// Whether it was taken by `node` under `base`, and under no longer base that begins alike:
    /// with K3s's comparison of prefixes `etcd-snapshot` would also be `etcd-snapshot-extra`.
    pub fn is_of(&self, base: &str, node: &str) -> bool {
        self.stem.strip_prefix(base).and_then(|rest| rest.strip_prefix('-')) == Some(node)
    }

    /// Whether it was taken by `node`, under whatever base.
    pub fn is_of_node(&self, node: &str) -> bool {
        self.stem.strip_suffix(node).is_some_and(|rest| rest.len() > 1 && rest.ends_with('-'))
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zip = if self.compressed { ZIP } else { "" };
        write!(f, "{}-{}{zip}", self.stem, self.unix_s)
    }
}

/// Whether `base` may begin a snapshot's name.
///
/// # Errors
/// What is wrong with it, to be read after the name.
pub fn check_base(base: &str) -> Result<(), &'static str> {
    if base.is_empty() || base.len() > BASE_BYTES_MAX {
        return Err("must have 1 to 100 characters");
    }
    check_file_name(base)
}

/// Whether `name` is the name of a file and nothing else: no path, nothing hidden.
///
/// # Errors
/// What is wrong with it, to be read after the name.
pub fn check_file_name(name: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+:@".contains(&byte);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(plain) {
        return Err("may hold letters, digits and -_.+:@ only");
    }
    if name.starts_with('.') || name.starts_with('-') {
        return Err("must not begin with a dot or a dash");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for compressed in [false, true] {
            let name = SnapshotName::new("etcd-snapshot", "s-1", 1_755_900_000, compressed);
            assert_eq!(SnapshotName::parse(&name.to_string()), Some(name.clone()));
            assert!(name.is_of("etcd-snapshot", "s-1") && name.is_of_node("s-1"));
            assert!(!name.is_of("etcd", "snapshot-s-1-x") && !name.is_of("etcd-snapshot", "1"));
        }
        let name = SnapshotName::new("on-demand", "s1", 7, true);
        assert_eq!(name.to_string(), "on-demand-s1-7.zip");
    }

    #[test]
    fn a_longer_base_is_another() {
        let extra = SnapshotName::new("etcd-snapshot-extra", "s1", 1, false);
        assert!(!extra.is_of("etcd-snapshot", "s1"));
        assert!(extra.is_of("etcd-snapshot-extra", "s1") && extra.is_of_node("s1"));
    }

    #[test]
    fn other_files_have_no_snapshots_name() {
        for name in ["", "a", "a-", "a-x", "-1", "a-1.part", "a-+1", "a-99999999999999999999"] {
            assert_eq!(SnapshotName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in ["", "a/b", "..", ".hidden", "-x", "a b", "a\nb", "ä"] {
            assert!(check_file_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_file_name("on-demand-s1.example.org-7.zip"), Ok(()));
        assert!(check_base(&"x".repeat(101)).is_err());
        assert_eq!(check_base("etcd-snapshot"), Ok(()));
    }
}
