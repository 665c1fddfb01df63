//! A message as bytes: one JSON object and, behind a line feed, journal lines as they stand in the file.
//!
//! The leader encodes an entry once; what it sends is what every replica appends. JSON never contains a bare line feed, so
//! the first one ends the envelope.

use bytes::Bytes;
use tradenet_schemas::limits::MESSAGE_BYTES_MAX;
use tradenet_schemas::message::{Envelope, Message};

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// Who says what.
    pub envelope: Envelope,
    /// Journal lines, each with its line feed; often none.
    pub lines: Bytes,
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
    /// What it says.
    pub fn body(&self) -> &Message {
        &self.envelope.body
    }

    /// The bytes to send.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(256 + self.lines.len());
        serde_json::to_writer(&mut bytes, &self.envelope).expect("plain data serializes into memory");
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
        let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        let envelope =
            serde_json::from_slice(&bytes[..end]).map_err(|error| BadPacket::Malformed(error.to_string()))?;
        Ok(Self { envelope, lines: bytes.slice((end + 1).min(bytes.len())..) })
    }
}
