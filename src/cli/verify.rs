//! `k3sup-rs verify`: the failure drill. Servers are stopped and killed one at a time while clients
//! write; what they saw is measured, and that no acknowledged write was lost is proven.

mod api;
mod clients;
mod door;
mod etcd;
mod k3s;
mod marks;
mod verdict;
mod ways;

use std::sync::Arc;

use parking_lot::Mutex;

use super::output;
use super::playbook::{self, Purpose, RunArgs};
use super::{ask, kubeconfig, target};
use crate::cluster::layout::Distribution;
use crate::cluster::quorum;
use crate::cluster::view::ClusterView;
use crate::error::{ExitCode, Failure};
use crate::inventory::{Connection, Host, Inventory};
use crate::run::event::Event;
use crate::run::reach::{Asked, Reach};
use crate::template::Var;
use clients::{Clients, Course};
use door::Door;
use ways::Ways;

/// What to try.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs verify -i inventories/lab.yaml                 every server is stopped and killed in turn, the leader last
  k3sup-rs verify -i inventories/lab.yaml --quorum-loss   too many are stopped at once: nothing is written, nothing is lost
  k3sup-rs verify -i inventory.yaml --check               in which order
  k3sup-rs verify -i inventory.yaml --seconds 30          each failure lasts half a minute

Of two or more load balancers each is stopped, too. It asks, except in a lab: an inventory whose hosts all have
`ansible_connection: lab` or the variable `lab: true`. This machine must reach port 2379 of the servers, or with
`distribution: k3s` their API, through which objects are written into the namespace k3sup-verify. What was stopped is
started again, also after Ctrl-C and after a failure; after a kill, run this again, or `up`.")]
pub struct Args {
    /// How to run
    #[command(flatten)]
    run: RunArgs,
    /// Stop so many servers at once that the rest is no quorum, in the place of the other failures
    #[arg(long)]
    quorum_loss: bool,
    /// How long each failure lasts, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// Asks, drills, puts back, and judges.
pub async fn run(mut args: Args) -> Result<(), Failure> {
    if args.run.limit.is_some() || !args.run.tags.is_empty() {
        let message = "--limit and --tags make no sense here: a drill is about the whole cluster";
        return Err(Failure::new(ExitCode::BadInput, message));
    }
    let inventory = target::inventory(&args.run.inventory, &args.run.extra_vars)?;
    let servers: Vec<String> = inventory.servers().map(|host| host.name.clone()).collect();
    let too_many = (servers.len() + 1).saturating_sub(quorum::quorum(servers.len()));
    let stopped: Vec<&String> = servers.iter().take(too_many).collect();
    let vars = serde_json::json!({ "verify_seconds": args.seconds, "verify_stopped": stopped });
    args.run.extra_vars.push(vars.to_string());
    let inventory = target::inventory(&args.run.inventory, &args.run.extra_vars)?;
    let (playbook, purpose) = if args.quorum_loss {
        ("verify-quorum.yml", Purpose::LoseQuorum)
    } else {
        ("verify.yml", Purpose::Tend)
    };
    if args.run.check {
        let finished = playbook::run(&args.run, playbook, purpose).await?;
        return playbook::ended(&finished.summary, true);
    }
    consent(&args, &inventory)?;
    let mut asked = Some(args.run.passwords.ask()?);
    let reach = reach(&args.run, &inventory, asked.as_ref());
    let view = look(&args.run, &inventory, &reach).await?;
    let ways = find(&inventory, &view, &reach).await?;
    ways.prepare().await?;
    let drill = Drill { inventory: &inventory, reach: &reach, ways: &ways };
    let clients = drill.begin().await?;
    let (marks, begun) = (Arc::new(Mutex::new(Vec::new())), clients.begun());
    let noted = Arc::clone(&marks);
    let watch = Arc::new(move |event: &Event| marks::note(&mut noted.lock(), begun, event));
    let ran =
        playbook::run_watched(&args.run, inventory.clone(), &mut asked, playbook, purpose, watch)
            .await
            .and_then(|finished| playbook::ended(&finished.summary, false));
    if ran.is_err() {
        marks::mend(&mut marks.lock(), begun);
        put_back(&args.run, &inventory, &mut asked).await;
    }
    let told = clients.end().await;
    let failures = marks::failures(&marks.lock());
    let judged = match look(&args.run, &inventory, &reach).await {
        Ok(view) => verdict::judge(&drill, &view, &failures, told).await,
        Err(failure) => Err(failure),
    };
    match (ran, judged) {
        // What was measured until then counts all the same; lost writes are worse than an interruption.
        (ran, Ok(verdict)) => verdict::report(&args, &verdict).and(ran),
        (Ok(()), Err(failure)) => Err(failure),
        (Err(failure), Err(unknown)) => {
            Err(failure.hint(format!("whether writes were lost is not known: {}", unknown.message)))
        }
    }
}

/// What a drill is about.
struct Drill<'a> {
    inventory: &'a Inventory,
    reach: &'a Reach,
    ways: &'a Ways,
}

impl Drill<'_> {
    /// Starts the clients.
    async fn begin(&self) -> Result<Clients, Failure> {
        let (course, run) = (Course::begin(), target::now_unix_s().to_string());
        if self.inventory.distribution == Distribution::K3s {
            let servers = k3s::connect(self.inventory, self.reach).await;
            let servers = servers.map_err(|why| Failure::new(ExitCode::Unreachable, why))?;
            let watcher = k3s::watch_leader(servers, course.clone());
            return Clients::begin(course, &run, self.ways, watcher);
        }
        let members = self.ways.servers()?.into_iter().filter_map(|(_, door)| match door {
            Door::Etcd(etcd) => Some(etcd),
            Door::Api(_) => None,
        });
        let watcher = etcd::watch_leader(members.collect(), course.clone());
        Clients::begin(course, &run, self.ways, watcher)
    }
}

/// The way to the hosts.
fn reach(args: &RunArgs, inventory: &Inventory, asked: Option<&Asked>) -> Reach {
    let asked = asked.cloned().unwrap_or_default();
    Reach::new(inventory, &asked, false, Arc::new(|_, _| {})).with_binaries(args.bin_dir.as_deref())
}

/// Where the clients come in.
async fn find(inventory: &Inventory, view: &ClusterView, reach: &Reach) -> Result<Ways, Failure> {
    if inventory.distribution == Distribution::Embedded {
        return Ways::of_etcd(inventory, view);
    }
    if view.members.is_empty() {
        let message = "the servers are no members of an etcd of their own: their data is elsewhere";
        return Err(Failure::new(ExitCode::Refused, message)
            .hint("the drill is about K3s's embedded etcd; nothing was stopped"));
    }
    let config = kubeconfig::fetch(inventory, reach, &inventory.cluster_name, None).await?;
    Ways::of_api(inventory, view, &config)
}

/// The cluster now.
async fn look(
    args: &RunArgs,
    inventory: &Inventory,
    reach: &Reach,
) -> Result<ClusterView, Failure> {
    let answering = target::view_of_any(inventory, reach).await;
    answering.map(|answering| answering.view).map_err(|failure| {
        failure.hint(format!("start it: k3sup-rs up -i {}", args.inventory.display()))
    })
}

/// Nobody is surprised: on a cluster that is no lab a person is asked.
fn consent(args: &Args, inventory: &Inventory) -> Result<(), Failure> {
    let marked = |host: &Host| {
        let said = matches!(host.vars.get("lab"), Some(Var::Plain(value) | Var::Template(value)) if *value == true);
        said || matches!(host.connection(), Connection::Lab { .. })
    };
    if inventory.hosts.iter().all(marked) {
        return Ok(());
    }
    let what = if args.quorum_loss {
        "Take the QUORUM away from"
    } else {
        "Stop and KILL every server in turn, and stop load balancers, of"
    };
    let name = &inventory.cluster_name;
    ask::confirm(&format!("{what} the cluster {name}, which is not marked as a lab?"), args.run.yes)
}

/// Starts what was stopped. Says what to do when that fails, too.
async fn put_back(args: &RunArgs, inventory: &Inventory, asked: &mut Option<Asked>) {
    output::error("what was stopped is started again");
    let (args, inventory) = (args.part(None), inventory.clone());
    let ran = playbook::run_on(&args, inventory, asked, "verify-restore.yml", Purpose::Tend).await;
    if let Err(failure) = ran.and_then(|finished| playbook::ended(&finished.summary, false)) {
        let inventory = args.inventory.display();
        output::error(&format!("{failure}\nhint: start the rest: k3sup-rs up -i {inventory}"));
    }
}
