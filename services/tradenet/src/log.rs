//! `tradenet log`: a replica's entries, for people, from its file.
//!
//! Problem: to see what was decided, and when, without asking the exchange, which may be what is broken. Idea: the file is
//! text already; each event of each entry becomes a line in the exchange's words. Rules kept: the replica is not disturbed:
//! its file is only read; and what is shown is what is on that disk: with `--follow` an entry may be seen a moment before it
//! is committed, and one that was never committed may be taken back, which is said.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use tradenet_core::journal::Scanned;
use tradenet_runtime::shutdown::Shutdown;
use tradenet_schemas::account::{Asset, TimeInForce};
use tradenet_schemas::ids::SeqNum;
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::trade::Side;

use crate::exit::HELP;
use crate::journal::{Ended, FileArgs, Reader, check_from, farthest};
use crate::market::word;
use crate::out::{self, ColorArgs, HEADING, WARN, styled};
use crate::time::moment;

/// How often the file is looked at.
const FOLLOW_EVERY_MS: u64 = 100;
/// How many looks in a row may find a bad line before it counts as damage: the replica may be at work on it.
const BAD_LOOKS_MAX: u32 = 10;
/// How much text is gathered before it is written.
const WRITE_BYTES: usize = 1 << 16;

/// `tradenet log`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Goes on with what is written, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// The first entry that is shown.
    #[arg(long, value_name = "SEQ", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// Each entry as a JSON object in a line of its own, as it stands in the file but for its checksum.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    color: ColorArgs,
}

/// Shows.
///
/// # Errors
/// There is no file, or it is damaged; the text names line and byte.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    args.color.apply();
    let shutdown = args.follow.then(Shutdown::on_signals).transpose()?;
    let found = farthest(args.file.all()?)?;
    let mut reader = Reader::open(&found.files)?;
    let mut printer = Printer { from: SeqNum(args.from), json: args.json, text: String::new() };
    reader.read(&mut |scanned| printer.add(scanned))?;
    printer.flush()?;
    check_from(SeqNum(args.from), &reader)?;
    let Some(shutdown) = shutdown else { return Ok(()) };
    let mut bad_looks = 0;
    loop {
        tokio::select! {
            _ = shutdown.requested() => return Ok(()),
            () = sleep(Duration::from_millis(FOLLOW_EVERY_MS)) => {}
        }
        // Kept back until it is known whether something has to be taken back first.
        let mut new = Vec::new();
        let ended = reader.read(&mut |scanned| {
            new.push(scanned.clone());
            Ok(())
        });
        match ended {
            Err(error) if bad_looks == BAD_LOOKS_MAX => return Err(error),
            Err(_) => {
                bad_looks += 1;
                continue;
            }
            Ok(Ended::There) => {}
            Ok(Ended::CutBackTo(seq)) => printer.cut(&found.name, seq),
        }
        bad_looks = 0;
        new.iter().try_for_each(|scanned| printer.add(scanned))?;
        printer.flush()?;
    }
}

struct Printer {
    from: SeqNum,
    json: bool,
    text: String,
}

impl Printer {
    fn add(&mut self, scanned: &Scanned) -> anyhow::Result<()> {
        let entry = &scanned.entry;
        if entry.seq < self.from {
            return Ok(());
        }
        if self.json {
            self.text.push_str(&serde_json::to_string(entry)?);
            self.text.push('\n');
        } else {
            lines(entry, &mut self.text);
        }
        if self.text.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn cut(&mut self, name: &str, seq: SeqNum) {
        let line = if self.json {
            json!({"cut_back_to": seq.0}).to_string()
        } else {
            let text = format!("{name} has cut its log back to entry {seq}: what stood behind it was never committed");
            styled(WARN, &out::printable(&text))
        };
        self.text.push_str(&line);
        self.text.push('\n');
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        out::print(&std::mem::take(&mut self.text))
    }
}

/// A line for each event.
fn lines(entry: &Entry, text: &mut String) {
    let key = entry.key.as_ref().filter(|key| key.is_of_client());
    let key = key.map_or(String::new(), |key| format!("  key {}", key.as_str()));
    let mut placed = None;
    for event in &entry.events {
        if let Event::Placed { order, .. } = event {
            placed = Some(order.0);
        }
        let seq = styled(HEADING, &format!("{:>8}", entry.seq.0));
        let what = out::printable(&format!("{}{key}", words(event, placed)));
        text.push_str(&format!("{seq}  {}  epoch {:<4} {what}\n", moment(entry.at), entry.epoch.0));
    }
}

/// An event in words; `placed` is the order that its entry has placed.
fn words(event: &Event, placed: Option<u64>) -> String {
    match event {
        Event::EpochStart { leader, .. } => format!("an epoch starts: order-{} leads", leader.id),
        Event::Listed { symbol, price, quantity } => format!("listed: {quantity} {symbol} at {price}"),
        Event::Traded { order, symbol, side, quantity, price } => {
            let house = if *side == Side::Buy { "from" } else { "to" };
            format!("order {order}: {} {quantity} {symbol} {house} the house at {price}", word(*side))
        }
        Event::Opened { account, .. } => format!("account {account}: opened"),
        Event::Deposited { account, asset } => format!("account {account}: brings in {}", asset_words(asset)),
        Event::Withdrawn { account, asset } => format!("account {account}: takes out {}", asset_words(asset)),
        Event::Placed { order, account, symbol, side, quantity, price, time_in_force, post_only } => {
            let price = price.map_or("at any price".to_owned(), |price| match side {
                Side::Buy => format!("at {price} or less"),
                Side::Sell => format!("at {price} or more"),
            });
            let only = if *post_only { ", post only" } else { "" };
            let kind = time_in_force_word(*time_in_force);
            format!("order {order}: account {account}, {} {quantity} {symbol} {price}, {kind}{only}", word(*side))
        }
        Event::Matched { trade, maker, symbol, price, quantity } => {
            let taker = placed.map_or(String::new(), |order| format!("order {order} meets "));
            format!("trade {trade}: {taker}order {maker}, {quantity} {symbol} at {price}")
        }
        Event::Cancelled { order, quantity } => format!("order {order}: cancelled, {quantity} were left"),
        Event::Stated { account, orders, .. } => {
            let numbers: Vec<_> = orders.iter().map(|order| order.order.to_string()).collect();
            format!("account {account}: stated as done, orders {}", numbers.join(", "))
        }
        Event::Attached { catalog } => format!("catalog {catalog}: answers from now on"),
        Event::Detached { catalog } => format!("catalog {catalog}: no longer answers"),
    }
}

fn asset_words(asset: &Asset) -> String {
    match asset {
        Asset::Cash(cash) => cash.to_string(),
        Asset::Stock(symbol, quantity) => format!("{quantity} {symbol}"),
    }
}

/// As it stands in the REST contract.
pub(crate) fn time_in_force_word(time_in_force: TimeInForce) -> &'static str {
    match time_in_force {
        TimeInForce::Gtc => "gtc",
        TimeInForce::Ioc => "ioc",
        TimeInForce::Fok => "fok",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_told_in_a_line_of_its_own() {
        let check = |events: &str, expected: &[&str]| {
            let json = format!(r#"{{"seq":7,"epoch":2,"at":0,"key":"c:mine","events":[{events}]}}"#);
            let mut text = String::new();
            lines(&serde_json::from_str(&json).unwrap(), &mut text);
            let text = anstream::adapter::strip_str(&text).to_string();
            let head = "       7  1970-01-01T00:00:00.000Z  epoch 2    ";
            let expected: String = expected.iter().map(|line| format!("{head}{line}  key c:mine\n")).collect();
            assert_eq!(text, expected);
        };
        check(
            r#"{"epoch_start":{"leader":{"id":3,"boot":"0000000000000001"},"digest":"0000000000000000"}}"#,
            &["an epoch starts: order-3 leads"],
        );
        check(
            r#"{"listed":{"symbol":"A","price":1599,"quantity":100}},{"listed":{"symbol":"B","price":5,"quantity":1}}"#,
            &["listed: 100 A at 15.99", "listed: 1 B at 0.05"],
        );
        check(
            r#"{"traded":{"order":1,"symbol":"A","side":"sell","quantity":2,"price":1599}}"#,
            &["order 1: sell 2 A to the house at 15.99"],
        );
        check(
            r#"{"deposited":{"account":"bob","asset":{"stock":["A",3]}}},{"withdrawn":{"account":"bob","asset":{"cash":5}}}"#,
            &["account bob: brings in 3 A", "account bob: takes out 0.05"],
        );
        check(
            r#"{"placed":{"order":9,"account":"bob","symbol":"A","side":"buy","quantity":3,"price":1600,"time_in_force":"ioc"}},
               {"matched":{"trade":4,"maker":8,"symbol":"A","price":1500,"quantity":2}},{"cancelled":{"order":9,"quantity":1}}"#,
            &[
                "order 9: account bob, buy 3 A at 16.00 or less, ioc",
                "trade 4: order 9 meets order 8, 2 A at 15.00",
                "order 9: cancelled, 1 were left",
            ],
        );
    }
}
