//! Grammars of names. Names that become paths, units and host names are checked, not escaped.

/// Why `name` cannot be a host's name; `None` when it can.
pub(super) fn host_name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > 253 {
        return Some("it is longer than 253 characters");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
        return Some("only letters, digits, `-`, `.` and `_` are allowed");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some("it must begin with a letter or a digit");
    }
    None
}

/// Why `name` cannot be a node's name: RFC 1123 labels joined by dots, in lower case, as Kubernetes
/// wants it; `None` when it can.
pub(super) fn node_name_problem(name: &str) -> Option<&'static str> {
    if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
        return Some("a label is longer than 63 characters or the name longer than 253");
    }
    if name.chars().any(|c| c.is_ascii_uppercase()) {
        return Some("it must be in lower case");
    }
    let label_is_good = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.split('.').all(label_is_good) {
        None
    } else {
        Some("only lower-case letters, digits and `-` between them are allowed (RFC 1123)")
    }
}

/// Why `name` cannot be a group's name; `None` when it can.
pub(super) fn group_name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
        return Some("only letters, digits, `_`, `-` and `.` are allowed");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Some("it must begin with a letter or `_`");
    }
    None
}

/// Whether `name` can be used in a template.
pub(super) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether `text` can be a host name or an IP address to connect to.
pub(super) fn is_address(text: &str) -> bool {
    is_plain_word(text)
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '%'))
}

/// Whether `text` can be a login: no blanks, no control characters, no option in disguise.
pub(super) fn is_plain_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !text.starts_with('-')
        && text
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && !"'\"`$;&|<>()\\/".contains(c))
}
