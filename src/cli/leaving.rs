//! What `remove` and `replace` share: how the cluster is, whether a node may leave it, and which lines of
//! the inventory a person has to change afterwards.

use std::sync::Arc;

use super::output::{self, Format};
use super::playbook::{self, Purpose, RunArgs};
use super::target;
use crate::cluster::layout::{Distribution, Role};
use crate::cluster::members::{self, Leaving};
use crate::cluster::safety::SafetyFinding;
use crate::error::{ExitCode, Failure};
use crate::inventory::{Inventory, Place};
use crate::run::reach::{Asked, Reach};

/// Selects no host.
const NOBODY: &str = "all:!all";

/// A node that shall leave, and the way to all others.
pub(super) struct Leaver {
    /// Its name.
    pub(super) name: String,
    /// Who there is now.
    pub(super) inventory: Inventory,
    /// What a person was asked for.
    pub(super) asked: Option<Asked>,
    /// What it means that the node leaves.
    pub(super) leaving: Leaving,
    /// Its host can be reached.
    pub(super) reachable: bool,
}

/// Looks at the cluster and judges.
///
/// # Errors
/// There is no such node, no server answers, or it is not safe.
pub(super) async fn judge(run: &RunArgs, node: &str) -> Result<Leaver, Failure> {
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    if run.limit.is_some() {
        return Err(bad(format!("--limit makes no sense here: it is about {node}")));
    }
    let inventory = target::inventory(&run.inventory, &run.extra_vars)?;
    if inventory.host(node).is_some_and(|host| host.role() == Some(Role::LoadBalancer)) {
        return Err(bad(format!("{node} is a load balancer and no node")).hint(
            "`k3sup-rs reset --limit` clears the host; then take it out of the inventory and run `k3sup-rs up`",
        ));
    }
    let asked = run.passwords.ask()?;
    let reach = look(&inventory, &asked, run);
    let answering = target::view_of_any(&inventory, &reach).await.map_err(|failure| {
        failure.hint("`k3sup-rs up` starts what is down; without a quorum, `k3sup-rs recover`")
    })?;
    let view = answering.view;
    let leaving = members::leave(&view, node).map_err(|finding| refused(&finding))?;
    if !leaving.node && leaving.member.is_none() && inventory.host(node).is_none() {
        let mut names: Vec<&str> = view.nodes.iter().map(|node| node.name.as_str()).collect();
        names.sort_unstable();
        let known = names.join(", ");
        return Err(bad(format!("neither the cluster nor the inventory has a node {node}"))
            .hint(format!("the cluster's nodes: {known}")));
    }
    let reachable = reaches(&inventory, &reach, node).await;
    let name = node.to_owned();
    Ok(Leaver { name, inventory, asked: Some(asked), leaving, reachable })
}

/// A way to the hosts that says nothing and starts nothing.
fn look(inventory: &Inventory, asked: &Asked, run: &RunArgs) -> Reach {
    Reach::new(inventory, asked, false, Arc::new(|_, _| {})).with_binaries(run.bin_dir.as_deref())
}

/// Whether the host called `name` can be reached.
async fn reaches(inventory: &Inventory, reach: &Reach, name: &str) -> bool {
    match inventory.host(name) {
        Some(host) => target::session(reach, host).await.is_ok(),
        None => false,
    }
}

/// A finding that ends a command.
pub(super) fn refused(finding: &SafetyFinding) -> Failure {
    let failure = Failure::new(ExitCode::Refused, format!("not safe: {finding}"));
    match &finding.hint {
        Some(hint) => failure.hint(hint.clone()),
        None => failure,
    }
}

impl Leaver {
    /// The node leaves, by `playbook`. In a check it is told what would be done; true when something
    /// was, or would be.
    pub(super) async fn leave(&mut self, run: &RunArgs, playbook: &str) -> Result<bool, Failure> {
        let mut inventory = if self.reachable {
            self.inventory.clone()
        } else {
            self.inventory.clone().without(&self.name)
        };
        inventory.set_extra("leaving_node", self.name.as_str());
        let host = if self.reachable { self.name.as_str() } else { NOBODY };
        inventory.set_extra("leaving_host", host);
        self.run(run, inventory, playbook, Purpose::Tend).await
    }

    /// What `up` does, on `inventory`: the references to the node, and a new one that joins.
    pub(super) async fn settle(
        &mut self,
        run: &RunArgs,
        inventory: Inventory,
    ) -> Result<bool, Failure> {
        self.run(run, inventory, super::up::PLAYBOOK, Purpose::Up).await
    }

    async fn run(
        &mut self,
        run: &RunArgs,
        inventory: Inventory,
        playbook: &str,
        purpose: Purpose,
    ) -> Result<bool, Failure> {
        let finished = playbook::run_on(run, inventory, &mut self.asked, playbook, purpose).await?;
        playbook::ended(&finished.summary, false)?;
        let embedded = finished.inventory.distribution == Distribution::Embedded;
        if purpose == Purpose::Up && embedded && !run.check {
            super::up::keep_bundle(&finished).await?;
        }
        Ok(finished.summary.changed)
    }

    /// "server2, which votes and answers" and the like.
    pub(super) fn words(&self) -> String {
        let name = &self.name;
        match (&self.leaving.member, self.leaving.healthy) {
            (Some(_), true) => format!("{name}, a server that works"),
            (Some(_), false) => format!("{name}, a server that does not answer"),
            (None, _) if self.leaving.node => format!("{name}, an agent"),
            (None, _) => format!("{name}, which is not part of the cluster now"),
        }
    }
}

/// How a command ends: with a check's own exit code when there is something to do.
pub(super) fn ended(run: &RunArgs, changed: bool) -> Result<(), Failure> {
    if run.check && changed {
        return Err(Failure::new(ExitCode::WouldChange, "a run would change something"));
    }
    Ok(())
}

/// Says which lines of the inventory a person has to change now.
pub(super) fn tell(run: &RunArgs, head: &str, places: &[Place], then: &str) -> Result<(), Failure> {
    if run.output != Format::Text || run.check {
        return Ok(());
    }
    let mut text = format!("\n{head}");
    for place in places {
        text = format!("{text}\n  {}:{}: {}", place.file, place.line, place.text);
    }
    output::line(&if then.is_empty() { text } else { format!("{text}\n{then}") })
}
