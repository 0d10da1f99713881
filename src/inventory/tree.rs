//! Groups and hosts from the parsed files.

use std::collections::{BTreeMap, BTreeSet};

use crate::yaml::{Entry, Finding, Mark, Node, did_you_mean};

use super::names::{group_name_problem, host_name_problem, is_variable_name};
use super::range::{HOSTS_MAX, expand};
use super::source::Source;

/// The group that holds all hosts.
pub(super) const ALL: &str = "all";
/// The group of hosts that are in no other group.
pub(super) const UNGROUPED: &str = "ungrouped";

/// A group as the files have it.
#[derive(Clone, Debug, Default)]
pub(super) struct RawGroup {
    /// Where it is first named.
    pub(super) mark: Option<Mark>,
    /// Its own hosts, in order.
    pub(super) hosts: Vec<String>,
    /// Its own variables, in order.
    pub(super) vars: Vec<Entry>,
    /// Groups directly below it, in order.
    pub(super) children: Vec<String>,
}

/// A host as the files have it.
#[derive(Clone, Debug)]
pub(super) struct RawHost {
    pub(super) name: String,
    /// Where it is first named.
    pub(super) mark: Mark,
    /// Its variables beside its name, in order.
    pub(super) vars: Vec<Entry>,
}

/// All groups and hosts.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) groups: BTreeMap<String, RawGroup>,
    /// In the order of the files.
    pub(super) hosts: Vec<RawHost>,
    index: BTreeMap<String, usize>,
    pub(super) findings: Vec<Finding>,
    /// A group is below itself: nothing can be inherited.
    pub(super) is_circular: bool,
}

impl Tree {
    /// Reads all files; what is wrong in one does not hide what is wrong in another.
    pub(super) fn read(sources: &[Source]) -> Self {
        let mut tree = Self::default();
        for name in [ALL, UNGROUPED] {
            tree.groups.insert(name.to_owned(), RawGroup::default());
        }
        for source in sources {
            match source.document.root().expect_map("an inventory") {
                Ok(entries) => {
                    for entry in entries {
                        tree.group(entry);
                    }
                }
                Err(finding) => tree.findings.push(finding),
            }
        }
        tree.find_circles();
        tree
    }

    fn find(&mut self, result: Result<(), Finding>) {
        self.findings.extend(result.err());
    }

    fn group(&mut self, entry: &Entry) {
        let name = entry.key.to_string();
        if let Some(problem) = group_name_problem(&name) {
            let finding = entry.key_mark.finding(format!("`{name}` cannot be a group: {problem}"));
            self.findings.push(finding);
            return;
        }
        let group = self.groups.entry(name.clone()).or_default();
        group.mark.get_or_insert_with(|| entry.key_mark.clone());
        let parts = match entry.value.expect_map(&format!("the group `{name}`")) {
            Ok(parts) => parts,
            Err(finding) => {
                self.findings.push(finding);
                return;
            }
        };
        for part in parts {
            let result = match &*part.key {
                "hosts" => self.hosts(&name, &part.value),
                "vars" => self.group_vars(&name, &part.value),
                "children" => self.children(&name, &part.value),
                other => Err(unknown_part(part, other)),
            };
            self.find(result);
        }
    }

    fn hosts(&mut self, group: &str, node: &Node) -> Result<(), Finding> {
        let entries = node.expect_map("`hosts`").map_err(|finding| {
            finding.hint("write each host as a key: `server1:`, its variables below it")
        })?;
        for entry in entries {
            let result = self.host(group, entry);
            self.find(result);
        }
        Ok(())
    }

    fn host(&mut self, group: &str, entry: &Entry) -> Result<(), Finding> {
        let (pattern, port) = split_port(&entry.key);
        let names = expand(pattern).map_err(|(message, offset)| {
            let mut mark = entry.key_mark.clone();
            mark.column += offset;
            mark.finding(message)
        })?;
        let mut vars = entry.value.expect_map(&format!("the host `{}`", entry.key))?.to_vec();
        check_variable_names(&vars, &mut self.findings);
        if let Some(port) = port {
            let value = Node {
                value: crate::yaml::Value::Int(i64::from(port)),
                mark: entry.key_mark.clone(),
            };
            let key_mark = entry.key_mark.clone();
            vars.insert(0, Entry { key: "ansible_port".into(), key_mark, value });
        }
        for name in names {
            self.add_host(group, name, &entry.key_mark, &vars)?;
        }
        Ok(())
    }

    fn add_host(
        &mut self,
        group: &str,
        name: String,
        mark: &Mark,
        vars: &[Entry],
    ) -> Result<(), Finding> {
        if let Some(problem) = host_name_problem(&name) {
            return Err(mark.finding(format!("`{name}` cannot be a host: {problem}")));
        }
        let members = &mut self.groups.entry(group.to_owned()).or_default().hosts;
        if members.contains(&name) {
            return Err(mark.finding(format!("host `{name}` is twice in the group `{group}`")));
        }
        members.push(name.clone());
        if let Some(host) = self.index.get(&name).copied().and_then(|i| self.hosts.get_mut(i)) {
            host.vars.extend_from_slice(vars);
        } else if self.hosts.len() >= HOSTS_MAX {
            return Err(mark.finding(format!("more than {HOSTS_MAX} hosts")));
        } else {
            self.index.insert(name.clone(), self.hosts.len());
            self.hosts.push(RawHost { name, mark: mark.clone(), vars: vars.to_vec() });
        }
        Ok(())
    }

    fn group_vars(&mut self, group: &str, node: &Node) -> Result<(), Finding> {
        let entries = node.expect_map("`vars`")?;
        check_variable_names(entries, &mut self.findings);
        self.groups.entry(group.to_owned()).or_default().vars.extend_from_slice(entries);
        Ok(())
    }

    fn children(&mut self, parent: &str, node: &Node) -> Result<(), Finding> {
        let entries = node.expect_map("`children`").map_err(|finding| {
            finding.hint("write each group as a key: `servers:`, its hosts below it")
        })?;
        for entry in entries {
            let child = entry.key.to_string();
            if matches!(child.as_str(), ALL) {
                let finding = entry.key_mark.finding("`all` cannot be below another group");
                self.findings.push(finding);
                continue;
            }
            let children = &mut self.groups.entry(parent.to_owned()).or_default().children;
            if !children.contains(&child) {
                children.push(child);
            }
            self.group(entry);
        }
        Ok(())
    }

    /// A group that is below itself.
    fn find_circles(&mut self) {
        let mut findings = Vec::new();
        for (name, group) in &self.groups {
            let below: BTreeSet<&str> =
                group.children.iter().flat_map(|child| self.below(child)).collect();
            if below.contains(name.as_str())
                && let Some(mark) = &group.mark
            {
                findings.push(mark.finding(format!("the group `{name}` is below itself")));
            }
        }
        self.is_circular = !findings.is_empty();
        self.findings.append(&mut findings);
    }

    /// The group `name` and all groups below it, each once.
    pub(super) fn below<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let mut seen = BTreeSet::new();
        let mut order = Vec::new();
        let mut waiting = vec![name];
        while let Some(next) = waiting.pop() {
            if seen.insert(next) {
                order.push(next);
                if let Some(group) = self.groups.get(next) {
                    waiting.extend(group.children.iter().map(String::as_str));
                }
            }
        }
        order
    }
}

/// Ansible's `host:22`: a name and a port.
fn split_port(key: &str) -> (&str, Option<u16>) {
    let outside_ranges = key.rfind(']').map_or(0, |end| end + 1);
    let tail = key.get(outside_ranges..).unwrap_or_default();
    match tail.rsplit_once(':') {
        Some((before, port)) if !before.contains(':') => match port.parse() {
            Ok(port) => (key.get(..outside_ranges + before.len()).unwrap_or(key), Some(port)),
            Err(_) => (key, None),
        },
        _ => (key, None),
    }
}

fn unknown_part(part: &Entry, name: &str) -> Finding {
    let finding = part.key_mark.finding(format!("unknown key `{name}` in a group"));
    match did_you_mean(name, ["hosts", "vars", "children"]) {
        Some(near) => finding.hint(format!("did you mean `{near}`?")),
        None => finding.hint("a group has `hosts`, `vars` and `children`"),
    }
}

/// Finds names that no template could use.
pub(super) fn check_variable_names(entries: &[Entry], findings: &mut Vec<Finding>) {
    for entry in entries {
        if !is_variable_name(&entry.key) {
            findings.push(
                entry
                    .key_mark
                    .finding(format!("`{}` cannot be a variable", entry.key))
                    .hint("a variable's name has letters, digits and `_`, a digit not first"),
            );
        }
    }
}
