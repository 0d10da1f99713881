//! What clients write to: a way into the cluster, which each of the two kinds of cluster has of its own.

use std::time::Duration;

use super::api::Api;
use super::etcd::Etcd;

/// A way into the cluster.
pub(super) enum Door {
    /// The etcd API of the embedded node.
    Etcd(Etcd),
    /// The Kubernetes API of real K3s.
    Api(Api),
}

impl Door {
    /// Writes `key`, once. Whether it was acknowledged: then it is there, now or since an earlier try.
    pub(super) async fn put(&self, key: &str) -> bool {
        match self {
            Self::Etcd(etcd) => etcd.put(key).await,
            Self::Api(api) => api.put(key).await,
        }
    }

    /// Between two writes. An object costs an API server more than a key costs a store.
    pub(super) fn pace(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Etcd(_) => 10,
            Self::Api(_) => 50,
        })
    }

    /// Which of the acknowledged keys are not there or are another's, as the newest state is seen here.
    pub(super) async fn missing(&self, acknowledged: &[String]) -> Result<Vec<String>, String> {
        let found = match self {
            Self::Etcd(etcd) => etcd.all().await?,
            Self::Api(api) => api.all().await?,
        };
        let lost = |key: &&String| found.get(*key) != Some(*key);
        Ok(acknowledged.iter().filter(lost).cloned().collect())
    }

    /// Deletes all that drills wrote, also those that were killed.
    pub(super) async fn clear(&self) -> Result<(), String> {
        match self {
            Self::Etcd(etcd) => etcd.clear().await,
            Self::Api(api) => api.clear().await,
        }
    }
}
