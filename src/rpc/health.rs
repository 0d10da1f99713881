//! The standard gRPC health service. As in etcd the whole server is one service named `""`, and it
//! serves as long as it runs: whether the cluster does is asked over HTTP (`/readyz`).

use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use super::member::Member;
use super::pb::grpc::health::v1 as pb;
use pb::health_check_response::ServingStatus;

/// Health over a member.
#[derive(Clone)]
pub(crate) struct HealthService(pub(crate) Member);

fn response(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl pb::health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(ServingStatus::Serving)))
    }

    type WatchStream = BoxStream<'static, Result<pb::HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let now = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let stop = self.0.stop.clone();
        let last = async move {
            stop.cancelled().await;
            Ok(response(if known { ServingStatus::NotServing } else { now }))
        };
        let statuses = stream::once(async move { Ok(response(now)) }).chain(stream::once(last));
        Ok(Response::new(statuses.boxed()))
    }
}
