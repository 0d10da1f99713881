//! Leases: `lease grant|revoke|timetolive|list|keep-alive`.

use clap::Subcommand;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::Connection;
use super::show::Show;
use super::{hex_number, refused};
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::errors::ApiError;
use crate::rpc::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Grant a lease
    Grant {
        /// How long it lives, in seconds
        ttl: i64,
    },
    /// End a lease; its keys go
    Revoke {
        /// The lease, in hex
        #[arg(value_parser = hex_number)]
        lease: u64,
    },
    /// Print how long a lease will live
    Timetolive {
        /// The lease, in hex
        #[arg(value_parser = hex_number)]
        lease: u64,
        /// Print its keys too
        #[arg(long)]
        keys: bool,
    },
    /// Print all leases
    List,
    /// Keep a lease alive until this ends
    KeepAlive {
        /// The lease, in hex
        #[arg(value_parser = hex_number)]
        lease: u64,
        /// Once, and end
        #[arg(long)]
        once: bool,
    },
}

pub(super) async fn run(
    connection: &Connection,
    show: Show,
    command: Command,
) -> Result<(), Failure> {
    match command {
        Command::Grant { ttl } => grant(connection, show, ttl).await,
        Command::Revoke { lease } => {
            let mut client = connection.client()?;
            let request = LeaseRevokeRequest { id: lease.cast_signed() };
            let answer = connection.answer(client.lease.lease_revoke(request)).await?;
            show.words(&answer, &format!("lease {lease:016x} revoked"))
        }
        Command::Timetolive { lease, keys } => time_to_live(connection, show, lease, keys).await,
        Command::List => list(connection, show).await,
        Command::KeepAlive { lease, once } => keep_alive(connection, show, lease, once).await,
    }
}

async fn grant(connection: &Connection, show: Show, ttl: i64) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let request = LeaseGrantRequest { ttl, id: 0 };
    let answer = connection.answer(client.lease.lease_grant(request)).await?;
    show.words(&answer, &format!("lease {:016x} granted with TTL({}s)", answer.id, answer.ttl))
}

async fn time_to_live(
    connection: &Connection,
    show: Show,
    lease: u64,
    keys: bool,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let request = LeaseTimeToLiveRequest { id: lease.cast_signed(), keys };
    let answer = connection.answer(client.lease.lease_time_to_live(request)).await?;
    if answer.granted_ttl == 0 && answer.ttl == -1 {
        return show.words(&answer, &format!("lease {lease:016x} already expired"));
    }
    let mut text = format!(
        "lease {lease:016x} granted with TTL({}s), remaining({}s)",
        answer.granted_ttl, answer.ttl
    );
    if keys {
        let keys: Vec<_> = answer.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        text.extend([", attached keys([", &keys.join(" "), "])"]);
    }
    show.words(&answer, &text)
}

async fn list(connection: &Connection, show: Show) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let answer = connection.answer(client.lease.lease_leases(LeaseLeasesRequest {})).await?;
    if show.formal(&answer)? {
        return Ok(());
    }
    output::line(&format!("found {} leases", answer.leases.len()))?;
    answer.leases.iter().try_for_each(|lease| output::line(&format!("{:016x}", lease.id)))
}

async fn keep_alive(
    connection: &Connection,
    show: Show,
    lease: u64,
    once: bool,
) -> Result<(), Failure> {
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    let request = LeaseKeepAliveRequest { id: lease.cast_signed() };
    let closed = |_| Failure::new(ExitCode::Error, "the stream ended");
    requests.send(request).await.map_err(closed)?;
    let mut client = connection.client()?;
    let answers = client.lease.lease_keep_alive(ReceiverStream::new(stream));
    let mut answers = connection.answer(answers).await?;
    while let Some(answer) = answers.message().await.map_err(refused)? {
        if answer.ttl <= 0 {
            if once {
                return Err(Failure::new(ExitCode::Error, ApiError::LEASE_NOT_FOUND.text()));
            }
            return output::line(&format!("lease {lease:016x} expired or revoked."));
        }
        if !show.formal(&answer)? {
            output::line(&format!("lease {lease:016x} keepalived with TTL({})", answer.ttl))?;
        }
        if once {
            return Ok(());
        }
        let third = u64::try_from(answer.ttl).unwrap_or(3).max(3) / 3;
        tokio::time::sleep(std::time::Duration::from_secs(third)).await;
        requests.send(request).await.map_err(closed)?;
    }
    Ok(())
}
