//! The register: two records in JetStream that are written by compare-and-set.
//!
//! The problem: a change of leadership must be decided in one place, by one write that either happened or did not. The
//! idea: each record is the key `current` of a key-value bucket of its own, and its revision is the message's sequence
//! number. The rules: reads go through the stream's leader, never through a direct get, which may be old; a write names
//! the revision it replaces; an outcome that is not known is reported as such and never guessed; a bucket is made only for
//! the first record of all.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, ContextBuilder, CreateStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, RawMessage, StorageType};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tradenet_core::{RegisterAnswer, RegisterRequest, Revision, Slot};
use tradenet_schemas::message::{Configuration, Floor};
use tradenet_schemas::subjects::Prefix;

use crate::nats::{Broker, Failure, request};

/// How many records a bucket keeps for people to look back at: `nats kv history tradenet-configuration current`.
const HISTORY: i64 = 16;
/// How often the two records are read to find them as they were at one time.
const READS_MAX: usize = 4;
/// How long to wait for a new bucket to take writes before trying again, in milliseconds.
const NEW_BUCKET_WAIT_MS: u64 = 20;
/// What the header `KV-Operation` says where an operator has deleted the record.
const DELETIONS: [&str; 2] = ["DEL", "PURGE"];

/// Asks JetStream. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Register {
    client: Client,
    context: Context,
    configuration: String,
    floor: String,
    replicas: usize,
    limit: Duration,
}

/// Why a request was not carried out.
enum Refused {
    /// The record has another revision.
    Conflict,
    /// There is no such bucket, or nobody who would take the write.
    NoBucket,
    /// Nobody knows.
    Unknown(String),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Unknown(failure.of_jetstream())
    }
}

/// JetStream's answer to `STREAM.MSG.GET`.
#[derive(Deserialize)]
pub(crate) struct Got {
    pub(crate) message: RawMessage,
}

/// A record as it lies in its bucket.
enum Raw {
    BucketMissing,
    KeyMissing,
    /// An operator deleted it; the marker has this revision.
    Deleted(Revision),
    Present(Revision, Bytes),
    Unreadable(Revision, String),
}

impl Register {
    /// The register of the broker's exchange, where every request has `limit`.
    #[must_use]
    pub fn new(broker: &Broker, limit: Duration) -> Self {
        let prefix: &Prefix = &broker.prefix;
        Self {
            client: broker.client.clone(),
            context: ContextBuilder::new().timeout(limit).build(broker.client.clone()),
            configuration: prefix.configuration_bucket(),
            floor: prefix.floor_bucket(),
            replicas: usize::from(broker.register_replicas),
            limit,
        }
    }

    /// Carries out one request. Always answers, at the latest when the limit has passed.
    pub async fn perform(&self, request: RegisterRequest) -> RegisterAnswer {
        let ticket = match &request {
            RegisterRequest::Read { ticket }
            | RegisterRequest::Write { ticket, .. }
            | RegisterRequest::Floor { ticket, .. } => *ticket,
        };
        let performed = timeout(self.limit, self.ask(request)).await;
        let refused = match performed {
            Ok(Ok(answer)) => return answer,
            Ok(Err(refused)) => refused,
            Err(_) => Refused::Unknown(format!("no answer from JetStream within {} ms", self.limit.as_millis())),
        };
        match refused {
            Refused::Conflict => RegisterAnswer::Conflict { ticket },
            Refused::NoBucket => RegisterAnswer::Unknown { ticket, why: "no bucket takes the write".to_owned() },
            Refused::Unknown(why) => RegisterAnswer::Unknown { ticket, why },
        }
    }

    async fn ask(&self, request: RegisterRequest) -> Result<RegisterAnswer, Refused> {
        let ticket = match request {
            RegisterRequest::Read { ticket } => {
                return self.read_both(ticket).await;
            }
            RegisterRequest::Write { ticket, configuration, expected } => {
                self.write(&self.configuration, &configuration, expected).await?;
                ticket
            }
            RegisterRequest::Floor { ticket, floor, expected } => {
                self.write(&self.floor, &floor, expected).await?;
                ticket
            }
        };
        Ok(RegisterAnswer::Written { ticket })
    }

    /// Both records as they were at one time. The floor first: it is taken after the configuration is written, so read in this
    /// order it is never ahead of it. It may be behind where both were written in between, and then is read again.
    async fn read_both(&self, ticket: u64) -> Result<RegisterAnswer, Refused> {
        let mut floor: Slot<Floor> = slot(self.read(&self.floor).await?);
        for _ in 1..READS_MAX {
            let configuration: Slot<Configuration> = slot(self.read(&self.configuration).await?);
            let fits =
                |record: &Configuration| floor.value().is_some_and(|floor| floor.is(record) || record.may_take(floor));
            if configuration.value().is_some_and(fits) {
                return Ok(RegisterAnswer::Read { ticket, configuration, floor });
            }
            let again: Slot<Floor> = slot(self.read(&self.floor).await?);
            if again.revision() == floor.revision() {
                return Ok(RegisterAnswer::Read { ticket, configuration, floor });
            }
            floor = again;
        }
        Err(Refused::Unknown("the register is written faster than it can be read".to_owned()))
    }

    /// The last message of the key, from the stream's leader.
    async fn read(&self, bucket: &str) -> Result<Raw, Refused> {
        let subject = Prefix::register_read(bucket);
        let body = format!(r#"{{"last_by_subj":"{}"}}"#, Prefix::register_written(bucket));
        let answer = request(&self.client, subject, None, body.into(), self.limit).await?;
        match serde_json::from_slice(&answer) {
            Ok(Response::Ok(Got { message })) => Ok(raw(message)),
            Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(Raw::BucketMissing),
            Ok(Response::Err { error }) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(Raw::KeyMissing),
            Ok(Response::Err { error }) => Err(Refused::Unknown(error.to_string())),
            Err(error) => Err(Refused::Unknown(format!("JetStream's answer is not understood: {error}"))),
        }
    }

    async fn write<T: Serialize>(&self, bucket: &str, value: &T, expected: Option<Revision>) -> Result<(), Refused> {
        let value: Bytes = serde_json::to_vec(value).map_err(|error| Refused::Unknown(error.to_string()))?.into();
        match (self.put(bucket, value.clone(), expected.unwrap_or(0)).await, expected) {
            (Err(Refused::NoBucket), None) => self.write_first(bucket, value).await,
            (Err(Refused::Conflict), None) => self.write_over_deletion(bucket, value).await,
            (done, _) => done,
        }
    }

    /// Makes the bucket and writes its first record. A new bucket of a cluster takes a moment until writes find it.
    async fn write_first(&self, bucket: &str, value: Bytes) -> Result<(), Refused> {
        self.create(bucket).await?;
        loop {
            match self.put(bucket, value.clone(), 0).await {
                Err(Refused::NoBucket) => sleep(Duration::from_millis(NEW_BUCKET_WAIT_MS)).await,
                done => return done,
            }
        }
    }

    /// A record that an operator deleted counts as absent, but its marker has a revision, which must still be the last.
    async fn write_over_deletion(&self, bucket: &str, value: Bytes) -> Result<(), Refused> {
        match self.read(bucket).await? {
            Raw::Deleted(marker) => self.put(bucket, value, marker).await,
            _ => Err(Refused::Conflict),
        }
    }

    async fn put(&self, bucket: &str, value: Bytes, expected: Revision) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        let answer =
            match request(&self.client, Prefix::register_written(bucket), Some(headers), value, self.limit).await {
                Err(Failure::NobodyThere) => return Err(Refused::NoBucket),
                answer => answer?,
            };
        match serde_json::from_slice::<Response<PublishAck>>(&answer) {
            Ok(Response::Ok(_)) => Ok(()),
            Ok(Response::Err { error }) if is_conflict(error.error_code()) => Err(Refused::Conflict),
            Ok(Response::Err { error }) => Err(Refused::Unknown(error.to_string())),
            Err(error) => Err(Refused::Unknown(format!("JetStream's answer is not understood: {error}"))),
        }
    }

    /// Makes a bucket that `nats kv` understands. Direct gets are off, so that nobody else reads old records either.
    async fn create(&self, bucket: &str) -> Result<(), Refused> {
        let config = Config {
            name: format!("KV_{bucket}"),
            description: Some("Trade-Net's register; written by compare-and-set only".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: HISTORY,
            max_bytes: -1,
            max_messages: -1,
            storage: StorageType::File,
            num_replicas: self.replicas,
            discard: async_nats::jetstream::stream::DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: false,
            ..Config::default()
        };
        match self.context.create_stream(config).await {
            Ok(_) => Ok(()),
            // Somebody else has just made it, with another number of replicas.
            Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(ref error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST) => {
                Ok(())
            }
            Err(error) => Err(Refused::Unknown(format!("the bucket {bucket} cannot be made: {error}"))),
        }
    }
}

/// A new stream leader may refuse with the second code what the old one had under way. Nothing was written in either case.
pub(crate) fn is_conflict(code: ErrorCode) -> bool {
    code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE || code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
}

fn raw(message: RawMessage) -> Raw {
    let revision = message.sequence;
    let message = match StreamMessage::try_from(message) {
        Ok(message) => message,
        Err(error) => return Raw::Unreadable(revision, error.to_string()),
    };
    let operation = message.headers.get("KV-Operation").map(|value| value.as_str());
    if operation.is_some_and(|operation| DELETIONS.contains(&operation)) {
        return Raw::Deleted(message.sequence);
    }
    Raw::Present(message.sequence, message.payload)
}

fn slot<T: DeserializeOwned>(raw: Raw) -> Slot<T> {
    match raw {
        Raw::BucketMissing => Slot::BucketMissing,
        Raw::KeyMissing | Raw::Deleted(_) => Slot::KeyMissing,
        Raw::Unreadable(revision, why) => Slot::Unreadable { why, revision },
        Raw::Present(revision, value) => match serde_json::from_slice(&value) {
            Ok(value) => Slot::Present { value, revision },
            Err(error) => Slot::Unreadable { why: format!("revision {revision}: {error}"), revision },
        },
    }
}
