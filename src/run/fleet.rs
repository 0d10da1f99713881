//! The hosts of a run: what the engine needs of an inventory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::layout::{Distribution, Role};
use crate::inventory::{PatternError, select};
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

impl Fleet {
    /// The hosts of `pattern`, in the inventory's order; see [`select`]. The product's own groups
    /// are there even when the inventory has none of their hosts.
    pub fn select(&self, pattern: &str) -> Result<Vec<String>, PatternError> {
        let hosts: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        let mut groups = self.groups.clone();
        for role in ["servers", "agents", "loadbalancers"] {
            groups.entry(role.to_owned()).or_default();
        }
        select(pattern, &hosts, &groups)
    }
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
            ("servers[0]", "s1"),
            ("~s[12]", "s1 s2"),
        ] {
            assert_eq!(fleet().select(pattern).unwrap().join(" "), expected, "{pattern}");
        }
        assert_eq!(
            fleet().select("all:x").unwrap_err().to_string(),
            "no host or group matches `x`"
        );
    }
}
