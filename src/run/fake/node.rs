//! The nodes of the fake hosts: found, join, ready, as the real ones do it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::World;
use crate::cluster::layout::Role;
use crate::cluster::quorum::quorum;
use crate::cluster::view::{ClusterView, DiskView, MemberView};
use crate::host::protocol::{
    DiskSpeed, HostError, HostErrorKind, Measure, Measured, Opened, Reached, Vitals,
};

/// What a node has in its data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::run) enum Disk {
    Member { cluster: String, id: String },
    Agent,
}

impl Disk {
    pub(super) fn view(&self) -> Option<DiskView> {
        match self {
            Self::Member { cluster, id } => Some(DiskView {
                cluster_id: cluster.clone(),
                member_id: id.clone(),
                ca_hash: Some(ca_hash(cluster)),
                ..DiskView::default()
            }),
            Self::Agent => None,
        }
    }
}

/// A CA's hash, as long as real ones.
fn ca_hash(cluster: &str) -> String {
    hex::encode(Sha256::digest(cluster.as_bytes()))
}

/// Everything is as fast and as open as it can be.
pub(super) fn measured(what: &Measure) -> Measured {
    match what {
        Measure::Vitals => Measured::Vitals(Vitals::default()),
        Measure::DiskSpeed { writes_max, .. } => {
            Measured::DiskSpeed(DiskSpeed { writes: *writes_max, ..DiskSpeed::default() })
        }
        Measure::Listen { doors, .. } => Measured::Listening(vec![Opened::Open; doors.len()]),
        Measure::StopListening => Measured::Stopped,
        Measure::Probe { .. } => Measured::Probe(Reached::Yes { rtt_us: 100 }),
        Measure::Certificates { .. } => Measured::Certificates(Vec::new()),
        Measure::Metrics(_) => Measured::Metrics(None),
    }
}

fn refuse(message: impl Into<String>) -> HostError {
    HostError { kind: HostErrorKind::Service, message: message.into(), hint: None }
}

impl World {
    /// The member on the disk of `name`, if it is one.
    fn member(&self, name: &str) -> Option<(&str, &str)> {
        match self.hosts[name].disk.as_ref()? {
            Disk::Member { cluster, id } if self.clusters.get(cluster)?.contains_key(id) => {
                Some((cluster, id))
            }
            _ => None,
        }
    }

    fn live(&self, cluster: &str) -> usize {
        let lives = |name: &&String| {
            self.hosts[*name].running && self.member(name).is_some_and(|(id, _)| id == cluster)
        };
        self.hosts.keys().filter(lives).count()
    }

    fn has_quorum(&self, cluster: &str) -> bool {
        let members = self.clusters.get(cluster).map_or(0, BTreeMap::len);
        members > 0 && self.live(cluster) >= quorum(members)
    }

    pub(super) fn ready(&self, name: &str) -> Result<(), String> {
        let host = &self.hosts[name];
        if !host.running {
            return Err("nothing answers".to_owned());
        }
        if host.role == Some(Role::Agent) {
            let any = self.clusters.keys().any(|cluster| self.has_quorum(cluster));
            return if any { Ok(()) } else { Err("no server answers".to_owned()) };
        }
        match self.member(name) {
            Some((cluster, _)) if self.has_quorum(cluster) => Ok(()),
            Some(_) => Err("there is no leader".to_owned()),
            None => Err("it is no member".to_owned()),
        }
    }

    pub(super) fn view(&self, name: &str) -> Option<ClusterView> {
        let host = &self.hosts[name];
        if !host.running {
            return None;
        }
        let ready = self.ready(name).is_ok();
        let Some((cluster, id)) = self.member(name) else {
            return Some(ClusterView { ready, ..ClusterView::default() });
        };
        let healthy = |id: &str| {
            self.hosts.keys().any(|host| {
                self.hosts[host].running && self.member(host).is_some_and(|(_, own)| own == id)
            })
        };
        let members = self.clusters[cluster].iter().map(|(id, node)| MemberView {
            id: id.clone(),
            name: format!("{node}-0123abcd"),
            voter: true,
            healthy: healthy(id),
            ..MemberView::default()
        });
        Some(ClusterView {
            cluster_id: cluster.to_owned(),
            member_id: id.to_owned(),
            node_name: name.to_owned(),
            ready,
            leader_id: self.has_quorum(cluster).then(|| "1".to_owned()),
            ca_hash: ca_hash(cluster),
            members: members.collect(),
            ..ClusterView::default()
        })
    }

    pub(super) fn stop(&mut self, name: &str) {
        let cluster = self.member(name).map(|(cluster, _)| cluster.to_owned());
        let before = cluster.as_ref().is_some_and(|cluster| self.has_quorum(cluster));
        self.host(name).running = false;
        if let Some(cluster) = cluster {
            // One or two voters cannot be restarted without it.
            let few = self.clusters[&cluster].len() <= 2;
            self.quorum_lost |= before && !few && !self.has_quorum(&cluster);
        }
    }

    /// What the node would read when it starts.
    pub(in crate::run) fn configured(&self, name: &str) -> String {
        let layout = self.layout(name);
        let unit = format!("{}/{}.service", layout.unit_dir, layout.service);
        let files = &self.hosts[name].files;
        let read = |path: &str| format!("{:?}", files.get(path));
        [layout.binary, layout.config_file, unit].iter().map(|path| read(path)).collect()
    }

    fn text(&self, name: &str, path: &str) -> String {
        let content = self.hosts[name].files.get(path).and_then(|file| file.content.clone());
        String::from_utf8_lossy(&content.unwrap_or_default()).trim().to_owned()
    }

    pub(super) fn start(&mut self, name: &str) -> Result<(), HostError> {
        if self.hosts[name].running {
            return Ok(());
        }
        let layout = self.layout(name);
        if !self.hosts[name].files.contains_key(&layout.binary) {
            return Err(refuse(format!("{} is not there", layout.binary)));
        }
        let bootstrap =
            self.text(name, &format!("{}/config.yaml.d/bootstrap.yaml", layout.config_dir));
        let token = self.text(name, &layout.token_file);
        if self.hosts[name].disk.is_none() {
            self.enter(name, &bootstrap, &token)?;
        } else if self.hosts[name].role == Some(Role::Server) && self.member(name).is_none() {
            return Err(refuse("this member was removed from its cluster"));
        }
        let configured = self.configured(name);
        let host = self.host(name);
        host.running = true;
        host.started_with = Some(configured);
        Ok(())
    }

    fn enter(&mut self, name: &str, bootstrap: &str, token: &str) -> Result<(), HostError> {
        let server = bootstrap.lines().find_map(|line| line.strip_prefix("server: "));
        if bootstrap.lines().any(|line| line == "cluster-init: true") {
            self.founded += 1;
            let cluster = self.fresh("c");
            self.add(name, &cluster);
            return Ok(());
        }
        let url = server.ok_or_else(|| refuse("neither cluster-init nor server"))?;
        let address = url.trim_start_matches("https://").trim_end_matches(":6443");
        let via = self.hosts.iter().find(|(_, host)| host.address == address);
        let via = via.map(|(via, _)| via.clone()).ok_or_else(|| refuse("no such server"))?;
        let cluster = match self.member(&via) {
            Some((cluster, _)) if self.hosts[&via].running => cluster.to_owned(),
            _ => return Err(refuse(format!("{via} does not answer"))),
        };
        if !self.has_quorum(&cluster) {
            return Err(refuse("the cluster has no leader"));
        }
        if !token.starts_with(&format!("K10{}::server:", ca_hash(&cluster))) {
            return Err(refuse("the token is not one of this cluster"));
        }
        if self.hosts[name].role == Some(Role::Agent) {
            self.host(name).disk = Some(Disk::Agent);
            return Ok(());
        }
        if self.clusters[&cluster].values().any(|node| node == name) {
            return Err(refuse("duplicate node name found"));
        }
        self.add(name, &cluster);
        Ok(())
    }

    /// The node becomes a member of the only cluster, or writes down that it is one.
    pub(super) fn join(&mut self, name: &str) {
        let cluster = self.clusters.keys().next().expect("a cluster").clone();
        let known = self.clusters[&cluster].iter().find(|(_, node)| *node == name);
        match known.map(|(id, _)| id.clone()) {
            Some(id) => self.host(name).disk = Some(Disk::Member { cluster, id }),
            None => self.add(name, &cluster),
        }
    }

    fn add(&mut self, name: &str, cluster: &str) {
        let id = self.fresh("m");
        self.clusters.entry(cluster.to_owned()).or_default().insert(id.clone(), name.to_owned());
        self.host(name).disk = Some(Disk::Member { cluster: cluster.to_owned(), id });
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.next_id += 1;
        format!("{kind}{}", self.next_id)
    }
}
