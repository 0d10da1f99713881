//! Variables in layers, and what each of them is allowed to become.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::secret::Secret;

/// A variable.
#[derive(Clone, PartialEq)]
pub enum Var {
    /// Written by a person: texts in it may be templates and are rendered when the variable is used.
    Template(Json),
    /// Data, never rendered: facts, results, whatever came from a host.
    Plain(Json),
    /// A secret's text, never rendered; using it marks the output as secret.
    Secret(Secret),
    /// A value with a secret somewhere in it; using it marks the output as secret.
    Sensitive {
        /// The value.
        value: Json,
        /// A person wrote it, so its texts may be templates.
        template: bool,
    },
    /// A result that is not known yet; using it is an error of its own kind.
    Unknown,
}

impl Var {
    /// Data that is never rendered, such as an evaluated value, with what is known of its secrecy.
    pub fn data(value: Json, secret: bool) -> Self {
        match value {
            Json::String(text) if secret => Self::Secret(Secret::new(text)),
            value if secret => Self::Sensitive { value, template: false },
            value => Self::Plain(value),
        }
    }

    /// Whether using it marks the output as secret.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_) | Self::Sensitive { .. })
    }
}

impl std::fmt::Debug for Var {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Template(value) => f.debug_tuple("Template").field(value).finish(),
            Self::Plain(value) => f.debug_tuple("Plain").field(value).finish(),
            Self::Secret(_) | Self::Sensitive { .. } => f.write_str(crate::secret::MASK),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// The variables of all hosts, for `hostvars`.
pub type HostVars = BTreeMap<Arc<str>, Vars>;

/// The variables of one host or task: layers, of which a later one wins. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Vars {
    host: Option<Arc<str>>,
    layers: Vec<Arc<BTreeMap<String, Var>>>,
    hosts: Option<Arc<HostVars>>,
}

impl Vars {
    /// No variables, of no host.
    pub fn new() -> Self {
        Self::default()
    }

    /// No variables, of the host `name`.
    pub fn for_host(name: impl Into<Arc<str>>) -> Self {
        Self { host: Some(name.into()), ..Self::default() }
    }

    /// The host whose variables they are.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Gives `hostvars` to templates.
    pub fn with_hosts(mut self, hosts: Arc<HostVars>) -> Self {
        self.hosts = Some(hosts);
        self
    }

    /// The hosts behind `hostvars`.
    pub fn hosts(&self) -> Option<&Arc<HostVars>> {
        self.hosts.as_ref()
    }

    /// Puts `layer` above the others.
    pub fn push(&mut self, layer: impl Into<Arc<BTreeMap<String, Var>>>) {
        let layer = layer.into();
        if !layer.is_empty() {
            self.layers.push(layer);
        }
    }

    /// Like [`Vars::push`], by value.
    pub fn with(mut self, layer: impl Into<Arc<BTreeMap<String, Var>>>) -> Self {
        self.push(layer);
        self
    }

    /// Sets one variable above all others.
    pub fn set(&mut self, name: impl Into<String>, var: Var) {
        match self.layers.last_mut().and_then(Arc::get_mut) {
            Some(layer) => {
                layer.insert(name.into(), var);
            }
            None => self.layers.push(Arc::new(BTreeMap::from([(name.into(), var)]))),
        }
    }

    /// The variable `name` as the highest layer has it.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.layers.iter().rev().find_map(|layer| layer.get(name))
    }

    /// All names, sorted, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> =
            self.layers.iter().flat_map(|layer| layer.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// All variables as the highest layers have them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.names().into_iter().filter_map(|name| Some((name, self.get(name)?)))
    }
}
