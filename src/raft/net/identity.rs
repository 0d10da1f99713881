//! Who a peer is, and whether its certificate says so.
//!
//! A connection is mutual TLS under the cluster's peer CA, unless whoever runs the member wants less; on
//! top of it, the first frame says which member of which cluster speaks to which. A member that was removed, another cluster, or a member
//! under somebody else's certificate gets no further, so it cannot disturb terms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::super::types::MemberNode;
use super::traffic::Traffic;
use super::wire::{Hello, Lane, Refusal, VERSION, Welcome};
use crate::store::types::{ClusterId, MemberId};

/// What a peer's leaf certificate says of its owner; with neither it may be any member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerClaim {
    /// The member's number.
    pub id: Option<MemberId>,
    /// The member's name, or the node's name that the member's name begins with.
    pub name: Option<String>,
}

/// Reads a peer's leaf certificate, already verified against the CA. `None`: it is not a peer's.
pub type Identify = Arc<dyn Fn(&CertificateDer<'_>) -> Option<PeerClaim> + Send + Sync>;

/// How members authenticate each other.
#[derive(Clone)]
pub struct PeerTls {
    /// For incoming connections; with `identify` it must demand a client certificate of the peer CA.
    pub server: Arc<rustls::ServerConfig>,
    /// For outgoing connections; must present this member's certificate where one is demanded.
    pub client: Arc<rustls::ClientConfig>,
    /// What a peer's certificate says. `None`: what the two configurations let in is a member, as in
    /// etcd.
    pub identify: Option<Identify>,
}

/// The members as the last membership entry in this member's log has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    pub(crate) nodes: BTreeMap<MemberId, MemberNode>,
    /// Everybody who ever was removed. Numbers are never used again.
    pub(crate) removed: BTreeSet<MemberId>,
}

/// Who this member is and whom it knows; shared by all connections.
pub(crate) struct Context {
    pub(crate) id: MemberId,
    pub(crate) name: String,
    pub(crate) cluster: ClusterId,
    /// `None`: connections are plain TCP.
    pub(crate) tls: Option<PeerTls>,
    pub(crate) roster: ArcSwap<Roster>,
    /// Set when the cluster says that this member was removed.
    pub(crate) removed: watch::Sender<bool>,
    /// The clusters that this one took the place of.
    pub(crate) supersedes: Vec<ClusterId>,
    /// Set when a peer says that another cluster took this one's place.
    pub(crate) superseded: watch::Sender<Option<ClusterId>>,
    /// Counts what passes.
    pub(crate) traffic: Arc<dyn Traffic>,
}

impl Context {
    /// The first frame of a connection to `to`.
    pub(crate) fn hello(&self, to: MemberId, lane: Lane) -> Hello {
        Hello {
            version: VERSION,
            cluster: self.cluster,
            from: self.id,
            name: self.name.clone(),
            to,
            lane,
        }
    }

    /// Whether the peer that said `hello` under `certificates` may speak.
    pub(crate) fn admit(
        &self,
        hello: &Hello,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<Welcome, Refusal> {
        if hello.version != VERSION {
            return Err(Refusal::Version(VERSION));
        }
        if hello.cluster != self.cluster {
            return Err(if self.supersedes.contains(&hello.cluster) {
                Refusal::Superseded(self.cluster)
            } else {
                Refusal::Cluster
            });
        }
        if hello.to != self.id || hello.from == self.id {
            return Err(Refusal::Member(self.id));
        }
        self.certificate_fits(certificates, hello.from, &hello.name)?;
        if self.is_removed(hello.from) {
            return Err(Refusal::Removed);
        }
        Ok(Welcome { id: self.id, name: self.name.clone() })
    }

    /// Whether the member that answered `welcome` under `certificates` is the one dialled.
    pub(crate) fn accept(
        &self,
        to: MemberId,
        welcome: &Welcome,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Result<(), Refusal> {
        if welcome.id != to {
            return Err(Refusal::Member(welcome.id));
        }
        self.certificate_fits(certificates, to, &welcome.name)
    }

    /// Whether a member is known to be removed.
    pub(crate) fn is_removed(&self, id: MemberId) -> bool {
        self.roster.load().removed.contains(&id)
    }

    fn certificate_fits(
        &self,
        certificates: Option<&[CertificateDer<'_>]>,
        id: MemberId,
        name: &str,
    ) -> Result<(), Refusal> {
        let Some(identify) = self.tls.as_ref().and_then(|tls| tls.identify.as_ref()) else {
            return Ok(());
        };
        let refuse = |why: String| Err(Refusal::Certificate(why));
        let Some(leaf) = certificates.and_then(<[_]>::first) else {
            return refuse("none was presented".to_owned());
        };
        let Some(claim) = identify(leaf) else {
            return refuse("it is not a member's".to_owned());
        };
        if let Some(claimed) = claim.id
            && claimed != id
        {
            return refuse(format!("it is member {claimed:x}'s, not member {id:x}'s"));
        }
        let Some(claimed) = claim.name else { return Ok(()) };
        let roster = self.roster.load();
        let known = roster.nodes.get(&id).map_or("", |node| node.name.as_str());
        for expected in [name, known] {
            if !expected.is_empty() && !name_fits(&claimed, expected) {
                return refuse(format!("it is {claimed}'s, not {expected}'s"));
            }
        }
        if name.is_empty() && known.is_empty() {
            return refuse("the member has not said its name".to_owned());
        }
        Ok(())
    }
}

/// Whether a certificate's name is the member's: the same, or the node's name in front of the
/// `-<8 hex>` that a member's name ends with.
fn name_fits(claimed: &str, member: &str) -> bool {
    claimed == member
        || member.strip_prefix(claimed).and_then(|rest| rest.strip_prefix('-')).is_some_and(
            |suffix| suffix.len() == 8 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit()),
        )
}

#[cfg(test)]
mod tests {
    use super::name_fits;

    #[test]
    fn a_node_name_fits_its_members_only() {
        assert!(name_fits("server1", "server1"));
        assert!(name_fits("server1", "server1-0a1b2c3d"));
        assert!(!name_fits("server1", "server10-0a1b2c3d"));
        assert!(!name_fits("server", "server-1-0a1b2c3d"));
        assert!(!name_fits("server1", "server1-0a1b2c3"));
        assert!(!name_fits("server1", "server1-0a1b2c3z"));
    }
}
