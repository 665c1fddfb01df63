//! Follows the market over NATS and prints every trade between accounts once, whatever is lost or killed meanwhile.
//!
//! ```sh
//! cargo run --example feed                                  # beside `cargo run -- dev`: finds it by data/dev.json
//! NATS_URL=nats://… NATS_USER=feed NATS_PASSWORD=… TRADENET_URL=http://127.0.0.1:8080 cargo run --example feed
//! ```
//!
//! The leader publishes public events on `PREFIX.feed.events.all` (schemas/messages/Events.json), at most once, each with a
//! number. So there is one thing to do: when the next message does not begin behind the last number, ask any frontend for
//! what is missing, `GET /events` with that number. That covers a message that was lost, a connection that broke, this
//! process asleep, and a leader that died: the next one goes on with the same numbers on the same subject.

use std::error::Error;
use std::time::Duration;

use async_nats::ConnectOptions;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tradenet_schemas::feed::Fact;
use tradenet_schemas::ids::ClusterId;
use tradenet_schemas::message::{Envelope, Message};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How long a frontend may take to answer, and between two of its lines.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two attempts to fill a gap.
const AGAIN: Duration = Duration::from_millis(200);

struct Settings {
    nats_url: String,
    prefix: String,
    /// Any frontend, `HOST:PORT`.
    frontends: Vec<String>,
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Settings {
    /// From the environment, and what is not there from the file that `tradenet dev` writes.
    fn find() -> Outcome<Self> {
        let dev = std::fs::read("data/dev.json").ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let dev = dev.unwrap_or_default();
        let listed = dev["frontends"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
        let urls = setting("TRADENET_URL")
            .map_or_else(|| listed.collect::<Vec<_>>(), |urls| urls.split(',').map(str::to_owned).collect());
        let nats_url = setting("NATS_URL").or_else(|| dev["nats_url"].as_str().map(str::to_owned));
        Ok(Self {
            nats_url: nats_url.ok_or("set NATS_URL and TRADENET_URL, or run this beside `tradenet dev`")?,
            prefix: setting("TRADENET_PREFIX").unwrap_or_else(|| "tradenet".to_owned()),
            frontends: urls
                .iter()
                .map(|url| url.trim_start_matches("http://").trim_end_matches('/').to_owned())
                .collect(),
        })
    }

    async fn connect(&self) -> Outcome<async_nats::Client> {
        let mut options = ConnectOptions::new().name("feed example").retry_on_initial_connect();
        if let (Some(user), Some(password)) = (setting("NATS_USER"), setting("NATS_PASSWORD")) {
            options = options.user_and_password(user, password);
        }
        if let Some(file) = setting("NATS_CA") {
            options = options.add_root_certificates(file.into()).require_tls(true);
        }
        Ok(options.connect(&self.nats_url).await?)
    }
}

/// What has been seen of which exchange.
#[derive(Default)]
struct Reader {
    cluster: Option<ClusterId>,
    /// The number of the last event.
    last: Option<u64>,
    leader: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let settings = Settings::find()?;
    let client = settings.connect().await?;
    let subject = format!("{}.feed.events.all", settings.prefix);
    let mut messages = client.subscribe(subject.clone()).await?;
    println!("listening on {subject}");
    let mut reader = Reader::default();
    while let Some(message) = messages.next().await {
        // Fields that are not known are left out; a message that is not understood is not for this version.
        match serde_json::from_slice::<Envelope>(&message.payload) {
            Ok(envelope) => reader.take(&settings, envelope).await,
            Err(error) => eprintln!("not understood, and left out: {error}"),
        }
    }
    Err("the connection is closed".into())
}

impl Reader {
    async fn take(&mut self, settings: &Settings, envelope: Envelope) {
        let Message::Events { after, events } = envelope.body else { return };
        if envelope.cluster != self.cluster {
            println!("exchange {}: from event {after} on", envelope.cluster.unwrap_or_default());
            (self.cluster, self.last) = (envelope.cluster, None);
        }
        let from = format!("{:?}", envelope.from);
        if self.leader.as_ref() != Some(&from) {
            println!("told by {from}");
            self.leader = Some(from);
        }
        let last = *self.last.get_or_insert(after.0);
        if after.0 > last {
            println!("gap: events {} to {after}", last + 1);
            self.fill(settings, after.0).await;
        }
        for (number, event) in (after.0 + 1..).zip(events) {
            // A leader that is about to be replaced may tell once more what is known already: the same, under the same number.
            if Some(number) <= self.last {
                continue;
            }
            self.last = Some(number);
            if let Fact::Traded(symbol, trade) = event.fact {
                println!("trade {} of {symbol}: {} at {}, event {number}", trade.number, trade.quantity, trade.price);
            }
        }
    }

    /// Asks frontends, one after the other, until everything up to `end` is known, or known to be gone.
    async fn fill(&mut self, settings: &Settings, end: u64) {
        for frontend in settings.frontends.iter().cycle() {
            match self.ask(frontend, end).await {
                Ok(()) => return,
                Err(error) => eprintln!("{frontend} did not tell: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        println!("events up to {end} are lost: no frontend is known (TRADENET_URL)");
        self.last = Some(end);
    }

    /// Reads server-sent events behind the last one, up to `end`.
    async fn ask(&mut self, frontend: &str, end: u64) -> Outcome<()> {
        let last = self.last.unwrap_or(end);
        let mut stream = timeout(ANSWER, TcpStream::connect(frontend)).await??;
        let request = format!("GET /events HTTP/1.0\r\nHost: {frontend}\r\nLast-Event-ID: {last}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut lines = BufReader::new(stream).lines();
        let (mut kind, mut id) = (String::new(), last);
        while self.last < Some(end) {
            let line = timeout(ANSWER, lines.next_line()).await??.ok_or("the stream ended")?;
            if let Some(status) = line.strip_prefix("HTTP/1.")
                && !status.contains(" 200 ")
            {
                return Err(line.into());
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut kind);
            } else if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse()?;
            } else if let Some(text) = line.strip_prefix("data: ") {
                self.filled(&kind, id, &serde_json::from_str(text)?);
            }
        }
        Ok(())
    }

    fn filled(&mut self, kind: &str, id: u64, data: &Value) {
        match kind {
            "trade" if Some(id) > self.last => println!(
                "trade {} of {}: {} at {:.2}, event {id}, filled in",
                data["trade"],
                data["name"].as_str().unwrap_or_default(),
                data["quantity"],
                data["price"].as_f64().unwrap_or_default()
            ),
            "gap" => println!("events {} up to before {} are not remembered any more", data["after"], data["next"]),
            _ => {}
        }
        self.last = self.last.max(Some(id));
    }
}
