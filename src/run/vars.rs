//! The variables of a task on a host, in Ansible's order of who wins.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::cluster::{AFTER_FACTS, ClusterState};
use super::fleet::Fleet;
use super::host::HostRun;
use crate::cluster::layout::Role;
use crate::modules;
use crate::node::config::schema;
use crate::template::{HostVars, Var, Vars};

/// What all hosts of a moment share.
pub(super) struct Scope {
    hosts: Arc<HostVars>,
    play: Arc<BTreeMap<String, Var>>,
    run: Arc<BTreeMap<String, Var>>,
    extra: Arc<BTreeMap<String, Var>>,
}

/// Names and values of a play, for its tasks.
#[derive(Clone, Debug, Default)]
pub(super) struct PlayVars {
    /// From `vars_files`.
    pub(super) vars: BTreeMap<String, Var>,
    /// The play's hosts that are left.
    pub(super) hosts: Vec<String>,
    /// Hosts of the wave.
    pub(super) batch: Vec<String>,
}

/// Variables that a person wrote.
pub(super) fn templates(map: &Map<String, Json>) -> BTreeMap<String, Var> {
    map.iter().map(|(name, value)| (name.clone(), Var::Template(value.clone()))).collect()
}

impl Scope {
    pub(super) fn new(
        fleet: &Fleet,
        hosts: &[HostRun],
        cluster: &ClusterState,
        play: &PlayVars,
        run: &Arc<BTreeMap<String, Var>>,
    ) -> Self {
        let servers: Vec<String> = hosts
            .iter()
            .filter(|host| host.fleet.role == Some(Role::Server))
            .map(|host| host.name().to_owned())
            .collect();
        // Hosts outside `--limit` are not looked at, but the inventory's words on them count.
        let inside: HashSet<&str> = hosts.iter().map(HostRun::name).collect();
        let outside: Vec<HostRun> = fleet
            .hosts
            .iter()
            .filter(|host| !inside.contains(host.name.as_str()))
            .map(|host| HostRun::new(host.clone(), fleet.distribution, true))
            .collect();
        let all = hosts
            .iter()
            .chain(&outside)
            .map(|host| (Arc::from(host.name()), own(fleet, host, cluster, &servers)))
            .collect();
        let mut vars = play.vars.clone();
        for (name, value) in [
            ("ansible_play_hosts", &play.hosts),
            ("play_hosts", &play.hosts),
            ("ansible_play_batch", &play.batch),
        ] {
            vars.insert(name.to_owned(), Var::Plain(json!(value)));
        }
        Self {
            hosts: Arc::new(all),
            play: Arc::new(vars),
            run: Arc::clone(run),
            extra: Arc::clone(&fleet.extra),
        }
    }

    /// Variables of a task on `host`, with those of the task and of a loop's item.
    pub(super) fn task(
        &self,
        host: &HostRun,
        task: &Map<String, Json>,
        item: BTreeMap<String, Var>,
    ) -> Vars {
        let own = self.hosts.get(host.name()).cloned().unwrap_or_default();
        own.with_hosts(Arc::clone(&self.hosts))
            .with(Arc::clone(&self.play))
            .with(templates(task))
            .with(host.known.clone())
            .with(item)
            .with(Arc::clone(&self.extra))
            .with(Arc::clone(&self.run))
    }
}

/// What a host has by itself; also what `hostvars` shows of it.
fn own(fleet: &Fleet, host: &HostRun, cluster: &ClusterState, servers: &[String]) -> Vars {
    let mut facts = cluster.vars(host, servers);
    let place_known = facts.contains_key("layout");
    match host.facts() {
        Some(seen) => {
            let seen = modules::facts(seen);
            let short: Map<String, Json> = seen
                .iter()
                .map(|(key, value)| {
                    (key.strip_prefix("ansible_").unwrap_or(key).to_owned(), value.clone())
                })
                .collect();
            facts.insert("ansible_facts".to_owned(), Var::Plain(Json::Object(short)));
            facts.extend(seen.into_iter().map(|(key, value)| (key, Var::Plain(value))));
        }
        None => {
            for name in AFTER_FACTS {
                facts.insert((*name).to_owned(), Var::Unknown);
            }
        }
    }
    if !place_known && host.facts().is_none() {
        facts.insert("node_ip".to_owned(), Var::Unknown);
    }
    let mut who = BTreeMap::new();
    let mut set = |name: &str, value: Json| who.insert(name.to_owned(), Var::Plain(value));
    set("inventory_hostname", host.name().into());
    set("inventory_hostname_short", host.name().split('.').next().unwrap_or_default().into());
    set("group_names", host.fleet.groups.iter().map(String::as_str).collect::<Vec<_>>().into());
    set("groups", json!(fleet.groups));
    set("distribution", json!(fleet.distribution));
    set("cluster_name", fleet.cluster_name.as_str().into());
    if let Some(role) = host.fleet.role {
        set("role", json!(role));
    }
    let own: Vec<String> =
        schema::server_keys().flat_map(|key| [key.to_owned(), format!("{key}+")]).collect();
    set("server_settings", json!(own));
    if host.fleet.vars.get("ansible_host").is_none() {
        set("ansible_host", host.name().into());
    }
    // What the inventory says wins over what was found, but not over who the host is.
    let mut vars = Vars::for_host(host.name());
    vars.push(facts);
    for (name, var) in host.fleet.vars.iter() {
        vars.set(name, var.clone());
    }
    vars.with(who).with(host.known.clone())
}
