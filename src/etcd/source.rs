//! Where values come from: the command line wins over the environment, and a file stands alone, as in
//! etcd. Pure but for the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::flags::{FLAGS, Flag, Kind, Use, find};
use crate::error::{ExitCode, Failure};
use crate::yaml::{self, Node, Value};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Line,
    /// In this variable.
    Variable(String),
    /// In this place of a file.
    File(String),
}

/// A value, and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The value.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

/// What was given, by flag.
#[derive(Clone, Debug, Default)]
pub struct Values {
    given: BTreeMap<&'static str, Given>,
    /// What to tell whoever started the member.
    pub warnings: Vec<String>,
}

impl Values {
    /// The value of a flag: what was given, or etcd's default.
    pub fn text(&self, name: &str) -> &str {
        let default = || find(name).map_or("", |flag| flag.default);
        self.given.get(name).map_or_else(default, |given| given.text.as_str())
    }

    /// Whether the flag was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A failure about what was given for a flag, with its place.
    pub fn bad(&self, name: &str, why: impl fmt::Display) -> Failure {
        let place = match self.given.get(name).map(|given| &given.origin) {
            Some(Origin::Variable(variable)) => format!("{variable}: "),
            Some(Origin::File(place)) => format!("{place}: "),
            _ => String::new(),
        };
        Failure::new(ExitCode::BadInput, format!("{place}--{name}: {why}"))
    }

    /// A flag that is `true` or `false`.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        boolean(self.text(name))
            .ok_or_else(|| self.bad(name, format!("`{}` is not a boolean", self.text(name))))
    }

    /// A number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, name: &str) -> Result<u64, Failure> {
        let text = self.text(name);
        text.parse().map_err(|_| self.bad(name, format!("`{text}` is not a number")))
    }

    /// A comma-separated list.
    pub fn list(&self, name: &str) -> Vec<String> {
        let parts = self.text(name).split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// A path, if there is one.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    fn put(&mut self, flag: &'static Flag, text: String, origin: Origin) {
        self.given.insert(flag.name, Given { text, origin });
    }

    /// Refuses what is not served and warns of what has no effect.
    fn judge(mut self) -> Result<Self, Failure> {
        for (name, given) in &self.given {
            let Some(flag) = find(name) else { continue };
            let is_default = given.text == flag.default
                || boolean(&given.text).is_some_and(|given| boolean(flag.default) == Some(given));
            match flag.used {
                Use::Refused if !is_default && !given.text.is_empty() => {
                    let why = format!("`{}` is not served. {}", given.text, flag.help);
                    return Err(self.bad(name, why));
                }
                Use::Idle if !is_default => {
                    self.warnings.push(format!("--{name} has no effect: {}", flag.help));
                }
                _ => {}
            }
        }
        Ok(self)
    }
}

/// Go's booleans.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Collects all values. `variables` are those of the environment.
///
/// # Errors
/// A flag that is not etcd's, a flag without its value, a file that cannot be read or is wrong, and
/// what is not served.
pub fn gather(
    arguments: &[String],
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Values, Failure> {
    let line = command_line(arguments)?;
    let variables: BTreeMap<String, String> =
        variables.filter(|(name, _)| name.starts_with("ETCD_")).collect();
    let file = line.path("config-file").or_else(|| {
        variables.get("ETCD_CONFIG_FILE").filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    if let Some(file) = file {
        return from_file(&file)?.judge();
    }
    let mut values = Values::default();
    for (variable, text) in variables {
        let flag = FLAGS.iter().find(|flag| flag.variable() == variable);
        let earlier = || {
            let plain = variable.replacen("ETCD_EXPERIMENTAL_", "ETCD_", 1);
            FLAGS.iter().find(move |flag| flag.variable() == plain)
        };
        match flag.or_else(earlier) {
            Some(flag) => values.put(flag, text, Origin::Variable(variable)),
            None => values.warnings.push(format!("unrecognized environment variable {variable}")),
        }
    }
    values.given.extend(line.given);
    values.warnings.extend(line.warnings);
    values.judge()
}

/// Flags as Go reads them: one dash or two, `--flag value` or `--flag=value`.
fn command_line(arguments: &[String]) -> Result<Values, Failure> {
    let mut values = Values::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bare = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
        let Some(bare) = bare.filter(|bare| !bare.is_empty()) else {
            let message = format!("'{argument}' is not a valid flag");
            return Err(Failure::new(ExitCode::BadInput, message));
        };
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (bare, None),
        };
        let Some(flag) = find(name) else {
            if name.starts_with("experimental-") {
                values.warnings.push(format!("--{name} is not known and has no effect"));
                if value.is_none()
                    && rest.as_slice().first().is_some_and(|next| !next.starts_with('-'))
                {
                    rest.next();
                }
                continue;
            }
            return Err(unknown(name));
        };
        let text = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, Kind::Text | Kind::List) => rest.next().cloned().ok_or_else(|| {
                Failure::new(ExitCode::BadInput, format!("flag needs an argument: -{name}"))
            })?,
        };
        values.put(flag, text, Origin::Line);
    }
    Ok(values)
}

fn unknown(name: &str) -> Failure {
    let message = format!("flag provided but not defined: -{name}");
    let failure = Failure::new(ExitCode::BadInput, message);
    match yaml::did_you_mean(name, FLAGS.iter().map(|flag| flag.name)) {
        Some(near) => failure.hint(format!("did you mean --{near}?")),
        None => failure,
    }
}

/// Security as a file groups it, and how its keys are called on the command line.
const SECTIONS: [(&str, &str); 2] =
    [("client-transport-security", ""), ("peer-transport-security", "peer-")];

/// Flags whose value in a file is nanoseconds when it is a number.
const DURATIONS: [&str; 4] = [
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
    "watch-progress-notify-interval",
];

fn from_file(path: &Path) -> Result<Values, Failure> {
    let bad = |message: String| Failure::new(ExitCode::BadInput, message);
    let bytes = std::fs::read(path).map_err(|error| bad(format!("{}: {error}", path.display())))?;
    let document = yaml::parse_bytes(&path.display().to_string(), &bytes)
        .map_err(|findings| bad(yaml::report(&findings)))?;
    let found = |finding: yaml::Finding| bad(yaml::report(&[finding]));
    let mut values = Values::default();
    for entry in document.root().expect_map("the configuration").map_err(found)? {
        if let Some((_, prefix)) = SECTIONS.iter().find(|(section, _)| *section == &*entry.key) {
            for inner in entry.value.expect_map(&entry.key).map_err(found)? {
                let name = match (&*inner.key, *prefix) {
                    // As etcd's file calls what its command line calls otherwise.
                    ("client-cert-auth", "peer-") => "peer-client-cert-auth".to_owned(),
                    ("allowed-cn", "peer-") => "peer-cert-allowed-cn".to_owned(),
                    ("allowed-hostname", "peer-") => "peer-cert-allowed-hostname".to_owned(),
                    (key, prefix) => format!("{prefix}{key}"),
                };
                take(&mut values, &name, &inner.value).map_err(found)?;
            }
            continue;
        }
        take(&mut values, &entry.key, &entry.value).map_err(found)?;
    }
    Ok(values)
}

fn take(values: &mut Values, name: &str, node: &Node) -> Result<(), yaml::Finding> {
    let Some(flag) = find(name) else {
        let near = yaml::did_you_mean(name, FLAGS.iter().map(|flag| flag.name));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let warning = format!("{}: unknown key `{name}` has no effect{hint}", node.mark);
        values.warnings.push(warning);
        return Ok(());
    };
    let text = match &node.value {
        Value::Null => return Ok(()),
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) if DURATIONS.contains(&flag.name) => format!("{value}ns"),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Seq(items) if flag.kind == Kind::List => {
            let texts = items.iter().map(|item| {
                item.as_str().ok_or_else(|| item.finding(format!("`{name}` is a list of strings")))
            });
            texts.collect::<Result<Vec<_>, _>>()?.join(",")
        }
        Value::Seq(_) | Value::Map(_) => {
            return Err(node.finding(format!("`{name}` is one value, found {}", node.kind())));
        }
    };
    values.put(flag, text, Origin::File(node.mark.to_string()));
    Ok(())
}
