//! `k3sup-rs render`: a file as a host would get it, without touching the host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::inventory::InventoryArgs;
use super::{clusters, output, snapshot, token};
use crate::cluster::k3s::flags;
use crate::cluster::layout::{Distribution, Role};
use crate::error::{ExitCode, Failure};
use crate::inventory::{Host, Inventory};
use crate::pki::Token;
use crate::run::reach::fleet;
use crate::run::{Library, Wish, preview};
use crate::secret::Secret;
use crate::template::{Engine, Var};

/// What to print, and for which host.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs render haproxy -i inventory.yaml
  k3sup-rs render keepalived -i inventory.yaml --host lb2 -e loadbalancer_interface=eth1
  k3sup-rs render config -i inventory.yaml --host server1
  k3sup-rs render cloud-init -i inventory.yaml --host agent7 --with-token > user-data

What only the host knows is assumed: no data yet, Debian, systemd. Say otherwise with -e, for example
-e ansible_os_family=Alpine.")]
pub struct Args {
    /// What to print
    what: What,
    #[command(flatten)]
    inventory: InventoryArgs,
    /// For this host; not needed when only one comes into question
    #[arg(long)]
    host: Option<String>,
    /// Leave the token and other secrets in the output
    #[arg(long)]
    with_token: bool,
    /// cloud-init, k3os: this server founds the cluster instead of joining it
    #[arg(long)]
    first: bool,
    /// Templates here win over the built-in ones
    #[arg(long, value_name = "DIR")]
    playbook_dir: Option<PathBuf>,
}

/// What can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// HAProxy's configuration on a load balancer
    Haproxy,
    /// keepalived's configuration on a load balancer
    Keepalived,
    /// nginx's configuration on a load balancer
    Nginx,
    /// kube-vip's manifest, for K3s
    KubeVip,
    /// The manifest of the jobs that watch K3s's snapshots
    SnapshotMonitor,
    /// The node's unit for systemd
    Systemd,
    /// The node's init script for OpenRC
    Openrc,
    /// The node's config.yaml
    Config,
    /// User data for a machine that joins by itself on its first boot
    CloudInit,
    /// The same for k3OS
    K3os,
}

impl What {
    /// Whether a host of `role` has such a file.
    fn is_for(self, role: Option<Role>) -> bool {
        match self {
            Self::Haproxy | Self::Keepalived | Self::Nginx => role == Some(Role::LoadBalancer),
            Self::KubeVip | Self::SnapshotMonitor => role == Some(Role::Server),
            _ => matches!(role, Some(Role::Server | Role::Agent)),
        }
    }

    /// Whether all hosts have the same one.
    fn is_alike(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx | Self::KubeVip | Self::SnapshotMonitor)
    }

    fn template(self, role: Option<Role>) -> String {
        let node = if role == Some(Role::Agent) { "agent" } else { "server" };
        match self {
            Self::Haproxy => "haproxy.cfg.j2".to_owned(),
            Self::Keepalived => "keepalived.conf.j2".to_owned(),
            Self::Nginx => "nginx.conf.j2".to_owned(),
            Self::KubeVip => "kube-vip.yaml.j2".to_owned(),
            Self::SnapshotMonitor => "k3s/snapshot-monitor.yaml.j2".to_owned(),
            Self::Systemd => format!("{node}.service.j2"),
            Self::Openrc => format!("{node}.openrc.j2"),
            Self::Config => format!("{node}.yaml.j2"),
            Self::CloudInit => "cloud-init.yaml.j2".to_owned(),
            Self::K3os => "k3os.yaml.j2".to_owned(),
        }
    }

    /// The template for K3s where it is another one.
    fn k3s_template(self, role: Option<Role>) -> Option<String> {
        let node = if role == Some(Role::Agent) { "agent" } else { "server" };
        match self {
            Self::Systemd => Some("k3s/k3s.service.j2".to_owned()),
            Self::Openrc => Some("k3s/k3s.openrc.j2".to_owned()),
            Self::Config => Some(format!("k3s/{node}.yaml.j2")),
            _ => None,
        }
    }

    /// Whether the machine that gets it enters the cluster by itself.
    fn joins(self) -> bool {
        matches!(self, Self::CloudInit | Self::K3os)
    }
}

/// Prints the file.
pub fn run(args: &Args) -> Result<(), Failure> {
    let inventory = args.inventory.load()?;
    let host = choose(&inventory, args)?;
    if args.what == What::SnapshotMonitor {
        monitor_fits(&inventory)?;
    }
    let fleet = fleet(&inventory, known_token(&inventory, args)?);
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let library = Library::new(args.playbook_dir.as_deref(), &here);
    let mut vars = BTreeMap::from([
        ("first".to_owned(), Var::Plain(json!(args.first))),
        ("with_token".to_owned(), Var::Plain(json!(args.with_token))),
        ("join_url".to_owned(), Var::Template(json!("{{ entry_url or peers | first }}"))),
    ]);
    let mut template = args.what.template(host.role());
    if inventory.distribution == Distribution::K3s {
        template = args.what.k3s_template(host.role()).unwrap_or(template);
        vars.insert("k3s_config".to_owned(), k3s_config(host)?);
    }
    let wish = Wish { host: &host.name, template: &template, vars, secrets: args.with_token };
    let shown = preview(&fleet, &library, wish)?;
    if shown.origin != "built in" {
        output::error(&format!("note: the template is {}", shown.origin));
    }
    if args.what.joins() {
        warn(args, &host.name);
    }
    output::write_all(shown.text.as_bytes())
}

/// Whether there is something that the jobs could watch.
fn monitor_fits(inventory: &Inventory) -> Result<(), Failure> {
    if inventory.distribution != Distribution::K3s {
        let message = "snapshot-monitor is for `distribution: k3s`";
        return Err(Failure::new(ExitCode::BadInput, message)
            .hint("servers of this program's own say it themselves: `status`, /metrics"));
    }
    snapshot::settings(inventory).map(drop)
}

/// K3s's settings of a host, as its file gets them.
fn k3s_config(host: &Host) -> Result<Var, Failure> {
    let bad = |why: String| Failure::new(ExitCode::BadInput, format!("{}: {why}", host.name));
    let config = Engine::new()
        .evaluate(&json!("{{ config | default({}) }}"), &host.vars)
        .map_err(|error| bad(error.to_string()))?;
    let Some(settings) = config.value.as_object() else {
        return Err(bad("`config` must be a mapping of K3s's settings".to_owned()));
    };
    let settings = flags::of_role(host.role().unwrap_or(Role::Server), settings);
    Ok(Var::data(settings.into(), config.secret))
}

/// The host that is named, or the only one that such a file is for.
fn choose<'a>(inventory: &'a Inventory, args: &Args) -> Result<&'a Host, Failure> {
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    let what = args.what.to_possible_value().map(|value| value.get_name().to_owned());
    let what = what.unwrap_or_default();
    let fitting: Vec<&Host> =
        inventory.hosts.iter().filter(|host| args.what.is_for(host.role())).collect();
    let names = fitting.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    let host = match (&args.host, fitting.as_slice()) {
        (Some(name), _) => match inventory.host(name) {
            None => return Err(bad(format!("{name} is not in the inventory"))),
            Some(host) if args.what.is_for(host.role()) => host,
            Some(_) => {
                let hint = format!("it is for {names}");
                return Err(bad(format!("{what} is nothing for {name}")).hint(hint));
            }
        },
        (None, [host]) => host,
        (None, [host, ..]) if args.what.is_alike() => host,
        (None, []) => {
            let group = match args.what {
                What::Haproxy | What::Keepalived | What::Nginx => "loadbalancers",
                _ => "servers",
            };
            return Err(bad(format!("no host of the inventory has use for {what}"))
                .hint(format!("put one into the group {group}")));
        }
        (None, _) => {
            return Err(bad(format!("{what} differs from host to host"))
                .hint(format!("choose one with --host: {names}")));
        }
    };
    let server = host.role() == Some(Role::Server);
    let alone = inventory.servers().count() == 1 && inventory.load_balancers().next().is_none();
    if args.what.joins() && !args.first && server && alone {
        return Err(bad(format!("there is no server that {} could join", host.name))
            .hint("--first: it founds the cluster"));
    }
    if args.first && !(args.what.joins() && server) {
        return Err(bad("--first is for servers, with cloud-init and k3os".to_owned()));
    }
    Ok(host)
}

/// The token in the form that a node joins with; any text when it is not shown.
fn known_token(inventory: &Inventory, args: &Args) -> Result<Secret, Failure> {
    let known = clusters::known_token(inventory)?;
    if !args.with_token {
        return Ok(known.unwrap_or_default());
    }
    if !args.what.joins() {
        return Ok(known.unwrap_or_default());
    }
    let Some(secret) = known else {
        return Err(Failure::new(ExitCode::BadInput, "the cluster has no token yet")
            .hint("`k3sup-rs up` makes one, or give yours: -e @FILE with `token: …` in it"));
    };
    let parsed = Token::parse(secret.expose())
        .map_err(|error| Failure::new(ExitCode::BadInput, format!("the token: {error}")))?;
    let full = token::full(parsed, &inventory.cluster_name)?;
    let joins_embedded = inventory.distribution == Distribution::Embedded && !args.first;
    if full.ca_hash.is_none() && joins_embedded && args.what == What::CloudInit {
        let message = "the token has no hash of the cluster's CA, and a node joins no cluster that it cannot check";
        return Err(Failure::new(ExitCode::BadInput, message).hint(
            "run `k3sup-rs up` first, or give the full token: `k3sup-rs token show` has it",
        ));
    }
    Ok(full.text())
}

fn warn(args: &Args, host: &str) {
    if args.with_token {
        output::error(
            "warning: the output holds the cluster's token: whoever reads it can join the cluster. \
             Clouds show user data to every process of the machine; replace the token when you can",
        );
    } else {
        output::error("note: the token is not in the output; its head says where it is looked for");
    }
    if args.first {
        output::error(&format!(
            "warning: whenever {host} boots from this with an empty disk it founds a new cluster; \
             once the cluster is there, render it without --first"
        ));
    }
}
