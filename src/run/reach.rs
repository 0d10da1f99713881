//! From the inventory's words to connections: what each host's variables say about reaching it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::context::Connector;
use super::fleet::{Fleet, FleetHost};

use crate::inventory::{
    BecomeMethod, Connection as Said, Host, HostKeys as SaidKeys, Inventory, Ssh,
};
use crate::lab::LabHost;
use crate::remote::config::{Me, Options, SshConfig};
use crate::remote::hostkey::HostKeyMode;
use crate::remote::ssh::keys::AskPassphrase;
use crate::remote::{
    Become, Binaries, ConnectOptions, Connection, Method, Progress, RemoteError, Session,
    SshTarget, Target,
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

/// What a person was asked for this run; an inventory's own words count before it.
#[derive(Clone, Default)]
pub struct Asked {
    /// The password to log in with.
    pub password: Option<Secret>,
    /// The password to become another user with.
    pub become_password: Option<Secret>,
    /// Who gives the passphrases of keys.
    pub passphrases: Option<Arc<AskPassphrase>>,
}

/// Opens sessions on the hosts of an inventory.
pub struct Reach {
    hosts: BTreeMap<String, Result<Target, RemoteError>>,
    options: ConnectOptions,
    start_labs: bool,
    told: Told,
}

impl Reach {
    /// For all hosts of `inventory`. `start_labs` is whether lab hosts that are down are started:
    /// who only looks must not.
    pub fn new(inventory: &Inventory, asked: &Asked, start_labs: bool, told: Told) -> Self {
        let options = ConnectOptions::new().with_passphrases(asked.passphrases.clone());
        let mut configs = Configs { me: Me::now(), read: BTreeMap::new() };
        let entry = |host: &Host| (host.name.clone(), target(inventory, host, asked, &mut configs));
        Self { hosts: inventory.hosts.iter().map(entry).collect(), options, start_labs, told }
    }

    /// Hosts on which this program itself does not run get theirs from `directory` (`--bin-dir`).
    #[must_use]
    pub fn with_binaries(mut self, directory: Option<&Path>) -> Self {
        self.options.binaries = Binaries::usual(directory);
        self
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
        let Some(target) = self.hosts.get(name) else {
            return Err(unreachable(format!("{name} is not in the inventory"), None));
        };
        let mut target = target.clone()?;
        match (&mut target.escalation, become_user) {
            (_, None) => target.escalation = None,
            (Some(escalation), Some(user)) => user.clone_into(&mut escalation.user),
            (None, Some(user)) => {
                target.escalation = Some(Become::new(user));
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
        crate::remote::connect(&target, &self.options, &told).await
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

/// The configuration files of SSH, each read once.
struct Configs {
    me: Me,
    read: BTreeMap<Option<String>, Result<SshConfig, String>>,
}

impl Configs {
    fn destination(&mut self, ssh: &Ssh) -> Result<SshTarget, String> {
        let me = &self.me;
        let file = ssh.config_file.clone();
        let config = self
            .read
            .entry(file)
            .or_insert_with_key(|file| SshConfig::read(me.clone(), file.as_deref()));
        config.as_ref().map_err(Clone::clone)?.destination(&ssh.address, given(ssh)?)
    }
}

/// What the inventory says, as options: they count before those of the files.
fn given(ssh: &Ssh) -> Result<Options, String> {
    let mut given = Options {
        user: ssh.user.clone(),
        port: ssh.port,
        identity_files: ssh.private_key_file.iter().cloned().collect(),
        connect_timeout: ssh.timeout,
        strict: ssh.host_keys.map(|said| match said {
            SaidKeys::AcceptNew => HostKeyMode::AcceptNew,
            SaidKeys::Strict => HostKeyMode::Yes,
            SaidKeys::Off => HostKeyMode::Off,
        }),
        ..Options::default()
    };
    for (keyword, value) in &ssh.options {
        let place = "ansible_ssh_common_args";
        let values = given_values(keyword, value);
        given.set(place, keyword, &values).map_err(|why| format!("{place}: {why}"))?;
    }
    Ok(given)
}

/// Of those options that take several values, the words of `value`.
fn given_values(keyword: &str, value: &str) -> Vec<String> {
    match keyword {
        "userknownhostsfile" | "globalknownhostsfile" => {
            value.split_whitespace().map(str::to_owned).collect()
        }
        _ => vec![value.to_owned()],
    }
}

fn target(
    inventory: &Inventory,
    host: &Host,
    asked: &Asked,
    configs: &mut Configs,
) -> Result<Target, RemoteError> {
    let connection = match host.connection() {
        Said::Local => Connection::Local,
        Said::Lab { address } => Connection::Lab(LabHost {
            lab: inventory.cluster_name.clone(),
            name: host.name.clone(),
            address: *address,
        }),
        Said::Ssh(ssh) => {
            let mut target = configs
                .destination(ssh)
                .map_err(|why| unreachable(why, Some("see docs/ssh.md".to_owned())))?;
            target.password = ssh.password.as_ref().or(asked.password.as_ref()).cloned();
            Connection::Ssh(target)
        }
    };
    let said = &host.r#become;
    let escalation = Become {
        user: said.user.clone(),
        password: said.password.as_ref().or(asked.become_password.as_ref()).cloned(),
        method: match said.method {
            BecomeMethod::Sudo => Method::Sudo,
            BecomeMethod::Doas => Method::Doas,
        },
    };
    Ok(Target { name: host.name.clone(), connection, escalation: Some(escalation) })
}
