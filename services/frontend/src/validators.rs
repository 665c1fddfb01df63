//! Conditional reads: `ETag`, `If-None-Match`, and 304 for a client that has the answer already (RFC 9110, sections 8.8.3
//! and 13.1.2).
//!
//! Problem: clients poll stocks and books that mostly have not changed, and an answer that is kept for later must never be
//! taken for a new one. Idea: the tag is a digest of the body, so it is the same at every frontend, needs no counter that
//! could start anew with another exchange's data, and changes whenever the stock does. Rule kept: the answer is made first,
//! by the rules that hold for every read, and only then compared; 304 says no more than "the same as you have". Whoever keeps
//! it is told to ask each time (`no-cache`), and what has no tag is not to be kept at all (`no-store`).

use std::sync::{Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use lru::LruCache;
use serde::Serialize;
use tradenet_schemas::rest::{self, Data};
use tradenet_schemas::trade::{Stock, Symbol};
use xxhash_rust::xxh3::xxh3_128;

use crate::envelope::{Failure, JSON};
use crate::following::hex;
use crate::limits::WRITTEN_STOCKS_MAX;

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// A success that may be kept and asked about: 304 if the request says that its client has it.
pub(crate) fn fresh(request: &HeaderMap, data: impl Serialize) -> Response {
    answer(request, Content::json(data))
}

/// The same for whatever content.
pub(crate) fn tagged(request: &HeaderMap, content_type: HeaderValue, body: Bytes) -> Response {
    Content::new(content_type, body).answer(request)
}

fn answer(request: &HeaderMap, content: Result<Content, Failure>) -> Response {
    content.map_or_else(Failure::into_response, |content| content.answer(request))
}

/// What a success may have in it, and its tag.
#[derive(Clone)]
struct Content {
    content_type: HeaderValue,
    body: Bytes,
    /// Quotes included.
    tag: HeaderValue,
}

impl Content {
    fn new(content_type: HeaderValue, body: Bytes) -> Self {
        let mut tag = [b'"'; 34];
        tag[1..33].copy_from_slice(&hex(xxh3_128(&body)));
        let tag = HeaderValue::from_bytes(&tag).expect("quotes and digits may stand in a header");
        Self { content_type, body, tag }
    }

    fn json(data: impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(&Data { data }).map_err(|error| Failure::unwritten(&error))?;
        Ok(Self::new(JSON, body.into()))
    }

    fn answer(self, request: &HeaderMap) -> Response {
        let known = names(request, self.tag.as_bytes());
        let mut response = Response::new(if known { Body::empty() } else { Body::from(self.body) });
        let headers = response.headers_mut();
        if !known {
            headers.insert(header::CONTENT_TYPE, self.content_type);
        }
        headers.insert(header::ETAG, self.tag);
        headers.insert(header::CACHE_CONTROL, NO_CACHE);
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }
}

/// The stocks that were asked for last, as they were written then.
///
/// Problem: most look-ups are of stocks that have not changed since the last, and writing one and taking its digest costs more
/// than all else that is ours in the answer. Idea: what is written depends on the stock alone, so it is kept beside the stock.
/// Rule kept: nothing is answered for being here; whoever asks has got the stock by the rules of reads, and gets what was
/// written of the very same.
pub(crate) struct Written(Mutex<LruCache<Symbol, (Stock, Content)>>);

impl Default for Written {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(WRITTEN_STOCKS_MAX)))
    }
}

impl Written {
    /// As [`fresh`].
    pub(crate) fn fresh(&self, request: &HeaderMap, stock: &Stock) -> Response {
        answer(request, self.content(stock))
    }

    fn content(&self, stock: &Stock) -> Result<Content, Failure> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match written.get(&stock.symbol) {
            Some((same, content)) if same == stock => Ok(content.clone()),
            _ => {
                let content = Content::json(rest::Stock::from(stock))?;
                written.put(stock.symbol.clone(), (stock.clone(), content.clone()));
                Ok(content)
            }
        }
    }
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
    use tradenet_schemas::trade::{Price, Quantity};

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

    #[test]
    fn what_was_written_is_answered_of_the_very_same_stock_alone() {
        let stock = |name: &str, cents, left| Stock {
            symbol: Symbol::new(name).unwrap(),
            price: Price::from_cents(cents).unwrap(),
            quantity: Quantity::new(left).unwrap(),
            volume: Quantity::ZERO,
        };
        let written = Written::default();
        let of = |stock: &Stock| written.content(stock).unwrap();
        for asked in [("A", 100, 1), ("A", 100, 2), ("A", 200, 2), ("B", 200, 2), ("A", 100, 1)] {
            let stock = stock(asked.0, asked.1, asked.2);
            let new = Content::json(rest::Stock::from(&stock)).unwrap();
            assert_eq!((of(&stock).body, of(&stock).tag), (new.body, new.tag), "{asked:?}");
            assert_eq!(of(&stock).body.as_ptr(), of(&stock).body.as_ptr(), "it is written once");
        }
        for left in 1..=2 * WRITTEN_STOCKS_MAX.get() as u64 {
            of(&stock(&left.to_string(), 100, left));
        }
        assert_eq!(written.0.lock().unwrap().len(), WRITTEN_STOCKS_MAX.get());
    }
}
