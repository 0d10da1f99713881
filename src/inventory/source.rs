//! What an inventory is made of, already read and parsed, before anything is understood.

use std::collections::BTreeMap;

use crate::yaml::{Document, Finding};

use super::extra::ExtraVars;

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's name, as findings show it.
    pub name: String,
    /// Its content.
    pub document: Document,
}

/// All that an inventory is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The inventory's files, in order.
    pub inventory: Vec<Source>,
    /// By group: the files of `group_vars`, in order.
    pub group_vars: BTreeMap<String, Vec<Source>>,
    /// By host: the files of `host_vars`, in order.
    pub host_vars: BTreeMap<String, Vec<Source>>,
    /// What `-e` gave.
    pub extra: ExtraVars,
    /// The inventory's path, for `inventory_file`.
    pub file: String,
    /// The inventory's directory, for `inventory_dir`.
    pub directory: String,
    /// The inventory comes with the program.
    pub built_in: bool,
    /// Findings that already came up while reading and do not stop anything.
    pub warnings: Vec<Finding>,
}
