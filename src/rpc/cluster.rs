//! The Cluster service: members.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::errors::ApiError;
use super::member::{Member, On};
use super::metrics::Rpc;
use super::pb::etcdserverpb as pb;
use crate::store::types::{MemberId, MemberRecord};

/// How long the status may be behind what is applied; a few milliseconds are usual.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// Cluster over a member.
#[derive(Clone)]
pub(crate) struct ClusterService(pub(crate) Member);

impl ClusterService {
    /// As in etcd, without a revision: membership is not part of the key space.
    fn header(&self) -> pb::ResponseHeader {
        self.0.header(0)
    }

    /// All members this one knows of.
    fn members(&self) -> Vec<pb::Member> {
        let learners = self.0.status.borrow().learners.clone();
        messages(&learners, self.0.state.members())
    }

    /// All members as of what is applied here. The status, which knows the learners, tells of that a
    /// moment later: a member that was just promoted must not be listed as a learner.
    async fn members_applied(&self) -> Vec<pb::Member> {
        let records = self.0.state.members();
        let applied = self.0.state.applied_index();
        let mut status = self.0.status.clone();
        // A member that is about to stop tells nothing more: what it told last is as good as it gets.
        let _ = timeout(STATUS_LIMIT, status.wait_for(|now| now.applied_index >= applied)).await;
        let learners = self.0.status.borrow().learners.clone();
        messages(&learners, records)
    }

    async fn list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<pb::MemberListResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_known(self.0.caller(&request).await?.as_ref())?;
        let members = if request.into_inner().linearizable {
            self.0.barrier().await?;
            self.members_applied().await
        } else {
            self.members()
        };
        Ok(pb::MemberListResponse { header: Some(self.header()), members })
    }

    async fn add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<pb::MemberAddResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        let pb::MemberAddRequest { peer_ur_ls: peer_urls, is_learner } = request.into_inner();
        urls(&peer_urls)?;
        let id = rand::random_range(1..=MemberId::MAX);
        let record = MemberRecord { id, peer_urls, ..MemberRecord::default() };
        self.0.consensus.member_add(record.clone(), !is_learner).await?;
        // The change is made; that this member cannot see it yet is no reason to fail.
        let seen = self.0.barrier().await.is_ok();
        let mut members = self.members_applied().await;
        let added = pb::Member { is_learner, ..message(&[], record) };
        match members.iter_mut().find(|member| member.id == id) {
            // A voter to be is a learner until it has caught up; the client asked for a voter.
            Some(member) => member.is_learner = is_learner,
            None if seen => return Err(ApiError::MEMBER_NOT_FOUND),
            None => members.push(added.clone()),
        }
        Ok(pb::MemberAddResponse { header: Some(self.header()), member: Some(added), members })
    }

    async fn remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<pb::MemberRemoveResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        self.0.consensus.member_remove(request.into_inner().id).await?;
        let members = self.members_after_change().await;
        Ok(pb::MemberRemoveResponse { header: Some(self.header()), members })
    }

    async fn update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<pb::MemberUpdateResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        let pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls } = request.into_inner();
        urls(&peer_urls)?;
        self.0.consensus.member_update(id, peer_urls).await?;
        let members = self.members_after_change().await;
        Ok(pb::MemberUpdateResponse { header: Some(self.header()), members })
    }

    async fn promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<pb::MemberPromoteResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        let done = self.0.consensus.member_promote(request.into_inner().id).await;
        match done.map_err(ApiError::from) {
            Ok(()) => self.0.metrics.asked.promoted.inc(),
            Err(refusal) => {
                self.0.metrics.asked.not_promoted.with_label_values(&[refusal.text()]).inc();
                return Err(refusal);
            }
        }
        let members = self.members_after_change().await;
        Ok(pb::MemberPromoteResponse { header: Some(self.header()), members })
    }

    /// The members once this one has seen the change that was just made, if it can see it soon: a
    /// member that removed itself cannot, and the change is made all the same.
    async fn members_after_change(&self) -> Vec<pb::Member> {
        let _ = self.0.barrier().await;
        self.members_applied().await
    }
}

/// Members, by number.
fn messages(learners: &[MemberId], records: Vec<MemberRecord>) -> Vec<pb::Member> {
    let mut members: Vec<_> = records.into_iter().map(|record| message(learners, record)).collect();
    members.sort_unstable_by_key(|member| member.id);
    members
}

fn message(learners: &[MemberId], record: MemberRecord) -> pb::Member {
    pb::Member {
        is_learner: learners.contains(&record.id),
        id: record.id,
        name: record.name,
        peer_ur_ls: record.peer_urls,
        client_ur_ls: record.client_urls,
    }
}

/// At least one URL, each `http(s)://host:port` and no more (etcd `client/pkg/types/urls.go`).
fn urls(urls: &[String]) -> Result<(), ApiError> {
    let good = |url: &String| {
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let port = rest.and_then(|rest| rest.rsplit_once(':'));
        port.is_some_and(|(host, port)| {
            let named = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
            named && port.parse::<u16>().is_ok()
        })
    };
    if !urls.is_empty() && urls.iter().all(good) { Ok(()) } else { Err(ApiError::MEMBER_BAD_URLS) }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        self.0.answer(Rpc::MemberAdd, self.add(request).await)
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.0.answer(Rpc::MemberRemove, self.remove(request).await)
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        self.0.answer(Rpc::MemberUpdate, self.update(request).await)
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.0.answer(Rpc::MemberList, self.list(request).await)
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.0.answer(Rpc::MemberPromote, self.promote(request).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_scheme_host_and_port() {
        let check = |list: &[&str]| urls(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(check(&["https://10.0.0.1:2380", "http://[::1]:2380"]), Ok(()));
        for bad in [
            "",
            "10.0.0.1:2380",
            "https://10.0.0.1",
            "https://a:b",
            "https://a:1/x",
            "ftp://a:1",
            "https://:1",
        ] {
            assert_eq!(check(&[bad]), Err(ApiError::MEMBER_BAD_URLS), "{bad}");
        }
        assert_eq!(check(&[]), Err(ApiError::MEMBER_BAD_URLS));
    }
}
