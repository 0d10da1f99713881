//! The options of `ssh_config(5)` that count here, typed. Pure.
//!
//! Options that change neither where a connection goes nor whom it trusts (forwarding,
//! multiplexing, terminals, the user's own lists of algorithms) are not looked at: the product's own
//! are used. Those that do and are not supported are kept as a refusal.

use std::time::Duration;

use crate::remote::hostkey::HostKeyMode;
use crate::remote::target::Family;

/// What is said about one host. As in OpenSSH the first word counts; only identity files add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `HostName`, tokens not expanded.
    pub(crate) host_name: Option<String>,
    /// `User`.
    pub(crate) user: Option<String>,
    /// `Port`.
    pub(crate) port: Option<u16>,
    /// `IdentityFile`, tokens not expanded.
    pub(crate) identity_files: Vec<String>,
    /// `IdentitiesOnly`.
    pub(crate) identities_only: Option<bool>,
    /// `IdentityAgent`, tokens not expanded.
    pub(crate) identity_agent: Option<String>,
    /// `ProxyJump` or `ProxyCommand`, whichever came first.
    pub(crate) proxy: Option<Proxy>,
    /// `HostKeyAlias`.
    pub(crate) host_key_alias: Option<String>,
    /// `UserKnownHostsFile`, tokens not expanded.
    pub(crate) user_known_hosts: Option<Vec<String>>,
    /// `GlobalKnownHostsFile`.
    pub(crate) global_known_hosts: Option<Vec<String>>,
    /// `HashKnownHosts`.
    pub(crate) hash_known_hosts: Option<bool>,
    /// `StrictHostKeyChecking`.
    pub(crate) strict: Option<HostKeyMode>,
    /// `ConnectTimeout`.
    pub(crate) connect_timeout: Option<Duration>,
    /// `AddressFamily`.
    pub(crate) family: Option<Family>,
    /// Where something is asked for that is not supported, and what.
    pub(crate) refused: Option<String>,
}

/// How a host is reached through others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// `none`: not at all.
    Direct,
    /// `ProxyJump`, tokens not expanded.
    Jump(String),
    /// `ProxyCommand`, which is refused.
    Command,
}

impl Options {
    /// Sets what `keyword` (in lower case) says, unless it was said before. `place` is where.
    pub(crate) fn set(
        &mut self,
        place: &str,
        keyword: &str,
        arguments: &[String],
    ) -> Result<(), String> {
        let one = || match arguments {
            [only] if !only.is_empty() => Ok(only.as_str()),
            [] => Err(format!("{keyword} has no value")),
            _ => Err(format!("{keyword} takes one value")),
        };
        match keyword {
            "hostname" => first(&mut self.host_name, one()?.to_owned()),
            "user" => first(&mut self.user, one()?.to_owned()),
            "port" => first(&mut self.port, port(one()?)?),
            "identityfile" => self.identity_file(one()?),
            "identitiesonly" => first(&mut self.identities_only, flag(keyword, one()?)?),
            "identityagent" => first(&mut self.identity_agent, one()?.to_owned()),
            "proxyjump" => {
                let spec = one()?;
                let is_none = spec.eq_ignore_ascii_case("none");
                let jump = if is_none { Proxy::Direct } else { Proxy::Jump(spec.to_owned()) };
                first(&mut self.proxy, jump);
            }
            "proxycommand" => self.proxy_command(place, arguments),
            "hostkeyalias" => first(&mut self.host_key_alias, one()?.to_owned()),
            "userknownhostsfile" => first(&mut self.user_known_hosts, arguments.to_vec()),
            "globalknownhostsfile" => first(&mut self.global_known_hosts, arguments.to_vec()),
            "hashknownhosts" => first(&mut self.hash_known_hosts, flag(keyword, one()?)?),
            "stricthostkeychecking" => first(&mut self.strict, mode(one()?)?),
            "connecttimeout" => {
                if let Some(limit) = duration(one()?)? {
                    first(&mut self.connect_timeout, limit);
                }
            }
            "addressfamily" => first(&mut self.family, family(one()?)?),
            "revokedhostkeys" | "knownhostscommand" | "bindaddress" | "bindinterface" if !matches!(arguments, [only] if only.eq_ignore_ascii_case("none")) =>
            {
                self.refuse(place, &format!("{keyword} is not supported"));
            }
            "canonicalizehostname" if !one()?.eq_ignore_ascii_case("no") => {
                self.refuse(place, "CanonicalizeHostname is not supported");
            }
            _ => {}
        }
        Ok(())
    }

    fn proxy_command(&mut self, place: &str, arguments: &[String]) {
        if self.proxy.is_some() {
            return;
        }
        let proxy = match arguments {
            [only] if only.eq_ignore_ascii_case("none") => Proxy::Direct,
            words => jump(&words.join(" ")).map_or(Proxy::Command, Proxy::Jump),
        };
        if proxy == Proxy::Command {
            self.refuse(
                place,
                "ProxyCommand is not supported, ProxyJump is; so is `ssh -W %h:%p HOST`",
            );
        }
        self.proxy = Some(proxy);
    }

    fn identity_file(&mut self, file: &str) {
        let known = self.identity_files.iter().any(|known| known == file);
        if !known && !file.eq_ignore_ascii_case("none") {
            self.identity_files.push(file.to_owned());
        }
    }

    fn refuse(&mut self, place: &str, why: &str) {
        self.refused.get_or_insert_with(|| format!("{place}: {why}"));
    }
}

/// The jump host of a command that does no more than `ProxyJump`: `ssh -W %h:%p [user@]host`.
fn jump(command: &str) -> Option<String> {
    let words = shell_words::split(command).ok()?;
    let mut words = words.iter().map(String::as_str);
    let program = words.next()?;
    if program != "ssh" && !program.ends_with("/ssh") {
        return None;
    }
    let (mut forwards, mut user, mut port, mut host) = (false, None, None, None);
    while let Some(word) = words.next() {
        match word {
            "-q" | "-a" | "-x" | "-T" => {}
            "-W" => forwards = matches!(words.next()?, "%h:%p" | "[%h]:%p"),
            "-l" => user = Some(words.next()?),
            "-p" => port = Some(words.next()?),
            other if other.starts_with('-') || host.is_some() => return None,
            other => host = Some(other),
        }
    }
    let host = host.filter(|_| forwards)?;
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{user}{host}{port}"))
}

fn first<T>(said: &mut Option<T>, value: T) {
    said.get_or_insert(value);
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("`{text}` is no port"))
}

fn flag(keyword: &str, text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("{keyword} must be `yes` or `no`, not `{text}`")),
    }
}

/// `ask` is `yes`: many hosts at once cannot be asked about.
fn mode(text: &str) -> Result<HostKeyMode, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "ask" => Ok(HostKeyMode::Yes),
        "accept-new" => Ok(HostKeyMode::AcceptNew),
        "no" | "false" | "off" => Ok(HostKeyMode::Off),
        _ => Err(format!("StrictHostKeyChecking cannot be `{text}`")),
    }
}

fn family(text: &str) -> Result<Family, String> {
    match text.to_ascii_lowercase().as_str() {
        "any" => Ok(Family::Any),
        "inet" => Ok(Family::V4),
        "inet6" => Ok(Family::V6),
        _ => Err(format!("AddressFamily must be `any`, `inet` or `inet6`, not `{text}`")),
    }
}

/// Seconds, or numbers with units (`sshd_config(5)`, TIME FORMATS); `None` for `none`.
fn duration(text: &str) -> Result<Option<Duration>, String> {
    let wrong = || format!("`{text}` is no time");
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let (mut total, mut number) = (0_u64, String::new());
    for c in text.chars().chain(['s']) {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let seconds = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(wrong()),
        };
        if number.is_empty() {
            // The `s` that stands for no unit, after one.
            continue;
        }
        let count: u64 = number.parse().map_err(|_| wrong())?;
        total = count.checked_mul(seconds).and_then(|t| total.checked_add(t)).ok_or_else(wrong)?;
        number.clear();
    }
    if total == 0 { Err(wrong()) } else { Ok(Some(Duration::from_secs(total))) }
}
