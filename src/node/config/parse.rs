//! Texts into values. Errors are collected, each with where its text was given.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use super::etcd::EtcdArgs;
use super::schema::FLAGS;
use super::source::{Given, Values, split};
use super::{ConfigError, NodeConfig};
use crate::cluster::layout::{Distribution, Layout, Role};
use crate::secret::Secret;

/// What a taint may do to pods.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Longest node name: a DNS name's 253 characters.
const NAME_LENGTH_MAX: usize = 253;

/// Where a server, or a load balancer in front of servers, is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port; 443 when the URL has none.
    pub port: u16,
}

impl ServerUrl {
    /// Takes a URL apart: `https://host[:port]` and nothing else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("https://") else {
            return Err(format!("only https:// URLs are supported, invalid scheme: {text}"));
        };
        let wrong = || format!("invalid server URL {text}: write https://host:port");
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none() && !rest.contains('@');
        if !plain {
            return Err(wrong());
        }
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(443),
        })
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// Reads typed values and remembers what was wrong.
pub(super) struct Reader<'a> {
    values: &'a Values,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(values: &'a Values) -> Self {
        Self { values, errors: Vec::new() }
    }

    /// `config`, if nothing was wrong.
    pub(super) fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.errors.is_empty() { Ok(config) } else { Err(ConfigError(self.errors)) }
    }

    pub(super) fn refuse(&mut self, message: String) {
        self.errors.push(message);
    }

    fn refuse_at(&mut self, given: &Given, message: &str) {
        self.errors.push(format!("{}: {message}", given.origin));
    }

    pub(super) fn node(&mut self) -> NodeConfig {
        NodeConfig {
            name: self.node_name(),
            ips: self.node_ips(),
            labels: self.labels(),
            taints: self.taints(),
            data_dir: self.data_dir(),
            server: self.server(),
            token: self.secret("token", "token-file"),
            token_file: self.path("token-file"),
            debug: self.switch("debug"),
            log: self.path("log"),
        }
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        let layout = Layout::new(Distribution::Embedded, Role::Server, None);
        self.path("data-dir").unwrap_or_else(|| PathBuf::from(layout.data_dir))
    }

    /// The last value, unless it is empty: an empty one counts as unset, as in K3s.
    fn text(&self, name: &str) -> Option<&'a Given> {
        self.values.last(name).filter(|given| !given.text.is_empty())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|given| PathBuf::from(given.text.expose()))
    }

    /// The last value as text.
    pub(super) fn string(&self, name: &str) -> Option<String> {
        self.text(name).map(|given| given.text.expose().to_owned())
    }

    /// A number from 0 on.
    pub(super) fn count(&mut self, name: &str) -> Option<usize> {
        let given = self.text(name)?;
        let parsed = given.text.expose().parse().ok();
        if parsed.is_none() {
            let text = given.text.expose();
            self.refuse_at(given, &format!("--{name} is a number from 0 on, found `{text}`"));
        }
        parsed
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        let texts = self.values.all(name).iter().map(|given| given.text.expose());
        texts
            .flat_map(|text| flag.map_or_else(|| vec![text.to_owned()], |flag| split(flag, text)))
            .collect()
    }

    pub(super) fn switch(&mut self, name: &str) -> bool {
        let Some(given) = self.text(name) else { return false };
        match given.text.expose() {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => true,
            "false" | "0" | "f" | "F" | "FALSE" | "False" => false,
            other => {
                self.refuse_at(given, &format!("--{name} is true or false, found `{other}`"));
                false
            }
        }
    }

    pub(super) fn port(&mut self, name: &str, default: u16) -> u16 {
        let Some(given) = self.text(name) else { return default };
        let parsed = given.text.expose().parse().ok().filter(|port| *port != 0);
        parsed.unwrap_or_else(|| {
            let text = given.text.expose();
            self.refuse_at(given, &format!("--{name} is a port from 1 to 65535, found `{text}`"));
            default
        })
    }

    pub(super) fn address(&mut self, name: &str) -> Option<IpAddr> {
        let given = self.text(name)?;
        let parsed = given.text.expose().parse().ok();
        if parsed.is_none() {
            let text = given.text.expose();
            self.refuse_at(given, &format!("--{name} is an IP address, found `{text}`"));
        }
        parsed
    }

    /// Permission bits in octal.
    pub(super) fn mode(&mut self, name: &str, default: u32) -> u32 {
        let Some(given) = self.text(name) else { return default };
        let text = given.text.expose().trim_start_matches("0o");
        let parsed = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        parsed.unwrap_or_else(|| {
            self.refuse_at(given, &format!("--{name} is an octal mode such as 0600"));
            default
        })
    }

    /// A secret given as text or in a file; the file wins, as in K3s.
    pub(super) fn secret(&mut self, name: &str, file: &str) -> Option<Secret> {
        if let Some(given) = self.text(file) {
            let path = PathBuf::from(given.text.expose());
            let content = match std::fs::read_to_string(&path) {
                Ok(content) => zeroize::Zeroizing::new(content),
                Err(error) => {
                    let message = format!("--{file} {}: {error}", path.display());
                    self.refuse_at(given, &message);
                    return None;
                }
            };
            let secret = Secret::new(content.trim());
            if secret.is_empty() {
                self.refuse_at(given, &format!("--{file} {}: it is empty", path.display()));
                return None;
            }
            return Some(secret);
        }
        self.text(name).map(|given| Secret::new(given.text.expose().trim()))
    }

    pub(super) fn etcd(&mut self) -> EtcdArgs {
        let mut args = EtcdArgs::default();
        for given in self.values.all("etcd-arg") {
            if let Err(message) = args.set(given.text.expose()) {
                self.refuse_at(given, &message);
            }
        }
        if let Err(message) = args.check() {
            self.refuse(message);
        }
        args
    }

    fn server(&mut self) -> Option<ServerUrl> {
        let given = self.text("server")?;
        match ServerUrl::parse(given.text.expose()) {
            Ok(url) => Some(url),
            Err(message) => {
                self.refuse_at(given, &message);
                None
            }
        }
    }

    fn node_name(&mut self) -> String {
        let given = self.text("node-name");
        let name = given.map_or_else(
            || rustix::system::uname().nodename().to_string_lossy().into_owned(),
            |given| given.text.expose().to_owned(),
        );
        let name = name.to_lowercase();
        if !is_node_name(&name) {
            let message = format!(
                "invalid node name `{name}`: lower-case letters, digits, `-` and `.`, a letter or \
                 digit first and last"
            );
            match given {
                Some(given) => self.refuse_at(given, &message),
                None => self.refuse(format!("{message}; set --node-name")),
            }
        }
        name
    }

    fn node_ips(&mut self) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for text in self.list("node-ip") {
            match text.parse() {
                Ok(ip) => ips.push(ip),
                Err(_) => self.refuse(format!("--node-ip is an IP address, found `{text}`")),
            }
        }
        if ips.is_empty() {
            let bind = self.text("bind-address").and_then(|given| given.text.expose().parse().ok());
            let specific = bind.filter(|address: &IpAddr| !address.is_unspecified());
            ips.push(specific.unwrap_or_else(default_route_address));
        }
        ips
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for given in self.values.all("node-label") {
            match given.text.expose().split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    labels.insert(key.trim().to_owned(), value.trim().to_owned());
                }
                _ => self.refuse_at(given, "--node-label is key=value"),
            }
        }
        labels
    }

    fn taints(&mut self) -> Vec<String> {
        let mut taints = Vec::new();
        for given in self.values.all("node-taint") {
            let text = given.text.expose();
            let valid = text
                .rsplit_once(':')
                .is_some_and(|(key, effect)| !key.is_empty() && EFFECTS.contains(&effect));
            if valid {
                taints.push(text.to_owned());
            } else {
                let effects = EFFECTS.join(", ");
                self.refuse_at(given, &format!("--node-taint is key=value:effect ({effects})"));
            }
        }
        taints
    }
}

/// A name as Kubernetes takes it for a node (RFC 1123).
fn is_node_name(name: &str) -> bool {
    let inner = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let bytes = name.as_bytes();
    name.len() <= NAME_LENGTH_MAX
        && bytes.first().is_some_and(|letter| inner(*letter))
        && bytes.last().is_some_and(|letter| inner(*letter))
        && bytes.iter().all(|letter| inner(*letter) || matches!(letter, b'-' | b'.'))
}

/// The address of the interface that the default route uses; loopback without one. Asks the
/// kernel for a route and sends nothing.
fn default_route_address() -> IpAddr {
    let asked = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    asked().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
