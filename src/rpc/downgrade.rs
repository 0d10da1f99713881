//! Downgrades, as far as they can be meant here: whether a version is one to go back to, and a
//! record, the same on all members, that a downgrade is under way.
//!
//! Nothing is changed for it: a release writes one format. What is checked, and in which order, is
//! etcd's (`server/etcdserver/v3_server.go`).

use bytes::Bytes;
use tonic::Request;

use super::ETCD_API_VERSION;
use super::caller::signed;
use super::errors::ApiError;
use super::member::{Member, On};
use super::pb::etcdserverpb as pb;
use crate::store::types::{Caller, Command, Reply};
use pb::downgrade_request::DowngradeAction as Action;

/// The record: it holds the version to go back to, and is there while a downgrade is under way.
const RECORD: &str = "etcd/downgrade";

/// A version without its last number, as clusters have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    major: u64,
    minor: u64,
}

impl Version {
    /// `3.4.0`, or `3.4` for it; with what semantic versions may have behind (etcd's
    /// `convertToClusterVersion`).
    fn parse(text: &str) -> Option<Self> {
        Self::parse_full(text).or_else(|| Self::parse_full(&format!("{text}.0")))
    }

    fn parse_full(text: &str) -> Option<Self> {
        let is_word = |word: &str| {
            word.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.'))
        };
        let (text, build) = text.split_once('+').unwrap_or((text, ""));
        let (text, release) = text.split_once('-').unwrap_or((text, ""));
        let mut numbers = text.splitn(3, '.').map(|number| {
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| number.parse::<i64>().ok()).flatten()
        });
        let mut next = || numbers.next().flatten().map(i64::unsigned_abs);
        let (major, minor, _) = (next()?, next()?, next()?);
        (is_word(build) && is_word(release)).then_some(Self { major, minor })
    }

    /// What a cluster of this version may go back to.
    fn before(self) -> Option<Self> {
        Some(Self { minor: self.minor.checked_sub(1)?, ..self })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// The version of the cluster, as etcd has it: that of its members without their last number.
pub(crate) fn cluster_version() -> String {
    Version::parse(ETCD_API_VERSION).map(|version| version.to_string()).unwrap_or_default()
}

impl Member {
    /// Answers a request about a downgrade.
    pub(crate) async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<pb::DowngradeResponse, ApiError> {
        self.admit(request.metadata(), On::Voters)?;
        let caller = self.caller(&request).await?;
        self.permit_root(caller.as_ref())?;
        let request = request.into_inner();
        match Action::try_from(request.action) {
            Ok(Action::Validate) => self.validate(&request.version).await.map(drop)?,
            Ok(Action::Enable) => {
                let target = self.validate(&request.version).await?;
                self.set(caller, None, Some(target.to_string().into())).await?;
                tracing::warn!(
                    %target,
                    "a downgrade was enabled: it is recorded, and changes nothing of this member"
                );
            }
            Ok(Action::Cancel) => {
                self.barrier().await?;
                let target = self.state.system(RECORD).ok_or(ApiError::NO_DOWNGRADE)?;
                self.set(caller, Some(target), None).await?;
            }
            Err(_) => return Err(ApiError::UNKNOWN_METHOD),
        }
        Ok(pb::DowngradeResponse { header: Some(self.header_now()), version: cluster_version() })
    }

    /// The version that is meant, if the cluster can go back to it and is not on its way already.
    async fn validate(&self, text: &str) -> Result<Version, ApiError> {
        let target = Version::parse(text).ok_or(ApiError::DOWNGRADE_FORMAT)?;
        self.barrier().await?;
        if Version::parse(ETCD_API_VERSION).and_then(Version::before) != Some(target) {
            return Err(ApiError::DOWNGRADE_TARGET);
        }
        match self.state.system(RECORD) {
            None => Ok(target),
            Some(_) => Err(ApiError::DOWNGRADE_IN_PROCESS),
        }
    }

    /// Changes the record from what was read to another, unless somebody else was faster.
    async fn set(
        &self,
        caller: Option<Caller>,
        from: Option<Bytes>,
        to: Option<Bytes>,
    ) -> Result<(), ApiError> {
        let late =
            if from.is_none() { ApiError::DOWNGRADE_IN_PROCESS } else { ApiError::NO_DOWNGRADE };
        let put = Command::SystemPut { key: RECORD.to_owned(), value: to, expect: Some(from) };
        match self.propose(signed(caller, put)).await? {
            Reply::SystemPut { made: true, .. } => Ok(()),
            Reply::SystemPut { made: false, .. } => Err(late),
            _ => Err(ApiError::MISMATCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_etcd_reads_them() {
        let version = |text| Version::parse(text).map(|version| version.to_string());
        for good in ["3.4.0", "3.4", "3.4.99", "03.4.0", "3.4.1-rc.1", "3.4.1+b", "3.4.1-a+b.c"] {
            assert_eq!(version(good).as_deref(), Some("3.4.0"), "{good}");
        }
        for bad in ["", "3", "v3.4.0", "3.4.x", "3.4.0.1", "3.4-rc", "3.4.0-ä", "3.+4.0", "3..0"] {
            assert_eq!(version(bad), None, "{bad}");
        }
        assert_eq!(cluster_version(), "3.5.0");
    }
}
