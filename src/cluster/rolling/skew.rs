//! Which version may follow which.

use crate::cluster::safety::{Rule, SafetyFinding};

/// Major, minor, patch, and the number behind K3s's `+k3s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64, u64, u64, u64);

impl Version {
    /// Reads `0.1.0`, `v1.30.4+k3s1`, `1.2.3-rc.1`; what stands behind a `-` does not count.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, build) = text
            .trim()
            .trim_start_matches('v')
            .split_once('+')
            .unwrap_or((text.trim().trim_start_matches('v'), ""));
        let mut numbers = text.split('-').next()?.split('.').map(str::parse::<u64>);
        let mut next = || numbers.next()?.ok();
        let (major, minor, patch) = (next()?, next()?, next()?);
        let build = build.strip_prefix("k3s").and_then(|build| build.parse().ok()).unwrap_or(0);
        Some(Self(major, minor, patch, build))
    }

    const fn line(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

/// Whether nodes that run `now` (a node's name and its version) may go to `to`: one minor at a time and
/// never back, neither for the store (an older program need not read what a newer one has written) nor
/// for Kubernetes (its version-skew policy). Versions that cannot be read are not judged.
///
/// # Errors
/// They may not, and what to do instead.
pub fn allowed(now: &[(&str, &str)], to: &str) -> Result<(), SafetyFinding> {
    let Some(target) = Version::parse(to) else { return Ok(()) };
    for (node, text) in now {
        let Some(has) = Version::parse(text) else { continue };
        if target.line() < has.line() {
            let message = format!("{node} runs {text}, and {to} is older: there is no way back");
            return Err(SafetyFinding::new(Rule::VersionSkew, message).hint(
                "restore a snapshot that the older version took; while an upgrade runs, the previous \
                 binary is put back by itself when a node does not come up",
            ));
        }
        let same_major = target.0 == has.0;
        if !same_major || target.1 > has.1 + 1 {
            let message = format!("{node} runs {text}, and {to} is more than one minor ahead");
            let step = format!("{}.{}", has.0, has.1 + 1);
            let hint = if same_major {
                format!("upgrade to {step} first, then to the next")
            } else {
                "upgrade to the last minor of its major first".to_owned()
            };
            return Err(SafetyFinding::new(Rule::VersionSkew, message).hint(hint));
        }
    }
    Ok(())
}

/// Whether `a` is a newer version than `b`, as far as both can be read.
pub fn is_newer(a: &str, b: &str) -> bool {
    matches!((Version::parse(a), Version::parse(b)), (Some(a), Some(b)) if a > b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_they_were_made() {
        assert!(is_newer("0.2.0", "0.1.9"));
        assert!(is_newer("v1.30.4+k3s2", "v1.30.4+k3s1"));
        assert!(!is_newer("v0.1.0", "0.1.0") && !is_newer("x", "0.1.0"));
        assert!(Version::parse("1.2").is_none());
    }

    #[test]
    fn one_minor_at_a_time_and_never_back() {
        let nodes = [("server1", "v1.30.4+k3s1"), ("server2", "v1.31.0+k3s1")];
        assert_eq!(allowed(&nodes, "v1.31.2+k3s1"), Ok(()));
        let far = allowed(&nodes, "v1.32.0+k3s1").unwrap_err();
        assert_eq!(
            far.to_string(),
            "version-skew: server1 runs v1.30.4+k3s1, and v1.32.0+k3s1 is more than one minor ahead"
        );
        assert_eq!(far.hint.as_deref(), Some("upgrade to 1.31 first, then to the next"));
        let back = allowed(&nodes, "v1.30.9+k3s1").unwrap_err();
        assert!(back.message.starts_with("server2 runs v1.31.0+k3s1, and"), "{back}");
        assert_eq!(allowed(&[("server1", "0.1.3")], "0.1.1"), Ok(()), "a patch may go back");
        assert!(allowed(&[("server1", "0.9.0")], "1.0.0").is_err());
        assert_eq!(allowed(&nodes, "own build"), Ok(()));
    }
}
