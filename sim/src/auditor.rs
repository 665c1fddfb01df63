//! What clients were promised, and whether it was kept: S8, S12 and S13.
//!
//! Problem: strict serializability is checked in exponential time in general.
//! Idea: here every answer can be placed in the one log that was committed: a trade by its order, a stock by its volume,
//! which grows with each trade, an order by its number. So each answer has an interval of sequence numbers in which it was
//! true. It must have a point in there that is not before the point of anything that was answered before it was asked;
//! taking the lowest such point each time leaves the most room for what follows, so one number, `floor`, is all that is
//! remembered, and the check is linear and exact.
//! Rule kept: an outcome that nobody was told of may or may not be; one that was told is so for ever.

use std::collections::{BTreeMap, BTreeSet};

use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::trade::{Command, CommandKey, IdempotencyKey, Order, Outcome, Refusal, Side, Stock, Symbol};

use crate::invariants::truth::Version;
use crate::invariants::{Truth, Verdict, Violation};
use crate::workload::house_trade;
use crate::world::Answered;

const S8: &str = "S8 a key has one effect and one answer";
const S12: &str = "S12 reads and trades are strictly serializable";

/// A request under way.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    request: ClientRequest,
    /// What had been answered when it was made.
    begun: SeqNum,
    /// What had been answered when its key was first sent.
    key_begun: SeqNum,
    /// Whether the key was sent for the first time.
    first: bool,
}

/// What became of a key.
#[derive(Clone, Debug)]
struct KeyStory {
    begun: SeqNum,
    sent: u32,
    order: Option<OrderNumber>,
    /// The frontend said that nothing was done, and nobody asked again.
    not_done: bool,
}

/// Counts of what was checked.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Trades accepted.
    pub accepted: u64,
    /// Of them, answered again.
    pub replayed: u64,
    /// Trades refused.
    pub refused: u64,
    /// Stocks read.
    pub reads: u64,
    /// Of them, from a cache.
    pub hits: u64,
    /// Orders looked up.
    pub orders: u64,
    /// Requests that came to nothing.
    pub failed: u64,
}

/// The auditor. See the module.
#[derive(Clone, Debug)]
pub struct Auditor {
    floor: SeqNum,
    keys: BTreeMap<IdempotencyKey, KeyStory>,
    /// Orders that a request without a key was answered with.
    keyless: BTreeSet<OrderNumber>,
    /// The network doubles messages: then a command may be its own repetition.
    pub(crate) doubled: bool,
    /// What was checked.
    pub counts: Counts,
}

impl Auditor {
    /// Nothing was promised yet.
    pub fn new() -> Self {
        Self {
            floor: SeqNum(0),
            keys: BTreeMap::new(),
            keyless: BTreeSet::new(),
            doubled: false,
            counts: Counts::default(),
        }
    }

    /// A client asks.
    pub(crate) fn begin(&mut self, request: &ClientRequest) -> Op {
        let begun = self.floor;
        let (mut key_begun, mut first) = (begun, true);
        if let ClientRequest::Command(Some(key), _) = request {
            let story =
                self.keys.entry(key.clone()).or_insert(KeyStory { begun, sent: 0, order: None, not_done: false });
            story.sent += 1;
            story.not_done = false;
            (key_begun, first) = (story.begun, story.sent == 1);
        }
        Op { request: request.clone(), begun, key_begun, first }
    }

    /// A client got something.
    pub(crate) fn end(&mut self, op: &Op, answered: &Answered, truth: &Truth) -> Verdict {
        let Answered::With(answer) = answered else {
            self.counts.failed += 1;
            return Ok(());
        };
        let point = match (&op.request, answer) {
            (_, ClientAnswer::Unavailable(_)) => {
                self.counts.failed += 1;
                return self.not_done(op, truth);
            }
            (_, ClientAnswer::Unknown) => {
                self.counts.failed += 1;
                return Ok(());
            }
            (ClientRequest::Command(key, command), ClientAnswer::Outcome(outcome)) => {
                self.traded(op, key.as_ref(), command, outcome, truth)?
            }
            (ClientRequest::Stock(symbol), ClientAnswer::Stock { stock, hit }) => {
                self.counts.reads += 1;
                self.counts.hits += u64::from(*hit);
                stock_point(op.begun, truth, symbol, stock.as_ref())
                    .map_err(|why| Violation::new(S12, format!("{why} (cache hit: {hit})")))?
            }
            (ClientRequest::Stocks, ClientAnswer::Stocks(stocks)) => {
                self.counts.reads += 1;
                stocks_point(op.begun, truth, stocks).map_err(|why| Violation::new(S12, why))?
            }
            (ClientRequest::Order(number), ClientAnswer::Order(order)) => {
                self.counts.orders += 1;
                order_point(op.begun, truth, *number, order.as_ref()).map_err(|why| Violation::new(S12, why))?
            }
            (request, answer) => {
                return Err(Violation::new(S12, format!("{request:?} is answered with {answer:?}")));
            }
        };
        self.floor = self.floor.max(point);
        Ok(())
    }

    /// "Nothing was done" was said of a command that was sent once: then it must stay so.
    fn not_done(&mut self, op: &Op, truth: &Truth) -> Verdict {
        let ClientRequest::Command(Some(key), _) = &op.request else {
            return Ok(());
        };
        let Some(story) = self.keys.get_mut(key).filter(|story| op.first && story.sent == 1) else {
            return Ok(());
        };
        story.not_done = true;
        match truth.by_key(&CommandKey::of_client(key)) {
            None => Ok(()),
            Some(order) => Err(Violation::new(S8, format!("{key:?} was not done, and is order {order}"))),
        }
    }

    fn traded(
        &mut self,
        op: &Op,
        key: Option<&IdempotencyKey>,
        command: &Command,
        outcome: &Outcome,
        truth: &Truth,
    ) -> Result<SeqNum, Violation> {
        let (symbol, side, quantity) = house_trade(command);
        let (number, replayed) = match outcome {
            Outcome::Refused(refusal) => {
                self.counts.refused += 1;
                return refusal_point(op.begun, truth, command, *refusal).map_err(|why| Violation::new(S12, why));
            }
            Outcome::Accepted { order, replayed } => (*order, *replayed),
            Outcome::Done { .. } => {
                return Err(Violation::new(S8, format!("{command:?} was answered with {outcome:?}")));
            }
        };
        self.counts.accepted += 1;
        self.counts.replayed += u64::from(replayed);
        let Some((seq, order)) = truth.order(number) else {
            return Err(Violation::new(S8, format!("order {number} was answered, but is not committed")));
        };
        let same = order.symbol == *symbol && order.side == side && order.quantity == quantity;
        if !same {
            return Err(Violation::new(S8, format!("{command:?} was answered with {order:?}")));
        }
        if replayed && op.first && !self.doubled {
            return Err(Violation::new(
                S8,
                format!("order {number} is said to be answered again, but was never before"),
            ));
        }
        if *seq <= op.key_begun {
            let text =
                format!("order {number} is entry {seq}, but was asked for after entry {} was shown", op.key_begun);
            return Err(Violation::new(S12, text));
        }
        self.one_answer(key, number, truth)?;
        Ok(*seq)
    }

    fn one_answer(&mut self, key: Option<&IdempotencyKey>, number: OrderNumber, truth: &Truth) -> Verdict {
        let Some(key) = key else {
            return match self.keyless.insert(number) {
                true => Ok(()),
                false => Err(Violation::new(S8, format!("order {number} was answered to two requests"))),
            };
        };
        if truth.by_key(&CommandKey::of_client(key)) != Some(number) {
            return Err(Violation::new(S8, format!("{key:?} was answered with order {number}, which it did not make")));
        }
        match self.keys.get_mut(key).map(|story| story.order.replace(number)) {
            Some(Some(before)) if before != number => {
                Err(Violation::new(S8, format!("{key:?} was answered with order {before} and order {number}")))
            }
            _ => Ok(()),
        }
    }

    /// At the end of a run, when everything that will ever be committed is.
    pub(crate) fn finish(&self, truth: &Truth) -> Verdict {
        for (key, story) in &self.keys {
            let made = truth.by_key(&CommandKey::of_client(key));
            if story.not_done && made.is_some() {
                return Err(Violation::new(S8, format!("{key:?} was said not to be done, and is order {made:?}")));
            }
            if story.order.is_some() && story.order != made {
                return Err(Violation::new(
                    S8,
                    format!("{key:?} was answered with {:?}, and is {made:?}", story.order),
                ));
            }
        }
        Ok(())
    }
}

impl Default for Auditor {
    fn default() -> Self {
        Self::new()
    }
}

/// The lowest point at or behind `begun` in `[from, until)`.
fn point(begun: SeqNum, from: SeqNum, until: Option<SeqNum>) -> Option<SeqNum> {
    let point = begun.max(from);
    until.is_none_or(|until| point < until).then_some(point)
}

/// Where a version of a stock begins and ends.
fn span(versions: &[Version], index: usize) -> (SeqNum, Option<SeqNum>) {
    (versions[index].seq, versions.get(index + 1).map(|next| next.seq))
}

fn stock_span(truth: &Truth, symbol: &Symbol, stock: Option<&Stock>) -> Result<(SeqNum, Option<SeqNum>), String> {
    let versions = truth.versions(symbol);
    let Some(stock) = stock else {
        return Ok((SeqNum(0), versions.first().map(|first| first.seq)));
    };
    let index = versions.partition_point(|version| version.stock.volume < stock.volume);
    match versions.get(index) {
        Some(version) if version.stock == *stock => Ok(span(versions, index)),
        _ => Err(format!("{stock:?} was shown, but never was committed")),
    }
}

fn stock_point(begun: SeqNum, truth: &Truth, symbol: &Symbol, stock: Option<&Stock>) -> Result<SeqNum, String> {
    let (from, until) = stock_span(truth, symbol, stock)?;
    point(begun, from, until).ok_or_else(|| {
        format!("{symbol} was shown as it was until entry {until:?}, to a request made after entry {begun} was shown: {stock:?}")
    })
}

fn stocks_point(begun: SeqNum, truth: &Truth, stocks: &[Stock]) -> Result<SeqNum, String> {
    let (mut from, mut until) = (SeqNum(0), None::<SeqNum>);
    for symbol in truth.symbols() {
        let stock = stocks.iter().find(|stock| stock.symbol == *symbol);
        let (first, end) = stock_span(truth, symbol, stock)?;
        from = from.max(first);
        until = match (until, end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    point(begun, from, until).ok_or_else(|| {
        format!("all stocks were shown as they were from {from} until {until:?}, to a request made after {begun}")
    })
}

fn order_point(begun: SeqNum, truth: &Truth, number: OrderNumber, shown: Option<&Order>) -> Result<SeqNum, String> {
    match (truth.order(number), shown) {
        (Some((seq, order)), Some(shown)) if order == shown => Ok(begun.max(*seq)),
        (Some((seq, _)), None) => point(begun, SeqNum(0), Some(*seq))
            .ok_or_else(|| format!("order {number} is entry {seq}, but was not found after entry {begun} was shown")),
        (None, None) => Ok(begun),
        (order, shown) => Err(format!("order {number} is {order:?}, but was shown as {shown:?}")),
    }
}

fn refusal_point(begun: SeqNum, truth: &Truth, command: &Command, refusal: Refusal) -> Result<SeqNum, String> {
    let (symbol, side, quantity) = house_trade(command);
    let versions = truth.versions(symbol);
    let unlisted = || point(begun, SeqNum(0), versions.first().map(|first| first.seq));
    let found = match refusal {
        Refusal::UnknownSymbol => unlisted(),
        Refusal::NotEnoughStocks if side == Side::Buy => {
            (0..versions.len()).filter(|&index| versions[index].stock.quantity < quantity).find_map(|index| {
                let (from, until) = span(versions, index);
                point(begun, from, until)
            })
        }
        _ => None,
    };
    found.ok_or_else(|| format!("{command:?} was refused with {refusal:?}, which was never true since entry {begun}"))
}
