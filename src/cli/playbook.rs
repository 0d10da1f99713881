//! What `up`, `reset` and `play` share: arguments, and running a built-in playbook on an inventory.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use etcetera::BaseStrategy;
use parking_lot::Mutex;

use super::ask::Passwords;
use super::output::{self, Format};
use super::{clusters, target};
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::remote::Progress;
use crate::report::sink::{JsonSink, TextSink};
use crate::report::style::Style;
use crate::report::text::Detail;
use crate::run::event::{Event, EventSink};
use crate::run::reach::{Reach, Told, fleet};
use crate::run::{Job, Journal, Library, Options, RunSummary, execute, inspect};
use crate::secret::Secret;

/// Arguments of every command that runs a playbook.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Inventory file
    #[arg(long, short, env = "K3SUP_INVENTORY", default_value = "inventory.yaml")]
    pub inventory: PathBuf,
    /// Only these hosts: a pattern such as `agents`, `server1,server2` or `all:!agent3`
    #[arg(long, short)]
    pub limit: Option<String>,
    /// Only tasks with these tags
    #[arg(long, short, value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Show what would be done and change nothing; ends with 7 when there is something
    #[arg(long, short = 'C')]
    pub check: bool,
    /// Show how files differ
    #[arg(long, short = 'D')]
    pub diff: bool,
    /// How many hosts at once
    #[arg(long, short, default_value_t = 20)]
    pub forks: usize,
    /// Variables as `key=value`, a mapping or `@file`; they win over the inventory's
    #[arg(long, short = 'e', value_name = "VARS")]
    pub extra_vars: Vec<String>,
    /// Say more: reasons, stages, round trips
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Passwords
    #[command(flatten)]
    pub passwords: Passwords,
    /// Playbooks and templates here win over the built-in ones
    #[arg(long, value_name = "DIR")]
    pub playbook_dir: Option<PathBuf>,
    /// Binaries for hosts on which this one does not run: `k3sup-rs-aarch64` and the like
    #[arg(long, value_name = "DIR", env = "K3SUP_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Take the lock although another operator holds it
    #[arg(long)]
    pub break_lock: bool,
}

/// A sink that the run and the connections feed.
#[derive(Clone)]
struct Shared(Arc<Mutex<Box<dyn EventSink>>>);

impl EventSink for Shared {
    fn event(&mut self, event: &Event) {
        self.0.lock().event(event);
    }
}

/// A finished run and what it ran on.
pub struct Finished {
    /// What it came to.
    pub summary: RunSummary,
    /// Who.
    pub inventory: Inventory,
    /// The way to the hosts.
    pub reach: Reach,
}

/// Runs `playbook` on the inventory that the arguments name.
pub async fn run(args: &RunArgs, playbook: &str, ends_cluster: bool) -> Result<Finished, Failure> {
    let inventory = target::inventory(&args.inventory, &args.extra_vars)?;
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let library = Library::new(args.playbook_dir.as_deref(), &here);
    // Nothing is made, not even a token, when it is clear that the run cannot begin.
    inspect(&library, playbook, &fleet(&inventory, Secret::default()), args.limit.as_deref())?;
    if playbook == super::up::PLAYBOOK {
        wants_servers(&inventory)?;
    }
    let token = match (args.check, clusters::known_token(&inventory)?) {
        (_, Some(token)) => token,
        // Hosts without servers are no cluster: nothing is joined.
        (_, None) if inventory.servers().next().is_none() => Secret::default(),
        (false, None) => clusters::token(&inventory)?,
        // A check leaves nothing behind, here either.
        (true, None) => crate::pki::token::generate_password()
            .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?,
    };
    let shared = Shared(Arc::new(Mutex::new(sink(args))));
    for warning in &inventory.warnings {
        shared.clone().event(&Event::Warning { message: warning.to_string() });
    }
    let reach = Reach::new(&inventory, &args.passwords.ask()?, true, told(shared.clone()))
        .with_binaries(args.bin_dir.as_deref());
    let (id, stamp) = run_id();
    let interrupted = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(interrupts(Arc::clone(&interrupted)));
    let job = Job {
        playbook,
        library,
        fleet: fleet(&inventory, token),
        options: Options {
            check: args.check,
            diff: args.diff,
            forks: args.forks,
            tags: args.tags.clone(),
            verbosity: args.verbose,
            break_lock: args.break_lock,
            ends_cluster,
            limit: args.limit.clone(),
        },
        connector: &reach,
        journal: if args.check { None } else { journal(&id)? },
        id,
        stamp,
        interrupted,
    };
    let summary = execute(job, &mut shared.clone()).await;
    watcher.abort();
    Ok(Finished { summary: summary?, inventory, reach })
}

/// A cluster is its servers: without one there is nothing to bring up, and agents would wait for
/// ever.
fn wants_servers(inventory: &Inventory) -> Result<(), Failure> {
    if inventory.servers().next().is_some() {
        return Ok(());
    }
    let message = "no host is in the group `servers`: a cluster needs at least one server";
    let message = match inventory.hosts.first() {
        Some(host) => host.mark.finding(message).to_string(),
        None => format!("{}: {message}", inventory.file),
    };
    Err(Failure::new(ExitCode::BadInput, message)
        .hint("add the group `servers`; three servers survive the loss of one"))
}

fn sink(args: &RunArgs) -> Box<dyn EventSink> {
    if args.output == Format::Json {
        return Box::new(JsonSink::new(std::io::stdout()));
    }
    let style = Style { colour: output::paints(&std::io::stdout()) };
    let detail = Detail { diff: args.diff, verbosity: args.verbose, style };
    Box::new(TextSink::new(std::io::stdout(), detail, std::io::stderr().is_terminal()))
}

/// Connections' progress as events.
fn told(shared: Shared) -> Told {
    Arc::new(move |host, progress| {
        let host = host.to_owned();
        let stage = |stage: &str| Event::Connect { host: host.clone(), stage: stage.to_owned() };
        let event = match progress {
            Progress::Connecting => stage("connecting"),
            Progress::Ready => stage("connected"),
            Progress::Pushing { sent, total } => {
                Event::Upload { host, done_bytes: sent, total_bytes: total }
            }
            Progress::Learned { fingerprint } => Event::Warning {
                message: format!("{host}: its host key is now known: {fingerprint}"),
            },
            Progress::Warning(message) => Event::Warning { message: format!("{host}: {message}") },
        };
        shared.clone().event(&event);
    })
}

/// The run's own name, and when it began in seconds since 1970.
fn run_id() -> (String, String) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamp = since.as_secs().to_string();
    (format!("{stamp}-{}", std::process::id()), stamp)
}

fn journal(id: &str) -> Result<Option<Journal>, Failure> {
    let base = etcetera::choose_base_strategy()
        .map_err(|error| Failure::new(ExitCode::Error, format!("no home directory: {error}")))?;
    let Some(state) = base.state_dir() else { return Ok(None) };
    let dir = state.join("k3sup-rs/runs");
    Journal::create(&dir, id).map(Some).map_err(|error| clusters::failed(&dir, &error))
}

/// The first Ctrl-C or SIGTERM lets the step under way end and starts no other; the second one
/// ends the process.
async fn interrupts(interrupted: Arc<AtomicBool>) {
    loop {
        crate::node::host::stop_signal().await;
        if interrupted.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(ExitCode::Interrupted as u8));
        }
        output::error(
            "interrupted: the step under way ends, no other is started; once more to quit",
        );
    }
}

/// Turns what a run came to into the exit code.
pub fn ended(summary: &RunSummary, check: bool) -> Result<(), Failure> {
    if !summary.failed.is_empty() {
        let message = format!("failed on {}", summary.failed.join(", "));
        return Err(Failure::new(ExitCode::HostFailed, message)
            .hint("mend what is named above and run the same command again"));
    }
    if !summary.unreachable.is_empty() {
        let message = format!("cannot reach {}", summary.unreachable.join(", "));
        return Err(Failure::new(ExitCode::Unreachable, message)
            .hint("what could be done was done; run the same command again"));
    }
    if check && summary.changed {
        return Err(Failure::new(ExitCode::WouldChange, "a run would change something"));
    }
    Ok(())
}
