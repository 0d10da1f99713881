//! Ansible's INI form, read into the same tree as the YAML form.

use std::sync::Arc;

use crate::yaml::{self, Document, Entry, Finding, Mark, Node, Value};

/// What a section holds.
#[derive(Clone, Copy)]
enum Kind {
    Hosts,
    Vars,
    Children,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Vars => "vars",
            Self::Children => "children",
        }
    }
}

/// Parses `text`, the content of `file_name`. Values beside hosts are Python literals, values of
/// `:vars` sections are texts.
pub(super) fn parse(file_name: &str, text: &str) -> Result<Document, Vec<Finding>> {
    let file: Arc<str> = file_name.into();
    let mut groups: Vec<Entry> = Vec::new();
    let mut findings = Vec::new();
    let mut section = ("ungrouped".to_owned(), Kind::Hosts, Mark::new(Arc::clone(&file), 1, 1));
    for (index, full) in text.lines().enumerate() {
        let line = full.trim();
        let mark =
            Mark::new(Arc::clone(&file), index + 1, 1 + full.len() - full.trim_start().len());
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let result = if line.starts_with('[') && is_section(line) {
            header(line, &mark).map(|(name, kind)| {
                section = (name, kind, mark.clone());
                None
            })
        } else {
            item(line, section.1, &mark).map(Some)
        };
        match result {
            Ok(entry) => put(&mut groups, &section, entry),
            Err(finding) => findings.push(finding),
        }
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    Ok(Document::from_root(Node { value: Value::Map(groups), mark: Mark::new(file, 1, 1) }))
}

/// `[web]` is a section, `[1:3].example` at a line's start is a host.
fn is_section(line: &str) -> bool {
    let code = line.split([' ', '\t']).next().unwrap_or(line);
    code.ends_with(']') && !code.starts_with(|c: char| c.is_ascii_digit())
}

fn header(line: &str, mark: &Mark) -> Result<(String, Kind), Finding> {
    let inside = line.split(']').next().unwrap_or_default().trim_start_matches('[').trim();
    let (name, kind) = match inside.split_once(':') {
        None => (inside, Kind::Hosts),
        Some((name, "vars")) => (name, Kind::Vars),
        Some((name, "children")) => (name, Kind::Children),
        Some((_, other)) => {
            return Err(mark
                .finding(format!("unknown kind of section `{other}`"))
                .hint("there are `[group]`, `[group:vars]` and `[group:children]`"));
        }
    };
    Ok((name.to_owned(), kind))
}

fn item(line: &str, kind: Kind, mark: &Mark) -> Result<Entry, Finding> {
    match kind {
        Kind::Vars => match line.split_once('=') {
            Some((name, value)) => {
                let value = unquoted(value.trim());
                Ok(entry(name.trim(), Value::String(value.to_owned()), mark))
            }
            None => Err(mark.finding("a line of a `:vars` section is `name=value`")),
        },
        Kind::Children => {
            let name = line.split(['#', ';']).next().unwrap_or(line).trim();
            Ok(entry(name, Value::Null, mark))
        }
        Kind::Hosts => host(line, mark),
    }
}

fn host(line: &str, mark: &Mark) -> Result<Entry, Finding> {
    let code = line.split(" #").next().unwrap_or(line);
    let words = shell_words::split(code).map_err(|_| mark.finding("a quote is not closed"))?;
    let mut words = words.into_iter();
    let name = words.next().unwrap_or_default();
    let mut vars = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => vars.push(entry(key, literal(value), mark)),
            None => {
                return Err(mark.finding("what follows a host's name is `name=value`"));
            }
        }
    }
    Ok(entry(&name, Value::Map(vars), mark))
}

/// A Python literal: `True`, `12`, `1.5`, `[1, 2]`, `{'a': 1}`; anything else is text.
fn literal(text: &str) -> Value {
    match text {
        "True" => return Value::Bool(true),
        "False" => return Value::Bool(false),
        "None" => return Value::Null,
        _ => {}
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || "-[{".contains(c))
        && let Ok(document) = yaml::parse("value", text)
    {
        let value = document.into_root().value;
        if matches!(value, Value::Int(_) | Value::Float(_) | Value::Seq(_) | Value::Map(_)) {
            return value;
        }
    }
    Value::String(text.to_owned())
}

fn unquoted(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

fn entry(key: &str, value: Value, mark: &Mark) -> Entry {
    Entry { key: key.into(), key_mark: mark.clone(), value: Node { value, mark: mark.clone() } }
}

/// Adds a section with an item to the groups. A group may have several entries; the reader of the
/// tree joins them.
fn put(groups: &mut Vec<Entry>, (name, kind, mark): &(String, Kind, Mark), item: Option<Entry>) {
    let items = Value::Map(item.into_iter().collect());
    let part = entry(kind.key(), items, mark);
    groups.push(entry(name, Value::Map(vec![part]), mark));
}
