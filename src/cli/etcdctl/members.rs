//! Members: `member list|add|remove|update|promote`, `move-leader`.

use clap::Subcommand;

use super::connection::Connection;
use super::hex_number;
use super::show::{Answer, Show};
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::pb::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, MoveLeaderRequest, ResponseHeader, StatusRequest,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the members
    List,
    /// Add a member, and print how to start it
    Add {
        /// Its name
        name: String,
        /// Its peer URLs, comma-separated
        #[arg(long, value_delimiter = ',', required = true, value_name = "URL")]
        peer_urls: Vec<String>,
        /// It is to learn, not to vote
        #[arg(long)]
        learner: bool,
    },
    /// Remove a member
    Remove {
        /// Its number, in hex
        #[arg(value_parser = hex_number)]
        id: u64,
    },
    /// Change where a member is reached
    Update {
        /// Its number, in hex
        #[arg(value_parser = hex_number)]
        id: u64,
        /// Its peer URLs, comma-separated
        #[arg(long, value_delimiter = ',', required = true, value_name = "URL")]
        peer_urls: Vec<String>,
    },
    /// Make a learner a voter
    Promote {
        /// Its number, in hex
        #[arg(value_parser = hex_number)]
        id: u64,
    },
}

pub(super) async fn run(
    connection: &Connection,
    show: Show,
    command: Command,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let cluster = &mut client.cluster;
    match command {
        Command::List => {
            let request = MemberListRequest { linearizable: true };
            let answer = connection.answer(cluster.member_list(request)).await?;
            show.rows(&answer)
        }
        Command::Add { name, peer_urls, learner } => {
            let request = MemberAddRequest { peer_ur_ls: peer_urls, is_learner: learner };
            let answer = connection.answer(cluster.member_add(request)).await?;
            if show.formal(&answer)? {
                return Ok(());
            }
            let added = answer.member.unwrap_or_default();
            let cluster_id = answer.header.map_or(0, |header| header.cluster_id);
            output::line(&format!("Member {:16x} added to cluster {cluster_id:16x}", added.id))?;
            output::line(&how_to_start(&name, &added, &answer.members))
        }
        Command::Remove { id } => {
            let answer =
                connection.answer(cluster.member_remove(MemberRemoveRequest { id })).await?;
            changed(show, &answer, answer.header.as_ref(), id, "removed from")
        }
        Command::Update { id, peer_urls } => {
            let request = MemberUpdateRequest { id, peer_ur_ls: peer_urls };
            let answer = connection.answer(cluster.member_update(request)).await?;
            changed(show, &answer, answer.header.as_ref(), id, "updated in")
        }
        Command::Promote { id } => {
            let request = MemberPromoteRequest { id };
            let answer = connection.answer(cluster.member_promote(request)).await?;
            changed(show, &answer, answer.header.as_ref(), id, "promoted in")
        }
    }
}

/// Prints what was done to the member `id`.
fn changed(
    show: Show,
    answer: &impl Answer,
    header: Option<&ResponseHeader>,
    id: u64,
    did: &str,
) -> Result<(), Failure> {
    if show.formal(answer)? {
        return Ok(());
    }
    let cluster_id = header.map_or(0, |header| header.cluster_id);
    output::line(&format!("Member {id:16x} {did} cluster {cluster_id:16x}"))
}

/// The variables that start the new member.
fn how_to_start(name: &str, added: &Member, members: &[Member]) -> String {
    let named = members.iter().flat_map(|member| {
        let name = if member.id == added.id { name } else { member.name.as_str() };
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    let initial: Vec<String> = named.collect();
    format!(
        "\nETCD_NAME=\"{name}\"\nETCD_INITIAL_CLUSTER=\"{}\"\nETCD_INITIAL_ADVERTISE_PEER_URLS=\"{}\"\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"",
        initial.join(","),
        added.peer_ur_ls.join(",")
    )
}

/// `move-leader`.
#[derive(Debug, clap::Args)]
pub(super) struct MoveLeader {
    /// The member's number, in hex
    #[arg(value_parser = hex_number)]
    id: u64,
}

/// Asks the endpoint that leads: only it can hand over.
pub(super) async fn move_leader(connection: &Connection, args: MoveLeader) -> Result<(), Failure> {
    for endpoint in connection.endpoints() {
        let own = connection.at(vec![endpoint.clone()]);
        let mut client = own.client()?;
        let Ok(status) = own.answer(client.maintenance.status(StatusRequest {})).await else {
            continue;
        };
        let id = status.header.map_or(0, |header| header.member_id);
        if status.leader != id {
            continue;
        }
        let request = MoveLeaderRequest { target_id: args.id };
        own.answer(client.maintenance.move_leader(request)).await?;
        let text = format!("Leadership transferred from {id:x} to {:x}", args.id);
        return output::line(&text);
    }
    let endpoints = connection.endpoints().join(" ");
    Err(Failure::new(ExitCode::Error, format!("no leader endpoint given at [{endpoints}]")))
}
