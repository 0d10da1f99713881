//! `token`: a K3s cluster's token is this one.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{k3s_node, text};
use super::types::{Input, ModulePlan, PlanError, Spec, World, odd, plain};
use crate::cluster::k3s::token::{check_new, short_hash};
use crate::cluster::layout::K3sNode;
use crate::host::protocol::{Change, Observed, Read, SecretText};
use crate::pki::Token;
use crate::secret::Secret;

pub(super) static TOKEN: Spec =
    plain("token", &["value", "data_dir", "supervisor"], &["value"], observe, plan);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    value: Secret,
    data_dir: String,
    supervisor: String,
    /// The node is K3s's; the run fills it in.
    k3s: Option<K3sNode>,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    let is_server = k3s_node(args).is_some_and(|node| node.is_server);
    let data_dir = text(args, &["data_dir"]).filter(|_| is_server);
    data_dir.map(look).into_iter().collect()
}

fn look(data_dir: &str) -> Read {
    Read::K3sTokenHash { data_dir: data_dir.to_owned() }
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    if !args.k3s.is_some_and(|node| node.is_server) {
        return Err(PlanError::failed("only a server of K3s takes a token so"));
    }
    let wrong = |why: &str| PlanError::failed(format!("the new token: {why}"));
    let token = Token::parse(args.value.expose()).map_err(|error| wrong(&error.to_string()))?;
    check_new(&token).map_err(wrong)?;
    let mut plan = ModulePlan::default();
    match world.get(&look(&args.data_dir))? {
        Observed::Text(hash) if *hash == short_hash(&token.password) => {}
        Observed::Text(_) => plan.change(
            Change::RotateK3sToken {
                data_dir: args.data_dir,
                supervisor: args.supervisor,
                token: SecretText(token.password),
            },
            "the cluster's token is another one",
        ),
        other => return Err(odd(other)),
    }
    Ok(plan)
}
