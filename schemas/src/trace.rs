//! One request under one id, over HTTP and NATS: W3C Trace Context, and the client's own name for its request.
//!
//! A trace is no part of any message: it travels in headers beside them, so that what is decided is the same whether
//! somebody looks on or not. A message may carry several commands of several clients; then each header stands several
//! times, in one order, and [`NUMBER_HEADER`] says which part of the message each of them is about.

use std::fmt;
use std::sync::Arc;

/// W3C Trace Context, <https://www.w3.org/TR/trace-context/>: in HTTP and in NATS.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// The client's name for its request: in HTTP and in NATS.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// In NATS: the request's number in a question or its answer, the entry's sequence number where entries are replicated.
pub const NUMBER_HEADER: &str = "tradenet-trace-of";
/// How many requests of one message are followed; the others are carried out all the same.
pub const TRACES_MAX: usize = 16;
/// The longest name of a request, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Where a request belongs: `00-TRACE_ID-PARENT_ID-FLAGS`, in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// The id of the whole; never 0.
    pub trace_id: u128,
    /// The id of whoever calls, within the whole; never 0.
    pub parent_id: u64,
    /// Whether the caller follows it, and we should.
    pub sampled: bool,
}

impl TraceContext {
    /// What a `traceparent` says; none if it breaks a rule of the format. Of a version after 00 the known part is used, as
    /// the format demands.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hex(version, 2)?;
        if version == 0xff || version == 0 && parts.next().is_some() {
            return None;
        }
        let (trace_id, parent_id) = (hex(trace_id, 32)?, u64::try_from(hex(parent_id, 16)?).ok()?);
        let flags = hex(flags, 2)?;
        (trace_id != 0 && parent_id != 0).then_some(Self { trace_id, parent_id, sampled: flags & 1 == 1 })
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(lower)).then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, parent_id, sampled } = self;
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{:02x}", u8::from(*sampled))
    }
}

/// The client's name for its request: 1 to [`REQUEST_ID_BYTES_MAX`] visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The name, if it keeps the rule.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }
    /// The name of a request that has none: its trace's id.
    pub fn of(context: &TraceContext) -> Self {
        Self(format!("{:032x}", context.trace_id).into())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request that is followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// Where it belongs.
    pub context: TraceContext,
    /// What its client calls it.
    pub request_id: RequestId,
}

/// A part of a message that belongs to a followed request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traced {
    /// Which part: see [`NUMBER_HEADER`].
    pub number: u64,
    /// The request.
    pub trace: Arc<Trace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_format_says_and_nothing_else_is() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(good).unwrap();
        assert_eq!(context.to_string(), good);
        assert!(context.sampled);
        let check =
            |text: &str, sampled| assert_eq!(TraceContext::parse(text).map(|read| read.sampled), sampled, "{text}");
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some(false));
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", Some(true));
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes", Some(true));
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some(true));
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what", None);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-", None);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        check("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", None);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", None);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", None);
        check("00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01", None);
        check("00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        check("", None);
        check("---", None);
    }

    #[test]
    fn a_request_id_is_short_and_visible() {
        let check = |text: &str, fits| assert_eq!(RequestId::parse(text).is_some(), fits, "{text:?}");
        check("7b1f-42", true);
        check(&"x".repeat(REQUEST_ID_BYTES_MAX), true);
        check(&"x".repeat(REQUEST_ID_BYTES_MAX + 1), false);
        check("", false);
        check("a b", false);
        check("a\nb", false);
        check("ä", false);
    }
}
