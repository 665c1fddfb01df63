//! The exchange a second time, from a journal's bytes: what clients were told must be what stands there.
//!
//! Problem: [`crate::invariants::Truth`] sees entries as core parsed them; a mistake in core's codec or types is one that it
//! would share.
//! Idea: at the end of a run the file is read as what it is, lines of JSON, with plain text and plain numbers; it is replayed
//! by naive code, and compared with every answer that any client got ([`crate::history`]).
//! Rule kept: the file is read without `tradenet-core` and without the types that it is written with. Not covered here: *when* an answer was right, which is [`crate::linear`]'s and the auditor's part.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::trade::{Command, CommandKey, IdempotencyKey, Order, Outcome, Refusal, Side, Stock};

use crate::history::{Call, History};
use crate::invariants::{Verdict, Violation};
use crate::workload::house_trade;
use crate::world::Answered;

const LEDGER: &str = "the journal, read by other code, has what clients were told";

/// A trade as it stands in the file.
#[derive(Debug)]
struct Row {
    symbol: String,
    buys: bool,
    quantity: u64,
    key: String,
}

/// All versions of one stock.
#[derive(Debug)]
struct Book {
    price: u64,
    /// What was left, by what had been traded.
    left: BTreeMap<u64, u64>,
    listed: u64,
    bought: u64,
    sold: u64,
}

/// What a journal says.
#[derive(Default, Debug)]
pub struct Ledger {
    rows: Vec<Row>,
    books: BTreeMap<String, Book>,
    keys: BTreeMap<String, usize>,
}

type Finding = Result<(), String>;

fn number(value: &Value, field: &str) -> Result<u64, String> {
    value[field].as_u64().ok_or_else(|| format!("no number {field} in {value}"))
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| format!("no text {field} in {value}"))
}

impl Ledger {
    /// Reads a journal.
    ///
    /// # Errors
    /// It is no journal, or what it says can't be.
    pub fn read(journal: &[u8]) -> Result<Self, Violation> {
        let mut ledger = Self::default();
        let mut epoch = 0;
        for (index, line) in journal.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let at = index as u64 + 1;
            ledger
                .take(line, at, &mut epoch)
                .map_err(|why| Violation::new(LEDGER, format!("line {at} of the journal: {why}")))?;
        }
        ledger.conserves().map_err(|why| Violation::new(LEDGER, why))?;
        Ok(ledger)
    }

    fn take(&mut self, line: &[u8], at: u64, epoch: &mut u64) -> Finding {
        let entry: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let (seq, its_epoch) = (number(&entry, "seq")?, number(&entry, "epoch")?);
        if seq != at || its_epoch < *epoch {
            return Err(format!("entry {seq} of epoch {its_epoch} stands behind epoch {epoch}"));
        }
        *epoch = its_epoch;
        let events = entry["events"].as_array().ok_or("no events")?;
        for event in events {
            let (kind, what) = event.as_object().and_then(|event| event.iter().next()).ok_or("an empty event")?;
            match kind.as_str() {
                "listed" => self.list(what)?,
                "traded" => self.trade(what, text(&entry, "key")?)?,
                "epoch_start" | "attached" | "detached" => {}
                other => return Err(format!("an event of kind {other}")),
            }
        }
        Ok(())
    }

    fn list(&mut self, what: &Value) -> Finding {
        let (price, listed) = (number(what, "price")?, number(what, "quantity")?);
        let book = Book { price, left: BTreeMap::from([(0, listed)]), listed, bought: 0, sold: 0 };
        match self.books.insert(text(what, "symbol")?, book) {
            None => Ok(()),
            Some(_) => Err(format!("listed twice: {what}")),
        }
    }

    fn trade(&mut self, what: &Value, key: String) -> Finding {
        let (symbol, quantity, side) = (text(what, "symbol")?, number(what, "quantity")?, text(what, "side")?);
        let buys = side == "buy";
        if number(what, "order")? != self.rows.len() as u64 + 1 || !(buys || side == "sell") {
            return Err(format!("not order {}: {what}", self.rows.len() + 1));
        }
        let book = self.books.get_mut(&symbol).ok_or_else(|| format!("{symbol} is not listed"))?;
        if number(what, "price")? != book.price {
            return Err(format!("not the price {}: {what}", book.price));
        }
        if buys {
            book.bought += quantity;
        } else {
            book.sold += quantity;
        }
        let left = (book.listed + book.sold).checked_sub(book.bought);
        let left = left.ok_or_else(|| format!("less than nothing is left: {what}"))?;
        book.left.insert(book.bought + book.sold, left);
        if self.keys.insert(key.clone(), self.rows.len()).is_some() {
            return Err(format!("{key} is done twice"));
        }
        self.rows.push(Row { symbol, buys, quantity, key });
        Ok(())
    }

    /// Per stock, summed over all rows anew: what was listed and sold to the house is what is left and was bought from it.
    fn conserves(&self) -> Finding {
        for (symbol, book) in &self.books {
            let sum = |buys: bool| -> u64 {
                let rows = self.rows.iter().filter(|row| row.symbol == *symbol && row.buys == buys);
                rows.map(|row| row.quantity).sum()
            };
            let left = book.left.values().next_back().copied().unwrap_or(0);
            if book.listed + sum(false) != left + sum(true) {
                return Err(format!("{symbol} is not conserved: {left} are left of {}", book.listed));
            }
        }
        Ok(())
    }

    // ------------------------------------------------------------ what clients were told

    /// Compares everything that any client was told with what stands here.
    ///
    /// # Errors
    /// A client was told something else.
    pub fn check(&self, history: &History) -> Verdict {
        let compared = history.calls().iter().try_for_each(|call| {
            self.agrees(call).map_err(|why| format!("{:?} got {:?}: {why}", call.request, call.got))
        });
        compared.and_then(|()| self.is_asked_for(history)).map_err(|why| Violation::new(LEDGER, why))
    }

    fn agrees(&self, call: &Call) -> Finding {
        let Some((_, Answered::With(answer))) = &call.got else {
            return Ok(());
        };
        match (&call.request, answer) {
            (ClientRequest::Command(key, command), ClientAnswer::Outcome(Outcome::Accepted { order, .. })) => {
                let row = self.row(*order).ok_or("there is no such order")?;
                row.does(command)?;
                let made_for = match key {
                    Some(key) => row.key == name_of(key),
                    None => row.key.starts_with("g:"),
                };
                if made_for { Ok(()) } else { Err(format!("the order was made under {}", row.key)) }
            }
            (ClientRequest::Command(_, command), ClientAnswer::Outcome(Outcome::Refused(refusal))) => {
                self.refuses(command, *refusal)
            }
            (_, ClientAnswer::Stock { stock: Some(stock), .. }) => self.had(stock),
            (_, ClientAnswer::Stocks(stocks)) => stocks.iter().try_for_each(|stock| self.had(stock)),
            (_, ClientAnswer::Order(Some(order))) => self.row(order.number).ok_or("there is no such order")?.is(order),
            // What was not there yet, or not done: when that was right, the file can't say.
            _ => Ok(()),
        }
    }

    fn row(&self, order: OrderNumber) -> Option<&Row> {
        self.rows.get(usize::try_from(order.0.checked_sub(1)?).ok()?)
    }

    fn had(&self, stock: &Stock) -> Finding {
        let book = self.books.get(stock.symbol.as_str()).ok_or("it was never listed")?;
        let left = book.left.get(&stock.volume.get()).ok_or("it never had that volume")?;
        match (*left, book.price) == (stock.quantity.get(), stock.price.cents()) {
            true => Ok(()),
            false => Err(format!("at that volume {left} were left for {}", book.price)),
        }
    }

    fn refuses(&self, command: &Command, refusal: Refusal) -> Finding {
        let (symbol, side, quantity) = house_trade(command);
        let least = self.books.get(symbol.as_str()).and_then(|book| book.left.values().min());
        match refusal {
            Refusal::UnknownSymbol => Ok(()),
            Refusal::NotEnoughStocks if side == Side::Buy && least.is_some_and(|least| *least < quantity.get()) => {
                Ok(())
            }
            _ => Err(format!("never was there any reason: at least {least:?} were left")),
        }
    }

    /// Every trade in the file was asked for by a client that was not told that nothing was done.
    fn is_asked_for(&self, history: &History) -> Finding {
        let trades = history.trades()?;
        let mut keyed = BTreeMap::new();
        let (mut without_key, mut told_twice) = (0, BTreeSet::new());
        for trade in &trades {
            match &trade.key {
                Some(key) => drop(keyed.insert(name_of(key), trade)),
                None => without_key += 1,
            }
            if let Some((_, number)) = trade.told
                && !told_twice.insert(number)
            {
                return Err(format!("order {number} is the answer to two trades"));
            }
        }
        let (of_clients, generated): (Vec<&Row>, Vec<&Row>) = self.rows.iter().partition(|r| r.key.starts_with("c:"));
        for row in of_clients {
            let trade =
                keyed.get(&row.key).ok_or_else(|| format!("nobody asked for {row:?}, or was told it is not"))?;
            row.does(&trade.command)?;
        }
        if generated.len() > without_key {
            return Err(format!("{} trades without a client's key, asked for were {without_key}", generated.len()));
        }
        Ok(())
    }
}

/// How a client's key stands in the file.
fn name_of(key: &IdempotencyKey) -> String {
    CommandKey::of_client(key).as_str().to_owned()
}

impl Row {
    fn does(&self, command: &Command) -> Finding {
        let (symbol, side, quantity) = house_trade(command);
        let same =
            self.symbol == symbol.as_str() && self.buys == (side == Side::Buy) && self.quantity == quantity.get();
        if same { Ok(()) } else { Err(format!("{command:?} is {self:?}")) }
    }
    fn is(&self, order: &Order) -> Finding {
        let (symbol, side, quantity) = (order.symbol.clone(), order.side, order.quantity);
        self.does(&Command::Trade { symbol, side, quantity })
    }
}

#[cfg(test)]
mod tests {
    use tradenet_schemas::trade::Quantity;

    use super::*;

    const LISTED: &str = r#"{"seq":1,"epoch":1,"events":[{"listed":{"symbol":"HOT","price":5,"quantity":10}}]}"#;

    fn traded(seq: u64, order: u64, side: &str, quantity: u64, key: &str) -> String {
        let trade = format!(r#"{{"order":{order},"symbol":"HOT","side":"{side}","quantity":{quantity},"price":5}}"#);
        format!(r#"{{"seq":{seq},"epoch":1,"key":"{key}","events":[{{"traded":{trade}}}]}}"#)
    }

    fn read(lines: &[String]) -> Result<Ledger, Violation> {
        let all: String = [LISTED.to_owned()].iter().chain(lines).map(|line| format!("{line}\n")).collect();
        Ledger::read(all.as_bytes())
    }

    #[test]
    fn a_journal_that_can_not_be_is_an_error() {
        let check = |what: &str, lines: &[String], holds: bool| assert_eq!(read(lines).is_ok(), holds, "{what}");
        check("two trades", &[traded(2, 1, "buy", 10, "c:a"), traded(3, 2, "sell", 1, "c:b")], true);
        check("a gap in seq", &[traded(3, 1, "buy", 1, "c:a")], false);
        check("a gap in orders", &[traded(2, 2, "buy", 1, "c:a")], false);
        check("more than there are", &[traded(2, 1, "buy", 11, "c:a")], false);
        check("a key twice", &[traded(2, 1, "buy", 1, "c:a"), traded(3, 2, "buy", 1, "c:a")], false);
    }

    #[test]
    fn what_clients_were_told_is_compared() {
        let command = |quantity| {
            ClientRequest::Command(
                IdempotencyKey::new("a").ok(),
                Command::Trade {
                    symbol: crate::world::symbol("HOT"),
                    side: Side::Buy,
                    quantity: Quantity::new(quantity).unwrap(),
                },
            )
        };
        let accepted = |number| Outcome::Accepted { order: OrderNumber(number), replayed: false };
        let check = |what: &str, quantity, outcome, holds: bool| {
            let mut history = History::default();
            let call = history.asked(1, command(quantity));
            history.got(call, 2, &Answered::With(ClientAnswer::Outcome(outcome)));
            let verdict = read(&[traded(2, 1, "buy", 4, "c:a")]).and_then(|ledger| ledger.check(&history));
            assert_eq!(verdict.is_ok(), holds, "{what}: {verdict:?}");
        };
        check("as it is", 4, accepted(1), true);
        check("another quantity", 5, accepted(1), false);
        check("another number", 4, accepted(2), false);
        check("refused, but done", 4, Outcome::Refused(Refusal::NotEnoughStocks), false);
    }
}
