//! Conditional reads: `ETag`, `If-None-Match`, and 304 for a client that has the answer already (RFC 9110, sections 8.8.3
//! and 13.1.2).
//!
//! Problem: clients poll stocks and books that mostly have not changed, and an answer that is kept for later must never be
//! taken for a new one. Idea: the tag is a digest of the body, so it is the same at every frontend, needs no counter that
//! could start anew with another exchange's data, and changes whenever the stock does. Rule kept: the answer is made first,
//! by the rules that hold for every read, and only then compared; 304 says no more than "the same as you have". Whoever keeps
//! it is told to ask each time (`no-cache`), and what has no tag is not to be kept at all (`no-store`).

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tradenet_schemas::rest::Data;
use xxhash_rust::xxh3::xxh3_128;

use crate::envelope::{Failure, JSON};
use crate::following::hex;

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// A success that may be kept and asked about: 304 if the request says that its client has it.
pub(crate) fn fresh(request: &HeaderMap, data: impl Serialize) -> Response {
    match serde_json::to_vec(&Data { data }) {
        Ok(body) => tagged(request, JSON, body.into()),
        Err(error) => Failure::unwritten(&error).into_response(),
    }
}

/// The same for whatever content.
pub(crate) fn tagged(request: &HeaderMap, content_type: HeaderValue, body: Bytes) -> Response {
    let tag = tag_of(&body);
    let known = names(request, &tag);
    let mut response = Response::new(if known { Body::empty() } else { Body::from(body) });
    let headers = response.headers_mut();
    if !known {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    if let Ok(tag) = HeaderValue::from_bytes(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, NO_CACHE);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response
}

/// A body's tag, quotes included.
fn tag_of(body: &[u8]) -> [u8; 34] {
    let mut tag = [b'"'; 34];
    tag[1..33].copy_from_slice(&hex(xxh3_128(body)));
    tag
}

/// Whether `If-None-Match` names the tag, in one list or several, weakly or not, or says `*`. What can't be read names nothing.
fn names(request: &HeaderMap, tag: &[u8]) -> bool {
    let lists = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    lists.map(str::trim).any(|list| list == "*" || tags(list).any(|known| known.as_bytes() == tag))
}

/// The tags of a list, quotes included, without their `W/`. A comma within quotes parts nothing.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let tag = start.strip_prefix("W/").unwrap_or(start);
        let length = tag.strip_prefix('"')?.find('"')? + 2;
        let (tag, behind) = tag.split_at(length);
        rest = behind;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_every_form_that_the_standard_has() {
        let check = |lists: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(header::IF_NONE_MATCH, HeaderValue::from_str(list).unwrap());
            }
            assert_eq!(names(&headers, b"\"a,b\""), expected, "{lists:?}");
        };
        check(&["\"a,b\""], true);
        check(&["W/\"a,b\""], true);
        check(&[" * "], true);
        check(&["\"x\", W/\"y\" ,\t\"a,b\""], true);
        check(&["\"x\",,,\"a,b\""], true);
        check(&["\"x\"", "\"a,b\""], true);
        check(&[], false);
        check(&["", ",", "W/", "\"", "\"x\""], false);
        check(&["a,b"], false);
        check(&["\"a\", \"b\""], false);
        check(&["w/\"a,b\""], false);
        check(&["\"*\""], false);
        check(&["\"x\" nonsense \"a,b\""], false);
    }
}
