//! Endpoints: `endpoint health|status|hashkv`.

use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::answers::{header, sparse};
use super::connection::Connection;
use super::show::{Answer, Fields, Show, Table};
use crate::cli::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::errors::ApiError;
use crate::rpc::pb::etcdserverpb::{
    HashKvRequest, HashKvResponse, MemberListRequest, RangeRequest, StatusRequest, StatusResponse,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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

pub(super) async fn run(
    connection: &Connection,
    show: Show,
    command: Command,
) -> Result<(), Failure> {
    match command {
        Command::Health { cluster } => health(&spread(connection, cluster).await?, show).await,
        Command::Status { cluster } => status(&spread(connection, cluster).await?, show).await,
        Command::Hashkv { cluster, rev } => {
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

/// What came of asking one endpoint.
struct Health<'a> {
    endpoint: &'a str,
    took: Duration,
    error: Option<String>,
}

impl Answer for Vec<Health<'_>> {
    fn json(&self) -> Json {
        let row = |health: &Health<'_>| {
            let took = format!("{:?}", health.took);
            let mut row = json!({ "endpoint": health.endpoint,
                "health": health.error.is_none(), "took": took });
            if let (Some(fields), Some(error)) = (row.as_object_mut(), &health.error) {
                fields.insert("error".to_owned(), error.clone().into());
            }
            row
        };
        Json::Array(self.iter().map(row).collect())
    }

    fn fields(&self, fields: &mut Fields) {
        for health in self {
            fields.quoted("Endpoint", health.endpoint);
            fields.plain("Health", health.error.is_none());
            fields.plain("Took", format_args!("{:?}", health.took));
            fields.plain("Error", health.error.as_deref().unwrap_or_default());
            fields.end();
        }
    }

    fn table(&self) -> Option<Table> {
        let row = |health: &Health<'_>| {
            vec![
                health.endpoint.to_owned(),
                health.error.is_none().to_string(),
                format!("{:?}", health.took),
                health.error.clone().unwrap_or_default(),
            ]
        };
        Some((vec!["ENDPOINT", "HEALTH", "TOOK", "ERROR"], self.iter().map(row).collect()))
    }
}

async fn health(connections: &[Connection], show: Show) -> Result<(), Failure> {
    let looked = connections.iter().map(async |connection| {
        let begun = Instant::now();
        let request = RangeRequest { key: "health".into(), ..RangeRequest::default() };
        let result = match connection.client() {
            Ok(mut client) => connection.answer(client.kv.range(request)).await.map(drop),
            Err(failure) => Err(failure),
        };
        let error = result.err().map(|failure| failure.message);
        // A user who may not read the key: the cluster had to agree on that, too.
        let error = error.filter(|error| error != ApiError::PERMISSION_DENIED.text());
        Health { endpoint: name(connection), took: begun.elapsed(), error }
    });
    let looked = futures::future::join_all(looked).await;
    if !show.formal(&looked)? {
        for Health { endpoint, took, error } in &looked {
            output::line(&match error {
                None => format!(
                    "{endpoint} is healthy: successfully committed proposal: took = {took:?}"
                ),
                Some(error) => {
                    format!("{endpoint} is unhealthy: failed to commit proposal: {error}")
                }
            })?;
        }
    }
    if looked.iter().all(|health| health.error.is_none()) {
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
    show.rows(&Statuses(&found))?;
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(ExitCode::Error, failed.join("\n"))) }
}

async fn hash(connections: &[Connection], show: Show, revision: i64) -> Result<(), Failure> {
    for connection in connections {
        let mut client = connection.client()?;
        let request = HashKvRequest { revision };
        let answer = connection.answer(client.maintenance.hash_kv(request)).await?;
        show.rows(&Hash { endpoint: name(connection), answer })?;
    }
    Ok(())
}

/// What each endpoint said of how it stands.
struct Statuses<'a>(&'a [(&'a str, StatusResponse)]);

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

impl Answer for Statuses<'_> {
    fn json(&self) -> Json {
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
        Json::Array(self.0.iter().map(row).collect())
    }

    fn fields(&self, fields: &mut Fields) {
        for (endpoint, status) in self.0 {
            fields.header(status.header.as_ref());
            fields.quoted("Version", &status.version);
            fields.plain("DBSize", status.db_size);
            fields.plain("Leader", status.leader);
            fields.plain("IsLearner", status.is_learner);
            fields.plain("RaftIndex", status.raft_index);
            fields.plain("RaftTerm", status.raft_term);
            fields.plain("RaftAppliedIndex", status.raft_applied_index);
            fields.plain("Errors", format_args!("[{}]", status.errors.join(" ")));
            fields.quoted("Endpoint", endpoint);
            fields.end();
        }
    }

    fn table(&self) -> Option<Table> {
        let head = vec![
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
        Some((head, self.0.iter().map(status_row).collect()))
    }
}

/// The hash of one endpoint.
struct Hash<'a> {
    endpoint: &'a str,
    answer: HashKvResponse,
}

impl Answer for Hash<'_> {
    fn json(&self) -> Json {
        json!([{ "Endpoint": self.endpoint, "HashKV": sparse(json!({
            "header": header(self.answer.header.as_ref()),
            "hash": self.answer.hash,
            "compact_revision": self.answer.compact_revision,
        })) }])
    }

    fn fields(&self, fields: &mut Fields) {
        fields.header(self.answer.header.as_ref());
        fields.quoted("Endpoint", self.endpoint);
        fields.plain("Hash", self.answer.hash);
        fields.end();
    }

    fn table(&self) -> Option<Table> {
        let row = vec![self.endpoint.to_owned(), self.answer.hash.to_string()];
        Some((vec!["ENDPOINT", "HASH"], vec![row]))
    }
}
