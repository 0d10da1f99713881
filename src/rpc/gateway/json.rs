//! Bodies: JSON to messages and back, refusals, and what of a request's head the services see.

use std::future::Future;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Largest body of a request, in bytes. It travels with the request.
#[derive(Clone, Copy)]
pub(super) struct BodyLimit(pub(super) usize);

impl BodyLimit {
    /// That of a request.
    pub(super) fn of(request: &tonic::Request<()>) -> usize {
        request.extensions().get::<Self>().map_or(0, |limit| limit.0)
    }
}

/// What etcd's gateway puts before the names of headers that are meant as metadata.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// One message in, one message out.
pub(super) async fn unary<Q, A, F>(
    request: Request<Body>,
    call: impl FnOnce(tonic::Request<Q>) -> F,
) -> Response<Body>
where
    Q: DeserializeOwned + Default,
    A: Serialize,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let answer = async {
        let message = only_message(request).await?;
        let answer = call(message).await?.into_inner();
        serde_json::to_vec(&answer).map_err(|error| Status::internal(error.to_string()))
    };
    match answer.await {
        Ok(body) => answered(Body::new(http_body_util::Full::new(Bytes::from(body)))),
        Err(status) => refused(&status),
    }
}

/// The whole body as one message; nothing stands for a message without fields.
pub(super) async fn only_message<Q>(request: Request<Body>) -> Result<tonic::Request<Q>, Status>
where
    Q: DeserializeOwned + Default,
{
    let (head, body) = split(request)?;
    let body = Limited::new(body, BodyLimit::of(&head)).collect().await;
    let body = body.map_err(|error| invalid(&error))?.to_bytes();
    let mut messages = Messages::default();
    messages.push(&body);
    let message: Option<Q> = messages.next(true)?;
    Ok(head.map(|()| message.unwrap_or_default()))
}

/// What the services see of a request's head, and its body.
pub(super) fn split(request: Request<Body>) -> Result<(tonic::Request<()>, Body), Status> {
    if request.method() != Method::POST {
        return Err(Status::unimplemented("Method Not Allowed"));
    }
    let (parts, body) = request.into_parts();
    let mut head = tonic::Request::new(());
    *head.metadata_mut() = metadata(&parts.headers);
    *head.extensions_mut() = parts.extensions;
    Ok((head, body))
}

/// The token of a client, and headers that are metadata by their names.
fn metadata(headers: &HeaderMap) -> MetadataMap {
    let named = headers.iter().filter_map(|(name, value)| {
        let name = match name.as_str() {
            "authorization" => "authorization",
            other => other.strip_prefix(METADATA_PREFIX)?,
        };
        Some((http::HeaderName::try_from(name).ok()?, value.clone()))
    });
    MetadataMap::from_headers(named.collect())
}

/// JSON values one after the other, as they arrive.
#[derive(Default)]
pub(super) struct Messages {
    unread: Vec<u8>,
}

impl Messages {
    /// More of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// How much is kept that no message was made of yet.
    pub(super) fn unread(&self) -> usize {
        self.unread.len()
    }

    /// The next message, if all of it is there. A part of one is an error when nothing more comes.
    pub(super) fn next<Q: DeserializeOwned>(&mut self, last: bool) -> Result<Option<Q>, Status> {
        let mut values = serde_json::Deserializer::from_slice(&self.unread).into_iter::<Value>();
        let mut value = match values.next() {
            None => return Ok(None),
            Some(Ok(value)) => value,
            Some(Err(error)) if error.is_eof() && !last => return Ok(None),
            Some(Err(error)) => return Err(invalid(&error)),
        };
        let read = values.byte_offset();
        self.unread.drain(..read);
        drop_nulls(&mut value);
        if !value.is_object() {
            return Err(Status::invalid_argument("the request is not a JSON object"));
        }
        serde_json::from_value(value).map(Some).map_err(|error| invalid(&error))
    }
}

/// A field that is null is one that is not given.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A good answer with this body.
pub(super) fn answered(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert("grpc-metadata-content-type", grpc);
    response
}

/// A refusal. `error` says the same as `message` for clients that learned the API before 3.5.
pub(in crate::rpc) fn refused(status: &Status) -> Response<Body> {
    let (text, code) = (status.message(), status.code() as i32);
    failed(status, &json!({ "error": text, "code": code, "message": text }))
}

/// A refusal of a stream before its first message.
pub(super) fn stream_refused(status: &Status) -> Response<Body> {
    failed(status, &stream_error(status))
}

/// What a stream ends with when it fails, in the words of the gateway before and after 3.5.
pub(super) fn stream_error(status: &Status) -> Value {
    let http = http_status(status.code());
    let code = status.code() as i32;
    json!({ "error": {
        "grpc_code": code,
        "http_code": http.as_u16(),
        "message": status.message(),
        "http_status": http.canonical_reason().unwrap_or_default(),
        "code": code,
    } })
}

fn failed(status: &Status, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::new(body.to_string()));
    *response.status_mut() = http_status(status.code());
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The status of HTTP for a code of gRPC (grpc-gateway `runtime/errors.go`).
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::super::pb;
    use super::*;

    fn range(text: &str) -> Result<pb::RangeRequest, Status> {
        let mut messages = Messages::default();
        messages.push(text.as_bytes());
        messages.next(true).map(Option::unwrap_or_default)
    }

    #[test]
    fn requests_may_be_written_in_all_ways_that_etcd_takes() {
        let wanted = pb::RangeRequest {
            key: Bytes::from_static(b"a"),
            limit: 7,
            sort_order: pb::range_request::SortOrder::Descend.into(),
            keys_only: true,
            ..Default::default()
        };
        for text in [
            r#"{"key":"YQ==","limit":"7","sort_order":"DESCEND","keys_only":true}"#,
            r#"{"key":"YQ","limit":7,"sortOrder":2,"keysOnly":true,"revision":null,"what":[1]}"#,
        ] {
            assert_eq!(range(text).unwrap(), wanted, "{text}");
        }
        assert_eq!(range("").unwrap(), pb::RangeRequest::default());
        assert_eq!(range("{}").unwrap(), pb::RangeRequest::default());
        assert_eq!(range(r#"{"sort_order":"WRONG"} {"#).unwrap(), pb::RangeRequest::default());
        for bad in ["{", "[]", "null", "1", r#"{"key":"!!"}"#, r#"{"limit":"x"}"#, r#"{"key":1}"#] {
            assert_eq!(range(bad).unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn messages_are_taken_as_they_arrive() {
        let mut messages = Messages::default();
        let mut next = |bytes: &[u8], last| {
            messages.push(bytes);
            messages.next::<pb::LeaseKeepAliveRequest>(last).map(|message| message.map(|m| m.id))
        };
        assert_eq!(next(b"{\"ID\":\"1", false).unwrap(), None);
        assert_eq!(next(b"2\"}{\"ID\":3}  {", false).unwrap(), Some(12));
        assert_eq!(next(b"", false).unwrap(), Some(3));
        assert_eq!(next(b"", false).unwrap(), None);
        assert_eq!(next(b"", true).unwrap_err().code(), Code::InvalidArgument);
    }
}
