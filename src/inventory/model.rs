//! What an inventory says, in the form that the other rooms use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::layout::{Distribution, Role};
use crate::secret::Secret;
use crate::template::{HostVars, Var, Vars};
use crate::yaml::{Finding, Mark};

use super::connection::{Become, Connection};

/// Hosts, groups and what the product itself wants to know.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// The hosts, in the order of the files.
    pub hosts: Vec<Host>,
    /// By group, `all` and `ungrouped` among them: its hosts and those of the groups below it, in
    /// the order of the files. `servers`, `agents` and `loadbalancers` are there whenever a group
    /// of that meaning is (`server`, `master`, `agent`, `node`, …).
    pub groups: BTreeMap<String, Vec<String>>,
    /// By group: the groups directly below it.
    pub children: BTreeMap<String, Vec<String>>,
    /// The variables of all hosts, for `hostvars`.
    pub host_vars: Arc<HostVars>,
    /// Variables of the command line; already on top of each host's own, and to be put on top again
    /// by whoever adds variables.
    pub extra: Arc<BTreeMap<String, Var>>,
    /// What is provisioned (`distribution`).
    pub distribution: Distribution,
    /// The cluster's name (`cluster_name`), `default` if there is none; it is a host name's label.
    pub cluster_name: String,
    /// The token that nodes join with (`token`), if the inventory has one.
    pub token: Option<Secret>,
    /// The path that was read.
    pub file: String,
    /// There was no such file, and the inventory of that name that comes with the program was used.
    pub built_in: bool,
    /// What may be meant but is likely wrong.
    pub warnings: Vec<Finding>,
}

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name in the inventory, which is also its node's name.
    pub name: String,
    /// Where it is first named.
    pub mark: Mark,
    /// All its groups, `all` not among them, by name.
    pub groups: BTreeSet<String>,
    /// What it is for, from its groups.
    pub role: Option<Role>,
    /// Its variables, those of the command line on top.
    pub vars: Vars,
    /// Where each variable stands that a file gives.
    pub marks: BTreeMap<String, Mark>,
    /// How to reach it.
    pub connection: Connection,
    /// How to become another user on it.
    pub r#become: Become,
}

impl Host {
    /// What it is for, from its groups.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// How to reach it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Inventory {
    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The hosts of a role, in order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.role == Some(role))
    }

    /// The servers, in order.
    pub fn servers(&self) -> impl Iterator<Item = &Host> {
        self.with_role(Role::Server)
    }

    /// The agents, in order.
    pub fn agents(&self) -> impl Iterator<Item = &Host> {
        self.with_role(Role::Agent)
    }

    /// The load balancers, in order.
    pub fn load_balancers(&self) -> impl Iterator<Item = &Host> {
        self.with_role(Role::LoadBalancer)
    }
}
