//! Facts about the host: read from the kernel and a few files, without starting a process.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use crate::host::error::HostResult;
use crate::host::protocol::Facts;
use crate::host::serve::Host;
use crate::host::{files, users};

/// Everything of [`Facts`].
pub(crate) async fn read(host: &Host) -> HostResult<Facts> {
    let lab_root = host.lab_root.clone();
    let (manager, sha256) = (host.manager.name().to_owned(), host.sha256.clone());
    super::serve::blocking(move || gather(lab_root.as_deref(), manager, sha256)).await
}

fn gather(
    lab_root: Option<&Path>,
    service_manager: String,
    sha256: Option<String>,
) -> HostResult<Facts> {
    let kernel = rustix::system::uname();
    let release = os_release();
    let field = |name: &str| release.get(name).cloned().unwrap_or_default();
    let executor = fs::read_link("/proc/self/exe").unwrap_or_default();
    let executor_sha256 = match sha256 {
        Some(known) => known,
        None => files::hash_file(Path::new("/proc/self/exe"))?,
    };
    let lab = lab_root.map(Lab::of);
    let (addresses, default_address) = match &lab {
        Some(lab) => (lab.address.clone().into_iter().collect(), lab.address.clone()),
        None => (addresses(), default_address()),
    };
    let user = rustix::process::geteuid();
    Ok(Facts {
        hostname: match &lab {
            Some(lab) => lab.name.clone(),
            None => kernel.nodename().to_string_lossy().into_owned(),
        },
        machine_id: match &lab {
            Some(lab) => lab.machine_id.clone(),
            None => text("/etc/machine-id"),
        },
        os_id: field("ID"),
        os_like: field("ID_LIKE"),
        os_version: field("VERSION_ID"),
        os_name: field("PRETTY_NAME"),
        kernel: kernel.release().to_string_lossy().into_owned(),
        architecture: kernel.machine().to_string_lossy().into_owned(),
        cpus: cpus(),
        memory_bytes: memory_bytes(),
        service_manager,
        lab_root: lab_root.map(|root| root.to_string_lossy().into_owned()),
        addresses,
        default_address,
        default_interface: match &lab {
            Some(_) => None,
            None => default_interface(&fs::read_to_string("/proc/net/route").unwrap_or_default()),
        },
        clock_unix_ms: files::unix_ms(),
        user: users::user_name(user.as_raw()),
        is_root: user.is_root(),
        executor_path: executor.to_string_lossy().into_owned(),
        executor_sha256,
    })
}

/// A lab host's identity: machines of a lab share a kernel and so its names.
struct Lab {
    name: String,
    address: Option<String>,
    machine_id: String,
}

impl Lab {
    fn of(root: &Path) -> Self {
        let text = fs::read(root.join("lab.json")).unwrap_or_default();
        let host: Option<crate::lab::LabHost> = serde_json::from_slice(&text).ok();
        let directory = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            name: host.as_ref().map_or(directory, |host| host.name.clone()),
            address: host.map(|host| host.address.to_string()),
            machine_id: machine_id(root),
        }
    }
}

/// Like `/etc/machine-id`, derived from where the lab host is: stable, and its own.
fn machine_id(root: &Path) -> String {
    use sha2::Digest as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut id = hex::encode(sha2::Sha256::digest(root.as_os_str().as_bytes()));
    id.truncate(32);
    id
}

/// A one-line file's text; empty when it cannot be read.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Assignments of `/etc/os-release` (os-release(5)): shell-like quoting, no expansion.
fn os_release() -> HashMap<String, String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            let words = shell_words::split(value).unwrap_or_default();
            (name.trim().to_owned(), words.join(" "))
        })
        .collect()
}

/// Processors online: `cpu0`, `cpu1`… of `/proc/stat`.
fn cpus() -> u32 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let count = stat
        .lines()
        .filter_map(|line| line.strip_prefix("cpu"))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .count();
    u32::try_from(count).unwrap_or(0)
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Addresses of all interfaces except loopback and link-local ones, IPv4 first.
fn addresses() -> Vec<String> {
    let four = local_v4(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default());
    let six = local_v6(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default());
    let four = four.iter().map(ToString::to_string);
    four.chain(six.iter().map(ToString::to_string)).collect()
}

/// Addresses that the kernel's routing trie marks `host LOCAL`: each stands on the line before.
fn local_v4(trie: &str) -> BTreeSet<Ipv4Addr> {
    let mut found = BTreeSet::new();
    let mut last = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL") {
            found.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    found
}

/// First field of `/proc/net/if_inet6`: the address in 32 hex digits.
fn local_v6(table: &str) -> BTreeSet<Ipv6Addr> {
    table
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|digits| u128::from_str_radix(digits, 16).ok())
        .map(Ipv6Addr::from)
        .filter(|address| !address.is_loopback() && !address.is_unicast_link_local())
        .collect()
}

/// The address that packets to the outside would leave from. Connecting a UDP socket sends nothing;
/// the two targets are addresses for documentation (RFC 5737, RFC 3849).
fn default_address() -> Option<String> {
    let ask = |local: &str, target: &str| {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        socket.connect((target, 9)).ok()?;
        let address: IpAddr = socket.local_addr().ok()?.ip();
        (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
    };
    ask("0.0.0.0", "192.0.2.1").or_else(|| ask("::", "2001:db8::1"))
}

/// The interface of the route to everywhere with the lowest metric. Lines of `/proc/net/route`:
/// interface, destination, gateway, flags, use counts, metric, mask… (`proc_pid_net(5)`).
fn default_interface(table: &str) -> Option<String> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, "00000000", _, _, _, _, metric, "00000000", ..] = fields.as_slice() else {
            return None;
        };
        Some((metric.parse::<u32>().ok()?, (*name).to_owned()))
    };
    table.lines().filter_map(route).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::services::Manager;

    #[tokio::test]
    async fn this_machine_is_described() {
        let host = Host {
            lab_root: None,
            manager: Manager::None,
            sha256: None,
            doors: crate::host::measure::Doors::default(),
        };
        let facts = read(&host).await.unwrap();
        assert_eq!(facts.architecture, std::env::consts::ARCH);
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.clock_unix_ms > 0);
        assert!(!facts.hostname.is_empty() && !facts.kernel.is_empty());
        assert_eq!(facts.executor_sha256.len(), 64);
        assert_eq!(facts.service_manager, "none");
    }

    #[tokio::test]
    async fn lab_hosts_on_one_machine_are_told_apart() {
        let host = |root: &str| Host {
            lab_root: Some(root.into()),
            manager: Manager::None,
            sha256: None,
            doors: crate::host::measure::Doors::default(),
        };
        let one = read(&host("/lab/one")).await.unwrap();
        let two = read(&host("/lab/two")).await.unwrap();
        assert_ne!(one.machine_id, two.machine_id);
        assert_eq!((one.hostname.as_str(), two.hostname.as_str()), ("one", "two"));
        assert_eq!(one.machine_id.len(), 32);
    }

    #[test]
    fn the_default_routes_interface_is_that_with_the_lowest_metric() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n";
        let table = format!(
            "{head}wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        );
        assert_eq!(default_interface(&table).as_deref(), Some("eth0"));
        assert_eq!(default_interface(head), None);
    }

    #[test]
    fn addresses_come_from_the_kernels_tables() {
        let trie = "Local:\n  |-- 10.0.0.0\n     /24 link UNICAST\n  |-- 10.0.0.7\n     /32 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n";
        assert_eq!(local_v4(trie), BTreeSet::from([Ipv4Addr::new(10, 0, 0, 7)]));
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     20010db8000000000000000000000001 02 40 00 80     eth0\n\
                     fe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(local_v6(table), BTreeSet::from(["2001:db8::1".parse().unwrap()]));
    }
}
