//! Which cluster a command is about, and asking it how it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::ask::Passwords;
use crate::cluster::layout::{Layout, Role};
use crate::cluster::view::ClusterView;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Facts, Observed, Read};
use crate::inventory::{Host, Inventory};
use crate::remote::{RemoteError, Session};
use crate::run::address::Place;
use crate::run::reach::{Asked, Reach};
use crate::template::Engine;
use crate::yaml;

/// Which cluster.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Inventory file
    #[arg(long, short, env = "K3SUP_INVENTORY", default_value = "inventory.yaml")]
    pub inventory: PathBuf,
    #[command(flatten)]
    passwords: Passwords,
    /// Binaries for hosts on which this one does not run: `k3sup-rs-aarch64` and the like
    #[arg(long, value_name = "DIR", env = "K3SUP_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,
}

impl Target {
    /// The passwords that the run needs, asked for where that was wanted.
    pub fn asked(&self) -> Result<Asked, Failure> {
        self.passwords.ask()
    }
}

/// Reads an inventory; all findings at once when it is wrong.
pub fn inventory(path: &Path, extra_vars: &[String]) -> Result<Inventory, Failure> {
    let wrong =
        |findings: Vec<yaml::Finding>| Failure::new(ExitCode::BadInput, yaml::report(&findings));
    let extra = Inventory::extra_vars(extra_vars).map_err(wrong)?;
    Inventory::load(path, extra).map_err(wrong)
}

/// The cluster as its servers see it.
pub async fn cluster_view(target: &Target) -> Result<ClusterView, Failure> {
    let inventory = inventory(&target.inventory, &[])?;
    let reach = Reach::new(&inventory, &target.passwords.ask()?, false, Arc::new(|_, _| {}))
        .with_binaries(target.bin_dir.as_deref());
    view_of_any(&inventory, &reach).await.map(|answering| answering.view).map_err(|failure| {
        failure.hint(format!("start it: k3sup-rs up -i {}", target.inventory.display()))
    })
}

/// A server whose node answers.
pub struct Answering<'a> {
    /// The server.
    pub host: &'a Host,
    /// The cluster as its node sees it.
    pub view: ClusterView,
    /// Paths and names of its node.
    pub layout: Layout,
    /// The way to it.
    pub session: Box<dyn Session>,
}

/// The first server that answers. One that sees a leader counts more than one that does not.
pub async fn view_of_any<'a>(
    inventory: &'a Inventory,
    reach: &Reach,
) -> Result<Answering<'a>, Failure> {
    let mut leaderless = None;
    let mut reasons = Vec::new();
    for host in inventory.servers() {
        match view_of(inventory, reach, host).await {
            Ok(Some(answering)) if answering.view.leader_id.is_some() => return Ok(answering),
            Ok(Some(answering)) => leaderless = leaderless.or(Some(answering)),
            Ok(None) => reasons.push(format!("{}: no node answers", host.name)),
            Err(reason) => reasons.push(format!("{}: {reason}", host.name)),
        }
    }
    leaderless.ok_or_else(|| {
        Failure::new(ExitCode::Unreachable, format!("no server answers\n{}", reasons.join("\n")))
    })
}

/// A session on a host, as the user that its variables say.
pub async fn session(reach: &Reach, host: &Host) -> Result<Box<dyn Session>, Failure> {
    let user = (host.r#become.enabled == Some(true)).then_some(host.r#become.user.as_str());
    let session = reach.session(&host.name, user).await;
    session.map_err(|error| Failure::new(ExitCode::Unreachable, format!("{}: {error}", host.name)))
}

async fn view_of<'a>(
    inventory: &Inventory,
    reach: &Reach,
    host: &'a Host,
) -> Result<Option<Answering<'a>>, String> {
    let mut session = session(reach, host).await.map_err(|failure| failure.message)?;
    let facts = facts(session.as_mut()).await?;
    let engine = Engine::new();
    let place =
        Place::of(&engine, &host.name, Role::Server, &host.vars, &facts, inventory.distribution);
    let answers = session.read(vec![place.cluster_read()]).await;
    match answers.map_err(|error| told(&error))?.pop() {
        Some(Ok(Observed::Cluster(view))) => {
            let layout = place.layout;
            Ok(view.map(|view| Answering { host, view: *view, layout, session }))
        }
        Some(Err(error)) => Err(error.to_string()),
        _ => Err("the executor answers something else".to_owned()),
    }
}

/// The facts of a host.
pub async fn facts(session: &mut dyn Session) -> Result<Facts, String> {
    match session.read(vec![Read::Facts]).await.map_err(|error| told(&error))?.pop() {
        Some(Ok(Observed::Facts(facts))) => Ok(*facts),
        Some(Err(error)) => Err(error.to_string()),
        _ => Err("the executor answers something else".to_owned()),
    }
}

fn told(error: &RemoteError) -> String {
    error.to_string()
}

/// Now, in seconds since 1970.
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
