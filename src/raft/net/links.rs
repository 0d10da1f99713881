//! All outgoing connections, one for each peer and lane.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::types::MemberNode;
use super::identity::Context;
use super::link::Link;
use super::wire::Lane;
use crate::store::types::MemberId;

/// The connections of this member to its peers.
pub(crate) struct Links {
    pub(crate) context: Arc<Context>,
    open: Mutex<HashMap<(MemberId, Lane), Arc<Link>>>,
}

impl Links {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, open: Mutex::default() }
    }

    /// The link to a member; a new one when the member's addresses have changed. The roster knows
    /// where a member is better than who asks, whose `node` may be of an earlier membership.
    pub(crate) fn get(&self, target: MemberId, node: &MemberNode, lane: Lane) -> Arc<Link> {
        let roster = self.context.roster.load();
        let node = roster.nodes.get(&target).unwrap_or(node);
        let mut open = self.open.lock();
        if let Some(link) = open.get(&(target, lane))
            && link.leads_to(node)
        {
            return link.clone();
        }
        let link = Arc::new(Link::new(self.context.clone(), target, node, lane));
        open.insert((target, lane), link.clone());
        link
    }

    /// The link to a member of the roster.
    pub(crate) fn to(&self, target: MemberId, lane: Lane) -> Option<Arc<Link>> {
        let roster = self.context.roster.load();
        let node = roster.nodes.get(&target)?;
        Some(self.get(target, node, lane))
    }

    /// Opens what an election or a client's request would have to wait for, and closes the links
    /// to members that are gone.
    pub(crate) fn tend(&self) {
        let roster = self.context.roster.load_full();
        self.open.lock().retain(|(target, _), _| roster.nodes.contains_key(target));
        for (target, node) in &roster.nodes {
            if *target != self.context.id {
                self.get(*target, node, Lane::Urgent).warm();
                self.get(*target, node, Lane::Client).warm();
            }
        }
    }

    /// Closes all connections.
    pub(crate) fn close(&self) {
        self.open.lock().clear();
    }
}
