//! From groups and hosts to the inventory: membership, precedence of variables, types.
//!
//! Precedence, the last wins (as Ansible's default): variables of `all` and of groups in the
//! inventory, parents before children, then by name; `group_vars/all`; `group_vars` of groups in the
//! same order; variables beside the host; `host_vars`; what the run itself knows
//! (`inventory_hostname`, `groups`, …); the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use crate::cluster::layout::Role;
use crate::template::{Engine, HostVars, Var, Vars};
use crate::yaml::{Entry, Finding, Mark};

use super::check;
use super::connection::Reader;
use super::extra::variable;
use super::model::{Host, Inventory};
use super::source::{Source, Sources};
use super::tree::{ALL, RawHost, Tree, UNGROUPED, check_variable_names};

/// The groups that give a role, the first of each being the name that playbooks use.
pub(super) const ROLE_GROUPS: [(Role, [&str; 3]); 3] = [
    (Role::Server, ["servers", "server", "master"]),
    (Role::Agent, ["agents", "agent", "node"]),
    (Role::LoadBalancer, ["loadbalancers", "loadbalancer", "lb"]),
];

/// Where findings about variables of the command line point.
pub(super) const COMMAND_LINE: &str = "--extra-vars";

impl Inventory {
    /// Understands `sources`. Pure. All that is wrong is found at once, in the order of the files.
    pub fn resolve(sources: &Sources) -> Result<Self, Vec<Finding>> {
        let mut tree = Tree::read(&sources.inventory);
        let mut findings = std::mem::take(&mut tree.findings);
        if tree.is_circular {
            return Err(in_order(findings));
        }
        // A host or group that could not be read is missing in what follows from all of them.
        let complete = findings.is_empty();
        let mut warnings = sources.warnings.clone();
        let groups = members(&tree);
        let mut inventory = assemble(sources, &tree, groups, &mut findings, &mut warnings);
        check::product(&mut inventory, &mut findings);
        check::hosts(&inventory, &mut findings, &mut warnings);
        if complete {
            check::groups(&inventory, &tree, sources, &mut findings, &mut warnings);
        }
        inventory.warnings = in_order(warnings);
        if findings.is_empty() { Ok(inventory) } else { Err(in_order(findings)) }
    }
}

fn in_order(findings: Vec<Finding>) -> Vec<Finding> {
    findings.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Every group's hosts, in the order of the files.
fn members(tree: &Tree) -> BTreeMap<String, Vec<String>> {
    let order: BTreeMap<&str, usize> =
        tree.hosts.iter().enumerate().map(|(index, host)| (host.name.as_str(), index)).collect();
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in tree.groups.keys() {
        let mut hosts: Vec<&String> = tree
            .below(name)
            .into_iter()
            .filter_map(|group| tree.groups.get(group))
            .flat_map(|group| &group.hosts)
            .collect();
        hosts.sort_by_key(|host| order.get(host.as_str()));
        hosts.dedup();
        groups.insert(name.clone(), hosts.into_iter().cloned().collect());
    }
    let all: Vec<String> = tree.hosts.iter().map(|host| host.name.clone()).collect();
    let grouped: BTreeSet<&String> = groups
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), ALL | UNGROUPED))
        .flat_map(|(_, hosts)| hosts)
        .collect();
    let ungrouped = all.iter().filter(|host| !grouped.contains(host)).cloned().collect();
    groups.insert(UNGROUPED.to_owned(), ungrouped);
    groups.insert(ALL.to_owned(), all);
    for (_, names) in ROLE_GROUPS {
        let in_role: BTreeSet<&String> =
            names.iter().filter_map(|name| groups.get(*name)).flatten().collect();
        let mut hosts: Vec<String> = in_role.into_iter().cloned().collect();
        hosts.sort_by_key(|host| order.get(host.as_str()));
        let [canonical, ..] = names;
        groups.insert(canonical.to_owned(), hosts);
    }
    groups
}

/// How many groups stand above each group; `all` above every other.
fn depths(tree: &Tree) -> BTreeMap<&str, usize> {
    let mut depths: BTreeMap<&str, usize> =
        tree.groups.keys().map(|name| (name.as_str(), usize::from(name != ALL))).collect();
    // No group is below itself here, so this ends after as many rounds as there are levels.
    loop {
        let mut changed = false;
        for (name, group) in &tree.groups {
            let below = depths.get(name.as_str()).copied().unwrap_or_default() + 1;
            for child in &group.children {
                if let Some(depth) = depths.get_mut(child.as_str())
                    && *depth < below
                {
                    *depth = below;
                    changed = true;
                }
            }
        }
        if !changed {
            return depths;
        }
    }
}

fn assemble(
    sources: &Sources,
    tree: &Tree,
    groups: BTreeMap<String, Vec<String>>,
    findings: &mut Vec<Finding>,
    warnings: &mut Vec<Finding>,
) -> Inventory {
    let mut of_host: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (group, hosts) in groups.iter().filter(|(name, _)| *name != ALL) {
        for host in hosts {
            of_host.entry(host).or_default().insert(group.clone());
        }
    }
    let layers = Layers {
        sources,
        tree,
        depths: depths(tree),
        shared: Arc::new(BTreeMap::from([
            ("groups".to_owned(), Var::Plain(json!(groups))),
            ("inventory_file".to_owned(), Var::Plain(json!(sources.file))),
            ("inventory_dir".to_owned(), Var::Plain(json!(sources.directory))),
        ])),
        extra: Arc::new(
            sources
                .extra
                .iter()
                .map(|(name, value)| (name.clone(), variable(name, value.clone())))
                .collect(),
        ),
    };
    let mut drafts = Vec::with_capacity(tree.hosts.len());
    for raw in &tree.hosts {
        let member_of = of_host.remove(raw.name.as_str()).unwrap_or_default();
        drafts.push(layers.host(raw, member_of, findings, warnings));
    }
    let host_vars: Arc<HostVars> = Arc::new(
        drafts.iter().map(|draft| (draft.name.as_str().into(), draft.vars.clone())).collect(),
    );
    let engine = Engine::new();
    let hosts =
        drafts.into_iter().map(|draft| finish(draft, &host_vars, &engine, findings)).collect();
    Inventory {
        hosts,
        children: tree
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group.children.clone()))
            .collect(),
        groups,
        host_vars,
        extra: layers.extra,
        distribution: crate::cluster::layout::Distribution::default(),
        cluster_name: String::new(),
        token: None,
        file: sources.file.clone(),
        built_in: sources.built_in,
        warnings: Vec::new(),
    }
}

/// A host whose variables are in order but not looked at yet.
struct Draft {
    name: String,
    mark: Mark,
    groups: BTreeSet<String>,
    vars: Vars,
    marks: BTreeMap<String, Mark>,
}

struct Layers<'a> {
    sources: &'a Sources,
    tree: &'a Tree,
    depths: BTreeMap<&'a str, usize>,
    shared: Arc<BTreeMap<String, Var>>,
    extra: Arc<BTreeMap<String, Var>>,
}

impl Layers<'_> {
    fn host(
        &self,
        raw: &RawHost,
        groups: BTreeSet<String>,
        findings: &mut Vec<Finding>,
        warnings: &mut Vec<Finding>,
    ) -> Draft {
        let mut ordered: Vec<&str> = groups.iter().map(String::as_str).collect();
        ordered.sort_by_key(|name| (self.depths.get(name), *name));
        ordered.insert(0, ALL);

        let mut own = BTreeMap::new();
        let mut marks = BTreeMap::new();
        let mut put = |entries: &[Entry]| {
            for entry in entries {
                let value = entry.value.to_json();
                let var = variable(&entry.key, value);
                if is_in_plain_text(&var) {
                    warnings.push(plain_secret(entry));
                }
                own.insert(entry.key.to_string(), var);
                marks.insert(entry.key.to_string(), entry.key_mark.clone());
            }
        };
        for name in &ordered {
            if let Some(group) = self.tree.groups.get(*name) {
                put(&group.vars);
            }
        }
        for name in &ordered {
            put_files(self.sources.group_vars.get(*name), &mut put, findings);
        }
        put(&raw.vars);
        put_files(self.sources.host_vars.get(&raw.name), &mut put, findings);

        let short = raw.name.split('.').next().unwrap_or_default();
        let known = BTreeMap::from([
            ("inventory_hostname".to_owned(), Var::Plain(json!(raw.name))),
            ("inventory_hostname_short".to_owned(), Var::Plain(json!(short))),
            ("group_names".to_owned(), Var::Plain(json!(groups))),
        ]);
        let vars = Vars::for_host(raw.name.as_str())
            .with(own)
            .with(Arc::clone(&self.shared))
            .with(known)
            .with(Arc::clone(&self.extra));
        for name in self.extra.keys() {
            marks.insert(name.clone(), Mark::new(COMMAND_LINE, 1, 1));
        }
        Draft { name: raw.name.clone(), mark: raw.mark.clone(), groups, vars, marks }
    }
}

fn put_files(
    files: Option<&Vec<Source>>,
    put: &mut impl FnMut(&[Entry]),
    findings: &mut Vec<Finding>,
) {
    for file in files.into_iter().flatten() {
        match file.document.root().expect_map("a file of variables") {
            Ok(entries) => {
                check_variable_names(entries, findings);
                put(entries);
            }
            Err(finding) => findings.push(finding),
        }
    }
}

/// A secret that a template fetches from elsewhere is not in this file.
fn is_in_plain_text(var: &Var) -> bool {
    match var {
        Var::Secret(secret) => !secret.is_empty(),
        Var::Sensitive { value, .. } => !value.is_string(),
        _ => false,
    }
}

fn plain_secret(entry: &Entry) -> Finding {
    entry
        .key_mark
        .finding(format!("`{}` holds a secret in plain text", entry.key))
        .hint("keep it in a file of its own with mode 0600 and pass that with `-e @file`")
}

fn finish(
    draft: Draft,
    host_vars: &Arc<HostVars>,
    engine: &Engine,
    findings: &mut Vec<Finding>,
) -> Host {
    let vars = draft.vars.with_hosts(Arc::clone(host_vars));
    let mut reader = Reader { engine, vars: &vars, problems: Vec::new() };
    let connection = reader.connection(&draft.name);
    let r#become = reader.r#become();
    for (name, why) in std::mem::take(&mut reader.problems) {
        let mark = draft.marks.get(name).unwrap_or(&draft.mark);
        findings.push(mark.finding(format!("`{name}`: {why}")));
    }
    let roles: Vec<Role> = roles(&draft.groups).collect();
    if let [first, second, ..] = roles.as_slice() {
        findings.push(draft.mark.finding(format!(
            "host `{}` is in two roles: {} and {}",
            draft.name,
            role_group(*first),
            role_group(*second)
        )));
    }
    Host {
        role: roles.first().copied(),
        name: draft.name,
        mark: draft.mark,
        groups: draft.groups,
        vars,
        marks: draft.marks,
        connection,
        r#become,
    }
}

/// The roles that a host has by its groups.
fn roles(groups: &BTreeSet<String>) -> impl Iterator<Item = Role> {
    ROLE_GROUPS
        .iter()
        .filter(|(_, names)| names.iter().any(|name| groups.contains(*name)))
        .map(|(role, _)| *role)
}

/// The name of a role's group.
pub(super) fn role_group(role: Role) -> &'static str {
    match role {
        Role::Server => "servers",
        Role::Agent => "agents",
        Role::LoadBalancer => "loadbalancers",
    }
}
