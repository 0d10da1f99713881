//! What a template sees while it renders: lazy variables, `hostvars`, and the marks a render leaves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::value::{Enumerator, Object, Value};
use minijinja::{Environment, Error};
use parking_lot::Mutex;
use serde_json::Value as Json;

use super::engine::{evaluate_json, is_template};
use super::error::{ErrorKind, TemplateError};
use super::json::from_json;
use super::vars::{HostVars, Var, Vars};

/// Most variables that may be in the middle of being rendered for each other.
const NESTING_MAX: usize = 24;

/// A variable of a host; the host is empty outside hosts.
type Key = (Arc<str>, String);

/// What one render leaves behind, shared by all scopes it opens.
#[derive(Debug, Default)]
pub(super) struct Run {
    secret: AtomicBool,
    done: Mutex<HashMap<Key, Value>>,
    active: Mutex<Vec<Key>>,
    failure: Mutex<Option<TemplateError>>,
    undefined: Mutex<Vec<String>>,
}

impl Run {
    /// Whether a secret was looked up.
    pub(super) fn is_secret(&self) -> bool {
        self.secret.load(Ordering::Relaxed)
    }

    /// The failure that no template may hide, and why a variable counted as undefined.
    pub(super) fn explain(&self, error: &Error) -> TemplateError {
        if let Some(failure) = self.failure.lock().clone() {
            return failure;
        }
        let mut explained = TemplateError::from_jinja(error, self.is_secret());
        if explained.kind == ErrorKind::Undefined
            && let Some(cause) = self.undefined.lock().first()
        {
            explained.message = format!("{} ({cause})", explained.message);
        }
        explained
    }

    /// The failure that no template may hide.
    pub(super) fn failure(&self) -> Option<TemplateError> {
        self.failure.lock().clone()
    }

    /// Keeps the first failure and gives the value that carries it through the engine.
    fn fail(&self, error: TemplateError) -> Value {
        let value =
            Value::from(Error::new(minijinja::ErrorKind::InvalidOperation, error.message.clone()));
        self.failure.lock().get_or_insert(error);
        value
    }
}

/// The variables of one host, as a template looks them up.
#[derive(Clone)]
pub(super) struct Scope {
    pub(super) env: Arc<Environment<'static>>,
    pub(super) vars: Vars,
    pub(super) run: Arc<Run>,
}

/// Names only: values may be secret.
impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.vars.names()).finish()
    }
}

impl Scope {
    fn look_up(&self, name: &str) -> Option<Value> {
        let var = self.vars.get(name);
        if var.is_some_and(Var::is_secret) {
            self.run.secret.store(true, Ordering::Relaxed);
        }
        match (var, name) {
            (Some(Var::Template(json) | Var::Sensitive { value: json, template: true }), _)
                if is_template(json) =>
            {
                self.render(name, json)
            }
            (
                Some(Var::Template(json) | Var::Plain(json) | Var::Sensitive { value: json, .. }),
                _,
            ) => Some(from_json(json)),
            (Some(Var::Secret(secret)), _) => Some(Value::from(secret.expose())),
            (Some(Var::Unknown), _) => Some(self.run.fail(TemplateError::new(
                ErrorKind::NotYetKnown,
                format!("`{name}` is not known yet"),
            ))),
            (None, "hostvars") => {
                let hosts = Arc::clone(self.vars.hosts()?);
                Some(Value::from_object(Hosts { hosts, scope: self.clone() }))
            }
            (None, "vars") => Some(Value::from_object(self.clone())),
            (None, _) => None,
        }
    }

    /// Renders the lazy variable `name`, once per run; a variable that needs itself is an error.
    fn render(&self, name: &str, json: &Json) -> Option<Value> {
        let host: Arc<str> = self.vars.host().unwrap_or_default().into();
        let key = (host, name.to_owned());
        if let Some(value) = self.run.done.lock().get(&key) {
            return Some(value.clone());
        }
        if let Some(error) = self.enter(&key) {
            return Some(self.run.fail(error));
        }
        let result = evaluate_json(self, json);
        self.run.active.lock().pop();
        match result {
            Ok(value) => {
                self.run.done.lock().insert(key, value.clone());
                Some(value)
            }
            Err(error) if error.kind == ErrorKind::Undefined => {
                self.run.undefined.lock().push(format!("in variable `{name}`: {error}"));
                None
            }
            Err(error) if self.run.failure().is_some() => Some(self.run.fail(error)),
            Err(error) => Some(self.run.fail(TemplateError {
                message: format!("in variable `{name}`: {error}"),
                ..error
            })),
        }
    }

    fn enter(&self, key: &Key) -> Option<TemplateError> {
        let mut active = self.run.active.lock();
        if let Some(start) = active.iter().position(|other| other == key) {
            let mut names: Vec<_> =
                active.iter().skip(start).map(|(_, name)| name.as_str()).collect();
            names.push(&key.1);
            let circle = names.join(" → ");
            return Some(TemplateError::new(
                ErrorKind::Other,
                format!("variable `{}` needs itself: {circle}", key.1),
            ));
        }
        if active.len() >= NESTING_MAX {
            return Some(TemplateError::new(
                ErrorKind::Other,
                format!("variable `{}` is nested more than {NESTING_MAX} variables deep", key.1),
            ));
        }
        active.push(key.clone());
        None
    }
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.look_up(key.as_str()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.vars.names().into_iter().map(Value::from).collect())
    }
}

/// `hostvars`: each host's variables, rendered in that host's own scope.
struct Hosts {
    hosts: Arc<HostVars>,
    scope: Scope,
}

/// Names only: values may be secret.
impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.hosts.keys()).finish()
    }
}

impl Object for Hosts {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let vars = self.hosts.get(key.as_str()?)?.clone().with_hosts(Arc::clone(&self.hosts));
        Some(Value::from_object(Scope {
            env: Arc::clone(&self.scope.env),
            vars,
            run: Arc::clone(&self.scope.run),
        }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.hosts.keys().map(Value::from).collect())
    }
}
