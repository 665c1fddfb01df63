//! A table of what was traded in each minute, from the durable feed: the log as JetStream keeps it for others.
//!
//! ```sh
//! TRADENET_FEED_STREAM=tradenet-entries cargo run -- dev        # an exchange that hands out its log
//! cargo run --example volume                                    # finds it by data/dev.json, and goes on until Ctrl-C
//! cargo run --example volume -- --once                          # up to what is there now
//! NATS_URL=nats://… NATS_USER=ledger NATS_PASSWORD=… cargo run --example volume
//! ```
//!
//! Message N of the stream is entry N of the log (schemas/journal/Entry.json), whoever led when it was written: so whoever
//! keeps its table together with the number of the last entry in it can go on behind that number after anything, and counts
//! nothing twice. Here both are in memory, and a run begins with the oldest entry that the stream still has.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures::StreamExt as _;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::timeout;
use tradenet_schemas::journal::{Entry, Event};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// With no news for so long, the minute that is not over is shown as it stands.
const QUIET: Duration = Duration::from_secs(1);
const MINUTE_MS: u64 = 60_000;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The broker's address, from the environment or from the file that `tradenet dev` writes.
fn broker() -> Outcome<String> {
    let dev = || serde_json::from_slice::<Value>(&std::fs::read("data/dev.json").ok()?).ok();
    let url = setting("NATS_URL").or_else(|| dev()?["nats_url"].as_str().map(str::to_owned));
    Ok(url.ok_or("set NATS_URL, or run this beside `tradenet dev`")?)
}

async fn connect() -> Outcome<async_nats::Client> {
    let mut options = ConnectOptions::new().name("volume example");
    if let (Some(user), Some(password)) = (setting("NATS_USER"), setting("NATS_PASSWORD")) {
        // The broker lets each user hear only what is meant for it.
        options = options.custom_inbox_prefix(format!("_INBOX.{user}")).user_and_password(user, password);
    }
    if let Some(file) = setting("NATS_CA") {
        options = options.add_root_certificates(file.into()).require_tls(true);
    }
    Ok(options.connect(broker()?).await?)
}

/// What was traded in a minute.
#[derive(Default)]
struct Minute {
    trades: u64,
    quantity: u64,
    cents: u64,
}

#[derive(Default)]
struct Table {
    /// The last entry in it.
    last: u64,
    /// Minutes since 1970 that are not printed yet.
    minutes: BTreeMap<u64, Minute>,
    /// How many trades there were when the unfinished minute was shown last.
    shown: u64,
}

impl Table {
    fn take(&mut self, number: u64, entry: &Entry) {
        if number != self.last + 1 {
            println!("entries {} to {} are kept no longer", self.last + 1, number - 1);
        }
        self.last = number;
        let at = entry.at / MINUTE_MS;
        for event in &entry.events {
            let (Event::Traded { quantity, price, .. } | Event::Matched { quantity, price, .. }) = event else {
                continue;
            };
            let minute = self.minutes.entry(at).or_default();
            minute.trades += 1;
            minute.quantity += quantity.get();
            minute.cents += quantity.get() * price.cents();
        }
        // Times are the leaders' clocks, which may differ somewhat: a minute is over when the next but one has begun.
        while let Some((&minute, traded)) = self.minutes.first_key_value().filter(|(minute, _)| **minute + 1 < at) {
            println!("{}", line(minute, traded));
            self.minutes.remove(&minute);
        }
    }

    /// The minutes that may not be over.
    fn show(&mut self) {
        let trades = self.minutes.values().map(|minute| minute.trades).sum();
        if std::mem::replace(&mut self.shown, trades) != trades {
            self.minutes.iter().for_each(|(minute, traded)| println!("{} so far", line(*minute, traded)));
        }
    }
}

fn line(minute: u64, Minute { trades, quantity, cents }: &Minute) -> String {
    let at = i64::try_from(minute * 60).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let at = at.map_or_else(|| minute.to_string(), |at| format!("{} {:02}:{:02}", at.date(), at.hour(), at.minute()));
    format!("{at:<16} {trades:>9} {quantity:>11} {:>12}.{:02}", cents / 100, cents % 100)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let once = std::env::args().any(|argument| argument == "--once");
    let name = setting("TRADENET_FEED_STREAM").unwrap_or_else(|| "tradenet-entries".to_owned());
    let stream = async_nats::jetstream::new(connect().await?).get_stream(&name).await;
    let mut stream =
        stream.map_err(|error| format!("no stream {name} ({error}): does the exchange run with --feed-stream?"))?;
    let end = stream.info().await?.state.last_sequence;
    println!("{:<16} {:>9} {:>11} {:>15}", "minute (UTC)", "trades", "quantity", "value");
    let mut table = Table::default();
    if once && end == 0 {
        return Ok(());
    }
    // Where the connection breaks, the client goes on behind the last message that it gave us.
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    loop {
        match timeout(QUIET, messages.next()).await {
            Ok(Some(message)) => {
                let message = message?;
                let number = message.info().map_err(|error| error.to_string())?.stream_sequence;
                // An entry that is not understood is for a newer version of this.
                table.take(number, &serde_json::from_slice(&message.payload)?);
            }
            Ok(None) => return Err("the stream has ended".into()),
            Err(_) => table.show(),
        }
        if once && table.last >= end {
            table.show();
            return Ok(());
        }
    }
}
