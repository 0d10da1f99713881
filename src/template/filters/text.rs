//! Filters from values to scalars and texts.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error};

use super::{add_filter, invalid, text_of};

pub(super) fn register(env: &mut Environment<'static>) {
    add_filter(env, "bool", to_bool);
    add_filter(env, "int", int);
    add_filter(env, "ternary", ternary);
    add_filter(env, "quote", quote);
    add_filter(env, "basename", |path: String| {
        path.rsplit('/').next().unwrap_or_default().to_owned()
    });
    add_filter(env, "dirname", dirname);
    add_filter(env, "splitext", splitext);
    add_filter(env, "mandatory", mandatory);
    add_filter(env, "type_debug", |value: Value| value.kind().to_string());
    add_filter(env, "ipwrap", ipwrap);
    env.add_filter("ansible.utils.ipwrap", ipwrap);
}

/// Ansible's `bool`: `yes`, `on`, `true`, `1` in any case are true, all else is false.
fn to_bool(value: &Value) -> Result<Value, Error> {
    Ok(match value.kind() {
        ValueKind::None => Value::from(()),
        ValueKind::Bool => value.clone(),
        _ => Value::from(matches!(
            text_of(value)?.to_ascii_lowercase().as_str(),
            "yes" | "on" | "true" | "1" | "1.0"
        )),
    })
}

/// Jinja's `int(default=0, base=10)`: what is no number becomes the default.
fn int(value: &Value, default: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => kwargs.get::<Option<Value>>("default")?.unwrap_or_else(|| Value::from(0)),
    };
    let base = kwargs.get::<Option<u32>>("base")?.unwrap_or(10);
    kwargs.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(invalid(format!("there is no base {base}")));
    }
    if value.is_integer() {
        return Ok(value.clone());
    }
    let text = text_of(value)?;
    let text = text.trim().replace('_', "").to_ascii_lowercase();
    let digits = match base {
        16 => text.strip_prefix("0x").unwrap_or(&text),
        8 => text.strip_prefix("0o").unwrap_or(&text),
        2 => text.strip_prefix("0b").unwrap_or(&text),
        _ => &text,
    };
    if value.kind() == ValueKind::Bool {
        return Ok(Value::from(i64::from(value.is_true())));
    }
    if let Ok(number) = i64::from_str_radix(digits, base) {
        return Ok(Value::from(number));
    }
    let whole = digits.parse::<f64>().ok().filter(|n| n.is_finite() && n.abs() < 9e15);
    match whole {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "truncation is what `int` is for, in range"
        )]
        Some(number) if base == 10 => Ok(Value::from(number as i64)),
        _ => Ok(default),
    }
}

fn ternary(
    value: &Value,
    if_true: Value,
    if_false: Value,
    if_none: Option<Value>,
) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(minijinja::ErrorKind::UndefinedError, "the input is undefined"));
    }
    Ok(match if_none {
        Some(if_none) if value.is_none() => if_none,
        _ if value.is_true() => if_true,
        _ => if_false,
    })
}

/// One word for a POSIX shell.
fn quote(value: &Value) -> Result<String, Error> {
    let text = text_of(value)?;
    if text.contains('\0') {
        return Err(invalid("a NUL byte can be in no argument"));
    }
    Ok(shell_words::quote(&text).into_owned())
}

fn dirname(path: String) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((directory, _)) => directory.trim_end_matches('/').to_owned(),
        None => String::new(),
    }
}

fn splitext(path: String) -> Vec<String> {
    let name_start = path.rfind('/').map_or(0, |slash| slash + 1);
    let name = path.get(name_start..).unwrap_or_default();
    match name.trim_start_matches('.').rfind('.') {
        Some(dot) => {
            let leading_dots = name.len() - name.trim_start_matches('.').len();
            let (root, extension) = path.split_at(name_start + leading_dots + dot);
            vec![root.to_owned(), extension.to_owned()]
        }
        None => vec![path, String::new()],
    }
}

fn mandatory(value: &Value, message: Option<String>) -> Result<Value, Error> {
    if value.is_undefined() {
        let message = message.unwrap_or_else(|| "a mandatory variable is not defined".to_owned());
        return Err(Error::new(minijinja::ErrorKind::UndefinedError, message));
    }
    Ok(value.clone())
}

/// Brackets around an IPv6 address, as a URL wants it; anything else as it is.
fn ipwrap(value: &Value) -> Result<String, Error> {
    let text = text_of(value)?;
    Ok(if text.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{text}]") } else { text })
}
