//! `tradenet export`: trades or orders as CSV (RFC 4180), from a replica's file.
//!
//! Problem: a spreadsheet or a ledger wants what happened, once and complete, and an order file may end in entries that were
//! never committed. Idea: where the exchange runs, its frontends say how far a replica in sync has committed, and the export
//! ends there. Rules kept: where nobody says so, all of the file is exported, and that is told; a header always stands
//! first, also where nothing follows; and money has two decimals.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use csv::{Terminator, Writer, WriterBuilder};
use tradenet_schemas::ids::SeqNum;
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::rest::Cluster;

use crate::exit::{HELP, Unmet};
use crate::frontends::{Frontends, of_dev};
use crate::http::Origin;
use crate::journal::{FileArgs, Found, Reader, farthest};
use crate::log::time_in_force_word;
use crate::market::word;
use crate::out;
use crate::time::moment;

/// For the frontends, in seconds.
const CLUSTER_S: u64 = 2;

/// `tradenet export`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// What: trades with the house and among accounts, or the orders that were accepted.
    #[arg(value_enum, default_value_t = What::Trades)]
    what: What,
    /// As CSV with a header (RFC 4180), to standard output; the only form there is, so that it need not be said.
    #[arg(long)]
    csv: bool,
    /// Frontends that say what is committed. [default: those of the `tradenet dev` in the data directory]
    #[arg(long = "url", env = "TRADENET_URL", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    urls: Vec<Origin>,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum What {
    Trades,
    Orders,
}

/// Exports.
///
/// # Errors
/// There is no file, or it is damaged, or its replica is not in sync, so that nobody can say which of it is committed.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let found = args.file.all()?;
    let cluster = committed_by(&args.urls, &args.file.data_dir).await;
    let (found, until) = choose(found, cluster.as_ref())?;
    if until.is_none() {
        out::complain(
            "tradenet: no frontend says what is committed, so that all of the file is exported; name one with --url",
        );
    }
    let mut rows = Rows::new(args.what, io::stdout().lock());
    rows.header()?;
    let until = until.unwrap_or(SeqNum(u64::MAX));
    let unread = || format!("{} can't be read", found.files.dir().display());
    let mut reader = Reader::open(&found.files).with_context(unread)?;
    reader.read(&mut |scanned| if scanned.entry.seq <= until { rows.entry(&scanned.entry) } else { Ok(()) })?;
    out::written(rows.csv.flush())
}

/// What frontends say of how far the replicas have committed; those of the `tradenet dev` here where none are named.
pub(crate) async fn committed_by(urls: &[Origin], data_dir: &Path) -> Option<Cluster> {
    let origins = if urls.is_empty() { of_dev_around(data_dir) } else { urls.to_vec() };
    Frontends::new(origins, CLUSTER_S).cluster().await
}

/// The frontends of the `tradenet dev` whose data directory this is, or in which this replica's directory is.
fn of_dev_around(dir: &Path) -> Vec<Origin> {
    let dirs = [Some(dir), dir.parent()].into_iter().flatten();
    dirs.map(of_dev).find(|origins| !origins.is_empty()).unwrap_or_default()
}

/// Which file, and how far.
pub(crate) fn choose(mut found: Vec<Found>, cluster: Option<&Cluster>) -> anyhow::Result<(Found, Option<SeqNum>)> {
    let Some(cluster) = cluster else { return Ok((farthest(found)?, None)) };
    let committed = |found: &Found| {
        let replica = cluster.replicas.iter().find(|replica| Some(replica.id) == found.id())?;
        (replica.alive && replica.in_sync).then_some(replica.committed)
    };
    found.retain(|found| committed(found).is_some());
    match found.into_iter().max_by_key(committed) {
        Some(found) => {
            let until = committed(&found).map(SeqNum);
            Ok((found, until))
        }
        None => {
            let why = "no replica that is in sync has a file here: wait until one is (`tradenet status`)";
            let nobody_leads = cluster.leader.is_none();
            Err(if nobody_leads { Unmet::NoLeader(why.to_owned()).into() } else { anyhow::anyhow!(why) })
        }
    }
}

struct Rows<W: Write> {
    what: What,
    csv: Writer<W>,
}

impl<W: Write> Rows<W> {
    fn new(what: What, out: W) -> Self {
        Self { what, csv: WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out) }
    }

    fn record<const N: usize>(&mut self, fields: [&str; N]) -> anyhow::Result<()> {
        // As it was: within another error its kind is lost, by which a reader that has left is known.
        let plain = |error: csv::Error| match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        };
        out::written(self.csv.write_record(fields).map_err(plain))
    }

    fn header(&mut self) -> anyhow::Result<()> {
        match self.what {
            What::Trades => {
                self.record(["seq", "time", "market", "trade", "order", "maker", "name", "side", "quantity", "price"])
            }
            What::Orders => self.record([
                "seq",
                "time",
                "market",
                "order",
                "account",
                "name",
                "side",
                "quantity",
                "price",
                "time_in_force",
            ]),
        }
    }

    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let (seq, time) = (entry.seq.to_string(), moment(entry.at));
        let mut taker = None;
        for event in &entry.events {
            match (self.what, event) {
                (_, Event::Traded { order, symbol, side, quantity, price }) => {
                    let (order, quantity, price) = (order.to_string(), quantity.to_string(), price.to_string());
                    let (name, side) = (symbol.as_str(), word(*side));
                    match self.what {
                        What::Trades => {
                            self.record([&seq, &time, "house", "", &order, "", name, side, &quantity, &price])?;
                        }
                        What::Orders => {
                            self.record([&seq, &time, "house", &order, "", name, side, &quantity, &price, ""])?;
                        }
                    }
                }
                (What::Trades, Event::Placed { order, side, .. }) => taker = Some((order.to_string(), word(*side))),
                (What::Trades, Event::Matched { trade, maker, symbol, price, quantity }) => {
                    let (order, side) = taker.as_ref().context("a trade without the order that met another")?;
                    let (trade, maker) = (trade.to_string(), maker.to_string());
                    let (quantity, price) = (quantity.to_string(), price.to_string());
                    let name = symbol.as_str();
                    self.record([&seq, &time, "book", &trade, order, &maker, name, side, &quantity, &price])?;
                }
                (What::Orders, Event::Placed { order, account, symbol, side, quantity, price, time_in_force, .. }) => {
                    let price = price.map_or(String::new(), |price| price.to_string());
                    let (order, quantity) = (order.to_string(), quantity.to_string());
                    let (name, side, kind) = (symbol.as_str(), word(*side), time_in_force_word(*time_in_force));
                    let account = account.to_string();
                    self.record([&seq, &time, "book", &order, &account, name, side, &quantity, &price, kind])?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trades_and_orders_of_an_entry_are_rows_that_a_strict_reader_takes() {
        let check = |what, expected: &str| {
            let entry = r#"{"seq":7,"epoch":2,"at":0,"events":[
                {"traded":{"order":1,"symbol":"A,\"B","side":"sell","quantity":2,"price":1599}},
                {"placed":{"order":9,"account":"bob","symbol":"C","side":"buy","quantity":3,"time_in_force":"ioc"}},
                {"matched":{"trade":4,"maker":8,"symbol":"C","price":1500,"quantity":2}},
                {"cancelled":{"order":9,"quantity":1}}]}"#;
            let mut rows = Rows::new(what, Vec::new());
            rows.header().unwrap();
            rows.entry(&serde_json::from_str(entry).unwrap()).unwrap();
            assert_eq!(String::from_utf8(rows.csv.into_inner().unwrap()).unwrap(), expected);
        };
        check(
            What::Trades,
            "seq,time,market,trade,order,maker,name,side,quantity,price\r\n\
             7,1970-01-01T00:00:00.000Z,house,,1,,\"A,\"\"B\",sell,2,15.99\r\n\
             7,1970-01-01T00:00:00.000Z,book,4,9,8,C,buy,2,15.00\r\n",
        );
        check(
            What::Orders,
            "seq,time,market,order,account,name,side,quantity,price,time_in_force\r\n\
             7,1970-01-01T00:00:00.000Z,house,1,,\"A,\"\"B\",sell,2,15.99,\r\n\
             7,1970-01-01T00:00:00.000Z,book,9,bob,C,buy,3,,ioc\r\n",
        );
    }
}
