//! `k3sup-rs kubeconfig`: a K3s cluster's administrator's credentials, fetched from a server and merged
//! into what a person has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::ask::Passwords;
use super::{clusters, output, target};
use crate::cluster::k3s::kubeconfig::{adapted, merged};
use crate::cluster::layout::{Distribution, Layout, Role};
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Observed, Read};
use crate::inventory::{Connection, Host, Inventory};
use crate::limits::SUPERVISOR_PORT;
use crate::pki::files;
use crate::run::address;
use crate::run::reach::Reach;
use crate::template::Engine;
use crate::yaml;

/// Largest kubeconfig, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Which cluster, and where to put it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs kubeconfig -i inventory.yaml              merge it into ~/.kube/config
  k3sup-rs kubeconfig -i inventory.yaml --switch     and make it the current context
  k3sup-rs kubeconfig -i inventory.yaml --print      print it alone

The file that was there is kept beside it, with the time in its name; both are readable by you alone.")]
pub struct Args {
    /// Inventory file
    #[arg(long, short, env = "K3SUP_INVENTORY", default_value = "inventory.yaml")]
    inventory: PathBuf,
    /// Set variables that win over all others: name=value, a mapping in YAML or JSON, or @file
    #[arg(long, short, value_name = "VARS")]
    extra_vars: Vec<String>,
    /// Name of the context, the cluster and the user [default: the cluster's name]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Address of the API [default: `api_endpoint` or the load balancer's, else the server's]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File to merge into [default: the first of $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Make it the current context
    #[arg(long)]
    switch: bool,
    /// Print it and change no file
    #[arg(long, conflicts_with_all = ["file", "switch"])]
    print: bool,
    #[command(flatten)]
    passwords: Passwords,
}

/// Fetches and merges.
pub async fn run(args: Args) -> Result<(), Failure> {
    let inventory = target::inventory(&args.inventory, &args.extra_vars)?;
    if inventory.distribution != Distribution::K3s {
        let why = "only a cluster with `distribution: k3s` has a kubeconfig";
        return Err(Failure::new(ExitCode::BadInput, why).hint(
            "the embedded node's store is reached with the etcdctl.env that `up` names at its end",
        ));
    }
    let reach = Reach::new(&inventory, &args.passwords.ask()?, false, Arc::new(|_, _| {}));
    let name = args.context.as_deref().unwrap_or(&inventory.cluster_name);
    let config = fetch(&inventory, &reach, name, args.server.as_deref()).await?;
    if args.print {
        return output::write_all(text_of(&config)?.as_bytes());
    }
    let path = match args.file {
        Some(path) => path,
        None => default_file()?,
    };
    merge_into(&path, &config, args.switch)?;
    output::line(&format!(
        "context {name} is in {}\n  kubectl --context {name} get nodes",
        path.display()
    ))
}

/// The kubeconfig of the first server that has one, made fit for use from here.
pub async fn fetch(
    inventory: &Inventory,
    reach: &Reach,
    name: &str,
    server: Option<&str>,
) -> Result<Json, Failure> {
    let mut reasons = Vec::new();
    for host in inventory.servers() {
        match read(reach, host).await {
            Ok(own) => {
                let url = server.map_or_else(|| entry(inventory, host), str::to_owned);
                let failed = |why| Failure::new(ExitCode::Error, format!("{}: {why}", host.name));
                return adapted(&own, name, &url).map_err(failed);
            }
            Err(reason) => reasons.push(format!("{}: {reason}", host.name)),
        }
    }
    let message = format!("no server has a kubeconfig\n{}", reasons.join("\n"));
    Err(Failure::new(ExitCode::Unreachable, message).hint("bring the cluster up: `k3sup-rs up`"))
}

async fn read(reach: &Reach, host: &Host) -> Result<Json, String> {
    let mut session = target::session(reach, host).await.map_err(|failure| failure.message)?;
    let facts = target::facts(session.as_mut()).await?;
    let layout = Layout::new(Distribution::K3s, Role::Server, facts.lab_root.as_deref());
    let path = layout.k3s_node(Role::Server, &host.name).kubeconfig;
    let read = Read::File { path: path.clone(), bytes_max: FILE_BYTES_MAX };
    match session.read(vec![read]).await.map_err(|error| error.to_string())?.pop() {
        Some(Ok(Observed::File(Some(bytes)))) => parsed(&path, &String::from_utf8_lossy(&bytes)),
        Some(Ok(Observed::File(None))) => Err(format!("{path} is not there")),
        Some(Err(error)) => Err(error.to_string()),
        _ => Err("the executor answers something else".to_owned()),
    }
}

fn parsed(name: &str, text: &str) -> Result<Json, String> {
    match yaml::parse(name, text) {
        Ok(document) => Ok(document.root().to_json()),
        Err(findings) => Err(yaml::report(&findings)),
    }
}

/// Where clients reach the API: what the inventory says, the only load balancer, or the server.
fn entry(inventory: &Inventory, host: &Host) -> String {
    let engine = Engine::new();
    let said = |expression: &str| address::said(&engine, &host.vars, expression);
    let balancers: Vec<&Host> = inventory.load_balancers().collect();
    let balanced = said("loadbalancer_address")
        .or_else(|| address::said_vip(&engine, &host.vars))
        .or_else(|| match balancers.as_slice() {
            [only] => Some(reached_at(only)),
            _ => None,
        });
    let own_port = || address::server_port(&engine, &host.vars);
    let api_port = || said("api_port").and_then(|port| port.parse().ok());
    let (name, port) = match (said("api_endpoint"), balanced) {
        (Some(endpoint), _) => (endpoint, api_port().unwrap_or_else(own_port)),
        (None, Some(balanced)) => (balanced, SUPERVISOR_PORT),
        (None, None) => (said("node_ip").unwrap_or_else(|| reached_at(host)), own_port()),
    };
    address::server_url(&name, port)
}

/// Where a host is reached.
fn reached_at(host: &Host) -> String {
    match host.connection() {
        Connection::Ssh(ssh) => ssh.address.clone(),
        Connection::Lab { address } => address.to_string(),
        Connection::Local => "127.0.0.1".to_owned(),
    }
}

/// kubectl's own rule: the first file of `KUBECONFIG`, else `~/.kube/config`.
fn default_file() -> Result<PathBuf, Failure> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    if let Some(first) = std::env::split_paths(&listed).find(|path| !path.as_os_str().is_empty()) {
        return Ok(first);
    }
    etcetera::home_dir()
        .map(|home| home.join(".kube/config"))
        .map_err(|error| Failure::new(ExitCode::Error, format!("no home directory: {error}")))
}

fn merge_into(path: &Path, config: &Json, switch: bool) -> Result<(), Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| Failure::new(ExitCode::Error, format!("{shown}: {error}"));
    let bad = |why: String| Failure::new(ExitCode::BadInput, format!("{shown}: {why}"));
    let old = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let existing = match &old {
        Some(text) if !text.trim().is_empty() => parsed(&shown.to_string(), text).map_err(bad)?,
        _ => Json::Null,
    };
    let new = merged(&existing, config, switch).map_err(bad)?;
    if new == existing {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        files::private_directory(parent).map_err(failed)?;
    }
    if let Some(old) = old {
        let backup = format!("{shown}.{}~", target::now_unix_s());
        files::write_private(Path::new(&backup), old.as_bytes()).map_err(failed)?;
    }
    files::write_private(path, text_of(&new)?.as_bytes()).map_err(failed)
}

/// A kubeconfig as text.
pub fn text_of(config: &Json) -> Result<String, Failure> {
    yaml::to_text(config).map_err(|why| Failure::new(ExitCode::Error, why))
}

/// Keeps the kubeconfig of the cluster with what else is kept of it, and says where.
pub async fn keep(inventory: &Inventory, reach: &Reach) -> Result<PathBuf, Failure> {
    let path = clusters::private_directory(&inventory.cluster_name)?.join("kubeconfig");
    let config = fetch(inventory, reach, &inventory.cluster_name, None).await?;
    files::write_private(&path, text_of(&config)?.as_bytes())
        .map_err(|error| clusters::failed(&path, &error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::inventory::inventory_of;

    #[test]
    fn clients_go_where_the_inventory_says() {
        for (vars, more, expected) in [
            ("{}", "", "https://10.0.0.1:6443"),
            ("{api_endpoint: api.example.com}", "", "https://api.example.com:6443"),
            ("{api_endpoint: api, api_port: 443}", "", "https://api:443"),
            ("{loadbalancer_vip: 10.0.0.9/24}", "", "https://10.0.0.9:6443"),
            ("{config: {https-listen-port: 7443}}", "", "https://10.0.0.1:7443"),
            (
                "{}",
                "loadbalancers: {hosts: {lb1: {ansible_host: 10.0.0.8}}}",
                "https://10.0.0.8:6443",
            ),
        ] {
            let text = format!(
                "servers:\n  hosts: {{s1: {{ansible_host: 10.0.0.1}}}}\n  vars: {vars}\n{more}\n"
            );
            let inventory = inventory_of(&text);
            assert_eq!(entry(&inventory, inventory.host("s1").unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn the_file_that_was_there_is_kept_and_all_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kube/config");
        let config = |name: &str| {
            json!({ "clusters": [{ "name": name }], "users": [], "contexts": [],
                "current-context": name })
        };
        merge_into(&path, &config("a"), false).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        merge_into(&path, &config("b"), true).unwrap();
        merge_into(&path, &config("b"), true).unwrap();
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
        assert_eq!(names.len(), 2, "one backup: {names:?}");
        for entry in &names {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("name: a") && text.contains("current-context: b"), "{text}");
        std::fs::write(&path, "- 1\n").unwrap();
        assert!(merge_into(&path, &config("c"), false).is_err());
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "- 1\n",
            "what is no kubeconfig is kept"
        );
    }
}
