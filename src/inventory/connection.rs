//! How to reach a host: Ansible's connection variables, typed.

use std::time::Duration;

use serde_json::Value as Json;

use crate::secret::Secret;
use crate::template::{Engine, Vars};

use super::names::{is_address, is_plain_word};
use super::ssh_args::{self, SshArgs};

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// By SSH.
    Ssh(Ssh),
    /// It is this machine.
    Local,
    /// It is a lab host of this machine, with this loopback address; its lab has the cluster's name.
    Lab {
        /// Its own loopback address.
        address: std::net::IpAddr,
    },
}

/// An SSH connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// Host name or address (`ansible_host`, else the host's name).
    pub address: String,
    /// Port (`ansible_port`).
    pub port: Option<u16>,
    /// Login (`ansible_user`).
    pub user: Option<String>,
    /// Private key file (`ansible_ssh_private_key_file`), `~` not expanded.
    pub private_key_file: Option<String>,
    /// Password (`ansible_password`).
    pub password: Option<Secret>,
    /// What is done about host keys (`ansible_host_key_checking`).
    pub host_keys: Option<HostKeys>,
    /// How long connecting may take (`ansible_ssh_timeout`, in seconds).
    pub timeout: Option<Duration>,
    /// Keywords of `ssh_config(5)`, lower case, and values (`ansible_ssh_common_args`,
    /// `ansible_ssh_extra_args`, `ansible_ssh_args`).
    pub options: Vec<(String, String)>,
    /// The file that is read in place of `~/.ssh/config` and the system's (`-F` there).
    pub config_file: Option<String>,
}

/// What is done about host keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeys {
    /// A new host's key is learned, a changed one refused.
    AcceptNew,
    /// Only known keys (`ansible_host_key_checking: true`).
    Strict,
    /// Any key (`ansible_host_key_checking: false`).
    Off,
}

/// How to become another user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Become {
    /// `ansible_become`; `None` leaves it to the play.
    pub enabled: Option<bool>,
    /// `ansible_become_user`.
    pub user: String,
    /// `ansible_become_method`.
    pub method: BecomeMethod,
    /// `ansible_become_password`.
    pub password: Option<Secret>,
}

/// The command that becomes another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BecomeMethod {
    /// `sudo`.
    Sudo,
    /// `doas`.
    Doas,
}

/// Variables with `ansible_` in front that mean something here, and those of Ansible that may stay.
pub(super) const KNOWN: [&str; 24] = [
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_ssh_host",
    "ansible_ssh_port",
    "ansible_ssh_user",
    "ansible_ssh_private_key_file",
    "ansible_private_key_file",
    "ansible_password",
    "ansible_ssh_pass",
    "ansible_ssh_password",
    "ansible_connection",
    "ansible_become",
    "ansible_become_user",
    "ansible_become_method",
    "ansible_become_pass",
    "ansible_become_password",
    "ansible_host_key_checking",
    "ansible_ssh_host_key_checking",
    "ansible_ssh_timeout",
    "ansible_timeout",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_args",
];

/// Variables of Ansible that have no meaning here and do no harm.
pub(super) const IGNORED: [&str; 7] = [
    "ansible_python_interpreter",
    "ansible_ssh_pipelining",
    "ansible_pipelining",
    "ansible_ssh_retries",
    "ansible_ssh_use_tty",
    "ansible_control_path",
    "ansible_become_flags",
];

/// What is wrong with a connection variable: its name and why.
pub(super) type Problem = (&'static str, String);

/// Reads the connection variables of `vars`.
pub(super) struct Reader<'a> {
    pub(super) engine: &'a Engine,
    pub(super) vars: &'a Vars,
    pub(super) problems: Vec<Problem>,
}

impl Reader<'_> {
    /// The first of `names` that is set, its templates rendered; nothing counts as not set.
    fn value(&mut self, names: &[&'static str]) -> Option<(&'static str, Json)> {
        let name = *names.iter().find(|name| self.vars.get(name).is_some())?;
        let lookup = Json::String(format!("{{{{ {name} }}}}"));
        match self.engine.evaluate(&lookup, self.vars) {
            Ok(evaluated) if evaluated.value.is_null() => None,
            Ok(evaluated) => Some((name, evaluated.value)),
            Err(error) => {
                self.problems.push((name, error.to_string()));
                None
            }
        }
    }

    fn refuse(&mut self, name: &'static str, why: impl Into<String>) {
        self.problems.push((name, why.into()));
    }

    fn text(&mut self, names: &[&'static str]) -> Option<(&'static str, String)> {
        match self.value(names)? {
            (name, Json::String(text)) => Some((name, text)),
            (name, Json::Number(number)) => Some((name, number.to_string())),
            (name, _) => {
                self.refuse(name, "it must be a text");
                None
            }
        }
    }

    /// A host name or an address.
    fn address(&mut self, names: &[&'static str]) -> Option<String> {
        let (name, text) = self.text(names)?;
        if is_address(&text) {
            return Some(text);
        }
        self.refuse(name, "it must be a host name or an IP address");
        None
    }

    /// A login.
    fn word(&mut self, names: &[&'static str]) -> Option<String> {
        let (name, text) = self.text(names)?;
        if is_plain_word(&text) {
            return Some(text);
        }
        self.refuse(name, "it must be one word without blanks, quotes and shell characters");
        None
    }

    fn secret(&mut self, names: &[&'static str]) -> Option<Secret> {
        self.text(names).map(|(_, text)| Secret::new(text))
    }

    fn number(&mut self, names: &[&'static str], from: u64, to: u64) -> Option<u64> {
        let (name, text) = self.text(names)?;
        match text.trim().parse() {
            Ok(number) if (from..=to).contains(&number) => Some(number),
            _ => {
                self.refuse(name, format!("it must be a whole number from {from} to {to}"));
                None
            }
        }
    }

    fn flag(&mut self, names: &[&'static str]) -> Option<bool> {
        match self.value(names)? {
            (_, Json::Bool(flag)) => Some(flag),
            (name, Json::String(text)) => {
                let flag = match text.trim().to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "1" => Some(true),
                    "false" | "no" | "off" | "0" => Some(false),
                    _ => None,
                };
                if flag.is_none() {
                    self.refuse(name, "it must be `true` or `false`");
                }
                flag
            }
            (name, _) => {
                self.refuse(name, "it must be `true` or `false`");
                None
            }
        }
    }

    /// How the host `name` is reached.
    pub(super) fn connection(&mut self, host: &str) -> Connection {
        let kind = self.text(&["ansible_connection"]).map(|(_, kind)| kind);
        match kind.as_deref() {
            Some("local") => Connection::Local,
            Some("lab") => self.lab(),
            None | Some("ssh" | "smart" | "paramiko" | "ansible.builtin.ssh") => {
                Connection::Ssh(self.ssh(host))
            }
            Some(_) => {
                self.refuse("ansible_connection", "it must be `ssh`, `local` or `lab`");
                Connection::Local
            }
        }
    }

    fn lab(&mut self) -> Connection {
        let address = self.address(&["ansible_host", "ansible_ssh_host"]);
        match address.as_deref().map(str::parse::<std::net::IpAddr>) {
            Some(Ok(address)) if address.is_loopback() => return Connection::Lab { address },
            Some(_) => self.refuse("ansible_host", "a lab host has an address in 127.0.0.0/8"),
            None => self.refuse(
                "ansible_connection",
                "a lab host needs `ansible_host`, a loopback address of its own (127.77.0.11)",
            ),
        }
        Connection::Local
    }

    fn ssh(&mut self, host: &str) -> Ssh {
        let port = self.number(&["ansible_port", "ansible_ssh_port"], 1, u64::from(u16::MAX));
        let timeout = self.number(&["ansible_ssh_timeout", "ansible_timeout"], 1, 3600);
        let host_keys = self.host_keys();
        let SshArgs { options, config_file } = self.ssh_args();
        Ssh {
            address: self
                .address(&["ansible_host", "ansible_ssh_host"])
                .unwrap_or_else(|| host.to_owned()),
            port: port.and_then(|port| u16::try_from(port).ok()),
            user: self.word(&["ansible_user", "ansible_ssh_user"]),
            private_key_file: self
                .text(&["ansible_ssh_private_key_file", "ansible_private_key_file"])
                .map(|(_, file)| file),
            password: self.secret(&[
                "ansible_password",
                "ansible_ssh_password",
                "ansible_ssh_pass",
            ]),
            host_keys,
            timeout: timeout.map(Duration::from_secs),
            options,
            config_file,
        }
    }

    /// As `ssh` is called by Ansible: these arguments in this order.
    fn ssh_args(&mut self) -> SshArgs {
        let mut args = SshArgs::default();
        for name in ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"] {
            if let Some((name, text)) = self.text(&[name])
                && let Err(why) = ssh_args::read(&text, &mut args)
            {
                self.refuse(name, why);
            }
        }
        args
    }

    fn host_keys(&mut self) -> Option<HostKeys> {
        let names = ["ansible_host_key_checking", "ansible_ssh_host_key_checking"];
        match self.value(&names) {
            Some((_, Json::String(text))) if text == "accept-new" => Some(HostKeys::AcceptNew),
            Some(_) => {
                let strict = self.flag(&names)?;
                Some(if strict { HostKeys::Strict } else { HostKeys::Off })
            }
            None => None,
        }
    }

    /// How to become another user.
    pub(super) fn r#become(&mut self) -> Become {
        let method = match self.text(&["ansible_become_method"]) {
            None => BecomeMethod::Sudo,
            Some((name, method)) => match method.trim_start_matches("ansible.builtin.") {
                "sudo" => BecomeMethod::Sudo,
                "doas" | "community.general.doas" => BecomeMethod::Doas,
                "su" => {
                    // It reads its password from a terminal only, and that of the other user.
                    self.refuse(name, "`su` is not supported; use `sudo` or `doas`");
                    BecomeMethod::Sudo
                }
                _ => {
                    self.refuse(name, "it must be `sudo` or `doas`");
                    BecomeMethod::Sudo
                }
            },
        };
        Become {
            enabled: self.flag(&["ansible_become"]),
            user: self.word(&["ansible_become_user"]).unwrap_or_else(|| "root".to_owned()),
            method,
            password: self.secret(&["ansible_become_password", "ansible_become_pass"]),
        }
    }
}
