//! One client of the exchange: looks stocks up, trades them, reads orders.
//!
//! The rule: a trade is never given up while its outcome is unknown. No answer, a broken connection and every 5xx leave
//! it unknown, so the same request goes again under the same Idempotency-Key, with a bounded and jittered back-off,
//! until an answer decides it or the deadline of the run's options is over.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::connection::{Answer, Broken, Call, Connection};
use crate::endpoints::{Choice, Endpoints};
use crate::recorder::{ErrorKey, Recorder};
use crate::url::path_segment;
use crate::wire::{Data, ErrorBody, Order, Stock, Trade, Traded};

/// The first pause before a repeated attempt.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// The longest pause. A `Retry-After` counts whole seconds, which would be the resolution of every measured outage; so
/// this bound holds instead: at most five attempts a second and client.
const BACKOFF_MOST: Duration = Duration::from_millis(200);
/// Longest message of an error that is kept.
const MAX_MESSAGE: usize = 120;
/// What is said of an answer that lacks it, though the contract wants it there.
pub(crate) const NO_RETRY_AFTER: &str = " (without Retry-After)";

/// What all clients of a run share.
pub(crate) struct Shared {
    pub(crate) endpoints: Endpoints,
    pub(crate) recorder: Recorder,
    pub(crate) request_timeout: Duration,
    pub(crate) deadline: Duration,
    /// Once true, clients of a closed loop end after their iteration.
    pub(crate) stop: AtomicBool,
}

/// How one attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Option<u16>,
    pub(crate) cause: String,
}

impl Failure {
    /// Whether the same request may succeed later. Without a status nothing is known; 408 and 429 ask for it.
    fn passes(&self) -> bool {
        self.status.is_none_or(|status| status >= 500 || status == 408 || status == 429)
    }
}

/// A stock, and whether the frontend had it.
pub(crate) struct Lookup {
    pub(crate) stock: Stock,
    pub(crate) hit: bool,
}

/// What became of a trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It happened, under this number.
    Acknowledged { number: u64 },
    /// It did not happen: no stocks are left.
    NoStocksLeft,
    /// It did not happen, though it should have been possible.
    Rejected(Failure),
    /// Nobody knows at the deadline.
    Unknown(Failure),
}

/// Why a command was not done, as far as anybody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// It was not: the exchange refused it.
    Refused(Failure),
    /// Nobody knows at the deadline.
    Unknown(Failure),
}

/// A client with its own connection.
pub(crate) struct Client {
    shared: Arc<Shared>,
    choice: Choice,
    connection: Connection,
    opened_before: u64,
}

impl Client {
    /// Client `number`, which decides its frontend where clients are spread over several.
    pub(crate) fn new(shared: Arc<Shared>, number: u32) -> Self {
        let choice = shared.endpoints.first(number);
        let connection = Connection::new(shared.endpoints.url(choice));
        Self { shared, choice, connection, opened_before: 0 }
    }

    /// TCP connections that this client opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened_before + self.connection.opened()
    }

    /// All stocks, by name.
    pub(crate) async fn stocks(&mut self) -> Result<Vec<Stock>, Failure> {
        self.read("lookup", &Call::get("/stocks")).await
    }

    /// One attempt to look up `name`.
    pub(crate) async fn lookup(&mut self, name: &str) -> Result<Lookup, Failure> {
        let path = format!("/stocks/{}", path_segment(name));
        let answer = self.attempt("lookup", &Call::get(&path)).await?;
        let stock: Stock = self.parse("lookup", &answer)?;
        if stock.name != name {
            return Err(self.fail("lookup", Some(200), format!("asked for {name}, got {}", stock.name)));
        }
        let hit = answer.headers.get("x-cache").is_some_and(|value| value.as_bytes() == b"hit");
        Ok(Lookup { stock, hit })
    }

    /// Trades, and repeats under `key` until the outcome is known or the deadline is over.
    pub(crate) async fn trade(&mut self, trade: &Trade<'_>, key: &str) -> Outcome {
        let body = match serde_json::to_vec(trade) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                return Outcome::Rejected(Failure { status: None, cause: error.to_string() });
            }
        };
        let call = Call { method: Method::POST, path: "/orders", key: Some(key), token: None, body };
        match self.command::<Traded>("trade", &call).await {
            Ok(traded) => Outcome::Acknowledged { number: traded.transaction_number },
            Err(Undone::Refused(Failure { status: Some(409), cause })) if cause.contains("not enough") => {
                Outcome::NoStocksLeft
            }
            Err(Undone::Refused(failure)) => Outcome::Rejected(failure),
            Err(Undone::Unknown(failure)) => Outcome::Unknown(failure),
        }
    }

    /// Sends a command, and repeats it under its key until its outcome is known or the deadline is over.
    pub(crate) async fn command<T: DeserializeOwned>(
        &mut self,
        request: &'static str,
        call: &Call<'_>,
    ) -> Result<T, Undone> {
        let mut retry = Retry::until(self.shared.deadline);
        loop {
            let failure = match self.command_once(request, call).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            // A success that cannot be read decides nothing either.
            let garbled = failure.status.is_some_and(|status| status < 300);
            if !failure.passes() && !garbled {
                return Err(Undone::Refused(failure));
            }
            if !retry.pause().await {
                return Err(Undone::Unknown(failure));
            }
            self.shared.recorder.count(|counts| counts.retries += 1);
        }
    }

    async fn command_once<T: DeserializeOwned>(
        &mut self,
        request: &'static str,
        call: &Call<'_>,
    ) -> Result<T, Failure> {
        let answer = self.attempt(request, call).await?;
        let done = self.parse(request, &answer)?;
        if answer.headers.get("idempotent-replayed").is_some_and(|value| value.as_bytes() == b"true") {
            self.shared.recorder.count(|counts| counts.replayed += 1);
        }
        Ok(done)
    }

    /// Reads order `number`; none where the exchange says that there is none. Repeated until the deadline.
    pub(crate) async fn order(&mut self, number: u64) -> Result<Option<Order>, Failure> {
        match self.read("read", &Call::get(&format!("/orders/{number}"))).await {
            Ok(order) => Ok(Some(order)),
            Err(Failure { status: Some(404), .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A read, repeated until it is answered or the deadline is over.
    pub(crate) async fn read<T: DeserializeOwned>(
        &mut self,
        request: &'static str,
        call: &Call<'_>,
    ) -> Result<T, Failure> {
        let mut retry = Retry::until(self.shared.deadline);
        loop {
            let failure = match self.attempt(request, call).await {
                Ok(answer) => match self.parse(request, &answer) {
                    Ok(value) => return Ok(value),
                    Err(failure) => return Err(failure),
                },
                Err(failure) => failure,
            };
            if !failure.passes() || !retry.pause().await {
                return Err(failure);
            }
            self.shared.recorder.count(|counts| counts.retries += 1);
        }
    }

    /// One attempt; whatever is not a 2xx answer is counted and returned as a failure.
    async fn attempt(&mut self, request: &'static str, call: &Call<'_>) -> Result<Answer, Failure> {
        self.go_to(self.shared.endpoints.now(self.choice));
        let (status, cause) = match self.connection.call(call, self.shared.request_timeout).await {
            Ok(answer) if answer.status.is_success() => return Ok(answer),
            Ok(answer) => (Some(answer.status), message(&answer)),
            Err(broken) => (None, words(broken).to_owned()),
        };
        let failure = Failure { status: status.map(|status| status.as_u16()), cause };
        // Refusals are answers; an order that is not there is the comparison's to judge, not an error of transport.
        let expected = (status == Some(StatusCode::CONFLICT)
            && (request != "trade" || failure.cause.contains("not enough")))
            || (status == Some(StatusCode::NOT_FOUND) && request == "read");
        if !expected {
            self.count_error(request, &failure);
        }
        if failure.passes() {
            let next = self.shared.endpoints.failed(self.choice).await;
            self.go_to(next);
        }
        Err(failure)
    }

    /// Uses the frontend of `choice` from now on.
    fn go_to(&mut self, choice: Choice) {
        if choice.index != self.choice.index {
            self.opened_before += self.connection.opened();
            self.connection = Connection::new(self.shared.endpoints.url(choice));
        }
        self.choice = choice;
    }

    fn parse<T: DeserializeOwned>(&self, request: &'static str, answer: &Answer) -> Result<T, Failure> {
        serde_json::from_slice::<Data<T>>(&answer.body)
            .map(|body| body.data)
            .map_err(|error| self.fail(request, Some(answer.status.as_u16()), format!("not the contract: {error}")))
    }

    fn fail(&self, request: &'static str, status: Option<u16>, cause: String) -> Failure {
        let failure = Failure { status, cause };
        self.count_error(request, &failure);
        failure
    }

    fn count_error(&self, request: &'static str, failure: &Failure) {
        let cause = failure.cause.clone();
        self.shared.recorder.error(ErrorKey { request, status: failure.status, cause });
    }
}

/// Pauses between attempts, within a deadline.
pub(crate) struct Retry {
    end: Instant,
    next: Duration,
}

impl Retry {
    /// Starts now.
    pub(crate) fn until(deadline: Duration) -> Self {
        Self { end: Instant::now() + deadline, next: BACKOFF_FIRST }
    }

    /// Pauses before the next attempt; false, at once, where the deadline would be over by then.
    pub(crate) async fn pause(&mut self) -> bool {
        // Half fixed, half random: clients that failed together must not come back together. This plays no part in
        // what is asked for, so it needs no seed.
        let pause = self.next.mul_f64(0.5 + 0.5 * rand::random::<f64>());
        if Instant::now() + pause >= self.end {
            return false;
        }
        self.next = (self.next * 2).min(BACKOFF_MOST);
        tokio::time::sleep(pause).await;
        true
    }
}

fn words(broken: Broken) -> &'static str {
    match broken {
        Broken::Refused => "connection refused",
        Broken::Closed => "connection closed before the answer",
        Broken::TimedOut => "no answer in time",
        Broken::TooLarge => "answer too large",
    }
}

/// The message of an error answer, or what its body is like.
fn message(answer: &Answer) -> String {
    let mut text = match serde_json::from_slice::<ErrorBody>(&answer.body) {
        Ok(body) => body.error.message,
        Err(_) => "body is not the contract's error".to_owned(),
    };
    if let Some((end, _)) = text.char_indices().nth(MAX_MESSAGE) {
        text.truncate(end);
    }
    if answer.status == StatusCode::SERVICE_UNAVAILABLE && !answer.headers.contains_key(RETRY_AFTER) {
        text.push_str(NO_RETRY_AFTER);
    }
    text
}
