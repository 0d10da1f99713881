//! Passwords that people type: those they know, and new ones.

use std::io::{BufRead as _, IsTerminal as _};

use crate::error::{ExitCode, Failure};
use crate::secret::Secret;

/// That of the user in whose name is asked.
pub(super) fn known() -> Result<Secret, Failure> {
    on_terminal("--password, --user NAME:PASSWORD, or ETCDCTL_PASSWORD")?;
    let typed = dialoguer::Password::new().with_prompt("Password").allow_empty_password(true);
    typed.interact().map(Secret::new).map_err(|error| not_asked(&error))
}

/// A new one, typed twice.
pub(super) fn new(user: &str) -> Result<Secret, Failure> {
    on_terminal("--interactive=false, and a line of standard input")?;
    let typed =
        dialoguer::Password::new().with_prompt(format!("Password of {user}")).with_confirmation(
            format!("Type password of {user} again for confirmation"),
            "given passwords are different",
        );
    typed.interact().map(Secret::new).map_err(|error| not_asked(&error))
}

/// A new one: the first word of standard input's first line.
pub(super) fn piped() -> Result<Secret, Failure> {
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    let mut line = zeroize::Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| bad(format!("standard input: {error}")))?;
    match line.split_whitespace().next() {
        Some(word) => Ok(word.into()),
        None => Err(bad("empty password".to_owned())
            .hint("with --interactive=false it is the first line of standard input")),
    }
}

/// Nobody can be asked elsewhere; `instead` says what can be done then.
fn on_terminal(instead: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    let why = "failed to ask password: standard input is no terminal";
    Err(Failure::new(ExitCode::BadInput, why).hint(format!("give it with {instead}")))
}

fn not_asked(error: &dialoguer::Error) -> Failure {
    Failure::new(ExitCode::BadInput, format!("failed to ask password: {error}"))
}
