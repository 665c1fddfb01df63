//! A message as bytes: one JSON object and, behind a line feed, journal lines as they stand in the file.
//!
//! The leader encodes an entry once; what it sends is what every replica appends. JSON never contains a bare line feed, so
//! the first one ends the envelope.

mod usual;

use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;
use tradenet_schemas::limits::MESSAGE_BYTES_MAX;
use tradenet_schemas::message::{Envelope, Message};
use tradenet_schemas::trace::{TRACES_MAX, Trace, Traced};

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// Who says what.
    pub envelope: Envelope,
    /// Journal lines, each with its line feed; often none.
    pub lines: Bytes,
    /// Followed requests that it is about, at most [`TRACES_MAX`]; mostly none. They travel in headers, and change nothing.
    pub traces: Vec<Traced>,
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadPacket {
    /// More than [`MESSAGE_BYTES_MAX`].
    TooLong(usize),
    /// Not an envelope of this version.
    Malformed(String),
}

impl std::fmt::Display for BadPacket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(bytes) => write!(f, "a message of {bytes} bytes; {MESSAGE_BYTES_MAX} are allowed"),
            Self::Malformed(why) => write!(f, "not a message of this version: {why}"),
        }
    }
}

impl std::error::Error for BadPacket {}

impl Packet {
    /// A message that belongs to no followed request.
    pub fn new(envelope: Envelope, lines: Bytes) -> Self {
        Self { envelope, lines, traces: Vec::new() }
    }

    /// What it says.
    pub fn body(&self) -> &Message {
        &self.envelope.body
    }

    /// The bytes to send.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(256 + self.lines.len());
        if !usual::write(&self.envelope, &mut bytes) {
            serde_json::to_writer(&mut bytes, &self.envelope).expect("plain data serializes into memory");
        }
        if !self.lines.is_empty() {
            bytes.push(b'\n');
            bytes.extend_from_slice(&self.lines);
        }
        bytes.into()
    }

    /// The message in `bytes`.
    ///
    /// # Errors
    /// The bytes are too many or not a message; nothing of them is used.
    pub fn decode(bytes: &Bytes) -> Result<Self, BadPacket> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(BadPacket::TooLong(bytes.len()));
        }
        let end = memchr(b'\n', bytes).unwrap_or(bytes.len());
        // Once for all: read as bytes, each string in it is checked by itself, which takes several times as long.
        let text = std::str::from_utf8(&bytes[..end]).map_err(|error| BadPacket::Malformed(error.to_string()))?;
        let read = usual::read(text).map_or_else(|| serde_json::from_str(text), Ok);
        let envelope = read.map_err(|error| BadPacket::Malformed(error.to_string()))?;
        Ok(Self::new(envelope, bytes.slice((end + 1).min(bytes.len())..)))
    }
}

/// The followed request that a part of a message belongs to.
pub(crate) fn trace_of(traces: &[Traced], number: u64) -> Option<Arc<Trace>> {
    traces.iter().find(|traced| traced.number == number).map(|traced| Arc::clone(&traced.trace))
}

/// Of all these parts of a message those that are followed, as many as it may name.
pub(crate) fn traced(parts: impl IntoIterator<Item = (u64, Option<Arc<Trace>>)>) -> Vec<Traced> {
    let followed = parts.into_iter().filter_map(|(number, trace)| trace.map(|trace| Traced { number, trace }));
    followed.take(TRACES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradenet_schemas::ids::{Boot, Epoch, Node};
    use tradenet_schemas::trace::{RequestId, TraceContext};

    #[test]
    fn a_message_is_the_same_bytes_whether_it_is_followed_or_not() {
        let from = Node::Frontend(Boot(1));
        let envelope = Envelope { cluster: None, epoch: Epoch(0), from, body: Message::Heartbeat { question: None } };
        let plain = Packet::new(envelope, Bytes::from_static(b"{}\n"));
        let context = TraceContext { trace_id: 1, parent_id: 2, sampled: true };
        let trace = Arc::new(Trace { context, request_id: RequestId::of(&context) });
        let traces = traced((1..100).map(|number| (number, Some(Arc::clone(&trace)))));
        assert_eq!(traces.len(), TRACES_MAX);
        assert_eq!(trace_of(&traces, 2), Some(trace));
        assert_eq!(trace_of(&traces, 99), None);
        let followed = Packet { traces, ..plain.clone() };
        assert_eq!(followed.encode(), plain.encode());
        assert_eq!(Packet::decode(&followed.encode()), Ok(plain));
    }
}
