//! Requests under one id: what comes in with them, and goes out with their answers.
//!
//! The problem: a request is known to its client by one name, to a tracer by another, and to the services by numbers. The
//! idea: every request has a trace's id, the client's (`traceparent`, W3C Trace Context) or a new one, and a name
//! (`x-request-id`), which is that id where the client gives none. Both go beside the request to whoever works on it, if
//! it is followed: its client asks for that with the `sampled` flag, or this process logs at `debug`. The rules: what the
//! client sends is parsed strictly and bounded, and replaced where it is malformed, never refused; a request that is not
//! followed costs one random number.

use std::future::Future;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use tokio::task_local;
use tradenet_runtime::trace::follows_all;
use tradenet_schemas::trace::{REQUEST_ID_HEADER, RequestId, TRACEPARENT_HEADER, Trace, TraceContext};

const TRACEPARENT: HeaderName = HeaderName::from_static(TRACEPARENT_HEADER);
const REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

task_local! {
    /// The followed request that this task works on.
    static CURRENT: Arc<Trace>;
}

/// The followed request that this task works on.
pub(crate) fn current() -> Option<Arc<Trace>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Never 0, which would be no id at all.
fn new_trace_id() -> u128 {
    rand::random::<u128>() | 1
}

/// The name of a request whose own one could not be read.
pub(crate) fn name() -> String {
    format!("{:032x}", new_trace_id())
}

/// A request's ids.
pub(crate) struct Ids {
    context: TraceContext,
    /// The client's own name for it.
    request_id: Option<RequestId>,
    /// Its client speaks W3C Trace Context, well or badly.
    told: bool,
    /// If it is followed.
    pub(crate) trace: Option<Arc<Trace>>,
}

impl Ids {
    /// Those that came, and new ones for what did not or was malformed.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(&TRACEPARENT).iter();
        let (first, more) = (given.next(), given.next().is_some());
        let caller = first.filter(|_| !more).and_then(|text| TraceContext::parse(text.to_str().ok()?));
        let request_id = headers.get(&REQUEST_ID).and_then(|text| RequestId::parse(text.to_str().ok()?));
        let told = first.is_some();
        let followed = caller.is_some_and(|caller| caller.sampled) || follows_all();
        let trace_id = caller.map_or_else(new_trace_id, |caller| caller.trace_id);
        let parent_id = if told || followed { rand::random::<u64>() | 1 } else { 1 };
        let context = TraceContext { trace_id, parent_id, sampled: caller.is_some_and(|caller| caller.sampled) };
        let name = || request_id.clone().unwrap_or_else(|| RequestId::of(&context));
        let trace = followed.then(|| Arc::new(Trace { context, request_id: name() }));
        Self { context, request_id, told, trace }
    }

    /// Works on the request under its ids.
    pub(crate) async fn scope<F: Future>(&self, work: F) -> F::Output {
        match &self.trace {
            Some(trace) => CURRENT.scope(Arc::clone(trace), work).await,
            None => work.await,
        }
    }

    /// Puts them into the answer.
    pub(crate) fn put_into(&self, response: &mut Response) {
        let headers = response.headers_mut();
        let id = match &self.request_id {
            Some(id) => HeaderValue::from_str(id.as_str()),
            None => HeaderValue::from_bytes(&hex(self.context.trace_id)),
        };
        // Both are visible ASCII.
        if let Ok(id) = id {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(Ok(context)) = self.told.then(|| HeaderValue::from_str(&self.context.to_string())) {
            headers.insert(TRACEPARENT, context);
        }
    }
}

/// As `{:032x}`, for every answer: several times as fast.
pub(crate) fn hex(id: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn answer(pairs: &[(HeaderName, &str)]) -> (Ids, Option<String>, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let ids = Ids::of(&headers);
        let mut response = Response::default();
        ids.put_into(&mut response);
        let text = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (context, id) = (text(TRACEPARENT), text(REQUEST_ID).unwrap());
        (ids, context, id)
    }

    #[test]
    fn ids_come_back_and_what_is_malformed_is_replaced() {
        let (ids, context, id) = answer(&[(TRACEPARENT, GOOD), (REQUEST_ID, "mine")]);
        assert!(ids.trace.is_some_and(|trace| trace.context.sampled));
        assert_eq!(id, "mine");
        let context = TraceContext::parse(&context.unwrap()).unwrap();
        assert_eq!(context.trace_id, TraceContext::parse(GOOD).unwrap().trace_id);
        assert_ne!(context.parent_id, TraceContext::parse(GOOD).unwrap().parent_id);

        for bad in ["00-1-2-3", &GOOD.to_uppercase(), ""] {
            let (ids, context, id) = answer(&[(TRACEPARENT, bad), (REQUEST_ID, "two words")]);
            let context = TraceContext::parse(&context.unwrap()).unwrap();
            assert!(!ids.context.sampled);
            assert_eq!(id, format!("{:032x}", context.trace_id));
        }
        // Two of them say nothing.
        let (ids, _, _) = answer(&[(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)]);
        assert_ne!(ids.context.trace_id, TraceContext::parse(GOOD).unwrap().trace_id);
    }

    #[test]
    fn who_says_nothing_gets_a_name_of_its_own_each_time() {
        let ((_, none, first), (_, _, second)) = (answer(&[]), answer(&[]));
        assert_eq!((none, first.len()), (None, 32));
        assert!(u128::from_str_radix(&first, 16).is_ok_and(|id| format!("{id:032x}") == first), "{first}");
        assert_ne!(first, second);
    }
}
