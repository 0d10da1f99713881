//! The hosts of a run: what the engine needs of an inventory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::layout::{Distribution, Role};
use crate::secret::Secret;
use crate::template::{Var, Vars};

/// Hosts, groups and what is provisioned on them.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// The hosts, in the inventory's order.
    pub hosts: Vec<FleetHost>,
    /// Groups with all their hosts.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Variables of the command line, above all others.
    pub extra: Arc<BTreeMap<String, Var>>,
    /// What is provisioned.
    pub distribution: Distribution,
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's token, the bare secret or its full form.
    pub token: Secret,
}

/// One host.
#[derive(Clone, Debug)]
pub struct FleetHost {
    /// Its name, which is its node's name.
    pub name: String,
    /// What it is for.
    pub role: Option<Role>,
    /// Its groups.
    pub groups: BTreeSet<String>,
    /// Its variables.
    pub vars: Vars,
    /// `ansible_become`: says whether tasks run as another user, whatever the play says.
    pub become_: Option<bool>,
    /// `ansible_become_user`.
    pub become_user: String,
}

/// A pattern that names no host or group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no host or group is called `{0}`")]
pub struct UnknownName(pub String);

impl Fleet {
    /// The hosts of `pattern`, in the inventory's order: names, groups and globs, divided by `:` or
    /// `,`; `!x` takes away, `&x` keeps only what is in both.
    pub fn select(&self, pattern: &str) -> Result<Vec<String>, UnknownName> {
        let mut chosen: BTreeSet<&str> = BTreeSet::new();
        let parts = || pattern.split([':', ',']).map(str::trim).filter(|part| !part.is_empty());
        // As in Ansible, what is taken away or kept comes after all that is added.
        for part in parts().filter(|part| !part.starts_with(['!', '&'])) {
            chosen.extend(self.named(part)?);
        }
        for part in parts() {
            if let Some(name) = part.strip_prefix('&') {
                let kept = self.named(name)?;
                chosen.retain(|host| kept.contains(host));
            }
        }
        for part in parts() {
            if let Some(name) = part.strip_prefix('!') {
                let taken = self.named(name)?;
                chosen.retain(|host| !taken.contains(host));
            }
        }
        let hosts = self.hosts.iter().filter(|host| chosen.contains(host.name.as_str()));
        Ok(hosts.map(|host| host.name.clone()).collect())
    }

    fn named(&self, name: &str) -> Result<BTreeSet<&str>, UnknownName> {
        if name == "all" || name == "*" {
            return Ok(self.hosts.iter().map(|host| host.name.as_str()).collect());
        }
        if let Some(hosts) = self.groups.get(name) {
            return Ok(hosts.iter().map(String::as_str).collect());
        }
        let found: BTreeSet<&str> = self
            .hosts
            .iter()
            .map(|host| host.name.as_str())
            .filter(|host| glob(name, host))
            .collect();
        // The product's own groups may be empty; anything else is a mistake.
        if found.is_empty() && !matches!(name, "servers" | "agents" | "loadbalancers") {
            return Err(UnknownName(name.to_owned()));
        }
        Ok(found)
    }
}

/// Whether `pattern`, in which `*` stands for anything, is `text`.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    let mut tails = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    tails.any(|at| text.get(at..).is_some_and(|tail| glob(rest, tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        let host = |name: &str| FleetHost {
            name: name.to_owned(),
            role: None,
            groups: BTreeSet::new(),
            vars: Vars::for_host(name),
            become_: None,
            become_user: "root".to_owned(),
        };
        Fleet {
            hosts: ["s1", "s2", "s3", "a1"].map(host).to_vec(),
            groups: BTreeMap::from([
                ("servers".to_owned(), ["s1", "s2", "s3"].map(str::to_owned).to_vec()),
                ("first".to_owned(), vec!["s1".to_owned(), "a1".to_owned()]),
            ]),
            ..Fleet::default()
        }
    }

    #[test]
    fn patterns_are_those_of_ansible() {
        for (pattern, expected) in [
            ("all", "s1 s2 s3 a1"),
            ("servers:!s1", "s2 s3"),
            ("!s1:servers", "s2 s3"),
            ("servers:&first", "s1"),
            ("a1,s1", "s1 a1"),
            ("s*", "s1 s2 s3"),
            ("agents", ""),
        ] {
            assert_eq!(fleet().select(pattern).unwrap().join(" "), expected, "{pattern}");
        }
        assert_eq!(
            fleet().select("all:x").unwrap_err().to_string(),
            "no host or group is called `x`"
        );
    }
}
