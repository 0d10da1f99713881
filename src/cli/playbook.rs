//! What `up`, `reset` and `play` share: arguments, and running a built-in playbook on an inventory.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::ask::Passwords;
use super::output::{self, Format};
use super::{clusters, runs, target};
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::remote::Progress;
use crate::report::sink::{JsonSink, TextSink};
use crate::report::style::Style;
use crate::report::text::Detail;
use crate::run::event::{Event, EventSink};
use crate::run::reach::{Asked, Reach, Told, fleet};
use crate::run::{Job, Library, Options, RunSummary, execute, inspect};
use crate::secret::Secret;

/// Arguments of every command that runs a playbook.
#[derive(Clone, Debug, clap::Args)]
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
    /// Hosts that are not fit.
    #[arg(skip)]
    pub preflight: Preflight,
    /// Fences do not stop this run
    #[arg(skip)]
    pub past_fence: bool,
}

impl RunArgs {
    /// A run like this one of another playbook: as a part of a verb that asked already.
    pub(super) fn part(&self, limit: Option<String>) -> Self {
        Self {
            inventory: self.inventory.clone(),
            limit,
            tags: Vec::new(),
            check: false,
            diff: self.diff,
            forks: self.forks,
            extra_vars: self.extra_vars.clone(),
            verbose: self.verbose,
            output: self.output,
            yes: true,
            passwords: self.passwords,
            playbook_dir: self.playbook_dir.clone(),
            bin_dir: self.bin_dir.clone(),
            break_lock: self.break_lock,
            // It cannot wait for a better machine in the middle.
            preflight: Preflight { skip: true, force: true },
            past_fence: true,
        }
    }
}

/// What is done about hosts that are not fit; only `up` has it on its command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preflight {
    /// They are not looked at.
    pub skip: bool,
    /// Go on where it can be forced.
    pub force: bool,
}

/// Who is told events.
pub(super) type Watch = Arc<dyn Fn(&Event) + Send + Sync>;

/// A sink that the run and the connections feed.
#[derive(Clone)]
struct Shared(Arc<Mutex<Box<dyn EventSink>>>, Option<Watch>);

impl EventSink for Shared {
    fn event(&mut self, event: &Event) {
        if let Some(watch) = &self.1 {
            watch(event);
        }
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

/// What a playbook is run for. Its name does not say: one's own may be called `site.yml`, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To bring a cluster up.
    Up,
    /// To remove nodes.
    Reset {
        /// All of them: no cluster is left.
        whole: bool,
    },
    /// To change a cluster that goes on: restart, upgrade, remove, replace.
    Tend,
    /// To try out the loss of the quorum, which the safety check is there to prevent.
    LoseQuorum,
    /// One's own.
    Own,
}

/// Runs `playbook` on the inventory that the arguments name.
pub async fn run(args: &RunArgs, playbook: &str, purpose: Purpose) -> Result<Finished, Failure> {
    let inventory = target::inventory(&args.inventory, &args.extra_vars)?;
    run_on(args, inventory, &mut None, playbook, purpose).await
}

/// Runs `playbook` on `inventory`, which may be another than the arguments name. What a person was
/// `asked` for is asked once, in the first of several runs.
pub async fn run_on(
    args: &RunArgs,
    inventory: Inventory,
    asked: &mut Option<Asked>,
    playbook: &str,
    purpose: Purpose,
) -> Result<Finished, Failure> {
    play(args, inventory, asked, playbook, purpose, Given::default()).await
}

/// As [`run`], with this token in the place of the one that is known.
pub(super) async fn run_as(
    args: &RunArgs,
    asked: &mut Option<Asked>,
    playbook: &str,
    token: Secret,
) -> Result<Finished, Failure> {
    let inventory = target::inventory(&args.inventory, &args.extra_vars)?;
    let given = Given { token: Some(token), ..Given::default() };
    play(args, inventory, asked, playbook, Purpose::Tend, given).await
}

/// As [`run_on`]; `watch` is told every event before it is shown.
pub(super) async fn run_watched(
    args: &RunArgs,
    inventory: Inventory,
    asked: &mut Option<Asked>,
    playbook: &str,
    purpose: Purpose,
    watch: Watch,
) -> Result<Finished, Failure> {
    let given = Given { watch: Some(watch), ..Given::default() };
    play(args, inventory, asked, playbook, purpose, given).await
}

/// What few runs want.
#[derive(Default)]
struct Given {
    /// The token in the place of the one that is known.
    token: Option<Secret>,
    /// Who else is told what happens.
    watch: Option<Watch>,
}

async fn play(
    args: &RunArgs,
    inventory: Inventory,
    asked: &mut Option<Asked>,
    playbook: &str,
    purpose: Purpose,
    given: Given,
) -> Result<Finished, Failure> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let mut library = Library::new(args.playbook_dir.as_deref(), &here);
    if purpose == Purpose::Own {
        library = library.of_ones_own();
    }
    // Nothing is made, not even a token, when it is clear that the run cannot begin.
    inspect(&library, playbook, &fleet(&inventory, Secret::default()), args.limit.as_deref())?;
    if purpose == Purpose::Up {
        wants_servers(&inventory)?;
        super::snapshot::settings(&inventory)?;
    }
    let known = match given.token {
        Some(token) => Some(token),
        None => clusters::known_token(&inventory)?,
    };
    let token = match (args.check, known) {
        (_, Some(token)) => token,
        // Hosts without servers are no cluster: nothing is joined.
        (_, None) if inventory.servers().next().is_none() => Secret::default(),
        (false, None) => clusters::token(&inventory)?,
        // A check leaves nothing behind, here either.
        (true, None) => crate::pki::token::generate_password()
            .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?,
    };
    let shared = Shared(Arc::new(Mutex::new(sink(args))), given.watch);
    for warning in &inventory.warnings {
        shared.clone().event(&Event::Warning { message: warning.to_string() });
    }
    let asked = match asked {
        Some(asked) => asked,
        None => asked.insert(args.passwords.ask()?),
    };
    let reach = Reach::new(&inventory, asked, true, told(shared.clone()))
        .with_binaries(args.bin_dir.as_deref());
    let (id, stamp) = run_id();
    let interrupted = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(interrupts(Arc::clone(&interrupted)));
    let beginning = runs::beginning(&id, library.verb(playbook), &args.inventory, &inventory);
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
            ends_cluster: matches!(purpose, Purpose::Reset { whole: true } | Purpose::LoseQuorum),
            past_fence: args.past_fence || matches!(purpose, Purpose::Reset { .. }),
            limit: args.limit.clone(),
            skip_preflight: args.preflight.skip,
            force: args.preflight.force,
        },
        connector: &reach,
        journal: if args.check { None } else { Some(runs::begin(&beginning)?) },
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

/// The run's own name, and when it began in seconds since 1970. One process may begin several runs in
/// one second: each has its number.
pub(super) fn run_id() -> (String, String) {
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamp = since.as_secs().to_string();
    let id = match BEGUN.fetch_add(1, Ordering::Relaxed) {
        0 => format!("{stamp}-{}", std::process::id()),
        before => format!("{stamp}-{}-{}", std::process::id(), before + 1),
    };
    (id, stamp)
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
