//! Ansible's tests: versions, sets, and what became of a task.

use std::cmp::Ordering;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error};

use super::super::version::{compare_loose, compare_semantic};
use super::{add_test, invalid, items_of, text_of};

pub(super) fn register(env: &mut Environment<'static>) {
    add_test(env, "version", version);
    add_test(env, "version_compare", version);
    add_test(env, "truthy", |value: Value| value.is_true());
    add_test(env, "falsy", |value: Value| !value.is_true());
    add_test(env, "contains", |list: Value, item: Value| {
        items_of(&list).map(|items| items.contains(&item))
    });
    add_test(env, "subset", |left: Value, right: Value| contains_all(&right, &left));
    add_test(env, "superset", |left: Value, right: Value| contains_all(&left, &right));
    add_test(env, "all", |list: Value| items_of(&list).map(|l| l.iter().all(Value::is_true)));
    add_test(env, "any", |list: Value| items_of(&list).map(|l| l.iter().any(Value::is_true)));
    for name in ["failed", "failure"] {
        add_test(env, name, |result: Value| flag(&result, "failed"));
    }
    for name in ["succeeded", "success", "successful"] {
        add_test(env, name, |result: Value| flag(&result, "failed").map(|failed| !failed));
    }
    for name in ["changed", "change"] {
        add_test(env, name, |result: Value| flag(&result, "changed"));
    }
    for name in ["skipped", "skip"] {
        add_test(env, name, |result: Value| flag(&result, "skipped"));
    }
}

fn contains_all(all: &Value, some: &Value) -> Result<bool, Error> {
    let all = items_of(all)?;
    Ok(items_of(some)?.iter().all(|item| all.contains(item)))
}

/// A flag of a task's result; a missing one is false.
fn flag(result: &Value, name: &str) -> Result<bool, Error> {
    let value = result.get_attr(name)?;
    Ok(!value.is_undefined() && value.is_true())
}

fn version(
    value: &Value,
    other: &Value,
    operator: Option<String>,
    kwargs: Kwargs,
) -> Result<bool, Error> {
    let operator = match operator {
        Some(operator) => operator,
        None => kwargs.get::<Option<String>>("operator")?.unwrap_or_else(|| "==".to_owned()),
    };
    let kind = kwargs.get::<Option<String>>("version_type")?;
    kwargs.get::<Option<bool>>("strict")?;
    kwargs.assert_all_used()?;
    let (left, right) = (text_of(value)?, text_of(other)?);
    let order = match kind.as_deref() {
        None | Some("loose" | "strict" | "pep440") => compare_loose(&left, &right),
        Some("semver" | "semantic") => compare_semantic(&left, &right),
        Some(kind) => return Err(invalid(format!("no version type `{kind}`"))),
    };
    match operator.as_str() {
        "==" | "=" | "eq" => Ok(order == Ordering::Equal),
        "!=" | "<>" | "ne" => Ok(order != Ordering::Equal),
        "<" | "lt" => Ok(order == Ordering::Less),
        "<=" | "le" => Ok(order != Ordering::Greater),
        ">" | "gt" => Ok(order == Ordering::Greater),
        ">=" | "ge" => Ok(order != Ordering::Less),
        other => Err(invalid(format!("no operator `{other}` between versions"))),
    }
}
