//! The configuration file and its drop-ins, merged by K3s's rules: files in the order of their
//! names, a later `key:` replaces, `key+:` appends.

use std::io;
use std::path::{Path, PathBuf};

use super::schema::{Command, FLAGS, Flag, K3S_ONLY, Kind, refusal};
use super::source::{Given, Origin, Values};
use crate::yaml::{self, Entry, Finding, Mark, Node, Value, did_you_mean};

/// Reads `path` and `path.d/*.yaml`. Without `required` a file that is not there is no values;
/// with it, file or drop-ins must exist.
///
/// Gives all findings at once: unknown keys, K3s's keys that this node does not have, values of
/// the wrong kind, each with file and line.
pub fn read(path: &Path, command: Command, required: bool) -> Result<Values, Vec<Finding>> {
    let drop_ins = drop_ins(path).map_err(|error| unreadable(path, &error))?;
    let mut values = Values::default();
    let mut findings = Vec::new();
    match std::fs::read(path) {
        Ok(bytes) => merge(&mut values, &mut findings, path, &bytes, command),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if required && drop_ins.is_empty() {
                return Err(unreadable(path, &error));
            }
        }
        Err(error) => return Err(unreadable(path, &error)),
    }
    for file in drop_ins {
        match std::fs::read(&file) {
            Ok(bytes) => merge(&mut values, &mut findings, &file, &bytes, command),
            Err(error) => findings.extend(unreadable(&file, &error)),
        }
    }
    if findings.is_empty() { Ok(values) } else { Err(findings) }
}

/// `<path>.d/*.yaml` and `*.yml`, whatever their case, by name.
fn drop_ins(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let suffix = file.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        if matches!(suffix.as_deref(), Some("yaml" | "yml")) && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn merge(
    values: &mut Values,
    findings: &mut Vec<Finding>,
    path: &Path,
    bytes: &[u8],
    command: Command,
) {
    let name = path.display().to_string();
    let root = match yaml::parse_bytes(&name, bytes) {
        Ok(document) => document.into_root(),
        Err(errors) => return findings.extend(errors),
    };
    let entries = match root.expect_map("the configuration") {
        Ok(entries) => entries,
        Err(error) => return findings.push(error),
    };
    for entry in entries {
        if let Err(finding) = take(values, entry, command) {
            findings.push(finding);
        }
    }
}

fn take(values: &mut Values, entry: &Entry, command: Command) -> Result<(), Finding> {
    let (key, appends) = match entry.key.strip_suffix('+') {
        Some(key) => (key, true),
        None => (&*entry.key, false),
    };
    let Some(flag) = command.flag(key) else {
        return Err(unknown(command, key, &entry.key_mark));
    };
    let given = texts(flag, &entry.value)?;
    if !appends {
        values.set(flag.name, given);
    } else if matches!(flag.kind, Kind::List | Kind::Repeated) {
        values.append(flag.name, given);
    } else {
        let message = format!("`{key}+` appends, but `{key}` takes one value");
        return Err(entry.key_mark.finding(message).hint(format!("write `{key}:`")));
    }
    Ok(())
}

fn unknown(command: Command, key: &str, mark: &Mark) -> Finding {
    let finding = mark.finding(refusal(command, key));
    if K3S_ONLY.contains(&key) {
        return finding.hint("take it out; it means nothing here");
    }
    let known = FLAGS.iter().filter(|flag| command.has(flag)).map(|flag| flag.name);
    match did_you_mean(key, known) {
        Some(near) => finding.hint(format!("did you mean `{near}`?")),
        None => finding,
    }
}

/// The values of a key as texts.
fn texts(flag: &Flag, node: &Node) -> Result<Vec<Given>, Finding> {
    let nodes = match &node.value {
        Value::Seq(items) if matches!(flag.kind, Kind::List | Kind::Repeated) => items.as_slice(),
        Value::Seq(_) => {
            return Err(node.finding(format!("`{}` takes one value, found a list", flag.name)));
        }
        Value::Null => return Ok(Vec::new()),
        _ => std::slice::from_ref(node),
    };
    let given = |node: &Node| {
        scalar(flag, node)
            .map(|text| Given { text: text.into(), origin: Origin::File(node.mark.clone()) })
    };
    nodes.iter().map(given).collect()
}

fn scalar(flag: &Flag, node: &Node) -> Result<String, Finding> {
    match &node.value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if flag.kind == Kind::Quoted => {
            let message = format!("`{}` must be text, found {}", flag.name, node.kind());
            Err(node.finding(message).hint("put it in quotes, or YAML changes it"))
        }
        Value::Bool(value) => Ok(value.to_string()),
        Value::Int(value) => Ok(value.to_string()),
        Value::Float(value) => Ok(value.to_string()),
        Value::Null | Value::Seq(_) | Value::Map(_) => {
            Err(node.finding(format!("`{}` takes text, found {}", flag.name, node.kind())))
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Vec<Finding> {
    let mark = Mark::new(path.display().to_string(), 1, 1);
    vec![mark.finding(format!("cannot be read: {error}"))]
}
