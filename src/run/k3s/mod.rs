//! What a run on real K3s needs beside its playbooks: the settings of each host, checked before
//! anything is changed, and the K3s to put on it.

mod download;
mod elf;
mod source;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::Run;
use super::library::{Found, Library};
use super::vars::PlayVars;
use crate::cluster::k3s::flags;
use crate::cluster::layout::{Distribution, Role};
use crate::error::{ExitCode, Failure};
use crate::template::{Engine, Var, Vars};
use source::{Said, Sources};

/// The playbook `name` for `distribution`. K3s has its own ones, beside the others in `k3s/`; a
/// built-in playbook that is only for the embedded node is refused.
pub(super) fn playbook(
    library: &Library,
    distribution: Distribution,
    name: &str,
) -> Result<Found, Failure> {
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    if distribution == Distribution::Embedded || library.is_ones_own() {
        return library.playbook(name).map_err(bad);
    }
    if let Ok(found) = library.playbook(&format!("k3s/{name}")) {
        return Ok(found);
    }
    let found = library.playbook(name).map_err(bad)?;
    if found.origin == "built in" {
        let why = format!("{name} is not there for `distribution: k3s`");
        return Err(bad(why).hint("there are site.yml (`up`) and reset.yml (`reset`)"));
    }
    Ok(found)
}

/// What the inventory says of a host's K3s.
struct Host {
    name: String,
    role: Role,
    config: Map<String, Json>,
    secret: bool,
    endpoint: String,
    architecture: String,
    said: Said,
    /// The TLS files of the external datastore, by name; empty texts for none.
    datastore: Json,
}

impl Run<'_> {
    /// Looks at the settings of all hosts whose facts are known, and gives each the variables
    /// `k3s_config` and `k3s_source`.
    ///
    /// Settings that servers do not share are kept for who asks: [`Run::refuse_k3s_differences`].
    ///
    /// # Errors
    /// Settings that K3s does not have; no K3s to be had.
    pub(super) async fn prepare_k3s(&mut self) -> Result<(), Failure> {
        if self.fleet.distribution != Distribution::K3s {
            return Ok(());
        }
        let hosts = self.k3s_hosts()?;
        check(&hosts)?;
        self.cluster.differences = differences(&hosts);
        self.cluster.external = self.has_datastore();
        let mut sources = Sources::new(self.context.options.check);
        for host in hosts {
            let place = self.cluster.places.get_mut(&host.name);
            if let Some(node) = place.and_then(|place| place.k3s.as_mut()) {
                node.has_kubelet = host.config.get("disable-agent") != Some(&Json::Bool(true));
            }
            let config = Json::Object(flags::of_role(host.role, &host.config));
            let mut vars =
                BTreeMap::from([("k3s_config".to_owned(), Var::data(config, host.secret))]);
            vars.insert("k3s_datastore".to_owned(), Var::Plain(host.datastore));
            // Where nobody installs K3s it does not have to be there.
            if self.installs {
                let source = sources.resolve(&host.said, &host.architecture).await?;
                let is_empty = |key: &str| source.get(key).is_none_or(|value| value == "");
                if is_empty("binary") && is_empty("url") {
                    self.context.warn(format!("{}: a run would download K3s first", host.name));
                }
                vars.insert("k3s_source".to_owned(), Var::Plain(source));
            }
            self.cluster.k3s_vars.insert(host.name, vars);
        }
        Ok(())
    }

    /// Refuses what [`Run::prepare_k3s`] found different on servers.
    pub(super) fn refuse_k3s_differences(&self) -> Result<(), Failure> {
        match self.cluster.differences.as_slice() {
            [] => Ok(()),
            differences => Err(refused(differences)),
        }
    }

    /// Whether any server has an external datastore by the inventory, also when nothing is known of
    /// it because it is away.
    fn has_datastore(&self) -> bool {
        let scope = self.scope(&PlayVars::default());
        self.hosts.iter().filter(|host| host.fleet.role == Some(Role::Server)).any(|host| {
            let vars = scope.task(host, &Map::new(), BTreeMap::new());
            let said = value(&self.context.engine, &vars, "datastore_endpoint | default('')");
            // What cannot be told before the host answers is told when it does.
            said.is_ok_and(|(endpoint, _)| endpoint.as_str().is_some_and(|text| !text.is_empty()))
        })
    }

    fn k3s_hosts(&self) -> Result<Vec<Host>, Failure> {
        let scope = self.scope(&PlayVars::default());
        let engine = &self.context.engine;
        let mut hosts = Vec::new();
        for host in &self.hosts {
            let (Some(facts), Some(role @ (Role::Server | Role::Agent))) =
                (host.facts(), host.fleet.role)
            else {
                continue;
            };
            let vars = scope.task(host, &Map::new(), BTreeMap::new());
            let bad =
                |why: String| Failure::new(ExitCode::BadInput, format!("{}: {why}", host.name()));
            let (config, secret) = value(engine, &vars, "config | default({})").map_err(bad)?;
            let Json::Object(config) = config else {
                return Err(bad("`config` must be a mapping of K3s's settings".to_owned()));
            };
            let (endpoint, _) =
                value(engine, &vars, "datastore_endpoint | default('')").map_err(bad)?;
            let said = |name: &str| {
                let expression = format!("{name} | default(none)");
                value(engine, &vars, &expression).map(|(value, _)| value)
            };
            hosts.push(Host {
                name: host.name().to_owned(),
                role,
                config,
                secret,
                endpoint: endpoint.as_str().unwrap_or_default().to_owned(),
                architecture: facts.architecture.clone(),
                datastore: source::files(
                    &said,
                    &["datastore_cafile", "datastore_certfile", "datastore_keyfile"],
                )
                .map_err(bad)?,
                said: Said::of(said).map_err(bad)?,
            });
        }
        Ok(hosts)
    }
}

fn value(engine: &Engine, vars: &Vars, expression: &str) -> Result<(Json, bool), String> {
    let template = json!(format!("{{{{ {expression} }}}}"));
    let evaluated = engine.evaluate(&template, vars).map_err(|error| error.to_string())?;
    Ok((evaluated.value, evaluated.secret))
}

/// Settings that must be equal on all servers and are not.
fn differences(hosts: &[Host]) -> Vec<String> {
    let servers = || hosts.iter().filter(|host| host.role == Role::Server);
    let configs: Vec<(&str, &Map<String, Json>)> =
        servers().map(|host| (host.name.as_str(), &host.config)).collect();
    let mut found = flags::differences(&configs);
    let mut endpoints: Vec<&str> = servers().map(|host| host.endpoint.as_str()).collect();
    endpoints.dedup();
    if endpoints.len() > 1 {
        // Not repeated: a password may be in it.
        found.push("`datastore_endpoint` must be equal on all servers".to_owned());
    }
    found
}

fn refused(findings: &[String]) -> Failure {
    Failure::new(ExitCode::BadInput, findings.join("\n"))
        .hint("nothing was touched; `config` is documented in docs/k3s.md")
}

/// All that is wrong with the settings of single hosts, at once.
fn check(hosts: &[Host]) -> Result<(), Failure> {
    let mut findings: Vec<String> = Vec::new();
    for host in hosts {
        let own = flags::check(host.role, &host.config);
        findings.extend(own.into_iter().map(|finding| format!("{}: {finding}", host.name)));
    }
    let servers = || hosts.iter().filter(|host| host.role == Role::Server);
    let mut endpoints: Vec<&str> = servers().map(|host| host.endpoint.as_str()).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    findings.extend(endpoints.iter().filter_map(|endpoint| endpoint_problem(endpoint)));
    if findings.is_empty() { Ok(()) } else { Err(refused(&findings)) }
}

/// What is wrong with the address of a datastore, which K3s takes as `<scheme>://<authority>`.
fn endpoint_problem(endpoint: &str) -> Option<String> {
    const SCHEMES: [&str; 6] = ["postgres", "postgresql", "mysql", "http", "https", "nats"];
    if endpoint.is_empty() {
        return None;
    }
    match endpoint.split_once("://") {
        Some((scheme, rest)) if SCHEMES.contains(&scheme) && !rest.is_empty() => None,
        Some(("sqlite", _)) => Some(
            "`datastore_endpoint`: SQLite is a file of one server; leave it out for embedded etcd"
                .to_owned(),
        ),
        _ => Some(
            "`datastore_endpoint` must be like postgres://…, mysql://… or https://host:2379,…"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, config: &Json, endpoint: &str) -> Host {
        Host {
            name: name.to_owned(),
            role: Role::Server,
            config: config.as_object().unwrap().clone(),
            secret: false,
            endpoint: endpoint.to_owned(),
            architecture: "x86_64".to_owned(),
            said: Said::default(),
            datastore: Json::Null,
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_and_no_password_with_it() {
        let hosts = [
            host("s1", &json!({ "cluster-init": true }), "mysql://u:hunter2@tcp(db)/k"),
            host("s2", &json!({ "service-cidr": "10.9.0.0/16" }), "etcd"),
        ];
        let different = differences(&hosts).join("\n");
        for expected in ["`service-cidr` must be equal", "`datastore_endpoint` must be equal"] {
            assert!(different.contains(expected), "{expected}: {different}");
        }
        assert!(!different.contains("hunter2"));
        let failure = check(&hosts).unwrap_err();
        assert_eq!(failure.code, ExitCode::BadInput);
        for expected in ["s1: `cluster-init` cannot be set", "must be like postgres://"] {
            assert!(failure.message.contains(expected), "{expected}: {}", failure.message);
        }
        assert!(!failure.message.contains("hunter2"));
        let alike = [host("s1", &json!({}), ""), host("s2", &json!({}), "")];
        assert!(check(&alike).is_ok() && differences(&alike).is_empty());
    }

    #[test]
    fn playbooks_that_are_only_for_the_embedded_node_are_refused() {
        let library = Library::built_in();
        let of = |name| playbook(&library, Distribution::K3s, name);
        assert_eq!(of("site.yml").unwrap().file.name, "playbooks/k3s/site.yml");
        assert_eq!(of("reset.yml").unwrap().file.name, "playbooks/k3s/reset.yml");
        assert_eq!(of("remove-node.yml").unwrap().file.name, "playbooks/k3s/remove-node.yml");
        assert!(of("no-such.yml").is_err());
        let embedded = playbook(&library, Distribution::Embedded, "site.yml").unwrap();
        assert_eq!(embedded.file.name, "playbooks/site.yml");

        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("site.yml"), "[]").unwrap();
        let own = Library::new(Some(dir.path()), dir.path()).of_ones_own();
        let found = playbook(&own, Distribution::K3s, "site.yml").unwrap();
        assert_eq!((found.file.text.as_str(), found.replaces), ("[]", false));
    }
}
