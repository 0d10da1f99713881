//! The Watch service.
//!
//! A stream has no task and no queue of its own: its answers are a state machine (`session`) that
//! is asked for the next one when the connection has room for it, and then takes what the client
//! said or what happened to keys. A client that does not read holds back nothing but itself.

mod codec;
mod session;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

use self::codec::{Reply, WatchCodec};
pub(crate) use self::session::Requests;
use self::session::Session;
use super::member::{Member, On};
use super::metrics::Rpc;
use super::pb::etcdserverpb::{WatchRequest, WatchResponse};

/// The path of the one procedure.
pub(crate) const PATH: &str = "/etcdserverpb.Watch/Watch";

/// Watch over a member.
#[derive(Clone)]
pub(crate) struct WatchService(pub(crate) Member);

impl WatchService {
    /// Serves a call to [`PATH`]. Requests may have `limit` bytes.
    pub(crate) async fn serve(self, request: Request<Incoming>, limit: usize) -> Response<Body> {
        let mut grpc = Grpc::new(WatchCodec)
            .apply_max_message_size_config(Some(limit), None)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        grpc.streaming(self, request).await
    }

    /// The same for a caller that is no gRPC client: requests come from and answers go to whoever
    /// made this call.
    pub(crate) fn open(
        &self,
        request: tonic::Request<Requests>,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        let replies = self.replies(request)?;
        Ok(replies.map(|reply| reply.and_then(Reply::message)).boxed())
    }

    fn replies(
        &self,
        request: tonic::Request<Requests>,
    ) -> Result<BoxStream<'static, Result<Reply, Status>>, Status> {
        let member = self.0.clone();
        if let Err(refusal) = member.admit(request.metadata(), On::Voters) {
            member.metrics.handled(Rpc::Watch, refusal.0);
            return Err(refusal.into());
        }
        let session = Session::new(member, request);
        let replies = stream::unfold(session, |mut session| async move {
            session.next().await.map(|reply| (reply, session))
        });
        Ok(replies.boxed())
    }
}

impl StreamingService<WatchRequest> for WatchService {
    type Response = Reply;
    type ResponseStream = BoxStream<'static, Result<Reply, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<WatchRequest>>) -> Self::Future {
        let replies = self.replies(request.map(StreamExt::boxed));
        Box::pin(async { replies.map(tonic::Response::new) })
    }
}
