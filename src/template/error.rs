//! Why a template could not be rendered.

use minijinja::ErrorKind as Jinja;

/// What kind of failure it is, for those who act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A variable or an attribute is not defined.
    Undefined,
    /// It depends on a result that is not known yet ([`super::Var::Unknown`]).
    NotYetKnown,
    /// It is no template.
    Syntax,
    /// Anything else: a wrong type, an unknown filter, a limit.
    Other,
}

/// Why a template could not be rendered. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// Line in the rendered text, from 1.
    pub line: Option<usize>,
    /// What and why, lower case, without a full stop.
    pub message: String,
}

impl TemplateError {
    /// A failure without a line.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, line: None, message: message.into() }
    }

    /// From the engine's error; `secret` leaves its detail out, which may quote a value.
    pub(super) fn from_jinja(error: &minijinja::Error, secret: bool) -> Self {
        let kind = match error.kind() {
            Jinja::UndefinedError => ErrorKind::Undefined,
            Jinja::SyntaxError => ErrorKind::Syntax,
            _ => ErrorKind::Other,
        };
        let what = match error.kind() {
            Jinja::OutOfFuel => "the template runs too long".to_owned(),
            kind => kind.to_string(),
        };
        let message = match error.detail() {
            Some(detail) if kind == ErrorKind::Syntax || !secret => match error.kind() {
                Jinja::UndefinedError | Jinja::InvalidOperation => detail.to_owned(),
                _ => format!("{what}: {detail}"),
            },
            _ => what,
        };
        Self { kind, line: error.line(), message }
    }
}
