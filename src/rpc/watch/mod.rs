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
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

use self::codec::{Reply, WatchCodec};
use self::session::Session;
use super::member::{Member, On};
use super::metrics::Rpc;
use super::pb::etcdserverpb::WatchRequest;

/// The path of the one procedure.
pub(crate) const PATH: &str = "/etcdserverpb.Watch/Watch";

/// Watch over a member.
#[derive(Clone)]
pub(crate) struct WatchService(pub(crate) Member);

impl WatchService {
    /// Serves a call to [`PATH`]. Requests may have `limit` bytes.
    pub(crate) async fn serve(self, request: Request<Incoming>, limit: usize) -> Response<Body> {
        let mut grpc = Grpc::new(WatchCodec).apply_max_message_size_config(Some(limit), None);
        grpc.streaming(self, request).await
    }
}

impl StreamingService<WatchRequest> for WatchService {
    type Response = Reply;
    type ResponseStream = BoxStream<'static, Result<Reply, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<WatchRequest>>) -> Self::Future {
        let member = self.0.clone();
        Box::pin(async move {
            if let Err(refusal) = member.admit(request.metadata(), On::Voters) {
                member.metrics.handled(Rpc::Watch, refusal.0);
                return Err(refusal.into());
            }
            let session = Session::new(member, request);
            let replies = stream::unfold(session, |mut session| async move {
                session.next().await.map(|reply| (reply, session))
            });
            Ok(tonic::Response::new(replies.boxed()))
        })
    }
}
