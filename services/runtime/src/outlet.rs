//! The durable feed: [`tradenet_core::outlet`] with a stream of JetStream, and the journal to read from.
//!
//! The problem: what others read must never hold up trading, whatever becomes of the stream. The idea: a task of its own, on
//! a connection of its own, which hears from the replica's driver only how far the log is released, and reads the journal
//! itself. The rules: every request has a limit; a stream is made with a bound on what it keeps, which its oldest entries
//! make room for; each message carries its entry's number as its id, and the number that must be the stream's last.

mod entries;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tradenet_core::metrics::Readings;
use tradenet_core::outlet::{Counts, Input, Outlet as Decider, Output};
use tradenet_schemas::ids::SeqNum;

use crate::clock::Clock;
use crate::disk::segments::Files;
use crate::metrics;
use crate::nats::{Broker, Failure, request, token};
use crate::register::{Got, is_conflict};
use entries::Entries;

/// How long a request to the stream may take, in milliseconds.
const ANSWER_WAIT_MS: u64 = 2_000;

/// The name of a stream: 1 to 64 letters, digits, `-` and `_`, so that it can stand in a subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamName(String);

impl FromStr for StreamName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        token(text, "a stream's").map(Self)
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stream that is wanted; no text, none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted(pub Option<StreamName>);

impl FromStr for Wanted {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(if text.is_empty() { None } else { Some(text.parse()?) }))
    }
}

/// Which stream, and how much it keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub stream: StreamName,
    /// How many bytes it keeps at most, when it is made here; the oldest entries go.
    pub bytes_max: i64,
    /// The replica's journal.
    pub journal: Files,
}

/// The driver's end of an outlet.
#[derive(Debug)]
pub struct Outlet {
    released: watch::Sender<Option<SeqNum>>,
    counts: watch::Receiver<Counts>,
}

impl Outlet {
    /// Starts one, which ends with what is returned. `broker` is a connection of its own.
    ///
    /// # Errors
    /// The journal can't be opened.
    pub fn start(options: Options, broker: Broker, clock: Clock) -> anyhow::Result<Self> {
        let (released, heard) = watch::channel(None);
        let (told, counts) = watch::channel(Counts::default());
        let stream = Stream::new(options, broker)?;
        tokio::spawn(run(stream, heard, told, clock));
        Ok(Self { released, counts })
    }

    /// Up to which entry the log may be handed out.
    pub(crate) fn released(&self, released: Option<SeqNum>) {
        self.released.send_if_modified(|told| std::mem::replace(told, released) != released);
    }

    pub(crate) fn observe(&self, readings: &mut Readings) {
        let counts = *self.counts.borrow();
        readings.level(&metrics::FED, &[], counts.last.0);
        readings.count(&metrics::FEED_FAILURES, &[], counts.failures);
    }
}

async fn run(
    mut stream: Stream,
    mut released: watch::Receiver<Option<SeqNum>>,
    told: watch::Sender<Counts>,
    clock: Clock,
) {
    let mut decider = Decider::new(stream.options.stream.to_string());
    loop {
        while let Some(output) = decider.poll_output() {
            if let Some(input) = stream.perform(output).await {
                decider.handle(clock.now().mono, input);
            }
        }
        told.send_replace(decider.counts());
        let wait = decider.poll_timeout().map(|at| at.since(clock.now().mono));
        let timer = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            changed = released.changed() => match changed {
                Ok(()) => Input::Released(*released.borrow_and_update()),
                Err(_) => return,
            },
            () = timer => Input::Timer,
        };
        decider.handle(clock.now().mono, input);
    }
}

/// The stream and the journal.
struct Stream {
    options: Options,
    subject: String,
    broker: Broker,
    context: Context,
    /// None while a read is under way that was given up.
    entries: Option<Entries>,
}

impl Stream {
    fn new(options: Options, broker: Broker) -> anyhow::Result<Self> {
        let entries = Some(open(&options.journal)?);
        let context = ContextBuilder::new().timeout(limit()).build(broker.client.clone());
        Ok(Self { subject: broker.prefix.entries(), options, broker, context, entries })
    }

    /// Carries out one output; its answer, if it has one.
    async fn perform(&mut self, output: Output) -> Option<Input> {
        let done = match output {
            Output::Look => timeout(limit(), self.look()).await,
            Output::Make => timeout(limit(), self.make()).await,
            // The local disk, which the replica itself relies on.
            Output::Read { from, until } => Ok(self.read(from, until).await),
            Output::Publish { first, entries } => timeout(limit(), self.publish(first, entries)).await,
            Output::Notice(notice) => {
                crate::driver::tell(&notice);
                return None;
            }
        };
        let done = done.unwrap_or_else(|_| Err(format!("no answer from JetStream within {ANSWER_WAIT_MS} ms")));
        Some(done.unwrap_or_else(Input::Failed))
    }

    async fn look(&self) -> Result<Input, String> {
        let stream = &self.options.stream;
        let info = match self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), String::new()).await? {
            Response::Ok(info) => info,
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => return Ok(Input::NoStream),
            Response::Err { error } => return Err(error.to_string()),
        };
        let Info { config, state, .. } = info;
        if config.subjects != [self.subject.as_str()] {
            let subjects = config.subjects.join(", ");
            return Err(format!("it takes {subjects}, and not {} alone; name another stream", self.subject));
        }
        let last = SeqNum(state.last_sequence);
        if state.messages == 0 {
            return Ok(Input::Holds { last, entry: None });
        }
        let body = format!(r#"{{"seq":{last}}}"#);
        let entry = match self.ask::<Got>(&format!("$JS.API.STREAM.MSG.GET.{stream}"), body).await? {
            Response::Ok(got) => Some(StreamMessage::try_from(got.message).map_err(|error| error.to_string())?.payload),
            // It has gone between the two.
            Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => None,
            Response::Err { error } => return Err(error.to_string()),
        };
        Ok(Input::Holds { last, entry })
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, subject: &str, body: String) -> Result<Response<T>, String> {
        let answer = request(&self.broker.client, subject.to_owned(), None, body.into(), limit()).await;
        let answer = answer.map_err(|failure| match failure {
            Failure::NoAnswer => format!(
                "no answer from JetStream within {ANSWER_WAIT_MS} ms; if it goes on, see whether this user may say {subject} \
                 (nats/README.md)"
            ),
            other => other.of_jetstream(),
        })?;
        serde_json::from_slice(&answer).map_err(|error| format!("JetStream's answer is not understood: {error}"))
    }

    async fn make(&self) -> Result<Input, String> {
        let config = Config {
            name: self.options.stream.to_string(),
            description: Some("Trade-Net's log for others to read: message N is entry N".to_owned()),
            subjects: vec![self.subject.clone()],
            max_bytes: self.options.bytes_max,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            num_replicas: usize::from(self.broker.register_replicas),
            deny_delete: true,
            ..Config::default()
        };
        let made = self.context.create_stream(config).await;
        made.map(|_| Input::Made).map_err(|error| format!("it cannot be made: {error}"))
    }

    async fn read(&mut self, from: SeqNum, until: SeqNum) -> Result<Input, String> {
        let mut entries = match self.entries.take() {
            Some(entries) => entries,
            None => open(&self.options.journal).map_err(|error| format!("{error:#}"))?,
        };
        let read = tokio::task::spawn_blocking(move || {
            let read = entries.read(from, until);
            (entries, read)
        });
        let (entries, read) = read.await.map_err(|error| format!("reading the journal: {error}"))?;
        // Where it could not be read it is opened anew: it may have been replaced.
        self.entries = read.is_ok().then_some(entries);
        read.map(Input::Read).map_err(|error| error.to_string())
    }

    /// All at once: the stream takes them in the order in which they are sent, or none behind one that it does not take.
    async fn publish(&self, first: SeqNum, entries: Vec<Bytes>) -> Result<Input, String> {
        let (client, count) = (&self.broker.client, entries.len());
        // Not the client's own inbox, see `request`.
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
        for (seq, entry) in (first.0..).zip(entries) {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, seq.to_string());
            headers.insert(NATS_EXPECTED_STREAM, self.options.stream.to_string());
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (seq - 1).to_string());
            let sent = client.publish_with_reply_and_headers(self.subject.clone(), inbox.clone(), headers, entry).await;
            sent.map_err(|error| error.to_string())?;
        }
        for _ in 0..count {
            let answer = answers.next().await.ok_or("the broker's client has ended")?;
            if answer.status.is_some() {
                return Err("no stream takes what is published".to_owned());
            }
            match serde_json::from_slice(&answer.payload) {
                Ok(Response::<PublishAck>::Ok(_)) => {}
                Ok(Response::Err { error }) if is_conflict(error.error_code()) => {
                    return Err("another replica has handed out entries meanwhile".to_owned());
                }
                Ok(Response::Err { error }) => return Err(error.to_string()),
                Err(error) => return Err(format!("JetStream's answer is not understood: {error}")),
            }
        }
        Ok(Input::Published)
    }
}

fn open(journal: &Files) -> anyhow::Result<Entries> {
    use anyhow::Context as _;
    Entries::open(journal).with_context(|| journal.dir().display().to_string())
}

const fn limit() -> Duration {
    Duration::from_millis(ANSWER_WAIT_MS)
}
