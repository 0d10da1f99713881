//! A cluster of one for tests: what is proposed is applied at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::config::{ServerConfig, SnapshotConfig, Values};
use super::context::Context;
use super::disk::StoreDisk;
use super::identity::{DataDir, Identity, Phase};
use super::keys::Keys;
use super::records::Settings;
use super::secrets;
use super::snapshots::keeper::Keeper;
use crate::pki::tree::{Leaves, Owner};
use crate::pki::{Token, Tree};
use crate::raft::CheckpointHandle;
use crate::raft::api::{Applied, Consensus, ConsensusError, LeaseView, RaftStatus};
use crate::secret::Secret;
use crate::store::state::State;
use crate::store::types::{Command, LeaseId, MemberId, MemberRecord};

/// Consensus without anybody to agree with.
pub(crate) struct Alone {
    state: Arc<State>,
    index: AtomicU64,
    removed: Mutex<Vec<MemberId>>,
    status: watch::Sender<RaftStatus>,
}

impl Alone {
    fn apply(&self, command: Command) -> Applied {
        let index = self.index.fetch_add(1, Ordering::SeqCst) + 1;
        Applied { index, term: 1, outcome: self.state.apply(index, 1, command) }
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, ConsensusError>>;

impl Consensus for Alone {
    fn propose(&self, command: Command) -> Answer<'_, Applied> {
        Box::pin(async move { Ok(self.apply(command)) })
    }
    fn read_barrier(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
    fn lease_renew(&self, _: LeaseId) -> Answer<'_, i64> {
        Box::pin(async { Err(ConsensusError::Stopped) })
    }
    fn lease_view(&self, _: LeaseId, _: bool) -> Answer<'_, LeaseView> {
        Box::pin(async { Err(ConsensusError::Stopped) })
    }
    fn lease_sort(&self, _: &mut [LeaseId]) {}
    fn member_add(&self, member: MemberRecord, _: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.removed.lock().contains(&member.id) {
                return Err(ConsensusError::MemberExists);
            }
            self.apply(Command::MemberPut(member));
            Ok(())
        })
    }
    fn member_promote(&self, _: MemberId) -> Answer<'_, ()> {
        Box::pin(async { Err(ConsensusError::Stopped) })
    }
    fn member_remove(&self, id: MemberId) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.state.member(id).is_none() {
                return Err(ConsensusError::MemberNotFound);
            }
            self.removed.lock().push(id);
            self.apply(Command::MemberDelete { id });
            Ok(())
        })
    }
    fn member_update(&self, _: MemberId, _: Vec<String>) -> Answer<'_, ()> {
        Box::pin(async { Err(ConsensusError::Stopped) })
    }
    fn transfer_leader(&self, _: Option<MemberId>) -> Answer<'_, ()> {
        Box::pin(async { Err(ConsensusError::Stopped) })
    }
    fn status(&self) -> watch::Receiver<RaftStatus> {
        self.status.subscribe()
    }
    fn snapshot_now(&self) -> Answer<'_, ()> {
        Box::pin(async { Err(ConsensusError::Stopped) })
    }
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A server of a cluster of one, with its certificates and tokens.
pub(crate) struct Lone {
    pub(crate) context: Arc<Context>,
    pub(crate) leaves: Leaves,
    pub(crate) token: Token,
}

/// Makes one whose files are in `directory` and whose secrets are `s3cret` and `ag3nt`.
pub(crate) async fn lone(directory: &Path) -> Lone {
    let identity = Identity {
        cluster_id: 0xc1,
        member_id: 0x1,
        member_name: "server1-00000001".into(),
        phase: Phase::Member,
        supersedes: Vec::new(),
        restore_id: None,
    };
    let tree = Tree::new(directory);
    let authorities = tree.create_authorities().unwrap();
    let owner = Owner {
        node_name: "server1".into(),
        member_name: identity.member_name.clone(),
        member_id: 1,
        sans: vec!["localhost".into(), "127.0.0.1".into()],
        peer_addresses: vec!["127.0.0.1".into()],
    };
    let leaves = tree.leaves(&authorities, &owner).unwrap();
    let secret = Secret::new("s3cret");
    let token = Token::full(authorities.server.certificate(), "server", secret.clone());
    let state = Arc::new(State::new());
    let status = RaftStatus { id: 1, leader: Some(1), voters: vec![1], ..RaftStatus::default() };
    let consensus = Arc::new(Alone {
        state: Arc::clone(&state),
        index: AtomicU64::new(0),
        removed: Mutex::default(),
        status: watch::Sender::new(status),
    });
    consensus.apply(Command::MemberPut(MemberRecord {
        id: 1,
        name: identity.member_name.clone(),
        peer_urls: vec!["https://127.0.0.1:2380".into()],
        client_urls: vec!["https://127.0.0.1:2379".into()],
    }));
    let name = "server1".to_owned();
    let disk = Arc::new(StoreDisk {
        dir: directory.to_owned(),
        cluster: identity.cluster_id,
        state,
        checkpoint: CheckpointHandle::default(),
    });
    let (data, config) = (DataDir::new(directory), SnapshotConfig::default());
    let keeper = Keeper::new(&name, identity.cluster_id, Arc::clone(&disk.state), &data, config);
    let bundle = directory.join("k3sup.yaml").display().to_string();
    let given = [("node-name", "server1"), ("node-ip", "127.0.0.1"), ("write-kubeconfig", &bundle)];
    let values = Values::from_command_line(given.map(|(name, text)| (name, vec![text])).to_vec());
    let config = ServerConfig::from_values(&values, &directory.join("config.yaml")).unwrap();
    let keys = Keys::open(config, DataDir::new(directory), authorities, owner).unwrap();
    let context = Context::new(identity, name, consensus, disk, Arc::new(keys)).unwrap();
    let context = context.with_snapshots(Arc::new(keeper));
    let settings = Settings {
        server_secret: secrets::hash(&secret).unwrap(),
        agent_secret: Some(secrets::hash(&Secret::new("ag3nt")).unwrap()),
        critical: vec![("etcd-arg=heartbeat-interval".into(), "100".into())],
    };
    context.records.begin(&settings).await.unwrap();
    Lone { context: Arc::new(context), leaves, token }
}
