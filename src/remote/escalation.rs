//! How the executor is started as the user it shall work as: directly, or by sudo with or without a
//! password.
//!
//! A password travels over standard input when sudo asks for it with a prompt that nobody can
//! guess. It is given once: a second question means that it was wrong, and a third wrong one might
//! lock the account.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use super::RemoteError;
use super::pipe::Pipe;
use super::target::Become;
use crate::secret::Secret;

/// Most bytes that login scripts may print before the executor speaks.
const NOISE_BYTES_MAX: u64 = 64 * 1024;

/// How the executor is started.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// As who is logged in.
    Direct,
    /// As `user`, by sudo, which must not ask.
    Sudo { user: String },
    /// As `user`, by sudo, which is told the password when it asks.
    Ask { user: String, password: Secret },
}

/// What a start is recognised by.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// Not to be guessed, hex.
    pub(super) nonce: String,
    /// The executor's hash, if it is verified.
    pub(super) sha256: Option<String>,
}

impl Start {
    pub(super) fn new(sha256: Option<String>) -> Self {
        Self { nonce: format!("{:032x}", rand::random::<u128>()), sha256 }
    }

    /// What the executor prints before the first frame.
    pub(super) fn marker(&self) -> String {
        format!("k3sup-rs {} ready", self.nonce)
    }

    /// What sudo shall ask with.
    pub(super) fn prompt(&self) -> String {
        format!("k3sup-rs {} password:", self.nonce)
    }
}

impl Way {
    /// From what the inventory says.
    pub(super) fn of(escalation: Option<&Become>) -> Result<Self, RemoteError> {
        let Some(Become { user, password }) = escalation else { return Ok(Self::Direct) };
        // Never an option, never another argument: useradd's grammar or a number.
        let fine = !user.is_empty()
            && !user.starts_with('-')
            && user.chars().all(|c| c.is_ascii_alphanumeric() || "_-.$".contains(c));
        if !fine {
            return Err(RemoteError::Become {
                message: format!("{user:?} cannot be the name of a user"),
                hint: Some("see become_user / ansible_become_user".to_owned()),
            });
        }
        Ok(match password {
            Some(password) => Self::Ask { user: user.clone(), password: password.clone() },
            None => Self::Sudo { user: user.clone() },
        })
    }

    /// For this machine: directly when the process is that user already.
    pub(super) fn here(self) -> Self {
        let own = crate::host::user_name(rustix::process::geteuid().as_raw());
        match &self {
            Self::Sudo { user } | Self::Ask { user, .. } if *user == own => Self::Direct,
            _ => self,
        }
    }

    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Self::Direct)
    }

    /// Program and arguments that start the executor at `path`.
    pub(super) fn argv(&self, path: &str, start: &Start) -> Vec<String> {
        let mut argv: Vec<String> = match self {
            Self::Direct => Vec::new(),
            Self::Sudo { user } => {
                ["sudo", "-n", "-H", "-u", user, "--"].map(str::to_owned).to_vec()
            }
            Self::Ask { user, .. } => ["sudo", "-S", "-p", &start.prompt(), "-H", "-u", user, "--"]
                .map(str::to_owned)
                .to_vec(),
        };
        argv.extend([path, "host", "--marker", &start.marker()].map(str::to_owned));
        if let Some(sha256) = &start.sha256 {
            argv.extend(["--sha256".to_owned(), sha256.clone()]);
        }
        argv
    }
}

/// The first line of ours that a started process prints; `None` when it ended without one.
pub(super) async fn first_line(
    pipe: &mut Pipe,
    way: &Way,
    start: &Start,
) -> Result<Option<String>, RemoteError> {
    let prompt = start.prompt();
    if let Way::Ask { user, password } = way {
        let mut said = pipe.said.clone();
        let asked = said.wait_for(|said| said.count(&prompt) > 0);
        let line = {
            let line = our_line(&mut pipe.output, start);
            tokio::pin!(line);
            tokio::select! {
                line = &mut line => Some(line),
                Ok(_) = asked => None,
            }
        };
        if let Some(line) = line {
            return line.map_err(|error| lost(&error));
        }
        let told = async {
            pipe.input.write_all(password.expose().as_bytes()).await?;
            pipe.input.write_all(b"\n").await?;
            pipe.input.flush().await
        };
        told.await.map_err(|error| lost(&error))?;
        let mut said = pipe.said.clone();
        let again = said.wait_for(|said| said.count(&prompt) > 1);
        return tokio::select! {
            line = our_line(&mut pipe.output, start) => line.map_err(|error| lost(&error)),
            Ok(_) = again => Err(RemoteError::Become {
                message: format!("sudo does not accept the password to become {user}"),
                hint: Some("it was tried once only, so that no account is locked".to_owned()),
            }),
        };
    }
    our_line(&mut pipe.output, start).await.map_err(|error| lost(&error))
}

/// Reads lines until one with the nonce; what login scripts print before it is left out.
async fn our_line(
    output: &mut (impl tokio::io::AsyncBufRead + Unpin),
    start: &Start,
) -> std::io::Result<Option<String>> {
    let mut left = NOISE_BYTES_MAX;
    loop {
        let mut line = Vec::new();
        // Byte by byte up to the newline: what follows is frames.
        let length = (&mut *output).take(left).read_until(b'\n', &mut line).await?;
        left = left.saturating_sub(u64::try_from(length).unwrap_or(left));
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        // Something may stand before it on the line, printed without an end.
        if let Some(at) = line.find(&format!("k3sup-rs {}", start.nonce)) {
            return Ok(line.get(at..).map(str::to_owned));
        }
    }
}

fn lost(error: &std::io::Error) -> RemoteError {
    RemoteError::Unreachable { message: format!("lost the connection: {error}"), hint: None }
}

/// Why a start came to nothing, from what was said and the exit status.
pub(super) async fn explain(pipe: &mut Pipe, way: &Way) -> RemoteError {
    let ended = pipe.said.wait_for(|said| said.status.is_some());
    // A host that does not say is explained without.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), ended).await;
    let said = pipe.said.borrow().clone();
    let text = said.text();
    let sudo = match way {
        Way::Sudo { user } | Way::Ask { user, .. } if text.contains("sudo") => Some(user),
        _ => None,
    };
    if let Some(user) = sudo {
        let hint = if text.contains("password is required") {
            "give ansible_become_password, or allow the user NOPASSWD in sudoers"
        } else if text.contains("not found") {
            "install sudo on the host, or log in as that user"
        } else {
            "see sudoers(5) on the host, or log in as that user"
        };
        return RemoteError::Become {
            message: format!("cannot become {user}: {text}"),
            hint: Some(hint.to_owned()),
        };
    }
    let (reason, hint) = match said.status {
        Some(126) => ("it may not be executed", Some("is the file system mounted noexec?")),
        Some(127) => (
            "it or its loader is not there",
            Some("a statically linked build runs on hosts with another C library"),
        ),
        Some(_) | None => ("it ended at once", None),
    };
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    RemoteError::Executor {
        message: format!("the executor does not start: {reason}{text}"),
        hint: hint.map(str::to_owned),
    }
}
