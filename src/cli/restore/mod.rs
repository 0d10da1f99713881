//! `k3sup-rs restore` and `k3sup-rs recover`: a whole cluster from a snapshot, or from what a lost
//! quorum left.
//!
//! `check` finds out all that can be found out while everything still runs, `drive` carries out
//! what [`crate::cluster::restore`] says is left, `hosts` is the way to the servers.

mod after;
mod check;
mod drive;
mod hosts;
mod k3s;
mod source;

use super::output::{self, Format};
use super::playbook::RunArgs;
use super::snapshot::{SnapshotSettings, settings};
use super::work::Work;
use super::{ask, target};
use crate::cluster::fence::{Fence, Operation, Stage};
use crate::cluster::layout::Distribution;
use crate::cluster::restore::{self, Intent, Seen, Step};
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::run::VerbLock;
use hosts::Servers;
use source::Chosen;

/// What to restore, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs restore --snapshot latest              the newest snapshot on any server or in S3
  k3sup-rs restore --snapshot on-demand-server1-1790000000
  k3sup-rs restore --snapshot ./snapshot.db       a file of this machine
  k3sup-rs restore --snapshot s3://bucket/folder/on-demand-server1-1790000000
  k3sup-rs restore --snapshot latest --check      the checks and the plan; nothing is touched
  k3sup-rs restore --resume                       go on with one that did not end
  k3sup-rs restore --rollback                     bring back what was there before

Everything that can be checked is checked while the cluster still runs. Then every server is fenced and
stopped, one is restored, and the others join it with empty hands. Old data is moved aside on each
server (server/db/etcd-old-*) and never removed.")]
pub struct Args {
    /// Name of a snapshot on a server or in S3, a file of this machine, `s3://BUCKET/FOLDER/NAME`, or `latest`
    #[arg(long, short, value_name = "NAME|FILE|S3-URL|latest", required_unless_present_any = ["resume", "rollback"])]
    pub snapshot: Option<String>,
    /// The server that is restored first [default: the one that has the snapshot, or the first one]
    #[arg(long, value_name = "SERVER")]
    pub to: Option<String>,
    /// Go on without this server, which cannot be reached; may be repeated
    #[arg(long, value_name = "SERVER")]
    pub leave_out: Vec<String>,
    /// Go on with a restore that did not end, and take in servers that came back with old data
    #[arg(long, conflicts_with_all = ["snapshot", "rollback", "to"])]
    pub resume: bool,
    /// Bring back what was there before the last restore
    #[arg(long, conflicts_with_all = ["snapshot", "to"])]
    pub rollback: bool,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// How to recover.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs recover --check    which server would be kept, and what may be lost
  k3sup-rs recover            ask, then do it
  k3sup-rs recover --leave-out server2,server3    two of three servers are gone for good

For a cluster that lost its quorum and will not get it back. The server whose log goes furthest becomes
the first of a new cluster; the others join it. Run it again when it did not end.")]
pub struct RecoverArgs {
    /// Go on without this server, which cannot be reached; may be repeated
    #[arg(long, value_name = "SERVER", value_delimiter = ',')]
    pub leave_out: Vec<String>,
    /// Keep this server's data, not that of the one whose log goes furthest
    #[arg(long, value_name = "SERVER")]
    pub from: Option<String>,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// What both verbs do.
struct Verb<'a> {
    name: &'static str,
    args: &'a RunArgs,
    leave_out: &'a [String],
    inventory: Inventory,
    snapshots: SnapshotSettings,
}

impl<'a> Verb<'a> {
    fn new(
        name: &'static str,
        args: &'a RunArgs,
        leave_out: &'a [String],
    ) -> Result<Self, Failure> {
        if args.limit.is_some() || !args.tags.is_empty() {
            let message =
                format!("`{name}` is for the whole cluster: --limit and --tags do not go with it");
            return Err(Failure::new(ExitCode::BadInput, message)
                .hint("--leave-out SERVER goes on without a server that cannot be reached"));
        }
        let inventory = target::inventory(&args.inventory, &args.extra_vars)?;
        for server in leave_out {
            if !inventory.servers().any(|host| host.name == *server) {
                let message = format!("{server} is no server of the inventory");
                return Err(Failure::new(ExitCode::BadInput, message));
            }
        }
        let snapshots = settings(&inventory)?;
        Ok(Self { name, args, leave_out, inventory, snapshots })
    }

    /// Shows what is left to be done; in a check, that is all.
    fn show(&self, intent: &Intent, steps: &[Step], notes: &[String]) -> Result<(), Failure> {
        if self.args.output == Format::Json {
            return output::json(&serde_json::json!({
                "restore_id": intent.id,
                "operation": intent.operation,
                "first": intent.first,
                "notes": notes,
                "steps": steps,
            }));
        }
        for note in notes {
            output::line(note)?;
        }
        output::line("\nPlan:")?;
        for (number, step) in steps.iter().enumerate() {
            output::line(&format!("{:>4}. {}", number + 1, step.words(intent)))?;
        }
        Ok(())
    }

    /// Shows, asks, and does it.
    async fn settle(
        &self,
        mut servers: Servers<'_>,
        seen: &[Seen],
        intent: &Intent,
        chosen: Option<&Chosen>,
        notes: &[String],
        question: &str,
    ) -> Result<(), Failure> {
        let steps = restore::next(intent, seen).map_err(|halt| Self::halted(&halt, false))?;
        if steps.is_empty() {
            return output::line("nothing is left to be done");
        }
        self.show(intent, &steps, notes)?;
        if self.args.check {
            return Err(Failure::new(ExitCode::WouldChange, "a run would change something"));
        }
        ask::confirm(question, self.args.yes)?;
        let what = match (intent.operation, chosen) {
            (Operation::Recover, _) => "recover".to_owned(),
            (Operation::Rollback, _) => "restore --rollback".to_owned(),
            (_, Some(chosen)) => format!("restore --snapshot {}", chosen.said),
            (_, None) => "restore --resume".to_owned(),
        };
        let (file, steal) = (&self.args.inventory, self.args.break_lock);
        let mut work = Work::begin(&what, file, &self.inventory, steal)?;
        let done = self.carry_out(&mut servers, &mut work, seen, intent, chosen).await;
        servers.unlock().await;
        work.end(done)?;
        let what = match intent.operation {
            Operation::Rollback => "what was there before is back".to_owned(),
            _ => format!(
                "done; the old data is in server/db/etcd-old-{} on each server",
                intent.id.split('-').next().unwrap_or_default()
            ),
        };
        if self.args.output == Format::Text { output::line(&what) } else { Ok(()) }
    }

    /// The fence as all servers get it; what an earlier run wrote into it stays.
    fn fence(
        intent: &Intent,
        seen: &[Seen],
        past: Vec<String>,
        (snapshot, path): (String, String),
    ) -> Fence {
        let known = seen
            .iter()
            .filter_map(|host| host.fence.as_ref())
            .find(|fence| fence.restore_id == intent.id)
            .cloned();
        let superseded = seen
            .iter()
            .filter_map(|host| host.disk.as_ref())
            .flat_map(|disk| disk.supersedes.iter().cloned().chain([disk.cluster_id.clone()]));
        let before = known.unwrap_or_else(|| Fence {
            snapshot,
            path,
            since_unix_s: target::now_unix_s(),
            supersedes: superseded.filter(|id| !id.is_empty()).collect(),
            past,
            ..Fence::default()
        });
        let reason = match intent.operation {
            Operation::Rollback => "a restore is being undone",
            Operation::Recover => "a lost quorum is being recovered",
            Operation::Restore | Operation::Superseded => "the cluster is being restored",
        };
        let before = Fence { reason: reason.to_owned(), by: VerbLock::owner(), ..before };
        restore::fence_of(intent, Stage::Closed, &before)
    }

    fn halted(halt: &restore::Halt, begun: bool) -> Failure {
        let code = match halt {
            restore::Halt::Unreachable(_) => ExitCode::Unreachable,
            restore::Halt::OtherFence { .. } => ExitCode::Refused,
        };
        let mut failure = Failure::new(code, halt.to_string());
        if matches!(halt, restore::Halt::Unreachable(_)) {
            failure = failure.hint(
                "make it reachable; or give --leave-out SERVER for each server that is gone for good",
            );
        }
        if begun { failure } else { failure.hint("nothing was stopped or changed") }
    }
}

/// Restores.
pub async fn run(args: Args) -> Result<(), Failure> {
    let verb = Verb::new("restore", &args.run, &args.leave_out)?;
    let mut servers = Servers::connect(&verb).await?;
    let seen = servers.look(None).await?;
    let now = target::now_unix_s().to_string();
    if args.rollback {
        return rollback(&verb, servers, seen).await;
    }
    let left = restore::unfinished(&seen, &now);
    if args.resume {
        let Some(intent) = left else {
            return output::line(
                "no restore is under way, and no server has data of a replaced cluster",
            );
        };
        if intent.operation == Operation::Rollback {
            return rollback(&verb, servers, seen).await;
        }
        let intent = verb.without_left_out(intent);
        let seen = servers.look(Some(&intent)).await?;
        let notes = [format!("going on with {}", intent.id)];
        return verb.settle(servers, &seen, &intent, None, &notes, "Go on?").await;
    }
    let wanted = args.snapshot.as_deref().unwrap_or_default();
    if let Some(intent) = left {
        return go_on(&verb, servers, intent, wanted).await;
    }
    let (chosen, first) = source::choose(&verb, &mut servers, wanted, args.to.as_deref()).await?;
    let mut notes = check::before(&verb, &mut servers, &seen, Some(&chosen)).await?;
    let intent = verb.intent(Operation::Restore, first, &seen, &now)?;
    notes.insert(0, chosen.words());
    let question = format!(
        "Replace the state of cluster {} by this snapshot? All that was written after it is gone from \
         the cluster (the old data is kept aside).",
        verb.inventory.cluster_name
    );
    verb.settle(servers, &seen, &intent, Some(&chosen), &notes, &question).await
}

/// The same restore was asked for again: it is gone on with. Another one has to wait.
async fn go_on(
    verb: &Verb<'_>,
    mut servers: Servers<'_>,
    intent: Intent,
    wanted: &str,
) -> Result<(), Failure> {
    let seen = servers.look(Some(&intent)).await?;
    let fences = || seen.iter().filter_map(|host| host.fence.as_ref());
    let same = fences().any(|fence| {
        fence.restore_id == intent.id
            && fence.snapshot == wanted
            && fence.operation == Operation::Restore
    });
    if !same {
        let by = fences().next().map_or_else(|| {
            "`k3sup-rs restore --resume` takes in the servers that hold data of a replaced cluster".to_owned()
        }, Fence::advice);
        let message = format!("{} is not over: a new one cannot begin", intent.id);
        return Err(Failure::new(ExitCode::Refused, message).hint(by));
    }
    let intent = verb.without_left_out(intent);
    let notes = [format!("going on with {}", intent.id)];
    verb.settle(servers, &seen, &intent, None, &notes, "Go on?").await
}

async fn rollback(
    verb: &Verb<'_>,
    mut servers: Servers<'_>,
    seen: Vec<Seen>,
) -> Result<(), Failure> {
    let left = restore::unfinished(&seen, "0").filter(|intent| !intent.id.ends_with("-late"));
    let intent = match left {
        Some(intent) => intent,
        None => servers.last_restore().ok_or_else(|| {
            Failure::new(ExitCode::BadInput, "there is no restore that could be undone")
        })?,
    };
    let seen = servers.look(Some(&intent)).await?;
    let intent = restore::undo(verb.without_left_out(intent), &seen);
    let seen = servers.look(Some(&intent)).await?;
    let notes = [format!("undoing {}", intent.id)];
    let question = "Bring the old data back? What was written since the restore is moved aside.";
    verb.settle(servers, &seen, &intent, None, &notes, question).await
}

/// Recovers.
pub async fn recover(args: RecoverArgs) -> Result<(), Failure> {
    let verb = Verb::new("recover", &args.run, &args.leave_out)?;
    let mut servers = Servers::connect(&verb).await?;
    let seen = servers.look(None).await?;
    let now = target::now_unix_s().to_string();
    if let Some(intent) = restore::unfinished(&seen, &now) {
        if intent.operation != Operation::Recover {
            let message = format!("{} is not over", intent.id);
            let advice = seen.iter().find_map(|host| host.fence.as_ref()).map(Fence::advice);
            return Err(Failure::new(ExitCode::Refused, message).hint(advice.unwrap_or_default()));
        }
        let intent = verb.without_left_out(intent);
        let seen = servers.look(Some(&intent)).await?;
        let notes = [format!("going on with {}", intent.id)];
        return verb.settle(servers, &seen, &intent, None, &notes, "Go on?").await;
    }
    let (first, mut notes) =
        check::furthest(&verb, &mut servers, &seen, args.from.as_deref()).await?;
    notes.extend(check::before(&verb, &mut servers, &seen, None).await?);
    let intent = verb.intent(Operation::Recover, first, &seen, &now)?;
    let question = format!(
        "Make {} the first server of a new cluster? What only the other servers know is gone (their \
         data is kept aside).",
        intent.first
    );
    verb.settle(servers, &seen, &intent, None, &notes, &question).await
}

impl Verb<'_> {
    /// Where a server has its snapshots.
    fn snapshot_dir(&self, server: &hosts::Server) -> String {
        let said = self.snapshots.dir.clone();
        said.unwrap_or_else(|| server.data("server/db/snapshots"))
    }

    /// Whether the cluster is of real K3s.
    fn is_k3s(&self) -> bool {
        self.inventory.distribution == Distribution::K3s
    }

    fn is_left_out(&self, server: &str) -> bool {
        self.leave_out.iter().any(|name| name == server)
    }

    fn without_left_out(&self, mut intent: Intent) -> Intent {
        intent.servers.retain(|server| !self.is_left_out(server));
        intent
    }

    /// A new one, with all servers that are not left out.
    fn intent(
        &self,
        operation: Operation,
        first: String,
        seen: &[Seen],
        now: &str,
    ) -> Result<Intent, Failure> {
        let mut random = [0_u8; 4];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
        let servers = seen.iter().map(|host| host.name.clone());
        Ok(Intent {
            id: format!("{now}-{}", hex::encode(random)),
            operation,
            first,
            cluster: None,
            servers: servers.filter(|name| !self.is_left_out(name)).collect(),
        })
    }
}
