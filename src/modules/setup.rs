//! `setup`, `gather_facts` and `ping`: facts of the host under Ansible's names.

use serde_json::{Map, Value as Json, json};

use super::types::{Input, ModulePlan, PlanError, Spec, World, plain};
use crate::host::protocol::{Facts, Read};

pub(super) static SETUP: Spec =
    plain("setup", &["gather_subset", "filter", "gather_timeout"], &[], observe, plan);
pub(super) static GATHER_FACTS: Spec = plain("gather_facts", &[], &[], observe, plan);
pub(super) static PING: Spec = plain("ping", &["data"], &[], observe, ping);

fn observe(_: &Map<String, Json>) -> Vec<Read> {
    vec![Read::Facts]
}

fn plan(_: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let facts = facts(world.facts()?);
    let mut plan = ModulePlan::default();
    plan.say("ansible_facts", Json::Object(facts.clone()));
    plan.facts = facts;
    Ok(plan)
}

fn ping(_: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    world.facts()?;
    let mut plan = ModulePlan::default();
    plan.say("ping", "pong");
    Ok(plan)
}

/// `facts` as variables. What a host says of itself is data: texts lose what is not plain, and
/// addresses that are none are left out.
pub fn facts(facts: &Facts) -> Map<String, Json> {
    let addresses: Vec<&str> =
        facts.addresses.iter().map(String::as_str).filter(|text| is_address(text)).collect();
    let v4: Vec<&str> = addresses.iter().copied().filter(|text| !text.contains(':')).collect();
    let v6: Vec<&str> = addresses.iter().copied().filter(|text| text.contains(':')).collect();
    let default = facts.default_address.as_deref().filter(|text| is_address(text));
    let interface = facts.default_interface.as_deref().map(word);
    let value = json!({
        "ansible_hostname": word(&facts.hostname),
        "ansible_nodename": word(&facts.hostname),
        "ansible_machine_id": word(&facts.machine_id),
        "ansible_architecture": word(&facts.architecture),
        "ansible_machine": word(&facts.architecture),
        "ansible_kernel": word(&facts.kernel),
        "ansible_distribution": distribution(&facts.os_id),
        "ansible_distribution_version": word(&facts.os_version),
        "ansible_distribution_major_version": word(major(&facts.os_version)),
        "ansible_os_family": os_family(facts),
        "ansible_os_name": plain_text(&facts.os_name),
        "ansible_processor_vcpus": facts.cpus,
        "ansible_memtotal_mb": facts.memory_bytes / (1024 * 1024),
        "ansible_service_mgr": word(&facts.service_manager),
        "ansible_user_id": word(&facts.user),
        "ansible_default_ipv4": { "address": default, "interface": interface },
        "ansible_all_ipv4_addresses": v4,
        "ansible_all_ipv6_addresses": v6,
        "executor_cache": executor_cache(facts),
        "executor_sha256": word(&facts.executor_sha256),
        "is_root": facts.is_root,
        "lab_root": facts.lab_root,
    });
    match value {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

/// Ansible's name of a system (`lib/ansible/module_utils/facts/system/distribution.py`) by its ID in
/// os-release(5); where Ansible's is not known here, the ID with a capital.
fn distribution(id: &str) -> String {
    let id = word(id);
    let name = match id.as_str() {
        "almalinux" => "AlmaLinux",
        "amzn" => "Amazon",
        "arch" => "Archlinux",
        "centos" => "CentOS",
        "ol" => "OracleLinux",
        "opensuse-leap" => "openSUSE Leap",
        "opensuse-tumbleweed" => "openSUSE Tumbleweed",
        "rhel" => "RedHat",
        "sles" => "SLES",
        _ => {
            let mut letters = id.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            return first.into_iter().chain(letters).collect();
        }
    };
    name.to_owned()
}

/// What is before the first dot.
fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or_default()
}

/// The family in Ansible's words, as far as a package manager of it is known here; else the system's
/// own name.
fn os_family(facts: &Facts) -> String {
    let is = |names: &[&str]| {
        let words = std::iter::once(facts.os_id.as_str()).chain(facts.os_like.split(' '));
        words.into_iter().any(|word| names.contains(&word))
    };
    match () {
        () if is(&["debian", "ubuntu"]) => "Debian".to_owned(),
        () if is(&["rhel", "fedora", "centos"]) => "RedHat".to_owned(),
        () if is(&["alpine"]) => "Alpine".to_owned(),
        () => word(&facts.os_id),
    }
}

/// The directory that the executor was pushed to; none where it was not pushed, as on this very
/// machine: only a pushed one is called by its own hash.
fn executor_cache(facts: &Facts) -> Option<&str> {
    let (directory, name) = facts.executor_path.rsplit_once('/')?;
    let hash = name.strip_prefix("k3sup-rs-")?;
    let pushed = hash.len() == 16 && facts.executor_sha256.starts_with(hash);
    let ours = directory.ends_with("/k3sup-rs") || directory.starts_with("/var/tmp/k3sup-rs-");
    (pushed && ours && word(directory) == directory).then_some(directory)
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

/// Letters, digits and `-_.:+@/` only, 128 at most.
fn word(text: &str) -> String {
    text.chars()
        .filter(|each| each.is_ascii_alphanumeric() || "-_.:+@/".contains(*each))
        .take(128)
        .collect()
}

/// Without control characters and braces, 256 characters at most.
fn plain_text(text: &str) -> String {
    text.chars().filter(|each| !each.is_control() && !"{}%".contains(*each)).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_have_the_names_that_playbooks_ask_for() {
        for (id, name) in [
            ("debian", "Debian"),
            ("ubuntu", "Ubuntu"),
            ("rocky", "Rocky"),
            ("alpine", "Alpine"),
            ("rhel", "RedHat"),
            ("opensuse-leap", "openSUSE Leap"),
            ("", ""),
        ] {
            assert_eq!(distribution(id), name);
        }
        assert_eq!((major("22.04"), major("12"), major("")), ("22", "12", ""));
    }
}
