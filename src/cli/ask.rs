//! Asking a person: before something is destroyed, and for passwords.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use crate::error::{ExitCode, Failure};
use crate::run::reach::Asked;
use crate::secret::Secret;

/// Longer ones are a mistake.
const PASSWORD_BYTES_MAX: usize = 4096;

/// Asks a yes-or-no question; `yes` answers it beforehand. Without a terminal nobody can answer, so
/// it is refused.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(ExitCode::Declined, format!("not confirmed: {question}"))
            .hint("add --yes when no person is there to ask"));
    }
    let answer = dialoguer::Confirm::new().with_prompt(question).default(false).interact();
    match answer {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(ExitCode::Declined, "nothing was changed")),
        Err(error) => Err(Failure::new(ExitCode::Error, format!("cannot ask: {error}"))),
    }
}

/// Passwords that are asked for before a run, once for all hosts.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Passwords {
    /// Ask for the password to log in with
    #[arg(long, short = 'k')]
    pub ask_pass: bool,
    /// Ask for the password to become another user with; nothing typed: the one to log in with
    #[arg(long, short = 'K')]
    pub ask_become_pass: bool,
}

impl Passwords {
    /// Asks on the terminal. Without one, each is a line of standard input, in this order.
    pub fn ask(self) -> Result<Asked, Failure> {
        let password = self.ask_pass.then(|| secret("SSH password")).transpose()?;
        let mut become_password =
            self.ask_become_pass.then(|| secret("become password")).transpose()?;
        if become_password.as_ref().is_some_and(|typed| typed.expose().is_empty()) {
            become_password.clone_from(&password);
        }
        Ok(Asked { password, become_password, passphrases: Some(Arc::new(passphrase)) })
    }
}

fn secret(what: &str) -> Result<Secret, Failure> {
    if std::io::stdin().is_terminal() {
        let typed = dialoguer::Password::new().with_prompt(what).allow_empty_password(true);
        return typed.interact().map(Secret::new).map_err(|error| {
            Failure::new(ExitCode::Error, format!("cannot ask for the {what}: {error}"))
        });
    }
    line(&mut std::io::stdin().lock()).map(Secret::new).ok_or_else(|| {
        Failure::new(ExitCode::BadInput, format!("no {what} on standard input"))
            .hint("run it on a terminal, or give one line for each password that is asked for")
    })
}

/// A secret that a person chooses, or knows; `twice` asks again, so that a slip shows at once.
/// Without a terminal it is a line of standard input.
pub fn new_secret(what: &str, twice: bool) -> Result<Secret, Failure> {
    let given = if twice && std::io::stdin().is_terminal() {
        let again = format!("{what}, again");
        let typed = dialoguer::Password::new()
            .with_prompt(what)
            .with_confirmation(again, "the two are not the same");
        typed.interact().map(Secret::new).map_err(|error| {
            Failure::new(ExitCode::Error, format!("cannot ask for the {what}: {error}"))
        })?
    } else {
        secret(what)?
    };
    if given.is_empty() {
        return Err(Failure::new(ExitCode::BadInput, format!("the {what} is empty")));
    }
    Ok(given)
}

/// One line, byte by byte: what follows may be for somebody else.
fn line(input: &mut impl std::io::Read) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < PASSWORD_BYTES_MAX && input.read_exact(&mut byte).is_ok() {
        if byte == *b"\n" {
            return String::from_utf8(line).ok();
        }
        line.extend(byte);
    }
    String::from_utf8(line).ok().filter(|line| !line.is_empty())
}

/// The passphrase of a private key; nobody can be asked without a terminal.
fn passphrase(key: &Path) -> Option<Secret> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let question = format!("passphrase of {}", key.display());
    let typed = dialoguer::Password::new().with_prompt(question).allow_empty_password(true);
    typed.interact().ok().filter(|typed| !typed.is_empty()).map(Secret::new)
}
