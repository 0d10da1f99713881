//! From what is said about a host to where to go: the login, the keys, the jump hosts. Each jump
//! host is resolved by its own name, as `ssh -J` does.

use std::path::PathBuf;

use super::option::{Options, Proxy};
use super::tokens::Names;
use super::{SshConfig, resolve};
use crate::remote::hostkey::{HostKeyMode, HostKeys};
use crate::remote::target::{Agent, SSH_PORT, SshTarget};

/// Jump hosts in a row.
const HOPS_MAX: usize = 8;

/// Where the keys of hosts are known, when nothing else is said (`ssh_config(5)`).
const USER_KNOWN_HOSTS: [&str; 2] = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"];
const GLOBAL_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];

/// One of a chain of hosts, as people write it: `[user@]host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    user: Option<String>,
    pub(super) host: String,
    port: Option<u16>,
}

impl SshConfig {
    /// Where the host asked for as `name` is, and the way to it. What is `given` counts before the
    /// files.
    ///
    /// # Errors
    /// What the files say is wrong, not supported, or goes round in a circle.
    pub(crate) fn destination(&self, name: &str, given: Options) -> Result<SshTarget, String> {
        self.hop(name, given, &mut Vec::new())
    }

    fn hop(
        &self,
        name: &str,
        given: Options,
        seen: &mut Vec<(String, u16, String)>,
    ) -> Result<SshTarget, String> {
        let (host, said) = resolve::resolve(&self.files, &self.me, name, given)?;
        if let Some(refused) = said.refused {
            return Err(refused);
        }
        let port = said.port.unwrap_or(SSH_PORT);
        let user = said.user.clone().unwrap_or_else(|| self.me.user.clone());
        let this = (host.clone(), port, user.clone());
        if seen.contains(&this) || seen.len() > HOPS_MAX {
            return Err(format!("ProxyJump goes round in a circle at {user}@{host}:{port}"));
        }
        seen.push(this);
        let key_name = said.host_key_alias.clone().unwrap_or_else(|| host.clone());
        let names = Names {
            me: &self.me,
            host: &host,
            asked: name,
            port,
            user: &user,
            key_name: &key_name,
        };
        let path = |text: &String| names.path(text).map_err(|why| format!("{name}: {why}"));
        let keys = said.identity_files.iter().map(path).collect::<Result<Vec<_>, _>>()?;
        let agent = match said.identity_agent.as_deref() {
            None | Some("SSH_AUTH_SOCK") => Agent::Usual,
            Some("none") => Agent::None,
            Some(text) => match text.strip_prefix('$').filter(|name| !name.starts_with('{')) {
                Some(variable) => std::env::var_os(variable)
                    .map_or(Agent::None, |socket| Agent::At(PathBuf::from(socket))),
                None => Agent::At(path(&text.to_owned())?),
            },
        };
        let host_keys = host_keys(&said, &path)?;
        let via = match &said.proxy {
            Some(Proxy::Jump(spec)) => {
                let spec = names.expand(spec).map_err(|why| format!("{name}: {why}"))?;
                Some(Box::new(self.jump(&spec, seen)?))
            }
            _ => None,
        };
        Ok(SshTarget {
            address: host,
            port,
            user,
            keys,
            identities_only: said.identities_only.unwrap_or(false),
            agent,
            host_keys: Some(host_keys),
            host_key_alias: said.host_key_alias,
            connect_timeout: said.connect_timeout,
            family: said.family.unwrap_or_default(),
            via,
            password: None,
        })
    }

    /// The last of the hosts of `spec`, reached through those before it.
    fn jump(&self, spec: &str, seen: &mut Vec<(String, u16, String)>) -> Result<SshTarget, String> {
        let (before, last) = match spec.rsplit_once(',') {
            Some((before, last)) => (Some(before), last),
            None => (None, spec),
        };
        let hop = Hop::parse(last).ok_or_else(|| format!("ProxyJump: `{last}` is no host"))?;
        let given = Options {
            user: hop.user,
            port: hop.port,
            proxy: before.map(|before| Proxy::Jump(before.to_owned())),
            ..Options::default()
        };
        self.hop(&hop.host, given, seen)
    }
}

fn host_keys(
    said: &Options,
    path: &dyn Fn(&String) -> Result<PathBuf, String>,
) -> Result<HostKeys, String> {
    let files = |said: &Option<Vec<String>>, usual: [&str; 2]| {
        let usual = || usual.map(str::to_owned).to_vec();
        let names = said.clone().unwrap_or_else(usual);
        let named = names.iter().filter(|name| !name.eq_ignore_ascii_case("none"));
        named.map(path).collect::<Result<Vec<PathBuf>, String>>()
    };
    let mut all = files(&said.user_known_hosts, USER_KNOWN_HOSTS)?;
    let nowhere = PathBuf::from("/dev/null");
    let learn_into = all.first().filter(|file| **file != nowhere).cloned();
    all.extend(files(&said.global_known_hosts, GLOBAL_KNOWN_HOSTS)?);
    Ok(HostKeys {
        files: all,
        learn_into,
        hashed: said.hash_known_hosts.unwrap_or(false),
        mode: said.strict.unwrap_or(HostKeyMode::AcceptNew),
    })
}

impl Hop {
    /// `[user@]host[:port]`, IPv6 addresses with a port in brackets, or `ssh://` in front.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("ssh://").map_or(text, |uri| uri.trim_end_matches('/'));
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, text),
        };
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        } else if place.matches(':').count() == 1 {
            place.split_once(':').map(|(host, port)| (host, Some(port)))?
        } else {
            (place, None)
        };
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
            None => None,
        };
        let is_name = |text: &str| {
            let strange =
                |c: char| c.is_control() || c.is_whitespace() || "'\"`$;&|<>()\\/".contains(c);
            !text.is_empty() && !text.starts_with('-') && !text.contains(strange)
        };
        let fine = is_name(host) && user.as_deref().is_none_or(is_name);
        fine.then(|| Self { user, host: host.to_owned(), port })
    }
}
