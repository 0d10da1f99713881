//! A template as a host would get it, without touching the host.
//!
//! What only the host knows is assumed: no data, systemd, Debian, the addresses of the inventory.
//! Variables of the same name (`-e`) say otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};

use super::cluster::ClusterState;
use super::fleet::{Fleet, FleetHost};
use super::host::HostRun;
use super::library::Library;
use super::mask::Masker;
use super::vars::{PlayVars, Scope};
use crate::cluster::layout::Distribution;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Facts, Observed, Read};
use crate::secret::Secret;
use crate::template::{Engine, Var};

/// What to show.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The host whose file it is.
    pub host: &'a str,
    /// The template's name in the library, for example `haproxy.cfg.j2`.
    pub template: &'a str,
    /// Variables beside the host's own.
    pub vars: BTreeMap<String, Var>,
    /// Leave secrets in the text; they are masked otherwise.
    pub secrets: bool,
}

/// The text, and where the template came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The text.
    pub text: String,
    /// `built in`, or the template's path.
    pub origin: String,
}

/// Renders a template for a host of `fleet`.
///
/// # Errors
/// There is no such template, or a variable that it needs is missing.
pub fn preview(fleet: &Fleet, library: &Library, wish: Wish<'_>) -> Result<Preview, Failure> {
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    let found = library.template(wish.template).map_err(bad)?;
    let engine = super::engine(library);
    let manager = if wish.template.ends_with(".openrc.j2") { "openrc" } else { "systemd" };
    let assumed = |host| assumed(&engine, host, manager);
    let hosts: Vec<HostRun> = fleet.hosts.iter().map(assumed).collect();
    let mut cluster = ClusterState::new(&fleet.cluster_name, &fleet.token)
        .map_err(|error| bad(format!("the token: {error}")))?;
    cluster.place(&engine, fleet, &hosts);
    cluster.decide(&hosts).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        bad(lines.join("\n"))
    })?;
    let host = hosts.iter().find(|host| host.name() == wish.host);
    let host = host.ok_or_else(|| bad(format!("{} is not in the inventory", wish.host)))?;
    let run = BTreeMap::from([("run".to_owned(), Var::Plain(json!({ "stamp": "0" })))]);
    let scope = Scope::new(fleet, &hosts, &cluster, &PlayVars::default(), &Arc::new(run));
    let vars = scope.task(host, &Map::new(), wish.vars);
    let rendered = engine.render(&found.file.text, &vars).map_err(|error| {
        let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
        bad(format!("{}{line}: {error}", found.file.name))
    })?;
    let text = if rendered.secret && !wish.secrets {
        masker(fleet, cluster.secret()).text(&rendered.text)
    } else {
        rendered.text
    };
    Ok(Preview { text, origin: found.origin })
}

fn masker(fleet: &Fleet, token: &Secret) -> Masker {
    let mut masker = Masker::default();
    masker.learn(token);
    let vars = fleet.hosts.iter().flat_map(|host| host.vars.iter().map(|(_, var)| var));
    for var in vars.chain(fleet.extra.values()) {
        if let Var::Secret(secret) = var {
            masker.learn(secret);
        }
    }
    masker
}

/// A host that was never looked at, whose services `manager` runs.
fn assumed(engine: &Engine, host: &FleetHost, manager: &str) -> HostRun {
    let address = super::address::said_address(engine, &host.name, &host.vars);
    let address = Some(address).filter(|text| text.parse::<std::net::IpAddr>().is_ok());
    let facts = Facts {
        hostname: host.name.clone(),
        os_id: "debian".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        service_manager: manager.to_owned(),
        addresses: address.iter().cloned().collect(),
        default_address: address,
        is_root: true,
        ..Facts::default()
    };
    let mut run = HostRun::new(host.clone(), Distribution::default(), false);
    run.world.insert(Read::Facts, Ok(Observed::Facts(Box::new(facts))));
    run
}

#[cfg(test)]
mod tests;
