//! A running server as its supervisor and its tasks see it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::disk::StoreDisk;
use super::http::Connector;
use super::identity::Identity;
use super::keys::Keys;
use super::records::{Records, unix_now};
use super::secrets::Guard;
use super::snapshots::keeper::Keeper;
use crate::raft::api::{Consensus, RaftStatus};
use crate::store::state::State;

/// How often a server writes whom it heard of, and an agent says that it is there.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a check of readiness may wait for a quorum.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long another server may take to say how its member stands.
const PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// Who was silent for so long is left out of the next heartbeat record, in seconds.
const FORGET_SECONDS: u64 = 3600;

/// What a server is made of.
pub struct Context {
    /// Who it is.
    pub identity: Identity,
    /// The node's name.
    pub node_name: String,
    /// Changes things.
    pub consensus: Arc<dyn Consensus>,
    /// The applied state.
    pub state: Arc<State>,
    /// Where it is kept.
    pub disk: Arc<StoreDisk>,
    /// Nodes, heartbeats and settings in it.
    pub records: Records,
    /// The CAs, to sign and to hand to servers that join, and the server's certificates.
    pub keys: Arc<Keys>,
    /// Asks other servers' supervisors.
    pub peers: Connector,
    /// Slows down guesses.
    pub guard: Guard,
    /// Takes and keeps snapshots, if this server does.
    pub snapshots: Option<Arc<Keeper>>,
    heard: Mutex<BTreeMap<String, u64>>,
}

impl Context {
    /// Puts a server together.
    pub fn new(
        identity: Identity,
        node_name: String,
        consensus: Arc<dyn Consensus>,
        disk: Arc<StoreDisk>,
        keys: Arc<Keys>,
    ) -> Result<Self, crate::pki::PkiError> {
        let state = Arc::clone(&disk.state);
        let config = keys.asking()?;
        Ok(Self {
            records: Records::new(Arc::clone(&consensus), Arc::clone(&state)),
            peers: Connector::tls(config, PEER_TIMEOUT),
            guard: Guard::default(),
            snapshots: None,
            heard: Mutex::default(),
            identity,
            node_name,
            consensus,
            state,
            disk,
            keys,
        })
    }

    /// With somebody who takes and keeps snapshots.
    pub fn with_snapshots(self, keeper: Arc<Keeper>) -> Self {
        Self { snapshots: Some(keeper), ..self }
    }

    /// Notes that a node is there.
    pub fn heard_of(&self, name: &str) {
        self.heard.lock().insert(name.to_owned(), unix_now());
    }

    /// Forgets a node that was deleted.
    pub fn forget(&self, name: &str) {
        self.heard.lock().remove(name);
    }

    /// Whom this server heard of, itself now.
    pub fn take_pulse(&self) -> BTreeMap<String, u64> {
        let now = unix_now();
        let mut heard = self.heard.lock();
        heard.insert(self.node_name.clone(), now);
        heard.retain(|_, time| now.saturating_sub(*time) < FORGET_SECONDS);
        heard.clone()
    }

    /// Takes over what all servers wrote, itself before it was restarted too, so that agents do not
    /// look dead until they are heard again.
    pub fn remember(&self) {
        let known = self.records.heartbeats();
        let mut heard = self.heard.lock();
        for (name, time) in known {
            let latest = heard.entry(name).or_insert(time);
            *latest = time.max(*latest);
        }
    }

    /// The name of the node that the record of a member says, or what stands before the last `-`
    /// of its name.
    pub fn node_of_member(&self, id: u64, member_name: &str) -> String {
        let hex = format!("{id:x}");
        let nodes = self.records.nodes();
        let found = nodes.into_iter().find(|(_, node)| node.member_id == hex);
        found.map_or_else(
            || member_name.rsplit_once('-').map_or(member_name, |(node, _)| node).to_owned(),
            |(name, _)| name,
        )
    }

    /// Whether this server may serve: a voter, with a leader that a quorum acknowledges, and
    /// caught up with it. The error says why not.
    pub async fn ready(&self) -> Result<(), String> {
        let status = self.consensus.status().borrow().clone();
        standing(&status)?;
        match timeout(READY_TIMEOUT, self.consensus.read_barrier()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("etcdserver: {error}")),
            Err(_) => Err("no quorum answers".to_owned()),
        }
    }
}

/// What the member's own status says against its being ready.
fn standing(status: &RaftStatus) -> Result<(), String> {
    if status.removed {
        return Err("this server was removed from the cluster".to_owned());
    }
    if status.is_learner() || !status.voters.contains(&status.id) {
        return Err(
            "this server has not yet been promoted from learner to voting member".to_owned()
        );
    }
    if status.leader.is_none() {
        return Err("etcdserver: no leader".to_owned());
    }
    Ok(())
}

/// The address as a source of requests: an IPv4 address whichever socket it came through.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
