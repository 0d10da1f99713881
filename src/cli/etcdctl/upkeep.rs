//! Keeping a cluster: `endpoint`, `alarm`, `compaction`, `defrag`.

use std::time::Instant;

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::connection::Connection;
use super::{Shape, Show, header, sparse};
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::rpc::pb::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, HashKvRequest,
    MemberListRequest, RangeRequest, StatusRequest, StatusResponse,
};

/// `compaction`.
#[derive(Debug, clap::Args)]
pub(super) struct Compaction {
    /// What was before this revision goes
    revision: i64,

    /// Return when it is gone from the disk too
    #[arg(long)]
    physical: bool,
}

pub(super) async fn compaction(connection: &Connection, args: Compaction) -> Result<(), Failure> {
    let Compaction { revision, physical } = args;
    let mut client = connection.client()?;
    connection.answer(client.kv.compact(CompactionRequest { revision, physical })).await?;
    output::line(&format!("compacted revision {revision}"))
}

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// Whether each endpoint answers a read that the cluster agrees on
    Health {
        /// Of all members, not of the endpoints given
        #[arg(long)]
        cluster: bool,
    },
    /// How each endpoint stands
    Status {
        /// Of all members, not of the endpoints given
        #[arg(long)]
        cluster: bool,
    },
    /// The hash of all keys on each endpoint
    Hashkv {
        /// Of all members, not of the endpoints given
        #[arg(long)]
        cluster: bool,
        /// As of this revision
        #[arg(long, default_value_t = 0, value_name = "N")]
        rev: i64,
    },
}

pub(super) async fn endpoint(
    connection: &Connection,
    show: Show,
    command: EndpointCommand,
) -> Result<(), Failure> {
    match command {
        EndpointCommand::Health { cluster } => {
            health(&spread(connection, cluster).await?, show).await
        }
        EndpointCommand::Status { cluster } => {
            status(&spread(connection, cluster).await?, show).await
        }
        EndpointCommand::Hashkv { cluster, rev } => {
            hash(&spread(connection, cluster).await?, show, rev).await
        }
    }
}

/// One connection for each endpoint, or for each member of the cluster.
async fn spread(connection: &Connection, cluster: bool) -> Result<Vec<Connection>, Failure> {
    let mut endpoints = connection.endpoints().to_vec();
    if cluster {
        let mut client = connection.client()?;
        let request = MemberListRequest { linearizable: false };
        let answer = connection.answer(client.cluster.member_list(request)).await?;
        endpoints = answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect();
    }
    Ok(endpoints.into_iter().map(|endpoint| connection.at(vec![endpoint])).collect())
}

fn name(connection: &Connection) -> &str {
    connection.endpoints().first().map_or("", String::as_str)
}

async fn health(connections: &[Connection], show: Show) -> Result<(), Failure> {
    let looked = connections.iter().map(async |connection| {
        let begun = Instant::now();
        let request = RangeRequest { key: "health".into(), ..RangeRequest::default() };
        let result = match connection.client() {
            Ok(mut client) => connection.answer(client.kv.range(request)).await.map(drop),
            Err(failure) => Err(failure),
        };
        (name(connection), begun.elapsed(), result)
    });
    let looked = futures::future::join_all(looked).await;
    let value = || {
        let row = |(endpoint, took, result): &(&str, std::time::Duration, Result<(), Failure>)| {
            let error = result.as_ref().err().map(|failure| failure.message.clone());
            let mut row = json!({ "endpoint": endpoint, "health": result.is_ok(),
                "took": humantime::format_duration(*took).to_string() });
            if let (Some(fields), Some(error)) = (row.as_object_mut(), error) {
                fields.insert("error".to_owned(), error.into());
            }
            row
        };
        Json::Array(looked.iter().map(row).collect())
    };
    if !show.json(value)? {
        for (endpoint, took, result) in &looked {
            output::line(&match result {
                Ok(()) => format!(
                    "{endpoint} is healthy: successfully committed proposal: took = {took:?}"
                ),
                Err(failure) => format!(
                    "{endpoint} is unhealthy: failed to commit proposal: {}",
                    failure.message
                ),
            })?;
        }
    }
    if looked.iter().all(|(.., result)| result.is_ok()) {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Error, "unhealthy cluster"))
}

async fn status(connections: &[Connection], show: Show) -> Result<(), Failure> {
    let asked = connections.iter().map(async |connection| {
        let mut client = connection.client()?;
        let answer = connection.answer(client.maintenance.status(StatusRequest {})).await;
        answer.map(|status| (name(connection), status))
    });
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for (connection, answer) in connections.iter().zip(futures::future::join_all(asked).await) {
        match answer {
            Ok(status) => found.push(status),
            Err(failure) => failed.push(format!("{}: {}", name(connection), failure.message)),
        }
    }
    let value = || {
        let row = |(endpoint, status): &(&str, StatusResponse)| {
            json!({ "Endpoint": endpoint, "Status": sparse(json!({
                "header": header(status.header.as_ref()),
                "version": status.version,
                "dbSize": status.db_size,
                "leader": status.leader,
                "raftIndex": status.raft_index,
                "raftTerm": status.raft_term,
                "raftAppliedIndex": status.raft_applied_index,
                "errors": status.errors,
                "dbSizeInUse": status.db_size_in_use,
                "isLearner": status.is_learner,
            })) })
        };
        Json::Array(found.iter().map(row).collect())
    };
    if !show.json(value)? {
        let rows: Vec<Vec<String>> = found.iter().map(status_row).collect();
        if show.shape == Shape::Table {
            let head = [
                "ENDPOINT",
                "ID",
                "VERSION",
                "DB SIZE",
                "IS LEADER",
                "IS LEARNER",
                "RAFT TERM",
                "RAFT INDEX",
                "RAFT APPLIED INDEX",
                "ERRORS",
            ];
            output::boxed(&head, rows)?;
        } else {
            rows.iter().try_for_each(|row| output::line(&row.join(", ")))?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(ExitCode::Error, failed.join("\n"))) }
}

fn status_row((endpoint, status): &(&str, StatusResponse)) -> Vec<String> {
    let id = status.header.map_or(0, |header| header.member_id);
    vec![
        (*endpoint).to_owned(),
        format!("{id:x}"),
        status.version.clone(),
        size(status.db_size),
        (status.leader == id).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
    ]
}

/// As etcdctl writes sizes: powers of ten.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn size(bytes: i64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if value < 10.0 && unit != "B" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

async fn hash(connections: &[Connection], show: Show, revision: i64) -> Result<(), Failure> {
    for connection in connections {
        let mut client = connection.client()?;
        let request = HashKvRequest { revision };
        let answer = connection.answer(client.maintenance.hash_kv(request)).await?;
        let value = || {
            json!([{ "Endpoint": name(connection), "HashKV": sparse(json!({
                "header": header(answer.header.as_ref()),
                "hash": answer.hash,
                "compact_revision": answer.compact_revision,
            })) }])
        };
        if !show.json(value)? {
            output::line(&format!("{}, {}", name(connection), answer.hash))?;
        }
    }
    Ok(())
}

#[derive(Debug, Subcommand)]
pub(super) enum AlarmCommand {
    /// Print the alarms that stand
    List,
    /// Lift all alarms
    Disarm,
}

pub(super) async fn alarm(
    connection: &Connection,
    show: Show,
    command: AlarmCommand,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let mut ask = async |action: AlarmAction, member_id, alarm: AlarmType| {
        let request = AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
        connection.answer(client.maintenance.alarm(request)).await
    };
    let standing = ask(AlarmAction::Get, 0, AlarmType::None).await?;
    let value = || {
        let alarm = |alarm: &crate::rpc::pb::etcdserverpb::AlarmMember| json!({ "memberID": alarm.member_id, "alarm": alarm.alarm });
        let alarms: Vec<_> = standing.alarms.iter().map(alarm).collect();
        sparse(json!({ "header": header(standing.header.as_ref()), "alarms": alarms }))
    };
    let told = show.json(value)?;
    for alarm in &standing.alarms {
        if matches!(command, AlarmCommand::Disarm) {
            ask(AlarmAction::Deactivate, alarm.member_id, alarm.alarm()).await?;
        }
        if !told {
            let kind = alarm.alarm().as_str_name();
            output::line(&format!("memberID:{} alarm:{kind} ", alarm.member_id))?;
        }
    }
    Ok(())
}

/// `defrag`, on one endpoint after the other: it takes a member's time.
pub(super) async fn defrag(connection: &Connection) -> Result<(), Failure> {
    let mut failed = false;
    for endpoint in connection.endpoints() {
        let own = connection.at(vec![endpoint.clone()]);
        let mut client = own.client()?;
        match own.answer(client.maintenance.defragment(DefragmentRequest {})).await {
            Ok(_) => output::line(&format!("Finished defragmenting etcd member[{endpoint}]"))?,
            Err(failure) => {
                failed = true;
                output::line(&format!(
                    "Failed to defragment etcd member[{endpoint}] ({})",
                    failure.message
                ))?;
            }
        }
    }
    if failed {
        Err(Failure::new(ExitCode::Error, "not every member was defragmented"))
    } else {
        Ok(())
    }
}
