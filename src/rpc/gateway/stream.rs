//! Streams: JSON values one after the other in, and one line per message out.

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tonic::Status;
use tonic::body::Body;

use super::json::{
    BodyLimit, Messages, answered, only_message, split, stream_error, stream_refused,
};

/// Messages in as they come, messages out as they come.
pub(super) async fn bidirectional<Q, A>(
    request: Request<Body>,
    call: impl FnOnce(
        tonic::Request<BoxStream<'static, Result<Q, Status>>>,
    ) -> Result<BoxStream<'static, Result<A, Status>>, Status>,
) -> Response<Body>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
{
    let opened = split(request).and_then(|(head, body)| {
        let bytes_max = BodyLimit::of(&head);
        call(head.map(|()| requests(body, bytes_max)))
    });
    match opened {
        Ok(answers) => begun(answers).await,
        Err(status) => stream_refused(&status),
    }
}

/// An answer that begins with the first message: what is refused before it has the refusal's status.
async fn begun<A, S>(mut answers: S) -> Response<Body>
where
    A: Serialize + Send + 'static,
    S: Stream<Item = Result<A, Status>> + Send + Unpin + 'static,
{
    match answers.next().await {
        Some(Err(status)) => stream_refused(&status),
        first => answered(lines(stream::iter(first).chain(answers))),
    }
}

/// One message in, messages out as they come.
pub(super) async fn downstream<Q, A, S, F>(
    request: Request<Body>,
    call: impl FnOnce(tonic::Request<Q>) -> F,
) -> Response<Body>
where
    Q: DeserializeOwned + Default,
    A: Serialize + Send + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    F: Future<Output = Result<tonic::Response<S>, Status>>,
{
    let opened = async { call(only_message(request).await?).await };
    match opened.await {
        Ok(answers) => begun(Box::pin(answers.into_inner())).await,
        Err(status) => stream_refused(&status),
    }
}

/// What is left of a body, and what of it was not understood yet.
struct Incomplete {
    body: Body,
    messages: Messages,
    ended: bool,
    failed: bool,
    bytes_max: usize,
}

impl Incomplete {
    async fn next<Q: DeserializeOwned>(&mut self) -> Option<Result<Q, Status>> {
        while !self.failed {
            match self.messages.next(self.ended) {
                Ok(Some(message)) => return Some(Ok(message)),
                Ok(None) if self.ended => return None,
                Ok(None) => {}
                Err(status) => return Some(self.fail(status)),
            }
            if self.messages.unread() > self.bytes_max {
                return Some(self.fail(Status::invalid_argument("the message is too large")));
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.messages.push(bytes);
                    }
                }
                Some(Err(error)) => {
                    return Some(self.fail(Status::cancelled(error.to_string())));
                }
            }
        }
        None
    }

    fn fail<Q>(&mut self, status: Status) -> Result<Q, Status> {
        self.failed = true;
        Err(status)
    }
}

fn requests<Q>(body: Body, bytes_max: usize) -> BoxStream<'static, Result<Q, Status>>
where
    Q: DeserializeOwned + Send + 'static,
{
    let messages = Messages::default();
    let rest = Incomplete { body, messages, ended: false, failed: false, bytes_max };
    let next = |mut rest: Incomplete| async move { Some((rest.next().await?, rest)) };
    stream::unfold(rest, next).boxed()
}

/// Each message as a line of its own, so that a client can read them one by one.
fn lines<A, S>(answers: S) -> Body
where
    A: Serialize + Send + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let lines = answers.map(|answer| {
        let line = answer.and_then(|answer| {
            let line = serde_json::to_string(&json!({ "result": answer }));
            line.map_err(|error| Status::internal(error.to_string()))
        });
        let line = line.unwrap_or_else(|status| stream_error(&status).to_string());
        Ok::<_, Infallible>(Frame::data(Bytes::from(line + "\n")))
    });
    Body::new(StreamBody::new(lines))
}
