//! Followed requests: in the headers of messages, and in the log.
//!
//! The problem: one request passes through five processes, in messages that carry many. The idea: whoever starts a trace puts
//! it beside the request, core passes it on beside the messages that come of it, and here it becomes headers and lines. The
//! rules: a request that nobody follows costs a look at whether there is anything to do; what arrives is bounded, and what
//! is malformed is left out without harm to its message; lines are at `debug`, one for each message and request.

use std::sync::Arc;

use async_nats::HeaderMap;
use tracing::{Level, debug, enabled};
use tradenet_schemas::trace::{
    NUMBER_HEADER, REQUEST_ID_HEADER, RequestId, TRACEPARENT_HEADER, TRACES_MAX, Trace, TraceContext, Traced,
};

/// Whether every request is followed, whatever its client says: where this process logs at `debug`.
#[must_use]
pub fn follows_all() -> bool {
    enabled!(Level::DEBUG)
}

/// The headers of a message; none if it belongs to no followed request.
pub(crate) fn headers(traces: &[Traced]) -> Option<HeaderMap> {
    if traces.is_empty() {
        return None;
    }
    let mut headers = HeaderMap::new();
    for Traced { number, trace } in traces {
        headers.append(TRACEPARENT_HEADER, trace.context.to_string());
        headers.append(REQUEST_ID_HEADER, trace.request_id.as_str());
        headers.append(NUMBER_HEADER, number.to_string());
    }
    Some(headers)
}

/// The followed requests in a message's headers.
pub(crate) fn traces(headers: &HeaderMap) -> Vec<Traced> {
    let all = |name: &str| headers.get_all(name).map(|value| value.as_str().to_owned()).take(TRACES_MAX);
    let (contexts, ids, numbers) = (all(TRACEPARENT_HEADER), all(REQUEST_ID_HEADER), all(NUMBER_HEADER));
    let read = |((context, id), number): ((String, String), String)| {
        let (context, request_id) = (TraceContext::parse(&context)?, RequestId::parse(&id)?);
        Some(Traced { number: number.parse().ok()?, trace: Arc::new(Trace { context, request_id }) })
    };
    contexts.zip(ids).zip(numbers).filter_map(read).collect()
}

/// A line for each followed request of a message; `what` was done with it, such as `received order.submit`.
pub(crate) fn tell(what: &str, subject: &str, traces: &[Traced]) {
    for Traced { number, trace } in traces {
        let trace_id = format_args!("{:032x}", trace.context.trace_id);
        debug!(%trace_id, request_id = trace.request_id.as_str(), number, "{what} {subject}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(number: u64) -> Traced {
        let context = TraceContext { trace_id: u128::from(number) << 64, parent_id: number, sampled: true };
        Traced { number, trace: Arc::new(Trace { context, request_id: RequestId::of(&context) }) }
    }

    #[test]
    fn what_is_followed_arrives_and_no_more_than_may() {
        let sent: Vec<_> = (1..=3).map(followed).collect();
        assert_eq!(traces(&headers(&sent).unwrap()), sent);
        let many: Vec<_> = (1..=100).map(followed).collect();
        assert_eq!(traces(&headers(&many).unwrap()), many[..TRACES_MAX]);
        assert!(headers(&[]).is_none());
    }

    #[test]
    fn headers_that_are_none_of_ours_are_left_out() {
        let check = |context: &str, id: &str, number: &str| {
            let mut headers = HeaderMap::new();
            headers.append(TRACEPARENT_HEADER, context);
            headers.append(REQUEST_ID_HEADER, id);
            headers.append(NUMBER_HEADER, number);
            assert_eq!(traces(&headers), [], "{context} {id} {number}");
        };
        let good = followed(7).trace.context.to_string();
        check("00-1-2-3", "id", "1");
        check(&good, "two words", "1");
        check(&good, "id", "-1");
        let mut lonely = HeaderMap::new();
        lonely.append(TRACEPARENT_HEADER, good);
        assert_eq!(traces(&lonely), []);
    }
}
