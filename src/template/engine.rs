//! The environment of templates, and the three things done with it: text, values, conditions.

use std::io;
use std::sync::Arc;

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, syntax::SyntaxConfig};
use serde_json::Value as Json;

use super::condition::truth;
use super::error::{ErrorKind, TemplateError};
use super::filters;
use super::json::{from_json, to_json};
use super::scope::{Run, Scope};
use super::vars::Vars;

/// Most instructions that one rendering of one text may take.
const FUEL: u64 = 1_000_000;

/// Longest output of one rendering, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What `omit` is: a key whose value becomes this text is left out.
pub const OMIT: &str = "__omit_place_holder__7c1d1f6e";

/// A rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// A secret was looked up on the way: the text may hold it.
    pub secret: bool,
}

/// An evaluated value.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The value, in the types that the expressions gave.
    pub value: Json,
    /// A secret was looked up on the way: the value may hold it.
    pub secret: bool,
}

/// Renders templates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    env: Arc<Environment<'static>>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine whose templates can not include others.
    pub fn new() -> Self {
        Self { env: Arc::new(environment()) }
    }

    /// An engine whose templates include what `load` gives for a name: `None` when there is no such
    /// template, an error in words when it can not be read. Names that could leave a directory never
    /// reach `load`.
    pub fn with_loader<F>(load: F) -> Self
    where
        F: Fn(&str) -> Result<Option<String>, String> + Send + Sync + 'static,
    {
        let mut env = environment();
        env.set_loader(move |name| {
            if !is_safe_name(name) {
                return Err(Error::new(
                    minijinja::ErrorKind::InvalidOperation,
                    format!("the template name {name:?} leaves the directory of templates"),
                ));
            }
            load(name)
                .map_err(|message| Error::new(minijinja::ErrorKind::InvalidOperation, message))
        });
        Self { env: Arc::new(env) }
    }

    /// Renders `text`, a whole file or a part of one.
    pub fn render(&self, text: &str, vars: &Vars) -> Result<Rendered, TemplateError> {
        let scope = self.scope(vars);
        let text = render_text(&scope, text)?;
        finish(&scope, Rendered { text, secret: scope.run.is_secret() })
    }

    /// Evaluates every text in `value` that is a template. A text that is one expression and nothing
    /// else (`{{ x }}`) keeps the type of its result, and so does what is in a list or a mapping. A
    /// key that becomes [`OMIT`] is left out. Keys are no templates.
    pub fn evaluate(&self, value: &Json, vars: &Vars) -> Result<Evaluated, TemplateError> {
        let scope = self.scope(vars);
        let value = evaluate_json(&scope, value)?;
        let value = to_json(&value).map_err(|error| scope.run.explain(&error))?;
        finish(&scope, Evaluated { value, secret: scope.run.is_secret() })
    }

    /// Whether `expression` holds, as in `when:`; it is written without braces.
    pub fn condition(&self, expression: &str, vars: &Vars) -> Result<bool, TemplateError> {
        let scope = self.scope(vars);
        let value = match single_expression(expression) {
            Some(inner) => evaluate_expression(&scope, inner)?,
            None if expression.contains("{{") || expression.contains("{%") => {
                evaluate_expression(&scope, &render_text(&scope, expression)?)?
            }
            None => evaluate_expression(&scope, expression)?,
        };
        let truth = truth(&value)?;
        finish(&scope, truth)
    }

    /// Whether `text` is well formed as a template, whatever its variables are. A text without
    /// templates is.
    pub fn check_text(&self, text: &str) -> Result<(), TemplateError> {
        if !has_template(text) {
            return Ok(());
        }
        let checked = self.env.template_from_str(text).map(drop);
        checked.map_err(|error| TemplateError::from_jinja(&error, false))
    }

    /// Whether `expression` is well formed as a condition, whatever its variables are.
    pub fn check_condition(&self, expression: &str) -> Result<(), TemplateError> {
        if has_template(expression) {
            return self.check_text(expression);
        }
        let checked = self.env.compile_expression(expression).map(drop);
        checked.map_err(|error| TemplateError::from_jinja(&error, false))
    }

    fn scope(&self, vars: &Vars) -> Scope {
        Scope { env: Arc::clone(&self.env), vars: vars.clone(), run: Arc::new(Run::default()) }
    }
}

/// Whether `name` stays inside the directory it is looked up in, as far as a name can tell; symbolic
/// links are the reader's to check.
pub fn is_safe_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', '\0'])
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Whether a text in `json` has to be rendered.
pub(super) fn is_template(json: &Json) -> bool {
    match json {
        Json::String(text) => has_template(text),
        Json::Array(items) => items.iter().any(is_template),
        Json::Object(map) => map.values().any(is_template),
        _ => false,
    }
}

fn has_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// `json` with its templates evaluated. An undefined part is an error.
pub(super) fn evaluate_json(scope: &Scope, json: &Json) -> Result<Value, TemplateError> {
    match json {
        Json::String(text) if has_template(text) => match single_expression(text) {
            Some(inner) if scope.env.compile_expression(inner).is_ok() => {
                let value = evaluate_expression(scope, inner)?;
                let plain = to_json(&value).map_err(|error| scope.run.explain(&error))?;
                Ok(from_json(&plain))
            }
            _ => render_text(scope, text).map(Value::from),
        },
        Json::Array(items) => {
            let items: Result<Vec<_>, _> =
                items.iter().map(|item| evaluate_json(scope, item)).collect();
            items.map(Value::from)
        }
        Json::Object(map) => {
            let mut pairs = Vec::with_capacity(map.len());
            for (key, item) in map {
                let item = evaluate_json(scope, item)?;
                if item.as_str() != Some(OMIT) {
                    pairs.push((key.as_str(), item));
                }
            }
            Ok(Value::from_pairs(pairs))
        }
        _ => Ok(from_json(json)),
    }
}

/// What is between the braces of a text that is one expression.
fn single_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    Some(inner.strip_suffix('-').unwrap_or(inner).trim())
}

fn evaluate_expression(scope: &Scope, expression: &str) -> Result<Value, TemplateError> {
    let explain = |error: &Error| scope.run.explain(error);
    let compiled = scope.env.compile_expression(expression).map_err(|error| explain(&error))?;
    let value =
        compiled.eval(Value::from_object(scope.clone())).map_err(|error| explain(&error))?;
    if let Some(failure) = scope.run.failure() {
        return Err(failure);
    }
    if value.kind() == ValueKind::Undefined {
        // Printing it makes the engine say which part of the expression is undefined.
        render_text(scope, &format!("{{{{ {expression} }}}}"))?;
        return Err(TemplateError::new(
            ErrorKind::Undefined,
            format!("`{expression}` is undefined"),
        ));
    }
    Ok(value)
}

fn render_text(scope: &Scope, text: &str) -> Result<String, TemplateError> {
    let explain = |error: &Error| scope.run.explain(error);
    let template = scope.env.template_from_str(text).map_err(|error| explain(&error))?;
    let mut output = LimitedOutput(Vec::new());
    let result = template.render_captured_to(Value::from_object(scope.clone()), &mut output);
    if let Err(error) = result {
        if output.is_full() {
            let message = format!("the output is longer than {OUTPUT_BYTES_MAX} bytes");
            return Err(TemplateError::new(ErrorKind::Other, message));
        }
        return Err(explain(&error));
    }
    String::from_utf8(output.0)
        .map_err(|_| TemplateError::new(ErrorKind::Other, "the output is not UTF-8"))
}

/// `result`, unless something failed that a template tried to hide.
fn finish<T>(scope: &Scope, result: T) -> Result<T, TemplateError> {
    scope.run.failure().map_or(Ok(result), Err)
}

/// Takes [`OUTPUT_BYTES_MAX`] bytes and refuses more.
struct LimitedOutput(Vec<u8>);

impl LimitedOutput {
    fn is_full(&self) -> bool {
        self.0.len() > OUTPUT_BYTES_MAX
    }
}

impl io::Write for LimitedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (OUTPUT_BYTES_MAX + 1).saturating_sub(self.0.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.0.extend_from_slice(taken);
        if self.is_full() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    // By default the engine escapes by file name; `x.yaml` would be filled in as JSON.
    env.set_auto_escape_callback(|_| AutoEscape::None);
    // So that errors name what is undefined. What else it gathers is never printed.
    env.set_debug(true);
    let syntax = SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(true).build();
    if let Ok(syntax) = syntax {
        env.set_syntax(syntax);
    }
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    // Ansible prints nothing for `None`.
    env.set_formatter(|out, state, value| {
        if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
    });
    env.add_global("omit", OMIT);
    filters::register(&mut env);
    env
}
