//! Whether a port of another host can be reached from here, and how long a round trip takes.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::doors::socket_address;
use crate::host::protocol::{Door, Reached};

/// How often it is tried after a success: the shortest counts, for the others waited for a
/// processor.
const TRIES: usize = 3;

/// A datagram may be lost: how long its answer is waited for before it is sent again.
const DATAGRAM_TIME: Duration = Duration::from_millis(300);

/// Tries `door`. With a `greeting` that must be what is said there.
pub(super) async fn probe(door: &Door, greeting: Option<&str>, timeout_ms: u64) -> Reached {
    let at = match socket_address(door) {
        Ok(at) => at,
        Err(error) => return Reached::Failed(error.to_string()),
    };
    let limit = Duration::from_millis(timeout_ms);
    let work = async {
        if door.udp {
            datagrams(at, greeting.unwrap_or_default()).await
        } else {
            connections(at, greeting).await
        }
    };
    match timeout(limit, work).await {
        Ok(Ok(reached)) => reached,
        Ok(Err(error)) => told(&error),
        Err(_) => Reached::TimedOut,
    }
}

fn told(error: &std::io::Error) -> Reached {
    match error.kind() {
        ErrorKind::ConnectionRefused => Reached::Refused,
        ErrorKind::TimedOut => Reached::TimedOut,
        _ => Reached::Failed(error.to_string()),
    }
}

async fn connections(at: SocketAddr, greeting: Option<&str>) -> std::io::Result<Reached> {
    let mut best = u64::MAX;
    for _ in 0..TRIES {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(at).await?;
        best = best.min(micros(begun));
        let Some(expected) = greeting else { continue };
        let mut said = vec![0; expected.len()];
        let read = stream.read_exact(&mut said).await;
        if read.is_err() || said != expected.as_bytes() {
            return Ok(Reached::Stranger);
        }
    }
    Ok(Reached::Yes { rtt_us: best })
}

async fn datagrams(at: SocketAddr, greeting: &str) -> std::io::Result<Reached> {
    let any = if at.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(at).await?;
    let mut said = vec![0; 512];
    // Ends with the caller's time.
    loop {
        let begun = Instant::now();
        socket.send(greeting.as_bytes()).await?;
        if let Ok(length) = timeout(DATAGRAM_TIME, socket.recv(&mut said)).await {
            let rtt_us = micros(begun);
            let is_ours = said.get(..length?) == Some(greeting.as_bytes());
            return Ok(if is_ours { Reached::Yes { rtt_us } } else { Reached::Stranger });
        }
    }
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::measure::Doors;
    use crate::host::protocol::Opened;

    const LIMIT_MS: u64 = 20_000;

    fn door(port: u16, udp: bool) -> Door {
        Door { address: "127.0.0.1".to_owned(), port, udp }
    }

    /// A port that was free a moment ago.
    fn free_port(udp: bool) -> u16 {
        if udp {
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
        } else {
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
        }
    }

    #[tokio::test]
    async fn a_listener_is_reached_and_known_by_its_greeting_until_it_stops() {
        for udp in [false, true] {
            let doors = Doors::default();
            let door = door(free_port(udp), udp);
            let wanted = std::slice::from_ref(&door);
            assert_eq!(doors.open(wanted, "hello s1", 60_000).await, [Opened::Open]);
            let reached = probe(&door, Some("hello s1"), LIMIT_MS).await;
            assert!(matches!(reached, Reached::Yes { .. }), "{reached:?}");
            // Another session finds the port taken.
            assert_eq!(Doors::default().open(wanted, "x", 60_000).await, [Opened::Taken]);
            doors.close().await;
            assert_eq!(probe(&door, Some("hello s1"), LIMIT_MS).await, Reached::Refused);
            // The port is free at once.
            assert_eq!(doors.open(wanted, "again", 60_000).await, [Opened::Open]);
        }
    }

    #[tokio::test]
    async fn who_says_something_else_is_a_stranger() {
        let doors = Doors::default();
        let door = door(free_port(false), false);
        doors.open(std::slice::from_ref(&door), "hello s1", 60_000).await;
        assert_eq!(probe(&door, Some("hello s2"), LIMIT_MS).await, Reached::Stranger);
        // What is only asked whether it answers does.
        let reached = probe(&door, None, LIMIT_MS).await;
        assert!(matches!(reached, Reached::Yes { .. }), "{reached:?}");
    }

    #[tokio::test]
    async fn listeners_end_by_themselves() {
        let doors = Doors::default();
        let door = door(free_port(false), false);
        doors.open(std::slice::from_ref(&door), "hello", 1).await;
        while probe(&door, None, LIMIT_MS).await != Reached::Refused {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_does_not_answer_or_is_no_address_is_said_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = door(listener.local_addr().unwrap().port(), false);
        assert_eq!(probe(&silent, Some("hello"), 200).await, Reached::TimedOut);
        let nowhere = Door { address: "localhost".to_owned(), port: 1, udp: false };
        assert!(matches!(probe(&nowhere, None, LIMIT_MS).await, Reached::Failed(_)));
        let opened = Doors::default().open(&[nowhere], "x", 1_000).await;
        assert!(matches!(opened.as_slice(), [Opened::Failed(_)]), "{opened:?}");
    }
}
