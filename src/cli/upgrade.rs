//! `k3sup-rs upgrade`: another version on every host, one server at a time.

use std::path::Path;
use std::sync::Arc;

use super::output::{self, Format};
use super::playbook::{self, Purpose, RunArgs};
use super::{ask, leaving, target};
use crate::cluster::layout::Distribution;
use crate::cluster::rolling::skew::{self, Version};
use crate::cluster::view::ClusterView;
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::run::reach::Reach;

/// To what, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs upgrade -i inventory.yaml                             to this very program
  k3sup-rs upgrade -i inventory.yaml --to ./k3sup-rs-0.2.0       to another build of it
  k3sup-rs upgrade -i inventory.yaml --to v1.32.5+k3s1           K3s, with `distribution: k3s`
  k3sup-rs upgrade -i inventory.yaml --to ./k3s --check          in which order

Servers go one at a time behind gates, the leader last and after handing over; then agents in batches
(K3s's are drained first). The previous binary stays beside the new one and is put back when a node does
not come up. One minor version at a time, never back. Killed in the middle: run it again.")]
pub struct Args {
    /// A binary on this machine, or a version of K3s
    #[arg(long, value_name = "BINARY|VERSION")]
    pub to: Option<String>,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Judges the versions, asks, and upgrades.
pub async fn run(args: Args) -> Result<(), Failure> {
    let run = &args.run;
    let mut inventory = target::inventory(&run.inventory, &run.extra_vars)?;
    let target = match inventory.distribution {
        Distribution::Embedded => own_build(&mut inventory, args.to.as_deref())?,
        Distribution::K3s => k3s(&mut inventory, args.to.as_deref())?,
    };
    let asked = run.passwords.ask()?;
    let reach = Reach::new(&inventory, &asked, false, Arc::new(|_, _| {}))
        .with_binaries(run.bin_dir.as_deref());
    let answering = target::view_of_any(&inventory, &reach).await.map_err(|failure| {
        failure.hint("`k3sup-rs up` starts what is down; an upgrade wants a cluster that works")
    })?;
    let view = answering.view;
    if let Some(target) = &target {
        skew::allowed(&versions(&view), target).map_err(|finding| leaving::refused(&finding))?;
    }
    if !run.check {
        let which = run.limit.as_deref().unwrap_or("all nodes");
        let to = target.as_deref().unwrap_or("the K3s of the inventory");
        let question = format!("Upgrade {which} of cluster {} to {to}?", inventory.cluster_name);
        ask::confirm(&question, run.yes)?;
    }
    let is_k3s = inventory.distribution == Distribution::K3s;
    let finished =
        playbook::run_on(run, inventory, &mut Some(asked), "upgrade.yml", Purpose::Tend).await?;
    playbook::ended(&finished.summary, run.check)?;
    if run.check || run.output != Format::Text || args.to.is_none() {
        return Ok(());
    }
    match target {
        _ if is_k3s => output::line(
            "\nSay so in the inventory, too (k3s_version or k3s_binary): `k3sup-rs up` installs what stands there.",
        ),
        Some(target) if target != crate::version::own() => output::line(&format!(
            "\nThe nodes run {target} now, and this program is {}: use the new one on this machine, too. `k3sup-rs up` of \
             an older program leaves newer binaries as they are.",
            crate::version::own()
        )),
        _ => Ok(()),
    }
}

/// Versions of the nodes that are there.
fn versions(view: &ClusterView) -> Vec<(&str, &str)> {
    let ready = view.nodes.iter().filter(|node| node.ready);
    ready.map(|node| (node.name.as_str(), node.version.as_str())).collect()
}

/// Another build of this program, or this very one; gives its version.
fn own_build(inventory: &mut Inventory, to: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(to) = to else { return Ok(Some(crate::version::own().to_owned())) };
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    let path = match std::fs::canonicalize(to) {
        Ok(path) => path,
        Err(_) if Version::parse(to).is_some() => {
            return Err(bad(format!("there is no place to get version {to} from"))
                .hint("give the binary: `--to ./k3sup-rs`"));
        }
        Err(error) => return Err(bad(format!("{to}: {error}"))),
    };
    let version = crate::version::of_file(&path)
        .map_err(|error| bad(format!("{to}: {error}")))?
        .ok_or_else(|| bad(format!("{to} is no build of k3sup-rs")))?;
    let path = path.to_str().ok_or_else(|| bad(format!("{to}: the path is not UTF-8")))?;
    inventory.set_extra("upgrade_to", path);
    Ok(Some(version))
}

/// K3s from a file, a version, or as the inventory says; gives its version when it is known.
fn k3s(inventory: &mut Inventory, to: Option<&str>) -> Result<Option<String>, Failure> {
    use serde_json::Value as Json;
    let Some(to) = to else { return Ok(None) };
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    if Path::new(to).is_file() {
        let path = std::fs::canonicalize(to).map_err(|error| bad(format!("{to}: {error}")))?;
        let path = path.to_str().ok_or_else(|| bad(format!("{to}: the path is not UTF-8")))?;
        for other in ["k3s_version", "k3s_channel", "k3s_bin_dir", "k3s_download"] {
            inventory.set_extra(other, Json::Null);
        }
        inventory.set_extra("k3s_binary", path);
        return Ok(says(path));
    }
    if Version::parse(to).is_none() {
        return Err(bad(format!("{to} is neither a file nor a version of K3s"))
            .hint("versions are written like v1.32.5+k3s1"));
    }
    for other in ["k3s_binary", "k3s_channel"] {
        inventory.set_extra(other, Json::Null);
    }
    inventory.set_extra("k3s_version", to);
    Ok(Some(to.to_owned()))
}

/// What a K3s binary says its version is, when it runs here.
fn says(path: &str) -> Option<String> {
    let output = std::process::Command::new(path).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().find(|word| Version::parse(word).is_some()).map(str::to_owned)
}
