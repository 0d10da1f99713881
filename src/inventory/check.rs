//! What cannot be meant, and what is likely wrong.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::cluster::layout::{Distribution, Role};
use crate::secret::Secret;
use crate::template::Engine;
use crate::yaml::{Finding, Mark, did_you_mean};

use super::connection::{Connection, IGNORED, KNOWN};
use super::model::{Host, Inventory};
use super::names::node_name_problem;
use super::resolve::{ROLE_GROUPS, role_group};
use super::source::Sources;
use super::tree::Tree;

/// The name of a cluster without `cluster_name`.
const CLUSTER_NAME_DEFAULT: &str = "default";

/// Reads the variables that the product itself wants and that must be the same on all hosts.
pub(super) fn product(inventory: &mut Inventory, findings: &mut Vec<Finding>) {
    if let Some((mark, text)) = common_text(inventory, "distribution", findings) {
        match text.as_str() {
            "embedded" => inventory.distribution = Distribution::Embedded,
            "k3s" => inventory.distribution = Distribution::K3s,
            other => {
                let finding = mark.finding(format!("unknown distribution `{other}`"));
                findings.push(match did_you_mean(other, ["embedded", "k3s"]) {
                    Some(near) => finding.hint(format!("did you mean `{near}`?")),
                    None => finding.hint("there are `embedded` and `k3s`"),
                });
            }
        }
    }
    CLUSTER_NAME_DEFAULT.clone_into(&mut inventory.cluster_name);
    if let Some((mark, text)) = common_text(inventory, "cluster_name", findings) {
        match node_name_problem(&text) {
            Some(problem) => {
                findings.push(mark.finding(format!("`{text}` cannot be a cluster: {problem}")));
            }
            None if text.contains('.') => {
                findings.push(mark.finding(format!("`{text}` cannot be a cluster: it has a dot")));
            }
            None => inventory.cluster_name = text,
        }
    }
    if let Some((mark, text)) = common_text(inventory, "token", findings)
        && !text.is_empty()
    {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            findings.push(mark.finding("`token`: it has blanks or control characters"));
        }
        inventory.token = Some(Secret::new(text));
    }
}

/// The text of a variable that all hosts must agree on, and where it stands.
fn common_text(
    inventory: &Inventory,
    name: &str,
    findings: &mut Vec<Finding>,
) -> Option<(Mark, String)> {
    let engine = Engine::new();
    let lookup = Json::String(format!("{{{{ {name} }}}}"));
    let mut common: Option<(&Host, Mark, String)> = None;
    for host in &inventory.hosts {
        if host.vars.get(name).is_none() {
            continue;
        }
        let mark = host.marks.get(name).unwrap_or(&host.mark).clone();
        let text = match engine.evaluate(&lookup, &host.vars).map(|evaluated| evaluated.value) {
            Ok(Json::String(text)) => text,
            Ok(Json::Number(number)) => number.to_string(),
            Ok(Json::Null) => continue,
            Ok(_) => {
                findings.push(mark.finding(format!("`{name}`: it must be a text")));
                return None;
            }
            Err(error) => {
                findings.push(mark.finding(format!("`{name}`: {error}")));
                return None;
            }
        };
        match &common {
            Some((first, _, known)) if *known != text => {
                findings.push(mark.finding(format!(
                    "`{name}` differs between hosts `{}` and `{}`",
                    first.name, host.name
                )));
                return None;
            }
            Some(_) => {}
            None => common = Some((host, mark, text)),
        }
    }
    common.map(|(_, mark, text)| (mark, text))
}

/// Checks each host by itself and against the others.
pub(super) fn hosts(
    inventory: &Inventory,
    findings: &mut Vec<Finding>,
    warnings: &mut Vec<Finding>,
) {
    let mut addresses: BTreeMap<String, &Host> = BTreeMap::new();
    for host in &inventory.hosts {
        unknown_connection_variables(host, warnings);
        if inventory.groups.contains_key(&host.name) {
            warnings.push(host.mark.finding(format!("`{}` is a host and a group", host.name)));
        }
        let Some(role) = host.role else { continue };
        if role != Role::LoadBalancer
            && let Some(problem) = node_name_problem(&host.name)
        {
            let message = format!("`{}` cannot be a node's name: {problem}", host.name);
            findings.push(host.mark.finding(message));
        }
        let Some(address) = address(host) else { continue };
        match addresses.get(&address) {
            Some(other) => {
                let place =
                    |host: &Host| host.marks.get("ansible_host").unwrap_or(&host.mark).clone();
                findings.push(place(host).finding(format!(
                    "host `{}` has the address and port {address} of `{}` on line {}",
                    host.name,
                    other.name,
                    place(other).line
                )));
            }
            None => {
                addresses.insert(address, host);
            }
        }
    }
}

/// Where a host is taken to be that names no port.
const SSH_PORT: u16 = 22;

fn address(host: &Host) -> Option<String> {
    match &host.connection {
        Connection::Ssh(ssh) => {
            let port = ssh.port.unwrap_or(SSH_PORT);
            Some(format!("{}:{port}", ssh.address.to_ascii_lowercase()))
        }
        Connection::Lab { address } => Some(address.to_string()),
        Connection::Local => None,
    }
}

/// Names that look like connection variables of Ansible and are not read here.
fn unknown_connection_variables(host: &Host, warnings: &mut Vec<Finding>) {
    for (name, mark) in &host.marks {
        let name = name.as_str();
        if !name.starts_with("ansible_") || KNOWN.contains(&name) || IGNORED.contains(&name) {
            continue;
        }
        let finding = mark.finding(format!("`{name}` has no meaning here and is ignored"));
        warnings.push(match did_you_mean(name, KNOWN) {
            Some(near) => finding.hint(format!("did you mean `{near}`?")),
            None => finding,
        });
    }
}

/// Checks the groups that give roles, and files of variables that belong to nothing.
pub(super) fn groups(
    inventory: &Inventory,
    tree: &Tree,
    sources: &Sources,
    findings: &mut Vec<Finding>,
    warnings: &mut Vec<Finding>,
) {
    let servers: Vec<&Host> = inventory.servers().collect();
    let named = ROLE_GROUPS
        .iter()
        .filter(|(role, _)| *role == Role::Server)
        .flat_map(|(_, names)| names)
        .find_map(|name| tree.groups.get(*name)?.mark.as_ref());
    match (named, servers.as_slice()) {
        (Some(mark), []) => {
            findings.push(
                mark.finding("the group of servers has no hosts")
                    .hint("a cluster needs at least one server, three to survive the loss of one"),
            );
        }
        (Some(mark), servers) if servers.len().is_multiple_of(2) => {
            let count = servers.len();
            warnings.push(
                mark.finding(format!(
                    "{count} servers survive no more failures than {}",
                    count - 1
                ))
                .hint("an odd number of servers is better"),
            );
        }
        _ => {}
    }
    let has_role = inventory.hosts.iter().any(|host| host.role.is_some());
    if let (None, true, Some(host)) = (named, has_role, inventory.hosts.first()) {
        warnings.push(host.mark.finding(format!("no group `{}`", role_group(Role::Server))));
    }
    for (name, files) in &sources.group_vars {
        if !inventory.groups.contains_key(name) {
            warnings.extend(files.iter().map(|file| orphan(&file.name, "group", name)));
        }
    }
    for (name, files) in &sources.host_vars {
        if inventory.host(name).is_none() {
            warnings.extend(files.iter().map(|file| orphan(&file.name, "host", name)));
        }
    }
}

fn orphan(file: &str, what: &str, name: &str) -> Finding {
    Mark::new(file, 1, 1).finding(format!("there is no {what} `{name}` for these variables"))
}
