//! A simulated world for the tests: servers with disks and processes, a cluster's membership, and
//! what carrying out one step does to them.

use std::collections::BTreeMap;

use super::{Action, Observation, Step};
use crate::cluster::quorum::quorum;
use crate::cluster::safety::node_of;
use crate::cluster::view::{ClusterView, DiskView, MemberView};

/// One server.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    pub(super) reachable: bool,
    /// Cluster number and member number on its disk.
    pub(super) disk: Option<(String, String)>,
    pub(super) running: bool,
}

/// Everything there is.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) servers: BTreeMap<String, Server>,
    /// Voters by cluster number: member number and name.
    pub(super) members: BTreeMap<String, BTreeMap<String, String>>,
    /// How often a cluster was founded.
    pub(super) founded: usize,
    next_id: usize,
}

impl World {
    pub(super) fn new(count: usize) -> Self {
        let up = Server { reachable: true, ..Server::default() };
        let servers = (1..=count).map(|n| (format!("server{n}"), up.clone())).collect();
        Self { servers, ..Self::default() }
    }

    fn fresh(&mut self) -> String {
        self.next_id += 1;
        format!("{:x}", self.next_id)
    }

    /// Whether the member on this server's disk still is one, and runs.
    fn live_member(&self, server: &Server, cluster: &str) -> bool {
        let members = self.members.get(cluster);
        server.running
            && server.disk.as_ref().is_some_and(|(id, member)| {
                id == cluster && members.is_some_and(|members| members.contains_key(member))
            })
    }

    fn has_quorum(&self, cluster: &str) -> bool {
        let live = self.servers.values().filter(|s| self.live_member(s, cluster)).count();
        self.members.get(cluster).is_some_and(|members| live >= quorum(members.len()))
    }

    pub(super) fn observe(&self) -> Vec<Observation> {
        let one = |(name, server): (&String, &Server)| {
            let seen = |server: &&Server| server.reachable;
            let disk = Some(server).filter(seen).and_then(|server| server.disk.as_ref());
            Observation {
                name: name.clone(),
                reachable: server.reachable,
                disk: disk.map(|(cluster_id, member_id)| DiskView {
                    cluster_id: cluster_id.clone(),
                    member_id: member_id.clone(),
                    member_name: format!("{name}-00000000"),
                    ..DiskView::default()
                }),
                view: disk
                    .filter(|_| server.running)
                    .map(|(cluster, _)| self.view(cluster, server)),
            }
        };
        self.servers.iter().map(one).collect()
    }

    fn view(&self, cluster: &str, server: &Server) -> ClusterView {
        let leader = self.has_quorum(cluster);
        let healthy = |id: &String| {
            self.servers.values().any(|s| {
                s.disk.as_ref().is_some_and(|(_, member)| member == id)
                    && self.live_member(s, cluster)
            })
        };
        let members = self.members.get(cluster).into_iter().flatten();
        ClusterView {
            cluster_id: cluster.to_owned(),
            ready: leader && self.live_member(server, cluster),
            leader_id: leader.then(|| "1".to_owned()),
            members: members
                .map(|(id, name)| MemberView {
                    id: id.clone(),
                    name: name.clone(),
                    voter: true,
                    healthy: healthy(id),
                    ..MemberView::default()
                })
                .collect(),
            ..ClusterView::default()
        }
    }

    /// Carries out one step; false when the world does not let it succeed now.
    pub(super) fn carry_out(&mut self, step: &Step) -> bool {
        match step.action {
            Action::None | Action::Absent => true,
            Action::Start => {
                self.server(&step.server).running = true;
                true
            }
            Action::Init => {
                let data = self.server(&step.server).disk.clone();
                assert!(data.is_none_or(|(cluster, _)| cluster.is_empty()), "never over data");
                self.founded += 1;
                let (cluster, member) = (self.fresh(), self.fresh());
                self.enter(&step.server, &cluster, member);
                true
            }
            Action::Join | Action::Rejoin => self.join(step),
            // No server of this world has SQLite.
            Action::Migrate => false,
        }
    }

    /// Begins a step and is cut off: a node that was to enter has a directory and no member in it.
    pub(super) fn begin(&mut self, step: &Step) {
        let enters = matches!(step.action, Action::Init | Action::Join | Action::Rejoin);
        if enters && self.server(&step.server).disk.is_none() {
            self.server(&step.server).disk = Some((String::new(), String::new()));
        }
    }

    fn join(&mut self, step: &Step) -> bool {
        let via = step.via.clone().and_then(|via| self.servers.get(&via).cloned());
        let Some((cluster, _)) = via.filter(|via| via.running).and_then(|via| via.disk) else {
            return false;
        };
        if !self.has_quorum(&cluster) {
            return false;
        }
        let member = self.fresh();
        let members = self.members.entry(cluster.clone()).or_default();
        members.retain(|_, name| node_of(name) != step.server);
        self.enter(&step.server, &cluster, member);
        true
    }

    fn enter(&mut self, name: &str, cluster: &str, member: String) {
        let members = self.members.entry(cluster.to_owned()).or_default();
        members.insert(member.clone(), format!("{name}-00000000"));
        let server = self.server(name);
        server.disk = Some((cluster.to_owned(), member));
        server.running = true;
    }

    pub(super) fn server(&mut self, name: &str) -> &mut Server {
        self.servers.get_mut(name).expect("a server of this world")
    }
}
