//! `POST /db/snapshot`: K3s's words for what a keeper does.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::keeper::{KeepError, Keeper, Outcome, Wish};
use crate::cluster::snapshots::SnapshotView;
use crate::node::config::S3Config;
use crate::raft::api::RaftStatus;

/// A request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SnapshotRequest {
    /// What to do.
    pub operation: Operation,
    /// What a new name begins with, or the names to remove.
    pub name: Vec<String>,
    /// Directory on the server.
    pub dir: Option<String>,
    /// In a zip archive.
    pub compress: Option<bool>,
    /// How many stay.
    pub retention: Option<usize>,
    /// Settings of S3; the server's own when not said.
    pub s3: Option<S3Config>,
    /// Leave S3 out, whatever the server's settings.
    pub without_s3: bool,
}

/// What to do with snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Take one.
    Save,
    /// List them.
    #[default]
    List,
    /// Remove what the retention lets go.
    Prune,
    /// Remove some.
    Delete,
}

/// The answer to everything but a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotAnswer {
    /// Names of new snapshots.
    pub created: Vec<String>,
    /// Names of removed ones.
    pub deleted: Vec<String>,
    /// What did not work beside it; K3s has no such field.
    pub problems: Vec<String>,
    /// The new snapshots with all that is known of them; K3s has no such field.
    pub snapshots: Vec<SnapshotView>,
}

/// The answer to a list, in K3s's form with all that is known beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotList {
    /// `List`.
    pub kind: String,
    /// `v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Nothing.
    pub metadata: Json,
    /// K3s's `ETCDSnapshotFile`s.
    pub items: Vec<Json>,
    /// The same with all that is known of them; K3s has no such field.
    pub snapshots: Vec<SnapshotView>,
    /// What could not be listed; K3s has no such field.
    pub problems: Vec<String>,
}

/// Does what is asked for; the answer as JSON.
///
/// # Errors
/// As the keeper's.
pub async fn answer(
    keeper: &Keeper,
    request: SnapshotRequest,
    status: &RaftStatus,
) -> Result<Json, KeepError> {
    let s3 = match (request.without_s3, request.s3) {
        (true, _) => Some(None),
        (false, Some(s3)) => Some(Some(s3)),
        (false, None) => None,
    };
    let base = match request.operation {
        Operation::Delete => None,
        _ => request.name.first().filter(|name| !name.is_empty()).cloned(),
    };
    let dir = request.dir.filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let wish = Wish { base, dir, compress: request.compress, s3 };
    let outcome = match request.operation {
        Operation::List => {
            let (snapshots, problems) = keeper.list(&wish).await?;
            return to_json(&list(snapshots, problems));
        }
        // Never prunes, whatever retention is said: as in K3s.
        Operation::Save => keeper.save(&wish, status).await?,
        Operation::Prune => keeper.prune(request.retention, &wish).await?,
        Operation::Delete => keeper.delete(&request.name, &wish).await?,
    };
    let Outcome { created, deleted, problems } = outcome;
    let mut names: Vec<String> = created.iter().map(|view| view.name.clone()).collect();
    names.dedup();
    to_json(&SnapshotAnswer { created: names, deleted, problems, snapshots: created })
}

fn to_json<T: Serialize>(value: &T) -> Result<Json, KeepError> {
    serde_json::to_value(value).map_err(|error| KeepError::Disk(std::io::Error::other(error)))
}

/// As K3s lists them.
pub fn list(snapshots: Vec<SnapshotView>, problems: Vec<String>) -> SnapshotList {
    SnapshotList {
        kind: "List".to_owned(),
        api_version: "v1".to_owned(),
        metadata: json!({}),
        items: snapshots.iter().map(item).collect(),
        snapshots,
        problems,
    }
}

fn item(view: &SnapshotView) -> Json {
    let in_s3 = view.location.starts_with("s3://");
    let place = if in_s3 { "s3" } else { "local" };
    let mut item = json!({
        "kind": "ETCDSnapshotFile",
        "apiVersion": "k3s.cattle.io/v1",
        "metadata": { "name": format!("{place}-{}", view.name) },
        "spec": {
            "snapshotName": view.name,
            "nodeName": if in_s3 { "s3" } else { view.node.as_str() },
            "location": view.location,
        },
        "status": {
            "size": view.bytes,
            "creationTime": rfc3339(view.created_unix_s),
            "readyToUse": view.problem.is_none(),
        },
    });
    if let (Some(problem), Some(status)) = (&view.problem, item.get_mut("status")) {
        status["error"] = json!({ "message": problem });
    }
    item
}

/// A time as K3s prints it.
pub fn rfc3339(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).unwrap_or_default()
}
