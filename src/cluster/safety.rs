//! What must not be done: named findings over a plan or a step of it. Pure.

use std::fmt;

use super::quorum::{quorum, survives};
use super::view::ClusterView;

/// Which rule a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Hosts hold data of different clusters.
    TwoClusters,
    /// A host that cannot be seen may hold the cluster's data.
    MayHaveData,
    /// Fewer healthy voters than a quorum.
    QuorumLost,
    /// A step would leave fewer healthy voters than a quorum.
    QuorumRisk,
    /// Hosts of one cluster trust different CAs.
    DifferentCa,
    /// An even number of servers survives no more failures than one fewer.
    EvenServers,
    /// The cluster has members that the inventory does not.
    UnknownMember,
    /// A host was left out because it cannot be reached.
    LeftOut,
    /// A host has data that cannot be taken over.
    UnsupportedData,
    /// A server with a store of its own shall use an external one.
    TwoDatastores,
    /// One server alone survives no failure.
    SingleServer,
    /// A version may not follow another.
    VersionSkew,
}

impl Rule {
    /// Whether a finding of this rule stops the run; the others only warn.
    pub const fn refuses(self) -> bool {
        !matches!(
            self,
            Self::EvenServers | Self::UnknownMember | Self::LeftOut | Self::SingleServer
        )
    }

    /// Its name, as it is printed and documented.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoClusters => "two-clusters",
            Self::MayHaveData => "may-have-data",
            Self::QuorumLost => "quorum-lost",
            Self::QuorumRisk => "quorum-risk",
            Self::DifferentCa => "different-ca",
            Self::EvenServers => "even-servers",
            Self::UnknownMember => "unknown-member",
            Self::LeftOut => "left-out",
            Self::UnsupportedData => "unsupported-data",
            Self::TwoDatastores => "two-datastores",
            Self::SingleServer => "single-server",
            Self::VersionSkew => "version-skew",
        }
    }
}

/// What a safety check has to say.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SafetyFinding {
    /// The rule.
    pub rule: Rule,
    /// What is unsafe and why, with the arithmetic and the hosts.
    pub message: String,
    /// What would make it safe.
    pub hint: Option<String>,
}

impl SafetyFinding {
    /// A finding without advice.
    pub fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), hint: None }
    }

    /// Adds advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for SafetyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name(), self.message)
    }
}

/// Whether the member of `node` may be stopped or restarted now without costing quorum. A single
/// voter may: there is no quorum to keep, and a restart is the only way to change it.
pub fn may_stop(view: &ClusterView, node: &str) -> Result<(), SafetyFinding> {
    let voters: Vec<_> = view.members.iter().filter(|member| member.voter).collect();
    let healthy = voters.iter().filter(|member| member.healthy).count();
    let Some(member) = voters.iter().find(|member| node_of(&member.name) == node) else {
        return Ok(());
    };
    if voters.len() == 1 || !member.healthy {
        return Ok(());
    }
    match survives(voters.len(), healthy) {
        Some(1..) => Ok(()),
        _ => Err(SafetyFinding::new(
            Rule::QuorumRisk,
            format!(
                "stopping {node} would leave {} of {} voters, {} are needed",
                healthy.saturating_sub(1),
                voters.len(),
                quorum(voters.len())
            ),
        )
        .hint("bring the other servers up first: `k3sup-rs status` shows which are down")),
    }
}

/// The node's name in a member's name, which is `<node>-<8 hex digits>` as in K3s.
pub fn node_of(member_name: &str) -> &str {
    match member_name.rsplit_once('-') {
        Some((node, suffix)) if suffix.len() == 8 => node,
        _ => member_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::MemberView;

    fn view(healthy: &[bool]) -> ClusterView {
        let member = |(n, healthy): (usize, &bool)| MemberView {
            name: format!("server{}-0123abcd", n + 1),
            voter: true,
            healthy: *healthy,
            ..MemberView::default()
        };
        ClusterView {
            members: healthy.iter().enumerate().map(member).collect(),
            ..ClusterView::default()
        }
    }

    #[test]
    fn one_of_three_may_stop_but_not_one_of_the_last_two() {
        assert_eq!(may_stop(&view(&[true, true, true]), "server1"), Ok(()));
        let finding = may_stop(&view(&[true, true, false]), "server1").unwrap_err();
        assert_eq!(
            finding.to_string(),
            "quorum-risk: stopping server1 would leave 1 of 3 voters, 2 are needed"
        );
        assert_eq!(may_stop(&view(&[true, true, false]), "server3"), Ok(()), "it is down already");
        assert_eq!(may_stop(&view(&[true]), "server1"), Ok(()));
        assert!(may_stop(&view(&[true, true]), "server1").is_err());
    }

    #[test]
    fn a_member_is_named_after_its_node() {
        assert_eq!(node_of("server-1-0123abcd"), "server-1");
        assert_eq!(node_of("server-1"), "server-1");
        assert_eq!(node_of(""), "");
    }
}
