//! What clients were promised, and whether it was kept: S8, S12, S13 and, by way of [`crate::feed`], S16.
//!
//! Problem: strict serializability is checked in exponential time in general.
//! Idea: here every answer can be placed in the one log that was committed: a trade by its order, a stock by its volume,
//! which grows with each trade, an order by its number, a book by its sequence, an account by its versions. So each answer has an interval of sequence numbers in which it was
//! true. It must have a point in there that is not before the point of anything that was answered before it was asked;
//! taking the lowest such point each time leaves the most room for what follows, so one number, `floor`, is all that is
//! remembered, and the check is linear and exact.
//! Rule kept: an outcome that nobody was told of may or may not be; one that was told is so for ever.

use std::collections::{BTreeMap, BTreeSet};

use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::account::{AccountAnswer, Asset, Credentials, Instruction, NewOrder};
use tradenet_schemas::feed::PublicEvent;
use tradenet_schemas::ids::{EventNumber, OrderNumber, SeqNum};
use tradenet_schemas::message::{Answer, Query};
use tradenet_schemas::trade::{
    Command, CommandKey, IdempotencyKey, Order, Outcome, Receipt, Refusal, Side, Stock, Symbol,
};

use crate::feed::Feed;
use crate::invariants::truth::Version;
use crate::invariants::{Truth, Verdict, Violation};
use crate::market::Span;
use crate::marks;
use crate::world::Answered;

const S8: &str = "S8 a key has one effect and one answer";
const S12: &str = "S12 reads and trades are strictly serializable";
const S16: &str = "S16 a public event is of a committed entry, and a number names one";

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
    /// As it stands in the log.
    key: CommandKey,
    begun: SeqNum,
    sent: u32,
    /// The entry that it was answered with.
    entry: Option<SeqNum>,
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
    /// Accounts, their orders, books and trades read.
    pub market: u64,
    /// Public events told.
    pub events: u64,
    /// Public events that leaders have published.
    pub published: u64,
    /// Requests that came to nothing.
    pub failed: u64,
}

/// The auditor. See the module.
#[derive(Clone, Debug)]
pub struct Auditor {
    floor: SeqNum,
    keys: BTreeMap<IdempotencyKey, KeyStory>,
    /// Entries that a request without a key was answered with.
    keyless: BTreeSet<SeqNum>,
    /// The network doubles messages: then a command may be its own repetition.
    pub(crate) doubled: bool,
    feed: Feed,
    /// What was checked.
    pub counts: Counts,
    /// Rare situations.
    pub(crate) marks: BTreeMap<&'static str, u64>,
}

impl Auditor {
    /// Nothing was promised yet.
    pub fn new() -> Self {
        Self {
            floor: SeqNum(0),
            keys: BTreeMap::new(),
            keyless: BTreeSet::new(),
            doubled: false,
            feed: Feed::default(),
            counts: Counts::default(),
            marks: BTreeMap::new(),
        }
    }

    /// A leader publishes those events for whoever follows the market.
    pub(crate) fn published(&mut self, after: EventNumber, events: &[PublicEvent], truth: &Truth) -> Verdict {
        self.counts.published += events.len() as u64;
        self.feed.told(after, after, events, truth).map(drop).map_err(|why| Violation::new(S16, why))
    }

    /// A client asks.
    pub(crate) fn begin(&mut self, request: &ClientRequest) -> Op {
        let begun = self.floor;
        let (mut key_begun, mut first) = (begun, true);
        if let ClientRequest::Command(Some(key), command) = request {
            let fresh = || KeyStory { key: command.key(key), begun, sent: 0, entry: None, not_done: false };
            let story = self.keys.entry(key.clone()).or_insert_with(fresh);
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
            (ClientRequest::Command(_, command), ClientAnswer::Outcome(Outcome::Refused(refusal))) => {
                self.counts.refused += 1;
                self.mark_refusal(*refusal);
                refusal_point(op.begun, truth, command, *refusal).map_err(|why| Violation::new(S12, why))?
            }
            (ClientRequest::Command(key, command), ClientAnswer::Outcome(outcome)) => {
                self.done(op, key.as_ref(), command, outcome, truth)?
            }
            (ClientRequest::Market(Query::Events(asked)), ClientAnswer::Market(Answer::Events { after, events })) => {
                self.counts.events += events.len() as u64;
                self.feed.told(*asked, *after, events, truth).map_err(|why| Violation::new(S16, why))?
            }
            (ClientRequest::Market(query), ClientAnswer::Market(answer)) => {
                self.counts.market += 1;
                market_point(op.begun, truth, query, answer).map_err(|why| Violation::new(S12, why))?
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
        match truth.by_key(&story.key) {
            None => Ok(()),
            Some(entry) => Err(Violation::new(S8, format!("{key:?} was not done, and is entry {entry}"))),
        }
    }

    fn mark_refusal(&mut self, refusal: Refusal) {
        let mark = match refusal {
            Refusal::OrderDone => marks::CANCELLED_LATE,
            Refusal::WouldCross => marks::WOULD_CROSS,
            _ => return,
        };
        *self.marks.entry(mark).or_default() += 1;
    }

    /// A command was done: it is one entry, made for this key, after the key was first sent.
    fn done(
        &mut self,
        op: &Op,
        key: Option<&IdempotencyKey>,
        command: &Command,
        outcome: &Outcome,
        truth: &Truth,
    ) -> Result<SeqNum, Violation> {
        let replayed =
            matches!(outcome, Outcome::Accepted { replayed: true, .. } | Outcome::Done { replayed: true, .. });
        self.counts.accepted += 1;
        self.counts.replayed += u64::from(replayed);
        let made = key.and_then(|key| truth.by_key(&command.key(key)));
        let entry = made.or_else(|| numbered(outcome).and_then(|number| truth.order(number)).map(|(seq, _)| *seq));
        let Some(entry) = entry else {
            return Err(Violation::new(S8, format!("{outcome:?} was answered, but is not committed")));
        };
        if replayed && op.first && !self.doubled {
            let text = format!("entry {entry} is said to be answered again, but was never before");
            return Err(Violation::new(S8, text));
        }
        if entry <= op.key_begun {
            let text =
                format!("{outcome:?} is entry {entry}, but was asked for after entry {} was shown", op.key_begun);
            return Err(Violation::new(S12, text));
        }
        self.one_answer(key, entry)?;
        let same = outcome_point(entry, command, outcome, truth);
        let point = same.map_err(|why| Violation::new(S8, format!("{command:?}, entry {entry}: {why}")))?;
        let earlier =
            truth.position(entry).map(|position| position.epoch) < truth.position(truth.end()).map(|p| p.epoch);
        if replayed && earlier && matches!(command, Command::Account { .. }) {
            *self.marks.entry(marks::REPLAYED_LATER).or_default() += 1;
        }
        Ok(point)
    }

    fn one_answer(&mut self, key: Option<&IdempotencyKey>, entry: SeqNum) -> Verdict {
        let Some(key) = key else {
            return match self.keyless.insert(entry) {
                true => Ok(()),
                false => Err(Violation::new(S8, format!("entry {entry} was answered to two requests"))),
            };
        };
        match self.keys.get_mut(key).map(|story| story.entry.replace(entry)) {
            Some(Some(before)) if before != entry => {
                Err(Violation::new(S8, format!("{key:?} was answered with entry {before} and entry {entry}")))
            }
            _ => Ok(()),
        }
    }

    /// At the end of a run, when everything that will ever be committed is.
    pub(crate) fn finish(&self, truth: &Truth) -> Verdict {
        for (key, story) in &self.keys {
            let made = truth.by_key(&story.key);
            if story.not_done && made.is_some() {
                return Err(Violation::new(S8, format!("{key:?} was said not to be done, and is entry {made:?}")));
            }
            if story.entry.is_some() && story.entry != made {
                let text = format!("{key:?} was answered with entry {:?}, and is {made:?}", story.entry);
                return Err(Violation::new(S8, text));
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
        (Some((seq, Some(order))), Some(shown)) if order == shown => Ok(begun.max(*seq)),
        // Nobody is told of an account's order here.
        (Some((_, None)), None) => Ok(begun),
        (Some((seq, _)), None) => point(begun, SeqNum(0), Some(*seq))
            .ok_or_else(|| format!("order {number} is entry {seq}, but was not found after entry {begun} was shown")),
        (None, None) => Ok(begun),
        (order, shown) => Err(format!("order {number} is {order:?}, but was shown as {shown:?}")),
    }
}

/// The number of the order that was made, if one was.
fn numbered(outcome: &Outcome) -> Option<OrderNumber> {
    match outcome {
        Outcome::Accepted { order, .. } => Some(*order),
        Outcome::Done { receipt, .. } => match &**receipt {
            Receipt::Order(order) => Some(order.number),
            Receipt::Opened | Receipt::Balance(_) => None,
        },
        Outcome::Refused(_) => None,
    }
}

/// Whether the client was told what its command did, and when that was so.
fn outcome_point(entry: SeqNum, command: &Command, outcome: &Outcome, truth: &Truth) -> Result<SeqNum, String> {
    let wrong = || format!("was answered with {outcome:?}");
    match (command, outcome) {
        (Command::Trade { symbol, side, quantity }, Outcome::Accepted { order: number, .. }) => {
            let made = Order { number: *number, symbol: symbol.clone(), side: *side, quantity: *quantity };
            let same = truth.order(*number).is_some_and(|(seq, order)| *seq == entry && order.as_ref() == Some(&made));
            same.then_some(entry).ok_or_else(wrong)
        }
        (Command::Open { .. }, Outcome::Done { receipt, .. }) if **receipt == Receipt::Opened => Ok(entry),
        (Command::Account { caller, instruction }, Outcome::Done { receipt, .. }) => {
            let account = caller.account.as_str();
            // As its own entry left it, whenever it is told: that does not change any more.
            let span = match (&**receipt, instruction) {
                (Receipt::Balance(balance), Instruction::Deposit(_) | Instruction::Withdraw(_)) => {
                    truth.market.when_balance(account, balance, entry.0)
                }
                (Receipt::Order(order), Instruction::Place(_) | Instruction::Cancel(_)) => {
                    truth.market.when_order(account, order, entry.0)
                }
                _ => None,
            };
            span.filter(|(from, _)| *from <= entry.0).map(|_| entry).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn market_point(begun: SeqNum, truth: &Truth, query: &Query, answer: &Answer) -> Result<SeqNum, String> {
    if let (Query::Book(symbol, _), Answer::Book(None)) | (Query::Trades(symbol, _), Answer::Trades(None)) =
        (query, answer)
    {
        return stock_point(begun, truth, symbol, None);
    }
    if let (Query::Account(caller, _), Answer::Account(answer)) = (query, answer)
        && **answer == AccountAnswer::Unauthorised
    {
        return Err(format!("{caller:?} was turned away, with the right token"));
    }
    let (from, until) = truth.market.when(query, answer, begun.0)?;
    point(begun, SeqNum(from), until.map(SeqNum))
        .ok_or_else(|| format!("{query:?} was answered with {answer:?} after entry {begun} was shown: it was so from {from} until {until:?}"))
}

fn refusal_point(begun: SeqNum, truth: &Truth, command: &Command, refusal: Refusal) -> Result<SeqNum, String> {
    let found = match command {
        Command::Trade { symbol, side, quantity } => match refusal {
            Refusal::UnknownSymbol => unlisted_point(begun, truth, symbol),
            Refusal::NotEnoughStocks if *side == Side::Buy => {
                let versions = truth.versions(symbol);
                (0..versions.len()).filter(|&index| versions[index].stock.quantity < *quantity).find_map(|index| {
                    let (from, until) = span(versions, index);
                    point(begun, from, until)
                })
            }
            _ => None,
        },
        Command::Open { account, .. } if refusal == Refusal::AccountTaken => {
            truth.market.when_taken(account.as_str(), begun.0).and_then(|span| point_in(begun, span))
        }
        Command::Open { .. } => None,
        Command::Account { caller, instruction } => account_refusal_point(begun, truth, caller, instruction, refusal),
    };
    found.ok_or_else(|| format!("{command:?} was refused with {refusal:?}, which was never true since entry {begun}"))
}

fn unlisted_point(begun: SeqNum, truth: &Truth, symbol: &Symbol) -> Option<SeqNum> {
    point(begun, SeqNum(0), truth.versions(symbol).first().map(|first| first.seq))
}

fn point_in(begun: SeqNum, (from, until): Span) -> Option<SeqNum> {
    point(begun, SeqNum(from), until.map(SeqNum))
}

/// When an account's command had to be refused so.
fn account_refusal_point(
    begun: SeqNum,
    truth: &Truth,
    caller: &Credentials,
    instruction: &Instruction,
    refusal: Refusal,
) -> Option<SeqNum> {
    let (account, market) = (caller.account.as_str(), &truth.market);
    let span = match (refusal, instruction) {
        (Refusal::UnknownSymbol, Instruction::Place(NewOrder { symbol, .. }))
        | (
            Refusal::UnknownSymbol,
            Instruction::Deposit(Asset::Stock(symbol, _)) | Instruction::Withdraw(Asset::Stock(symbol, _)),
        ) => return unlisted_point(begun, truth, symbol),
        (Refusal::InsufficientFunds, Instruction::Withdraw(Asset::Cash(cash))) => {
            market.when_poorer(account, cash.cents(), begun.0)
        }
        (
            Refusal::InsufficientFunds,
            Instruction::Place(NewOrder { side: Side::Buy, quantity, price: Some(price), .. }),
        ) => market.when_poorer(account, price.cents() * quantity.get(), begun.0),
        (Refusal::InsufficientStocks, Instruction::Withdraw(Asset::Stock(symbol, quantity)))
        | (Refusal::InsufficientStocks, Instruction::Place(NewOrder { side: Side::Sell, symbol, quantity, .. })) => {
            market.when_fewer(account, symbol.as_str(), quantity.get(), begun.0)
        }
        (
            Refusal::WouldCross,
            Instruction::Place(NewOrder { post_only: true, symbol, side, price: Some(price), .. }),
        ) => market.when_crossed(symbol.as_str(), *side == Side::Buy, price.cents(), begun.0),
        (Refusal::OrderDone, Instruction::Cancel(number)) => market.when_done(account, number.0, begun.0),
        (Refusal::UnknownOrder, Instruction::Cancel(number)) if market.is_not_of(account, number.0) => Some((0, None)),
        _ => None,
    };
    span.and_then(|span| point_in(begun, span))
}
