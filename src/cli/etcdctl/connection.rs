//! Whom the client talks to, and with which certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::passwords;
use crate::error::{ExitCode, Failure};
use crate::pki::tls::{self, Roots, Shown};
use crate::pki::{KeyPairPem, PkiError};
use crate::rpc::client::{self, Client, User};
use crate::secret::Secret;

/// Where a server writes how it is asked.
const ENVIRONMENT: &str = "/var/lib/k3sup/server/cred/etcdctl.env";

/// etcdctl's flags for all commands.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Connection {
    /// gRPC endpoints, comma-separated [default: this host's server, else 127.0.0.1:2379]
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_ENDPOINTS",
        value_delimiter = ',',
        value_name = "URL"
    )]
    endpoints: Vec<String>,

    /// CA of the servers' certificates
    #[arg(long, global = true, env = "ETCDCTL_CACERT", value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Certificate of this client
    #[arg(long, global = true, env = "ETCDCTL_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,

    /// Its key
    #[arg(
        long = "key",
        id = "client-key",
        global = true,
        env = "ETCDCTL_KEY",
        value_name = "FILE"
    )]
    key: Option<PathBuf>,

    /// Take any certificate of a server: for tests
    #[arg(long, global = true)]
    insecure_skip_tls_verify: bool,

    /// Ask as this user; its password is asked for on the terminal when it is given nowhere
    #[arg(
        long,
        global = true,
        env = "ETCDCTL_USER",
        hide_env_values = true,
        value_name = "NAME[:PASSWORD]"
    )]
    user: Option<Secret>,

    /// The user's password; others on this host can see it here, on the terminal they cannot
    #[arg(long, global = true, env = "ETCDCTL_PASSWORD", hide_env_values = true)]
    password: Option<Secret>,

    /// How long a call may take, in seconds or as 5s, 1m
    #[arg(long, global = true, default_value = "5s", value_name = "TIME")]
    command_timeout: humantime::Duration,
}

impl Connection {
    /// With the endpoint and certificates of this host's server when nothing was given, and with the
    /// user's password, which a person is asked for.
    pub(super) fn completed(mut self) -> Result<Self, Failure> {
        self.complete_password()?;
        if !self.endpoints.is_empty() {
            return Ok(self);
        }
        if let Ok(text) = std::fs::read_to_string(ENVIRONMENT) {
            for line in text.lines() {
                self.take(line);
            }
        }
        if self.endpoints.is_empty() {
            self.endpoints = vec!["127.0.0.1:2379".to_owned()];
        }
        Ok(self)
    }

    /// Asks for the user's password when it was not given.
    fn complete_password(&mut self) -> Result<(), Failure> {
        let named = |user: &Secret| !user.is_empty() && !user.expose().contains(':');
        let is_given = self.password.as_ref().is_some_and(|password| !password.is_empty());
        if self.user.as_ref().is_some_and(named) && !is_given {
            self.password = Some(passwords::known()?);
        }
        Ok(())
    }

    /// In whose name is asked.
    fn user(&self) -> Option<User> {
        let user = self.user.as_ref().filter(|user| !user.is_empty())?.expose();
        if let Some(password) = self.password.clone().filter(|password| !password.is_empty()) {
            return Some(User { name: user.to_owned(), password });
        }
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        Some(User { name: name.to_owned(), password: password.into() })
    }

    /// Takes `export NAME=value`.
    fn take(&mut self, line: &str) {
        let assignment = line.strip_prefix("export ").and_then(|line| line.split_once('='));
        let Some((name, value)) = assignment else { return };
        let words = shell_words::split(value).unwrap_or_default();
        let Some(value) = words.first() else { return };
        match name {
            "ETCDCTL_ENDPOINTS" => self.endpoints = vec![value.clone()],
            "ETCDCTL_CACERT" => self.cacert = Some(value.into()),
            "ETCDCTL_CERT" => self.cert = Some(value.into()),
            "ETCDCTL_KEY" => self.key = Some(value.into()),
            _ => {}
        }
    }

    /// The endpoints.
    pub(super) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The same with other endpoints.
    pub(super) fn at(&self, endpoints: Vec<String>) -> Self {
        Self { endpoints, ..self.clone() }
    }

    /// How long a call may take.
    pub(super) fn patience(&self) -> Duration {
        self.command_timeout.into()
    }

    /// A client of all endpoints.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let bad = |error: &dyn std::error::Error| {
            Failure::new(ExitCode::BadInput, crate::error::chain(error))
        };
        let tls = self.tls()?;
        client::connect_with(&self.endpoints, tls.as_ref(), self.user())
            .map_err(|error| bad(&error))
    }

    /// `None` without any file and without a word of TLS.
    fn tls(&self) -> Result<Option<std::sync::Arc<rustls::ClientConfig>>, Failure> {
        let is_https = self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let has_files = self.cacert.is_some() || self.cert.is_some();
        if !is_https && !has_files && !self.insecure_skip_tls_verify {
            return Ok(None);
        }
        let unusable = |error: PkiError| Failure::new(ExitCode::BadInput, error.to_string());
        let shown = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let pair = KeyPairPem { certificate: read(cert)?, key: Secret::new(read(key)?) };
                Some(Shown::new(&pair).map_err(unusable)?)
            }
            (None, None) => None,
            _ => {
                return Err(Failure::new(ExitCode::BadInput, "--cert and --key go together"));
            }
        };
        let alpn: &[&[u8]] = &[b"h2"];
        let config = if self.insecure_skip_tls_verify {
            tls::client_believing_anybody(shown, alpn)
        } else {
            let roots = match &self.cacert {
                Some(path) => Roots::new(&read(path)?),
                None => Roots::of_this_host(),
            };
            roots.and_then(|roots| tls::client_believing(roots, shown, alpn))
        };
        config.map(Some).map_err(unusable)
    }

    /// Waits for an answer as long as it may take.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.patience(), call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(super::refused(status)),
            Err(_) => Err(Failure::new(ExitCode::Error, "context deadline exceeded")),
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(ExitCode::BadInput, format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        connection: Connection,
    }

    fn user(flags: &[&str]) -> Option<(String, String)> {
        let program = Program::parse_from(["etcdctl"].iter().chain(flags));
        assert!(!format!("{program:?}").contains("hush"), "{program:?}");
        let user = program.connection.user()?;
        assert!(!format!("{user:?}").contains("hush"), "{user:?}");
        Some((user.name, user.password.expose().to_owned()))
    }

    #[test]
    fn a_user_is_read_as_etcdctl_reads_it() {
        let of = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(user(&["--user=root:hush:now"]), of("root", "hush:now"));
        assert_eq!(user(&["--user=root", "--password=hush"]), of("root", "hush"));
        assert_eq!(user(&["--user=a:b", "--password=hush"]), of("a:b", "hush"));
        assert_eq!(user(&["--user=", "--password=hush"]), None);
        assert_eq!(user(&["--password=hush"]), None);
    }
}
