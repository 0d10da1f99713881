//! The network as the host sees it: what answers, and who listens.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::host::COMMAND;
use crate::host::error::HostResult;
use crate::host::protocol::{HostError, Listener};

/// How long an executor that nobody talks to any more may take to end.
const LEAVING_TIME: Duration = Duration::from_secs(3);

/// How often it is looked whether it has.
const LEAVING_POLL: Duration = Duration::from_millis(50);

/// Whether `host`:`port` accepts a connection within the time.
pub(crate) async fn reaches(host: &str, port: u16, timeout_ms: u64) -> bool {
    let attempt = TcpStream::connect((host, port));
    matches!(timeout(Duration::from_millis(timeout_ms), attempt).await, Ok(Ok(_)))
}

/// Who listens where `address`:`port` would be bound; `None` when it is free.
pub(crate) fn listener(address: &str, port: u16) -> HostResult<Option<Listener>> {
    let address: IpAddr = address
        .parse()
        .map_err(|_| HostError::other(format!("{address:?} is not an IP address")))?;
    let mut inodes = HashSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // Without IPv6 there is no second table.
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(listening(&text, address, port));
    }
    Ok(if inodes.is_empty() { None } else { Some(owner_of(&inodes)) })
}

/// As [`listener`]. An executor of a run that was killed holds the doors that it opened for others to try
/// until it sees that nobody is there any more: that is waited for.
pub(crate) fn lasting_listener(address: &str, port: u16) -> HostResult<Option<Listener>> {
    let end = Instant::now() + LEAVING_TIME;
    loop {
        let found = listener(address, port)?;
        let pid = found.as_ref().and_then(|found| found.pid);
        let leaving = pid.is_some_and(|pid| pid != std::process::id() && is_executor(pid));
        if !leaving || Instant::now() > end {
            return Ok(found);
        }
        std::thread::sleep(LEAVING_POLL);
    }
}

/// Whether the process is an executor. Its file does not tell: a node may run from the same one.
fn is_executor(pid: u32) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first: Vec<&[u8]> = arguments.split(|byte| *byte == 0).skip(1).take(2).collect();
    first == COMMAND.map(str::as_bytes)
}

/// `: NAME (pid N) has it` if a process that we may see listens where `address` would be bound,
/// else nothing: for an error's text.
pub(crate) fn holder(address: std::net::SocketAddr) -> String {
    match listener(&address.ip().to_string(), address.port()) {
        Ok(Some(Listener { pid: Some(pid), process, .. })) => {
            format!(": {} (pid {pid}) has it", process.as_deref().unwrap_or("a process"))
        }
        _ => String::new(),
    }
}

/// Inodes of sockets in state LISTEN (0A) on `port` whose address overlaps `address`.
fn listening(table: &str, address: IpAddr, port: u16) -> Vec<u64> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (ip, local_port) = local.split_once(':')?;
        let taken = *state == "0A"
            && u16::from_str_radix(local_port, 16).ok()? == port
            && overlap(parse_ip(ip)?, address);
        taken.then_some(inode.parse().ok()?)
    };
    table.lines().filter_map(parse).collect()
}

/// An address as the kernel prints it: 32-bit words in the machine's order.
fn parse_ip(hex_text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for word in hex::decode(hex_text).ok()?.chunks(4) {
        let word: [u8; 4] = word.try_into().ok()?;
        bytes.extend(u32::from_be_bytes(word).to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|four| IpAddr::V4(Ipv4Addr::from(four))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|all| IpAddr::V6(Ipv6Addr::from(all))),
        _ => None,
    }
}

/// Whether two sockets with these addresses get in each other's way. `::` takes IPv4 too, unless it
/// was told not to, which the table does not show.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    match (a, b) {
        (IpAddr::V6(any), IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(any)) => any.is_unspecified(),
        _ => a == b || a.is_unspecified() || b.is_unspecified(),
    }
}

/// The process that has one of these sockets open, as far as we may see.
fn owner_of(inodes: &HashSet<u64>) -> Listener {
    let wanted: HashSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let holds = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|files| {
            files.flatten().any(|file| {
                fs::read_link(file.path())
                    .is_ok_and(|target| target.to_str().is_some_and(|text| wanted.contains(text)))
            })
        })
    };
    let pid = fs::read_dir("/proc").ok().and_then(|processes| {
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.into_iter().find(holds)
    });
    let command = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    Listener { pid, process: command.map(|name| name.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_listener_is_found_and_named() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(reaches("127.0.0.1", port, 2_000).await);
        let found = listener("127.0.0.1", port).unwrap().unwrap();
        assert_eq!(found.pid, Some(std::process::id()));
        assert!(listener("0.0.0.0", port).unwrap().is_some());
        assert_eq!(listener("127.0.0.2", port).unwrap(), None);
        drop(socket);
        // A process that another test is just starting may hold the socket for a moment longer.
        while listener("127.0.0.1", port).unwrap().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(!reaches("127.0.0.1", port, 2_000).await);
        assert!(listener("localhost", port).is_err());
    }

    #[test]
    fn an_executor_is_told_from_a_node_of_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("host"), "echo started; read until").unwrap();
        let is_seen = |arguments: &[&str]| {
            let mut shell = Command::new("sh");
            let shell = shell.args(arguments).current_dir(&directory);
            let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            let seen = is_executor(child.id());
            drop(child.stdin.take());
            child.wait().unwrap();
            seen
        };
        assert!(is_seen(&["host", "--marker", "x"]));
        assert!(!is_seen(&["host", "server"]));
        assert!(!is_executor(std::process::id()));
    }

    #[test]
    fn unspecified_addresses_are_in_everybodys_way() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(overlap(ip("::"), ip("10.0.0.1")));
        assert!(overlap(ip("::ffff:10.0.0.1"), ip("10.0.0.1")));
        assert!(!overlap(ip("10.0.0.1"), ip("10.0.0.2")));
        assert!(!overlap(ip("::1"), ip("127.0.0.1")));
        assert!(!overlap(ip("0.0.0.0"), ip("::1")));
    }
}
