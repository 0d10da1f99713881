//! Calls in a user's name: with the token that the cluster gives for its password, and with a new
//! one when that has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::Mutex;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

use super::errors::ApiError;
use super::pb::etcdserverpb::AuthenticateRequest;
use super::pb::etcdserverpb::auth_client::AuthClient;
use crate::secret::Secret;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Calls that send one message after the other, which nobody has any more when a token turns out to
/// have ended.
const STREAMS: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];

/// Refusals after which a new token may help, as etcd's client has it.
const STALE: [ApiError; 3] =
    [ApiError::INVALID_AUTH_TOKEN, ApiError::AUTH_OLD_REVISION, ApiError::USER_EMPTY];

/// In whose name calls are made.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Secret,
}

/// A channel whose calls are a user's, if there is one; cheap to clone.
#[derive(Clone, Debug)]
pub struct Session {
    channel: Channel,
    login: Option<Arc<Login>>,
}

impl Session {
    /// One whose user logs in with the first call.
    pub(super) fn new(channel: Channel, user: Option<User>) -> Self {
        let login = user.map(|user| Arc::new(Login { user, token: Mutex::new(None) }));
        Self { channel, login }
    }
}

/// What a cluster gave for a password; `None` where nobody has to be somebody.
type Token = Option<HeaderValue>;

/// A user, and the token it got last.
#[derive(Debug)]
struct Login {
    user: User,
    token: Mutex<Option<Token>>,
}

impl Login {
    /// The token; a new one when there is none yet or only `stale`.
    async fn token(&self, channel: &Channel, stale: Option<&Token>) -> Result<Token, Status> {
        let mut token = self.token.lock().await;
        match &*token {
            Some(token) if stale.is_none_or(|stale| stale != token) => Ok(token.clone()),
            _ => {
                let new = self.ask(channel).await?;
                *token = Some(new.clone());
                Ok(new)
            }
        }
    }

    /// Asks for a token.
    async fn ask(&self, channel: &Channel) -> Result<Token, Status> {
        let request = AuthenticateRequest {
            name: self.user.name.clone(),
            password: self.user.password.expose().to_owned(),
        };
        match AuthClient::new(channel.clone()).authenticate(request).await {
            Ok(answer) => {
                let mut token = HeaderValue::try_from(answer.into_inner().token)
                    .map_err(|_| Status::internal("the cluster gave a token that is none"))?;
                token.set_sensitive(true);
                Ok(Some(token))
            }
            Err(status) if is(&status, ApiError::AUTH_NOT_ENABLED) => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Makes a call, and once more when its token has ended.
    async fn call(
        self: Arc<Self>,
        mut channel: Channel,
        request: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        let token = self.token(&channel, None).await?;
        if STREAMS.contains(&request.uri().path()) {
            return Ok(channel.call(signed(request, &token)).await?);
        }
        let (parts, body) = request.into_parts();
        let body: Bytes = body.collect().await?.to_bytes();
        let request = |token: &Token| {
            let body = Body::new(Full::new(body.clone()));
            signed(Request::from_parts(parts.clone(), body), token)
        };
        let answer = channel.call(request(&token)).await?;
        if !is_stale(answer.headers()) {
            return Ok(answer);
        }
        let token = self.token(&channel, Some(&token)).await?;
        Ok(channel.ready().await?.call(request(&token)).await?)
    }
}

/// A request with a token, as etcd's clients send it.
fn signed(mut request: Request<Body>, token: &Token) -> Request<Body> {
    if let Some(token) = token {
        request.headers_mut().insert("token", token.clone());
    }
    request
}

/// Whether an answer is a refusal that a new token may lift.
fn is_stale(headers: &HeaderMap) -> bool {
    let refusal = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok);
    refusal.is_some_and(|status| STALE.into_iter().any(|error| is(&status, error)))
}

fn is(status: &Status, error: ApiError) -> bool {
    status.code() == error.0 && status.message() == error.text()
}

impl Service<Request<Body>> for Session {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.channel.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(login) = self.login.clone() else {
            let answer = self.channel.call(request);
            return Box::pin(async move { Ok(answer.await?) });
        };
        // The one that was asked whether it is ready.
        let next = self.channel.clone();
        let channel = std::mem::replace(&mut self.channel, next);
        Box::pin(login.call(channel, request))
    }
}
