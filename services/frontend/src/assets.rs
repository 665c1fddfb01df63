//! Files that browsers load from a frontend: pages, their scripts, styles and pictures.
//!
//! They are part of the program, so that a frontend needs no directory and no internet. Rule kept: the browser is told to load
//! nothing from anywhere else, and to run nothing that stands within a page (`Content-Security-Policy`).

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::validators::tagged;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
const NO_SNIFF: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
/// A token in a page must not be told to whoever a link leads to.
const NO_REFERRER: (HeaderName, HeaderValue) = (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));

/// What the files are.
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const CSS: &str = "text/css; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(crate) const SVG: &str = "image/svg+xml";

/// A file as an answer.
pub(crate) fn file(request: &HeaderMap, content_type: &'static str, content: &'static str) -> Response {
    let content = Bytes::from_static(content.as_bytes());
    let mut response = tagged(request, HeaderValue::from_static(content_type), content);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response.headers_mut().extend([NO_SNIFF, NO_REFERRER]);
    response
}
