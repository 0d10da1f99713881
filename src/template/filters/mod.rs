//! Ansible's filters and tests that the engine does not have, or has with other semantics.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the engine hands the arguments of filters and tests over by value"
)]

mod cron;
mod data;
mod encode;
mod pattern;
mod tests_of_values;
mod text;

use minijinja::value::{FunctionArgs, FunctionResult, Value};
use minijinja::{Environment, Error, ErrorKind, functions::Function};

/// Adds all filters and tests, each also under its collection's name (`ansible.builtin.…`).
pub(super) fn register(env: &mut Environment<'static>) {
    cron::register(env);
    data::register(env);
    encode::register(env);
    pattern::register(env);
    text::register(env);
    tests_of_values::register(env);
    for name in ["lookup", "query", "q"] {
        env.add_function(name, no_lookup);
    }
}

/// Ansible's `lookup` reads files, the environment and commands of the control machine.
fn no_lookup(_arguments: minijinja::value::Rest<Value>) -> Result<Value, Error> {
    Err(invalid("`lookup` is not supported: pass the value with `-e` or write it in the inventory"))
}

fn add_filter<F, Rv, Args>(env: &mut Environment<'static>, name: &'static str, filter: F)
where
    F: Function<Rv, Args> + Clone,
    Rv: FunctionResult,
    Args: for<'a> FunctionArgs<'a>,
{
    env.add_filter(format!("ansible.builtin.{name}"), filter.clone());
    env.add_filter(name, filter);
}

fn add_test<F, Rv, Args>(env: &mut Environment<'static>, name: &'static str, test: F)
where
    F: Function<Rv, Args> + Clone,
    Rv: FunctionResult,
    Args: for<'a> FunctionArgs<'a>,
{
    env.add_test(format!("ansible.builtin.{name}"), test.clone());
    env.add_test(name, test);
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// The text of a string; of a number or boolean what is printed for it.
fn text_of(value: &Value) -> Result<String, Error> {
    use minijinja::value::ValueKind;
    match value.kind() {
        ValueKind::Undefined => {
            Err(Error::new(ErrorKind::UndefinedError, "the input is undefined"))
        }
        ValueKind::String | ValueKind::Number | ValueKind::Bool => Ok(value.to_string()),
        ValueKind::None => Ok(String::new()),
        kind => Err(invalid(format!("expected a text, found a {kind}"))),
    }
}

fn items_of(value: &Value) -> Result<Vec<Value>, Error> {
    use minijinja::value::ValueKind;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter().map(Iterator::collect),
        ValueKind::Undefined => {
            Err(Error::new(ErrorKind::UndefinedError, "the input is undefined"))
        }
        kind => Err(invalid(format!("expected a list, found a {kind}"))),
    }
}
