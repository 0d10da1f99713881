//! `k3sup-rs inventory`: what an inventory says, like `ansible-inventory`. Secrets are masked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value as Json, json};

use super::output::{self, Format};
use crate::cluster::layout::Role;
use crate::error::{ExitCode, Failure};
use crate::inventory::{Connection, Host, Inventory};
use crate::secret::MASK;
use crate::template::{Engine, Var};
use crate::yaml::{Finding, report};

/// Which inventory, for all commands that need one.
#[derive(Clone, Debug, clap::Args)]
pub struct InventoryArgs {
    /// Inventory: a file (YAML or INI) or a directory of them
    #[arg(long, short, value_name = "PATH", env = "K3SUP_INVENTORY")]
    pub inventory: PathBuf,
    /// Set variables that win over all others: name=value, a mapping in YAML or JSON, or @file
    #[arg(long, short, value_name = "VARS")]
    pub extra_vars: Vec<String>,
}

impl InventoryArgs {
    /// Reads the inventory and prints its warnings to standard error.
    pub fn load(&self) -> Result<Inventory, Failure> {
        let extra = Inventory::extra_vars(&self.extra_vars).map_err(|all| failure(&all))?;
        let inventory = Inventory::load(&self.inventory, extra).map_err(|all| failure(&all))?;
        if inventory.built_in {
            let path = self.inventory.display();
            output::error(&format!("note: {path} is not there; the built-in one is used"));
        }
        for line in report(&inventory.warnings).lines() {
            output::error(&format!("warning: {line}"));
        }
        Ok(inventory)
    }
}

/// All findings as one failure, one line each.
pub fn failure(findings: &[Finding]) -> Failure {
    let text = report(findings);
    let message = match findings {
        [_] => text,
        _ => format!("{} findings\n{text}", text.lines().count()),
    };
    Failure::new(ExitCode::BadInput, message)
}

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs inventory list -i inventories/lab.yaml
  k3sup-rs inventory list -i inventory.yaml --limit 'servers:!server2' --output json
  k3sup-rs inventory host server1 -i inventory.yaml      its variables and where each comes from")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List hosts with their role and how they are reached
    List {
        #[command(flatten)]
        inventory: InventoryArgs,
        /// Only these hosts: names, groups, globs; `:` adds, `:!` excludes, `:&` intersects
        #[arg(long, short, value_name = "PATTERN")]
        limit: Option<String>,
        /// How to show it
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Show groups and hosts as a tree
    Graph {
        #[command(flatten)]
        inventory: InventoryArgs,
        /// How to show it
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Show a host's variables and where each comes from
    Host {
        /// The host
        name: String,
        #[command(flatten)]
        inventory: InventoryArgs,
        /// How to show it
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::List { inventory, limit, output: format } => {
            list(&inventory.load()?, limit.as_deref().unwrap_or("all"), *format)
        }
        Command::Graph { inventory, output: format } => {
            let inventory = inventory.load()?;
            match format {
                Format::Text => output::line(&graph(&inventory)),
                Format::Json => output::json(&groups(&inventory)),
            }
        }
        Command::Host { name, inventory, output: format } => {
            host(&inventory.load()?, name, *format)
        }
    }
}

fn list(inventory: &Inventory, pattern: &str, format: Format) -> Result<(), Failure> {
    let names = inventory
        .select(pattern)
        .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
    let hosts: Vec<&Host> = names.iter().filter_map(|name| inventory.host(name)).collect();
    if format == Format::Json {
        // As `ansible-inventory --list` gives it.
        let engine = Engine::new();
        let vars: Map<String, Json> =
            hosts.iter().map(|h| (h.name.clone(), Json::Object(shown_vars(h, &engine)))).collect();
        let mut all = groups(inventory);
        all.insert("_meta".to_owned(), json!({ "hostvars": vars }));
        return output::json(&all);
    }
    let mut table = output::table(["HOST", "ROLE", "CONNECTION", "GROUPS"]);
    for host in hosts {
        let groups: Vec<&str> = host.groups.iter().map(String::as_str).collect();
        table.add_row([
            host.name.clone(),
            role(host).to_owned(),
            connection(host),
            groups.join(","),
        ]);
    }
    output::line(&output::render(&mut table))
}

fn role(host: &Host) -> &'static str {
    match host.role {
        Some(Role::Server) => "server",
        Some(Role::Agent) => "agent",
        Some(Role::LoadBalancer) => "loadbalancer",
        None => "-",
    }
}

fn connection(host: &Host) -> String {
    match host.connection() {
        Connection::Local => "local".to_owned(),
        Connection::Lab { address } => format!("lab {address}"),
        Connection::Ssh(ssh) => {
            let user = ssh.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
            let is_ipv6 = ssh.address.contains(':');
            let address = if is_ipv6 { format!("[{}]", ssh.address) } else { ssh.address.clone() };
            let port = ssh.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("ssh {user}{address}{port}")
        }
    }
}

/// Each group's own hosts and the groups below it.
fn groups(inventory: &Inventory) -> BTreeMap<String, Json> {
    inventory
        .groups
        .iter()
        .map(|(name, hosts)| {
            let value = if name == "all" {
                json!({ "children": top(inventory) })
            } else {
                json!({ "hosts": hosts, "children": below(inventory, name) })
            };
            (name.clone(), value)
        })
        .collect()
}

fn below<'a>(inventory: &'a Inventory, group: &str) -> &'a [String] {
    inventory.children.get(group).map(Vec::as_slice).unwrap_or_default()
}

/// The groups right below `all`: those that are below no other.
fn top(inventory: &Inventory) -> Vec<&String> {
    let is_below_another = |name: &String| {
        inventory.children.iter().any(|(parent, below)| parent != "all" && below.contains(name))
    };
    inventory.groups.keys().filter(|name| *name != "all" && !is_below_another(name)).collect()
}

/// The tree in the form of `ansible-inventory --graph`.
fn graph(inventory: &Inventory) -> String {
    let mut lines = vec!["@all:".to_owned()];
    for group in top(inventory) {
        branch(inventory, group, 1, &mut lines);
    }
    lines.join("\n")
}

fn branch(inventory: &Inventory, group: &str, depth: usize, lines: &mut Vec<String>) {
    let indent = "  |".repeat(depth);
    lines.push(format!("{indent}--@{group}:"));
    let children = below(inventory, group);
    for child in children {
        branch(inventory, child, depth + 1, lines);
    }
    // A host of a group below is shown there.
    let in_child = |host: &String| {
        let mut groups = children.iter().filter_map(|child| inventory.groups.get(child));
        groups.any(|hosts| hosts.contains(host))
    };
    for host in inventory.groups.get(group).into_iter().flatten().filter(|host| !in_child(host)) {
        lines.push(format!("{indent}  |--{host}"));
    }
}

fn host(inventory: &Inventory, name: &str, format: Format) -> Result<(), Failure> {
    let Some(host) = inventory.host(name) else {
        let known: Vec<&str> = inventory.hosts.iter().map(|host| host.name.as_str()).collect();
        let failure = Failure::new(ExitCode::BadInput, format!("there is no host `{name}`"));
        return Err(match crate::yaml::did_you_mean(name, known.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("there is: {}", known.join(", "))),
        });
    };
    let vars = shown_vars(host, &Engine::new());
    if format == Format::Json {
        return output::json(&vars);
    }
    let mut table = output::table(["VARIABLE", "VALUE", "FROM"]);
    for (name, value) in vars {
        let value = match value {
            Json::String(text) => text.escape_debug().to_string(),
            other => other.to_string(),
        };
        let from =
            host.marks.get(&name).map_or("-".to_owned(), |m| format!("{}:{}", m.file, m.line));
        table.add_row([name, value, from]);
    }
    output::line(&output::render(&mut table))
}

/// The host's variables, rendered; what cannot be rendered as it is written, secrets masked.
fn shown_vars(host: &Host, engine: &Engine) -> Map<String, Json> {
    let show = |name: &str, var: &Var| match var {
        Var::Secret(_) | Var::Sensitive { .. } => Json::from(MASK),
        Var::Unknown => Json::Null,
        Var::Plain(value) => value.clone(),
        Var::Template(value) => {
            let lookup = json!(format!("{{{{ {name} }}}}"));
            match engine.evaluate(&lookup, &host.vars) {
                Ok(evaluated) if evaluated.secret => Json::from(MASK),
                Ok(evaluated) => evaluated.value,
                Err(_) => value.clone(),
            }
        }
    };
    host.vars
        .iter()
        .filter(|(name, _)| *name != "groups")
        .map(|(name, var)| (name.to_owned(), show(name, var)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::inventory_of;

    #[test]
    fn the_graph_reads_like_ansibles() {
        let inventory = inventory_of(
            "all: {children: {cluster: {children: {servers: {hosts: {s1: }}}, hosts: {x: }}}}",
        );
        assert_eq!(
            graph(&inventory),
            "@all:\n  |--@agents:\n  |--@cluster:\n  |  |--@servers:\n  |  |  |--s1\n  |  |--x\n  \
             |--@loadbalancers:\n  |--@ungrouped:"
        );
    }

    #[test]
    fn secrets_are_masked_also_where_they_are_used() {
        let inventory = inventory_of(
            "servers:\n  hosts: {s1: }\n  vars: {token: hunter2, url: 'x-{{ token }}', \
             bad: '{{ nowhere }}', \
             config: {agent-token: hunter2}, n: '{{ 1 + 1 }}'}\n",
        );
        let vars = shown_vars(inventory.host("s1").unwrap(), &Engine::new());
        let shown = |name: &str| vars.get(name).cloned();
        assert_eq!(shown("token"), Some(json!(MASK)));
        assert_eq!(shown("url"), Some(json!(MASK)));
        assert_eq!(shown("bad"), Some(json!("{{ nowhere }}")));
        assert_eq!(shown("n"), Some(json!(2)));
        assert!(!format!("{vars:?}").contains("hunter2"));
    }

    #[test]
    fn several_findings_are_one_failure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("i.yml");
        std::fs::write(&path, "a: {hosts: {x: , x: , x: }}").unwrap();
        let args = InventoryArgs { inventory: path, extra_vars: Vec::new() };
        let failure = args.load().unwrap_err();
        assert_eq!(failure.code, ExitCode::BadInput);
        assert!(failure.message.starts_with("2 findings\n"), "{}", failure.message);
    }
}
