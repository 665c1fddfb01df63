//! Were all acknowledged trades kept?
//!
//! Every trade that the exchange acknowledged is remembered by its number. At the end each is read back and compared.
//! A trade may be lost (its number is not there), doubled (one number for two trades), changed (the order says something
//! else), or its outcome may be unknown. Where this run was the only one to trade, two more things must hold: no order is
//! there that nobody asked for (a retry that was carried out twice), and each stock moved by what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;
use tokio::task::JoinSet;

use crate::exchange::{Client, Shared};
use crate::fresh::Stale;
use crate::recorder::{Kind, Recorder, Times};
use crate::wire::{Order, Side, Stock, Trade};

/// Most orders of others that an exclusive run looks for; more than these prove nothing new.
const MAX_EXTRA: usize = 10_000;

/// One acknowledged trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) number: u64,
    /// Index into the list of stocks.
    pub(crate) stock: u32,
    pub(crate) side: Side,
}

/// A trade without a number: its outcome is unknown, or the exchange rejected it though it should not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unplaced {
    /// The trade's Idempotency-Key.
    pub key: String,
    /// What was traded.
    pub name: String,
    /// How many.
    pub quantity: u32,
    /// The last failure.
    pub cause: String,
}

/// What one run placed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) placed: Vec<Placed>,
    /// What was read back on the way.
    pub(crate) reads: Reads,
    pub(crate) unknown: Vec<Unplaced>,
    pub(crate) rejected: Vec<Unplaced>,
}

impl Ledger {
    pub(crate) fn append(&mut self, mut other: Self) {
        self.placed.append(&mut other.placed);
        self.reads.append(other.reads);
        self.unknown.append(&mut other.unknown);
        self.rejected.append(&mut other.rejected);
    }
}

/// An order that says something else than the trade it was acknowledged for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The order's number.
    pub number: u64,
    /// What was asked for.
    pub expected: String,
    /// What was read back.
    pub found: String,
}

/// An order that could not be read until the deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The order's number.
    pub number: u64,
    /// The last failure.
    pub cause: String,
}

/// What reading orders back found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    read: u64,
    lost: Vec<u64>,
    changed: Vec<Changed>,
    unreadable: Vec<Unreadable>,
}

impl Reads {
    /// Reads order `number` and compares it with the trade that it was acknowledged for.
    pub(crate) async fn read(&mut self, recorder: &Recorder, client: &mut Client, number: u64, asked: &Trade<'_>) {
        let sent = Instant::now();
        match client.order(number).await {
            Ok(Some(order)) => {
                recorder.success(Kind::OrderRead, Times { intended: sent, sent, done: Instant::now() });
                self.read += 1;
                self.changed.extend(changed(number, asked, &order));
            }
            Ok(None) => self.lost.push(number),
            Err(failure) => self.unreadable.push(Unreadable { number, cause: failure.cause }),
        }
    }

    fn append(&mut self, mut other: Self) {
        self.read += other.read;
        self.lost.append(&mut other.lost);
        self.changed.append(&mut other.changed);
        self.unreadable.append(&mut other.unreadable);
    }

    /// In rising order, each number once: what was found on the way may have been found again at the end.
    fn sort(&mut self) {
        self.lost.sort_unstable();
        self.lost.dedup();
        self.changed.sort_unstable_by_key(|one| one.number);
        self.changed.dedup();
        self.unreadable.sort_unstable_by_key(|one| one.number);
        self.unreadable.dedup();
    }
}

fn changed(number: u64, asked: &Trade<'_>, order: &Order) -> Option<Changed> {
    let same = order.order_num == number
        && order.name == asked.name
        && order.side == asked.side.word()
        && order.quantity == u64::from(asked.quantity);
    let found = || format!("{} {} {} as number {}", order.side, order.quantity, order.name, order.order_num);
    let expected = || format!("{} {} {}", asked.side.word(), asked.quantity, asked.name);
    (!same).then(|| Changed { number, expected: expected(), found: found() })
}

/// What the comparison found. All lists are in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Different orders that were read back at the end.
    pub read: u64,
    /// Orders that were read back on the way, while the load went on.
    pub reread: u64,
    /// Look-ups that were compared with what was known before they began.
    pub lookups: u64,
    /// Those that showed less, at most [`crate::MAX_STALE`].
    pub stale: Vec<Stale>,
    /// Acknowledged, and not there.
    pub lost: Vec<u64>,
    /// One number for more than one trade.
    pub doubled: Vec<u64>,
    /// There, and different.
    pub changed: Vec<Changed>,
    /// Acknowledged, and not readable until the deadline.
    pub unreadable: Vec<Unreadable>,
    /// Trades whose outcome was unknown at the deadline.
    pub unknown: Vec<Unplaced>,
    /// Trades refused for a reason that these requests give no cause for.
    pub rejected: Vec<Unplaced>,
    /// Exclusive runs only: orders that are there and were never acknowledged to this run.
    pub extra: Vec<u64>,
    /// Exclusive runs only: stocks that moved by something else than what was acknowledged.
    pub moved: Vec<String>,
}

impl Verification {
    /// Whether every acknowledged trade is there exactly once, unchanged, and every outcome known.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.problems().is_empty()
    }

    /// One entry per kind of problem that occurred: its name, and each case by number (by key where there is none).
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, Vec<String>)> {
        let numbers = |list: &[u64]| list.iter().map(u64::to_string).collect::<Vec<_>>();
        let unplaced = |list: &[Unplaced]| {
            let line = |trade: &Unplaced| format!("key {} ({}): {}", trade.key, trade.name, trade.cause);
            list.iter().map(line).collect::<Vec<_>>()
        };
        let changed = |one: &Changed| format!("{}: asked for {}, found {}", one.number, one.expected, one.found);
        let stale = |one: &Stale| {
            let Stale { name, volume, least, at_ms, behind_ms } = one;
            format!("{name} at {at_ms} ms: volume {volume}, though {least} had been known for {behind_ms} ms")
        };
        let all = [
            ("stale look-up", self.stale.iter().map(stale).collect()),
            ("lost", numbers(&self.lost)),
            ("doubled", numbers(&self.doubled)),
            ("changed", self.changed.iter().map(changed).collect()),
            ("unreadable", self.unreadable.iter().map(|one| format!("{}: {}", one.number, one.cause)).collect()),
            ("unknown outcome", unplaced(&self.unknown)),
            ("rejected", unplaced(&self.rejected)),
            ("never acknowledged", numbers(&self.extra)),
            ("stock moved wrongly", self.moved.clone()),
        ];
        all.into_iter().filter(|(_, cases)| !cases.is_empty()).collect()
    }
}

/// Most cases of one kind of problem that are shown as text; the JSON has them all.
const MAX_SHOWN: usize = 100;

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.problems();
        if problems.is_empty() {
            write!(f, "verified: {} orders read back, each there once and unchanged", self.read)?;
            if self.reread > 0 {
                write!(f, ", {} of them on the way as well", self.reread)?;
            }
            return write!(f, "; {} look-ups, none older than what was known before", self.lookups);
        }
        write!(f, "NOT VERIFIED: {} orders read back", self.read)?;
        for (name, cases) in problems {
            write!(f, "\n  {name} ({}):", cases.len())?;
            for case in cases.iter().take(MAX_SHOWN) {
                write!(f, "\n    {case}")?;
            }
            if cases.len() > MAX_SHOWN {
                write!(f, "\n    and {} more (all of them with --json)", cases.len() - MAX_SHOWN)?;
            }
        }
        Ok(())
    }
}

/// What the comparison needs to know of the run.
pub(crate) struct Subject {
    /// All stocks before the run, whose indexes the ledger uses.
    pub(crate) before: Vec<Stock>,
    /// Stocks in each trade.
    pub(crate) quantity: u32,
    pub(crate) exclusive: bool,
    /// Readers at the same time.
    pub(crate) readers: u32,
}

/// Reads every order of `ledger` back and compares. Returns the connections opened as well.
pub(crate) async fn verify(
    shared: &Arc<Shared>,
    ledger: Ledger,
    subject: &Subject,
) -> anyhow::Result<(Verification, u64)> {
    let mut placed = ledger.placed;
    placed.sort_unstable_by_key(|trade| trade.number);
    let mut result = Verification { unknown: ledger.unknown, rejected: ledger.rejected, ..Verification::default() };
    result.doubled = doubled(&placed);
    if subject.exclusive {
        result.moved = match Client::new(Arc::clone(shared), 0).stocks().await {
            Ok(after) => moved(subject, &placed, &result.unknown, &after),
            Err(failure) => vec![format!("the stocks could not be read: {}", failure.cause)],
        };
        result.extra = extra(shared, &placed).await;
    }
    let (stocks, quantity) = (subject.before.clone(), subject.quantity);
    let work = Arc::new(ReadBack { placed, stocks, quantity, next: AtomicUsize::new(0) });
    let mut readers = JoinSet::new();
    for number in 0..subject.readers {
        readers.spawn(read_back(Arc::clone(shared), number, Arc::clone(&work)));
    }
    let (mut reads, mut opened) = (ledger.reads, 0);
    result.reread = reads.read;
    while let Some(part) = readers.join_next().await {
        let (part, connections) = part?;
        opened += connections;
        result.read += part.read;
        reads.append(part);
    }
    reads.sort();
    Reads { lost: result.lost, changed: result.changed, unreadable: result.unreadable, .. } = reads;
    Ok((result, opened))
}

/// Numbers given to more than one trade. `placed` is sorted by number.
fn doubled(placed: &[Placed]) -> Vec<u64> {
    let twice = placed.windows(2).filter(|pair| pair[0].number == pair[1].number).map(|pair| pair[0].number);
    twice.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The read-back, shared by all readers, each of which takes the next trade.
struct ReadBack {
    placed: Vec<Placed>,
    stocks: Vec<Stock>,
    quantity: u32,
    next: AtomicUsize,
}

async fn read_back(shared: Arc<Shared>, number: u32, work: Arc<ReadBack>) -> (Reads, u64) {
    let mut client = Client::new(Arc::clone(&shared), number);
    let mut reads = Reads::default();
    while let Some(placed) = work.placed.get(work.next.fetch_add(1, Ordering::Relaxed)) {
        let name = work.stocks.get(placed.stock as usize).map_or("?", |stock| stock.name.as_str());
        let asked = Trade { name, quantity: work.quantity, side: placed.side };
        reads.read(&shared.recorder, &mut client, placed.number, &asked).await;
    }
    let opened = client.opened();
    (reads, opened)
}

/// Orders between and after this run's own that it was never told of. A refused or failed read ends the search: what
/// it would have found shows in the volumes as well.
async fn extra(shared: &Arc<Shared>, placed: &[Placed]) -> Vec<u64> {
    let (Some(first), Some(last)) = (placed.first(), placed.last()) else {
        return Vec::new();
    };
    let own: HashSet<u64> = placed.iter().map(|trade| trade.number).collect();
    let mut client = Client::new(Arc::clone(shared), 0);
    let mut extra = Vec::new();
    let mut number = first.number;
    while extra.len() < MAX_EXTRA {
        if !own.contains(&number) {
            match client.order(number).await {
                Ok(Some(_)) => extra.push(number),
                Ok(None) if number < last.number => {}
                Ok(None) | Err(_) => break,
            }
        }
        number += 1;
    }
    extra
}

/// How the stocks should have moved: up or down in quantity, up in volume.
#[derive(Clone, Copy, Default)]
struct Movement {
    bought: u64,
    sold: u64,
    /// Stocks of trades with an unknown outcome, which may have moved or not.
    perhaps: u64,
}

fn moved(subject: &Subject, placed: &[Placed], unknown: &[Unplaced], after: &[Stock]) -> Vec<String> {
    let mut movements: BTreeMap<&str, Movement> = BTreeMap::new();
    for trade in placed {
        let Some(stock) = subject.before.get(trade.stock as usize) else {
            continue;
        };
        let movement = movements.entry(&stock.name).or_default();
        match trade.side {
            Side::Buy => movement.bought += u64::from(subject.quantity),
            Side::Sell => movement.sold += u64::from(subject.quantity),
        }
    }
    for trade in unknown {
        movements.entry(&trade.name).or_default().perhaps += u64::from(trade.quantity);
    }
    let after: BTreeMap<&str, &Stock> = after.iter().map(|stock| (stock.name.as_str(), stock)).collect();
    let wrong = subject.before.iter().filter_map(|before| {
        let movement = movements.get(before.name.as_str()).copied().unwrap_or_default();
        let Some(after) = after.get(before.name.as_str()) else {
            return Some(format!("{} is gone", before.name));
        };
        wrongly(before, after, movement)
    });
    wrong.collect()
}

fn wrongly(before: &Stock, after: &Stock, movement: Movement) -> Option<String> {
    let Movement { bought, sold, perhaps } = movement;
    let volume = i128::from(after.volume) - i128::from(before.volume);
    let quantity = i128::from(after.quantity) - i128::from(before.quantity);
    let (bought, sold, perhaps) = (i128::from(bought), i128::from(sold), i128::from(perhaps));
    let right = (bought + sold..=bought + sold + perhaps).contains(&volume)
        && (sold - bought - perhaps..=sold - bought + perhaps).contains(&quantity);
    (!right).then(|| {
        format!(
            "{}: acknowledged {bought} bought and {sold} sold, unknown {perhaps}, but volume moved by {volume} and \
             quantity by {quantity}",
            before.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(quantity: u64, volume: u64) -> Stock {
        Stock { name: "A".to_owned(), quantity, volume }
    }

    #[test]
    fn a_stock_moves_by_what_was_acknowledged() {
        let movement = |bought, sold, perhaps| Movement { bought, sold, perhaps };
        for (after, movement, right) in [
            (stock(100, 0), movement(0, 0, 0), true),
            (stock(97, 3), movement(3, 0, 0), true),
            (stock(100, 6), movement(3, 3, 0), true),
            (stock(96, 4), movement(3, 0, 0), false),
            (stock(97, 4), movement(3, 0, 0), false),
            (stock(96, 4), movement(3, 0, 1), true),
            (stock(98, 2), movement(3, 0, 0), false),
        ] {
            assert_eq!(wrongly(&stock(100, 0), &after, movement).is_none(), right, "{after:?}");
        }
    }

    #[test]
    fn a_number_for_two_trades_is_doubled_once() {
        let placed = |number| Placed { number, stock: 0, side: Side::Buy };
        for (numbers, expected) in [(vec![], vec![]), (vec![1, 2, 3], vec![]), (vec![1, 1, 1, 2, 3, 3], vec![1, 3])] {
            let placed: Vec<Placed> = numbers.into_iter().map(placed).collect();
            assert_eq!(doubled(&placed), expected);
        }
    }

    #[test]
    fn every_kind_of_problem_is_listed_by_number() {
        let mut verification = Verification { read: 9, ..Verification::default() };
        assert!(verification.ok());
        verification.lost = vec![17];
        verification.extra = vec![18];
        assert!(!verification.ok());
        let text = verification.to_string();
        assert!(text.contains("lost (1):\n    17") && text.contains("never acknowledged (1):\n    18"), "{text}");
    }
}
