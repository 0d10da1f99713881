//! Regular expressions in Python's clothes. They run in linear time, so there is no look-around and
//! no back-reference inside a pattern.

use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error};
use regex::{Regex, RegexBuilder};

use super::{add_filter, add_test, invalid, text_of};

pub(super) fn register(env: &mut Environment<'static>) {
    add_filter(env, "regex_replace", replace);
    add_filter(env, "regex_search", search);
    add_filter(env, "regex_findall", find_all);
    add_filter(env, "regex_escape", |value: Value| {
        text_of(&value).map(|text| regex::escape(&text))
    });
    add_test(env, "match", |value: Value, pattern: &str, kwargs: Kwargs| {
        let text = text_of(&value)?;
        let found = compile(pattern, &kwargs)?.find(&text).map(|found| found.start());
        Ok::<_, Error>(found == Some(0))
    });
    for name in ["search", "regex"] {
        add_test(env, name, |value: Value, pattern: &str, kwargs: Kwargs| {
            Ok::<_, Error>(compile(pattern, &kwargs)?.is_match(&text_of(&value)?))
        });
    }
}

fn compile(pattern: &str, kwargs: &Kwargs) -> Result<Regex, Error> {
    let ignore_case = kwargs.get::<Option<bool>>("ignorecase")?.unwrap_or(false);
    let multi_line = kwargs.get::<Option<bool>>("multiline")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .multi_line(multi_line)
        .build()
        .map_err(|error| invalid(format!("bad regular expression: {error}")))
}

fn replace(
    value: &Value,
    pattern: &str,
    replacement: Option<String>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let text = text_of(value)?;
    let replacement = expand_template(&replacement.unwrap_or_default());
    let regex = compile(pattern, &kwargs)?;
    Ok(regex.replace_all(&text, replacement.as_str()).into_owned())
}

/// Python's `\1`, `\g<1>` and `\g<name>` as `${1}` and `${name}`.
fn expand_template(python: &str) -> String {
    let mut out = String::with_capacity(python.len());
    let mut rest = python;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '$' => out.push_str("$$"),
            '\\' => {
                let (piece, tail) = escape(rest);
                out.push_str(&piece);
                rest = tail;
            }
            other => out.push(other),
        }
    }
    out
}

/// What stands for the escape at the start of `rest`, and what is behind it.
fn escape(rest: &str) -> (String, &str) {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count().min(2);
    if digits > 0 {
        let (number, tail) = rest.split_at(digits);
        return (format!("${{{number}}}"), tail);
    }
    if let Some((name, tail)) = rest.strip_prefix("g<").and_then(|group| group.split_once('>')) {
        return (format!("${{{name}}}"), tail);
    }
    match rest.chars().next() {
        Some('n') => ("\n".to_owned(), rest.get(1..).unwrap_or_default()),
        Some('t') => ("\t".to_owned(), rest.get(1..).unwrap_or_default()),
        Some('\\') => ("\\".to_owned(), rest.get(1..).unwrap_or_default()),
        _ => ("\\".to_owned(), rest),
    }
}

/// The first match; with groups (`'\\1'`) their list; nothing when there is none.
fn search(
    value: &Value,
    pattern: &str,
    groups: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let text = text_of(value)?;
    let regex = compile(pattern, &kwargs)?;
    let Some(found) = regex.captures(&text) else {
        return Ok(Value::from(()));
    };
    if groups.0.is_empty() {
        return Ok(Value::from(found.get(0).map_or("", |all| all.as_str())));
    }
    let mut texts = Vec::new();
    for group in &groups.0 {
        let name = text_of(group)?;
        let name = name.trim_start_matches('\\');
        let name = name.strip_prefix("g<").map_or(name, |n| n.trim_end_matches('>'));
        let part = match name.parse::<usize>() {
            Ok(index) if index < regex.captures_len() => found.get(index),
            Err(_) if regex.capture_names().flatten().any(|known| known == name) => {
                found.name(name)
            }
            _ => return Err(invalid(format!("the regular expression has no group `{name}`"))),
        };
        texts.push(part.map_or_else(|| Value::from(()), |part| Value::from(part.as_str())));
    }
    Ok(Value::from(texts))
}

/// All matches: of one group its texts, of several lists of texts.
fn find_all(value: &Value, pattern: &str, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    let text = text_of(value)?;
    let regex = compile(pattern, &kwargs)?;
    let group = |found: &regex::Captures<'_>, index: usize| {
        Value::from(found.get(index).map_or("", |part| part.as_str()))
    };
    Ok(regex
        .captures_iter(&text)
        .map(|found| match regex.captures_len() {
            1 => group(&found, 0),
            2 => group(&found, 1),
            n => Value::from((1..n).map(|index| group(&found, index)).collect::<Vec<_>>()),
        })
        .collect())
}
