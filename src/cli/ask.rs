//! Asking a person before something is destroyed.

use std::io::IsTerminal;

use crate::error::{ExitCode, Failure};

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
