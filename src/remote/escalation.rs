//! How the executor is started as the user it shall work as: directly, or by sudo or doas, with or
//! without a password.
//!
//! A password travels over standard input, or the channel's own terminal, when it is asked for: by
//! sudo with a prompt that nobody can guess. It is given once: a second question means that it was
//! wrong, and a third wrong one might lock the account.

use tokio::io::AsyncWriteExt as _;

use super::RemoteError;
use super::pipe::{Pipe, clean};
use super::prompt::{Heard, our_line};
use super::target::{Become, Method};
use crate::host::COMMAND;
use crate::secret::Secret;

/// How the executor is started.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// As who is logged in.
    Direct,
    /// As another.
    Other(Other),
}

/// Another user, and how to become it.
#[derive(Clone, Debug)]
pub(super) struct Other {
    pub(super) user: String,
    method: Method,
    /// Without one, none may be asked for.
    password: Option<Secret>,
    /// The program wants a terminal.
    terminal: bool,
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
        let Some(Become { user, password, method }) = escalation else { return Ok(Self::Direct) };
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
        Ok(Self::Other(Other {
            user: user.clone(),
            method: *method,
            password: password.clone(),
            // doas takes a password from a terminal only.
            terminal: *method == Method::Doas && password.is_some(),
        }))
    }

    /// For this machine: directly when the process is that user already.
    pub(super) fn here(self) -> Self {
        let own = crate::host::user_name(rustix::process::geteuid().as_raw());
        if self.user() == Some(&own) { Self::Direct } else { self }
    }

    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Self::Direct)
    }

    /// The user to become.
    pub(super) fn user(&self) -> Option<&str> {
        self.other().map(|other| other.user.as_str())
    }

    /// Whether the executor is started on a terminal.
    pub(super) fn on_terminal(&self) -> bool {
        self.other().is_some_and(|other| other.terminal)
    }

    /// Whether a password may be asked for before the executor speaks.
    pub(super) fn may_ask(&self) -> bool {
        self.other().is_some_and(|other| other.password.is_some())
    }

    /// The same on a terminal, when `said` is a demand for one (`requiretty` in sudoers(5)) that was
    /// not met. The word is the same in every language that sudo speaks.
    pub(super) fn with_terminal(&self, said: &str) -> Option<Self> {
        let other = self.other()?;
        let demanded = said.contains("tty") && said.contains(other.program());
        let other = Other { terminal: true, ..other.clone() };
        (demanded && !self.on_terminal()).then_some(Self::Other(other))
    }

    fn other(&self) -> Option<&Other> {
        match self {
            Self::Direct => None,
            Self::Other(other) => Some(other),
        }
    }

    /// Program and arguments that start the executor at `path`.
    pub(super) fn argv(&self, path: &str, start: &Start) -> Vec<String> {
        let mut argv = self.other().map(|other| other.argv(start)).unwrap_or_default();
        let [host, marker] = COMMAND;
        argv.extend([path, host, marker, &start.marker()].map(str::to_owned));
        if let Some(sha256) = &start.sha256 {
            argv.extend(["--sha256".to_owned(), sha256.clone()]);
        }
        argv
    }
}

impl Other {
    fn program(&self) -> &'static str {
        match self.method {
            Method::Sudo => "sudo",
            Method::Doas => "doas",
        }
    }

    /// Up to `--`, after which the executor's own words stand.
    fn argv(&self, start: &Start) -> Vec<String> {
        let prompt = start.prompt();
        let how: &[&str] = match (self.method, &self.password) {
            (Method::Sudo, None) => &["sudo", "-n", "-H"],
            (Method::Sudo, Some(_)) => &["sudo", "-S", "-p", &prompt, "-H"],
            (Method::Doas, None) => &["doas", "-n"],
            (Method::Doas, Some(_)) => &["doas"],
        };
        let whom = ["-u", &self.user, "--"];
        how.iter().chain(&whom).map(|word| (*word).to_owned()).collect()
    }

    /// What the program asks for the password with. That of doas cannot be chosen.
    fn prompt(&self, start: &Start) -> String {
        match self.method {
            Method::Sudo => start.prompt(),
            Method::Doas => ") password: ".to_owned(),
        }
    }

    fn wrong_password(&self) -> RemoteError {
        RemoteError::Become {
            message: format!(
                "{} does not accept the password to become {}",
                self.program(),
                self.user
            ),
            hint: Some("it was tried once only, so that no account is locked".to_owned()),
        }
    }

    /// Why it did not let us, from what it said.
    fn refusal(&self, text: &str) -> RemoteError {
        let program = self.program();
        let hint = if text.contains("not found") {
            format!(
                "install {program} on the host, set ansible_become_method, or log in as that user"
            )
        } else if text.contains("tty") {
            format!("{program} wants a terminal, which there is over SSH only")
        } else if self.password.is_none() {
            format!("give a password (-K, ansible_become_password), or let {program} ask for none")
        } else {
            format!("see {program}'s configuration on the host, or log in as that user")
        };
        RemoteError::Become {
            message: format!("cannot become {}: {text}", self.user),
            hint: Some(hint),
        }
    }
}

/// The first line of ours that a started process prints; `None` when it ended without one. A
/// password that is asked for is given.
pub(super) async fn first_line(
    pipe: &mut Pipe,
    way: &Way,
    start: &Start,
) -> Result<Option<String>, RemoteError> {
    let lost = |error: std::io::Error| RemoteError::Unreachable {
        message: format!("lost the connection: {error}"),
        hint: None,
    };
    let Some(Other { password: Some(password), .. }) = way.other() else {
        return our_line(pipe, &start.nonce, None).await.map_err(lost).map(Heard::line);
    };
    let Some(other) = way.other() else { return Ok(None) };
    let prompt = other.prompt(start);
    match our_line(pipe, &start.nonce, Some((&prompt, 1))).await.map_err(lost)? {
        Heard::Prompt => {}
        heard => return Ok(heard.line()),
    }
    let told = async {
        pipe.input.write_all(password.expose().as_bytes()).await?;
        pipe.input.write_all(b"\n").await?;
        pipe.input.flush().await
    };
    told.await.map_err(lost)?;
    match our_line(pipe, &start.nonce, Some((&prompt, 2))).await.map_err(lost)? {
        Heard::Prompt => Err(other.wrong_password()),
        heard => Ok(heard.line()),
    }
}

/// What was said beside the executor's own lines, our question left out.
pub(super) fn spoken(pipe: &Pipe, way: &Way, start: &Start) -> String {
    let mut text = pipe.said.borrow().text();
    if way.on_terminal() {
        text = format!("{}\n{text}", pipe.heard);
    }
    clean(&text.replace(&start.prompt(), "\n"))
}

/// What is said when there is no line of ours in time: something else is asked for, perhaps.
pub(super) fn silent(
    name: &str,
    pipe: &Pipe,
    way: &Way,
    start: &Start,
    seconds: u64,
) -> RemoteError {
    let text = spoken(pipe, way, start);
    match way.other() {
        Some(other) if !text.is_empty() => RemoteError::Become {
            message: format!("{} on {name} waits for something else: {text}", other.program()),
            hint: Some("only a password can be given".to_owned()),
        },
        _ => RemoteError::Unreachable {
            message: format!("{name} did not start the executor in {seconds} s"),
            hint: None,
        },
    }
}

/// Why a start came to nothing, from what was said and the exit status.
pub(super) async fn explain(pipe: &mut Pipe, way: &Way, start: &Start) -> RemoteError {
    let ended = pipe.said.wait_for(|said| said.status.is_some());
    // A host that does not say is explained without.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), ended).await;
    let status = pipe.said.borrow().status;
    let text = spoken(pipe, way, start);
    if let Some(other) = way.other().filter(|other| text.contains(other.program())) {
        // Where only one try is allowed, the second question does not come.
        let wrong = ["incorrect password", "Authentication failed", "Authorization failed"];
        if other.password.is_some() && wrong.iter().any(|words| text.contains(words)) {
            return other.wrong_password();
        }
        return other.refusal(&text);
    }
    let (reason, hint) = match status {
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
