//! `ready`: until the host's node says it is ready to serve.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Number, k3s_node, text};
use super::types::{Input, ModulePlan, PlanError, Spec, Until, Wait, World, plain};
use crate::cluster::layout::K3sNode;
use crate::host::protocol::Read;

const TIMEOUT_SECONDS_DEFAULT: u64 = 300;

pub(super) static READY: Spec =
    plain("ready", &["data_dir", "supervisor", "timeout"], &[], observe, plan);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    data_dir: String,
    supervisor: String,
    timeout: Option<Number>,
    /// The node is K3s's; the run fills it in.
    k3s: Option<K3sNode>,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    match (text(args, &["data_dir"]), text(args, &["supervisor"])) {
        (Some(data_dir), Some(supervisor)) => {
            vec![look(data_dir, supervisor, k3s_node(args).as_ref(), 0)]
        }
        _ => Vec::new(),
    }
}

/// One look; with `timeout_ms` it waits on the host itself, which costs one round trip in all.
fn look(data_dir: &str, supervisor: &str, k3s: Option<&K3sNode>, timeout_ms: u64) -> Read {
    if let Some(node) = k3s {
        return Read::K3sReady { node: node.clone(), timeout_ms };
    }
    Read::Ready { data_dir: data_dir.to_owned(), supervisor: supervisor.to_owned(), timeout_ms }
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let mut plan = ModulePlan::default();
    let look = |timeout_ms| look(&args.data_dir, &args.supervisor, args.k3s.as_ref(), timeout_ms);
    let now = look(0);
    if Until::Ready.check(world.get(&now)?).is_err() {
        let timeout_ms = args.timeout.map_or(TIMEOUT_SECONDS_DEFAULT, |number| number.0) * 1000;
        plan.wait = Some(Wait {
            what: format!("the node at {} to be ready", args.supervisor),
            read: look(timeout_ms),
            until: Until::Ready,
            timeout_ms,
            interval_ms: 0,
        });
    }
    Ok(plan)
}
