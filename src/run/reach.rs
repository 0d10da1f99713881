//! From the inventory's words to connections: what each host's variables say about reaching it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::context::Connector;
use super::fleet::{Fleet, FleetHost};

use crate::inventory::{Connection as Said, Host, HostKeys as SaidKeys, Inventory};
use crate::lab::LabHost;
use crate::remote::hostkey::HostKeyMode;
use crate::remote::{
    Become, ConnectOptions, Connection, Progress, RemoteError, Session, SshTarget, Target,
};
use crate::secret::Secret;

/// Who is told how connecting goes on: the host's name and what happens.
pub type Told = Arc<dyn Fn(&str, Progress) + Send + Sync>;

/// The hosts of an inventory as a run takes them. `token` is the cluster's.
pub fn fleet(inventory: &Inventory, token: Secret) -> Fleet {
    let host = |host: &Host| FleetHost {
        name: host.name.clone(),
        role: host.role(),
        groups: host.groups.clone(),
        vars: host.vars.clone(),
        become_: host.r#become.enabled,
        become_user: host.r#become.user.clone(),
    };
    Fleet {
        hosts: inventory.hosts.iter().map(host).collect(),
        groups: inventory.groups.clone(),
        extra: Arc::clone(&inventory.extra),
        distribution: inventory.distribution,
        cluster_name: inventory.cluster_name.clone(),
        token,
    }
}

/// Opens sessions on the hosts of an inventory.
pub struct Reach {
    hosts: BTreeMap<String, (Target, ConnectOptions)>,
    start_labs: bool,
    told: Told,
}

impl Reach {
    /// For all hosts of `inventory`. `start_labs` is whether lab hosts that are down are started:
    /// who only looks must not.
    pub fn new(inventory: &Inventory, start_labs: bool, told: Told) -> Self {
        let common = ConnectOptions::new();
        let entry = |host: &Host| {
            let target = target(inventory, host);
            (host.name.clone(), (target, options(host, &common)))
        };
        Self { hosts: inventory.hosts.iter().map(entry).collect(), start_labs, told }
    }

    /// A session on the host called `name`, as `become_user` if there is one.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn session(
        &self,
        name: &str,
        become_user: Option<&str>,
    ) -> Result<Box<dyn Session>, RemoteError> {
        let Some((target, options)) = self.hosts.get(name) else {
            return Err(unreachable(format!("{name} is not in the inventory"), None));
        };
        let mut target = target.clone();
        match (&mut target.escalation, become_user) {
            (_, None) => target.escalation = None,
            (Some(escalation), Some(user)) => user.clone_into(&mut escalation.user),
            (None, Some(user)) => {
                target.escalation = Some(Become { user: user.to_owned(), password: None });
            }
        }
        if let Connection::Lab(host) = &target.connection
            && !self.start_labs
            && !crate::lab::hosts::is_up(host)
        {
            let hint = format!("start it: k3sup-rs lab start {name}");
            return Err(unreachable(format!("lab host {name} is down"), Some(hint)));
        }
        let told = |progress| (self.told)(name, progress);
        crate::remote::connect(&target, options, &told).await
    }
}

impl Connector for Reach {
    fn connect<'a>(
        &'a self,
        host: &'a FleetHost,
        become_user: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, RemoteError>> {
        Box::pin(self.session(&host.name, become_user))
    }
}

fn unreachable(message: String, hint: Option<String>) -> RemoteError {
    RemoteError::Unreachable { message, hint }
}

fn target(inventory: &Inventory, host: &Host) -> Target {
    let connection = match host.connection() {
        Said::Local => Connection::Local,
        Said::Lab { address } => Connection::Lab(LabHost {
            lab: inventory.cluster_name.clone(),
            name: host.name.clone(),
            address: *address,
        }),
        Said::Ssh(ssh) => {
            let user = ssh.user.clone().or_else(|| std::env::var("USER").ok());
            let mut target =
                SshTarget::new(&ssh.address, user.unwrap_or_else(|| "root".to_owned()));
            target.port = ssh.port;
            target.keys = ssh.private_key_file.iter().map(|path| expanded(path)).collect();
            target.identities_only = !target.keys.is_empty();
            target.password.clone_from(&ssh.password);
            Connection::Ssh(target)
        }
    };
    let escalation =
        Become { user: host.r#become.user.clone(), password: host.r#become.password.clone() };
    Target { name: host.name.clone(), connection, escalation: Some(escalation) }
}

/// `~/` is the present user's home.
fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn options(host: &Host, common: &ConnectOptions) -> ConnectOptions {
    let mut options = common.clone();
    if let Said::Ssh(ssh) = host.connection() {
        options.connect_timeout = ssh.timeout;
        options.host_keys.mode = match ssh.host_keys {
            SaidKeys::AcceptNew => HostKeyMode::AcceptNew,
            SaidKeys::Strict => HostKeyMode::Yes,
            SaidKeys::Off => HostKeyMode::Off,
        };
    }
    options
}
