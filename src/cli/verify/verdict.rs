//! What a drill came to: what was lost, whether the members hold the same, and the table.

use serde::Serialize;

use super::super::output::{self, Format};
use super::clients::Told;
use super::door::Door;
use super::{Args, Drill, etcd, k3s};
use crate::cluster::drill::{self, Kind, Row};
use crate::cluster::layout::Distribution;
use crate::cluster::safety::node_of;
use crate::cluster::view::{ClusterView, MemberView};
use crate::error::{ExitCode, Failure};

/// What the members hold at one revision.
#[derive(Debug, Default, Serialize)]
pub(super) struct Held {
    /// The revision at which they were compared.
    pub(super) revision: i64,
    /// The hash of all keys at that revision, by member.
    pub(super) hashes: Vec<(String, u32)>,
}

impl Held {
    /// Whether all hold the same.
    pub(super) fn is_same(&self) -> bool {
        self.hashes.iter().all(|(_, hash)| self.hashes.first().is_none_or(|(_, one)| one == hash))
    }
}

/// What a drill came to.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    /// So that a program knows it among the run's events.
    event: &'static str,
    /// The cluster.
    cluster: String,
    /// The failures in their order.
    failures: Vec<Row>,
    /// How many writes were acknowledged.
    acknowledged: usize,
    /// Keys of acknowledged writes that a member does not have.
    lost: Vec<String>,
    #[serde(flatten)]
    held: Held,
    /// Why the members of K3s's etcd were not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    uncompared: Option<String>,
}

/// Asks all who must have it for all that was acknowledged, and the members for what they hold; when all is well,
/// what the clients wrote goes.
pub(super) async fn judge(
    drill: &Drill<'_>,
    view: &ClusterView,
    failures: &[drill::Failure],
    told: Told,
) -> Result<Verdict, Failure> {
    let leaders: Vec<(u64, String)> =
        told.leaders.iter().map(|(at, id)| (*at, name_of(view, id))).collect();
    let failures = failures.iter().map(|failure| drill::row(failure, &told.seen, &leaders));
    let mut verdict = Verdict {
        event: "drill",
        cluster: drill.inventory.cluster_name.clone(),
        failures: failures.collect(),
        acknowledged: told.acknowledged.len(),
        lost: Vec::new(),
        held: Held::default(),
        uncompared: None,
    };
    let silent = |why: String| {
        let left = drill.ways.markers();
        Failure::new(ExitCode::Error, format!("a server cannot be asked what it has: {why}"))
            .hint(format!("{left} are left; the next drill removes them"))
    };
    let witnesses = drill.ways.witnesses(view)?;
    for (name, door) in &witnesses {
        let missing = door.missing(&told.acknowledged).await;
        verdict.lost.extend(missing.map_err(|why| silent(format!("{name}: {why}")))?);
    }
    verdict.lost.sort();
    verdict.lost.dedup();
    if drill.inventory.distribution == Distribution::K3s {
        match k3s::held(drill.inventory, drill.reach).await {
            Ok(held) => verdict.held = held,
            // All that was acknowledged was seen by then, through every server.
            Err(why) => verdict.uncompared = Some(why),
        }
    } else {
        let members = witnesses.iter().filter_map(|(name, door)| match door {
            Door::Etcd(etcd) => Some((name.as_str(), etcd)),
            Door::Api(_) => None,
        });
        verdict.held = etcd::held(members).await.map_err(silent)?;
    }
    if verdict.wrong().is_none()
        && let Some((name, door)) = witnesses.last()
    {
        door.clear().await.map_err(|why| silent(format!("{name}: {why}")))?;
    }
    Ok(verdict)
}

/// The node of the member with this number.
fn name_of(view: &ClusterView, id: &str) -> String {
    let is = |member: &&MemberView| member.id == id || member.id.trim_start_matches('0') == id;
    let member = view.members.iter().find(is);
    node_of(member.map_or(id, |member| &member.name)).to_owned()
}

impl Verdict {
    /// What must never be, if it is.
    fn wrong(&self) -> Option<String> {
        if let Some(first) = self.lost.first() {
            let count = self.lost.len();
            return Some(format!("{count} acknowledged writes are LOST, the first is {first}"));
        }
        if !self.held.is_same() {
            let hashes = self.held.hashes.iter().map(|(name, hash)| format!("{name} {hash:08x}"));
            let hashes = hashes.collect::<Vec<_>>().join(", ");
            return Some(format!("the members do NOT hold the same: {hashes}"));
        }
        let mut rows = self.failures.iter();
        let row = rows.find(|row| row.failure == Kind::QuorumLost && row.during > 0)?;
        Some(format!("{} writes were acknowledged WITHOUT a quorum", row.during))
    }
}

/// Shows it; it is an error when something is lost.
pub(super) fn report(args: &Args, verdict: &Verdict) -> Result<(), Failure> {
    if args.run.output == Format::Json {
        // One line, as the events of the run before it.
        let line = serde_json::to_string(verdict)
            .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
        output::line(&line)?;
    } else {
        output::line(&text(verdict))?;
    }
    match verdict.wrong() {
        Some(wrong) => Err(Failure::new(ExitCode::Error, wrong).hint(
            "keep the data directories as they are, and the journal: k3sup-rs runs show last",
        )),
        None => Ok(()),
    }
}

fn text(verdict: &Verdict) -> String {
    let mut table = output::table(["FAILURE", "HOST", "LED", "RTO", "BACK", "WRITES", "RETRIED"]);
    let seconds = |ms: Option<u64>| {
        ms.map_or_else(|| "-".to_owned(), |ms| format!("{}.{:03}s", ms / 1000, ms % 1000))
    };
    for row in &verdict.failures {
        let failure = match row.failure {
            Kind::Stopped => "server stopped",
            Kind::Killed => "server killed",
            Kind::LoadBalancer => "load balancer stopped",
            Kind::QuorumLost => "quorum lost",
        };
        let led = if row.led { "yes" } else { "-" };
        let (writes, retried) = (row.writes.to_string(), row.retried.to_string());
        let (rto, back) = (seconds(row.outage_ms), seconds(row.back_ms));
        table.add_row([failure, &row.hosts.join(","), led, &rto, &back, &writes, &retried]);
    }
    let mut shown = vec![String::new(), output::render(&mut table), String::new()];
    for row in verdict.failures.iter().filter(|row| row.failure == Kind::QuorumLost) {
        shown.push(format!("without a quorum: {} writes acknowledged", row.during));
    }
    shown.push(format!(
        "{} writes acknowledged, {} lost",
        verdict.acknowledged,
        verdict.lost.len()
    ));
    if let Some((_, hash)) = verdict.held.hashes.first().filter(|_| verdict.wrong().is_none()) {
        let (members, revision) = (verdict.held.hashes.len(), verdict.held.revision);
        shown.push(format!(
            "{members} members hold the same at revision {revision} (hash {hash:08x})"
        ));
    }
    if let Some(why) = &verdict.uncompared {
        shown.push(format!("what the members hold was not compared: {why}"));
    }
    shown.push(
        "RTO: the longest time in which the worst of the clients had no write acknowledged. BACK: from the start to \
         a voter that has caught up."
            .to_owned(),
    );
    shown.join("\n")
}
