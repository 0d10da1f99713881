//! What an unquoted scalar means: YAML 1.1 as Ansible reads it, but for what the module says.

use super::node::Value;

/// The value of the plain (unquoted) scalar `text`.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    integer(text)
        .map(Value::Int)
        .or_else(|| float(text).map(Value::Float))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// `12`, `-1_000`, `0x1f`, `0b101`, `0644`, `0o644`; `None` for anything else or beyond 64 bits.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (radix, digits) = if let Some(rest) = unsigned.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = unsigned.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = unsigned.strip_prefix("0o") {
        (8, rest)
    } else if unsigned.len() > 1 && unsigned.starts_with('0') {
        (8, unsigned)
    } else {
        (10, unsigned)
    };
    let first_is_digit = digits.chars().next()?.is_digit(radix);
    if !first_is_digit || !digits.chars().all(|c| c == '_' || c.is_digit(radix)) {
        return None;
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    let signed = if negative { format!("-{plain}") } else { plain };
    i64::from_str_radix(&signed, radix).ok()
}

/// `1.5`, `.5`, `1e3`, `.inf`, `.nan`; `None` for anything else. A bare integer is none either:
/// one that is beyond 64 bits must not lose digits.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if unsigned.len() == text.len() => return Some(f64::NAN),
        _ => {}
    }
    let digit_near_start =
        unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    let has_point_or_exponent = unsigned.contains(['.', 'e', 'E']);
    let only_number_characters = unsigned
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | '_' | 'e' | 'E' | '+' | '-'));
    if !(digit_near_start && has_point_or_exponent && only_number_characters) {
        return None;
    }
    text.replace('_', "").parse().ok()
}
