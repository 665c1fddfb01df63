//! The two shapes of every answer: `{"data": …}` and `{"error": {"code", "message"}}`.
//!
//! Scripts read the body before they read the status, so no answer may have another shape: not the 404 of an unknown URL,
//! not the 400 of a head that never became a request. The rule: bodies are made here and nowhere else, whether axum sends
//! them ([`Failure::into_response`]) or the connection's own code does ([`Failure::last_words`]); nothing made here may be kept
//! and shown again, since the next answer may be another one ([`crate::validators`] has those that may).

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tradenet_schemas::rest::{Data, FailureBody};
use tradenet_schemas::trace::REQUEST_ID_HEADER;

use crate::following;
use crate::limits::RETRY_AFTER_S;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why a request failed, as its client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    message: Cow<'static, str>,
    /// When to come back, in seconds.
    retry_after_s: Option<u64>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        let retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_S);
        Self { status, message: message.into(), retry_after_s }
    }

    /// No type of ours refuses to be written; if one ever does, this is still an answer.
    pub(crate) fn unwritten(error: &serde_json::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be written: {error}"))
    }

    /// Nothing was done, since this client asks for more than its share.
    pub(crate) fn too_fast(rate: NonZeroU32, wait: Duration) -> Self {
        let message = format!("this client sends more than {rate} requests a second; send fewer");
        let retry_after_s = Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        Self { retry_after_s, ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// Nothing was done; trying again later is safe.
    pub(crate) fn unavailable(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    fn body(&self) -> Vec<u8> {
        let error = FailureBody { code: self.status.as_u16(), message: self.message.clone().into_owned() };
        serde_json::to_vec(&tradenet_schemas::rest::Failure { error }).unwrap_or_default()
    }

    /// The whole answer as bytes, for a connection that closes after it and where there is no request to answer.
    pub(crate) fn last_words(&self) -> Vec<u8> {
        let body = self.body();
        let reason = self.status.canonical_reason().unwrap_or_default();
        let retry = self.retry_after_s.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
        let mut answer = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\n{retry}{REQUEST_ID_HEADER}: {}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            self.status.as_u16(),
            following::name(),
            body.len(),
        )
        .into_bytes();
        answer.extend_from_slice(&body);
        answer
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = json(self.status, self.body());
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A success.
pub(crate) fn data(data: impl Serialize) -> Response {
    success(StatusCode::OK, data)
}

/// A success that made something.
pub(crate) fn created(data: impl Serialize) -> Response {
    success(StatusCode::CREATED, data)
}

fn success(status: StatusCode, data: impl Serialize) -> Response {
    match serde_json::to_vec(&Data { data }) {
        Ok(body) => json(status, body),
        Err(error) => Failure::unwritten(&error).into_response(),
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}
