//! Variables from the command line, and which variables are secrets.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::secret::Secret;
use crate::template::Var;
use crate::yaml::{self, Finding, Mark};

use super::names::is_variable_name;

/// Variables that win over all others.
pub type ExtraVars = BTreeMap<String, Json>;

/// The name that findings about the command line show.
const COMMAND_LINE: &str = "--extra-vars";

/// Reads one argument of `-e` that is no `@file`: `key=value key2='v w'`, whose values are texts as
/// in Ansible, or a mapping in YAML or JSON that begins with `{`.
pub(super) fn parse(argument: &str) -> Result<ExtraVars, Vec<Finding>> {
    if argument.trim_start().starts_with('{') {
        let document = yaml::parse(COMMAND_LINE, argument)?;
        return from_document(&document);
    }
    let mark = Mark::new(COMMAND_LINE, 1, 1);
    let words = shell_words::split(argument)
        .map_err(|_| vec![mark.finding(format!("a quote is not closed in `{argument}`"))])?;
    let mut vars = ExtraVars::new();
    for word in words {
        match word.split_once('=') {
            Some((name, value)) if is_variable_name(name) => {
                vars.insert(name.to_owned(), Json::String(value.to_owned()));
            }
            Some((name, _)) => {
                return Err(vec![mark.finding(format!("`{name}` cannot be a variable"))]);
            }
            // The word may be a secret's tail; it is not repeated.
            None => {
                return Err(vec![
                    mark.finding("a word is not `name=value`").hint("quote a value with blanks"),
                ]);
            }
        }
    }
    Ok(vars)
}

/// The variables of a document.
pub(super) fn from_document(document: &yaml::Document) -> Result<ExtraVars, Vec<Finding>> {
    let entries = document.root().expect_map("extra variables").map_err(|finding| vec![finding])?;
    let mut findings = Vec::new();
    super::tree::check_variable_names(entries, &mut findings);
    if !findings.is_empty() {
        return Err(findings);
    }
    Ok(entries.iter().map(|e| (e.key.to_string(), e.value.to_json())).collect())
}

/// Whether a variable of this name holds a secret: `token`, `password` and what ends like them.
pub fn is_secret_name(name: &str) -> bool {
    const WORDS: [&str; 8] = [
        "token",
        "password",
        "passwd",
        "pass",
        "passphrase",
        "secret",
        "secret_key",
        "private_key",
    ];
    let name = name.to_ascii_lowercase().replace('-', "_");
    WORDS.iter().any(|word| {
        name.strip_suffix(word).is_some_and(|before| before.is_empty() || before.ends_with('_'))
    })
}

/// A person's value as a variable: a secret when its name says so, or when a name inside it does.
pub(super) fn variable(name: &str, value: Json) -> Var {
    if !is_secret_name(name) && !has_password(name, &value) {
        let has_secret = has_secret_inside(&value);
        return if has_secret {
            Var::Sensitive { value, template: true }
        } else {
            Var::Template(value)
        };
    }
    match value {
        Json::String(text) if !(text.contains("{{") || text.contains("{%")) => {
            Var::Secret(Secret::new(text))
        }
        Json::Number(number) => Var::Secret(Secret::new(number.to_string())),
        other => Var::Sensitive { value: other, template: true },
    }
}

/// Whether it is the address of a datastore with a user and a password in it.
fn has_password(name: &str, value: &Json) -> bool {
    name == "datastore_endpoint" && value.as_str().is_some_and(|text| text.contains('@'))
}

/// Whether a mapping in `value` has a key that names a secret, and text for it. Recursion is bounded
/// by the parser's depth.
fn has_secret_inside(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(has_secret_inside),
        Json::Object(map) => map.iter().any(|(key, value)| {
            (is_secret_name(key) && matches!(value, Json::String(_) | Json::Number(_)))
                || has_secret_inside(value)
        }),
        _ => false,
    }
}
