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
use tradenet_schemas::account::Instruction;
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::message::{Answer, Query};
use tradenet_schemas::trade::{Command, IdempotencyKey, Order, Outcome, Receipt, Refusal, Side, Stock};

use crate::history::{Call, History};
use crate::invariants::{Verdict, Violation};
use crate::market::{Deed, Earlier, Finding, Market, Ordered, Patience, Stated};
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
    /// What accounts traded with each other.
    met: u64,
}

/// What a journal says.
#[derive(Default, Debug)]
pub struct Ledger {
    /// Orders with the house, by number.
    rows: BTreeMap<u64, Row>,
    /// How many orders there are, of accounts too.
    orders: u64,
    books: BTreeMap<String, Book>,
    /// Which entry each key made.
    keys: BTreeMap<String, u64>,
    market: Market,
}

fn number(value: &Value, field: &str) -> Result<u64, String> {
    value[field].as_u64().ok_or_else(|| format!("no number {field} in {value}"))
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| format!("no text {field} in {value}"))
}

/// What a list holds; nothing where there is none.
fn each<T>(what: &Value, field: &str, read: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    what[field].as_array().map_or(&[][..], Vec::as_slice).iter().map(read).collect()
}

fn patience(time_in_force: &str) -> Result<Patience, String> {
    match time_in_force {
        "gtc" => Ok(Patience::Rests),
        "ioc" => Ok(Patience::AtOnce),
        "fok" => Ok(Patience::WholeAtOnce),
        other => Err(format!("nobody waits {other}")),
    }
}

fn stated(what: &Value) -> Result<Deed, String> {
    let fill = |fill: &Value| match [0, 1, 2].map(|at| fill[at].as_u64()) {
        [Some(trade), Some(price), Some(quantity)] => Ok((trade, price, quantity)),
        _ => Err(format!("no trade: {fill}")),
    };
    let flag = |group: &Value, field: &str| group[field].as_bool().ok_or_else(|| format!("no {field} in {group}"));
    let group = |group: &Value| {
        Ok(Earlier {
            count: number(group, "count")?,
            newest: number(group, "newest")?,
            orders: (number(group, "lowest")?, number(group, "highest")?),
            any: (flag(group, "filled")?, flag(group, "cancelled")?),
        })
    };
    let order = |order: &Value| {
        Ok(Stated {
            number: number(order, "order")?,
            symbol: text(order, "symbol")?,
            buys: buys(&text(order, "side")?)?,
            quantity: number(order, "quantity")?,
            price: order["price"].as_u64(),
            patience: patience(order["time_in_force"].as_str().unwrap_or("gtc"))?,
            rested_after: order["rested_after"].as_u64(),
            cancelled: order["cancelled"].as_u64().unwrap_or(0),
            fills: each(order, "fills", fill)?,
        })
    };
    let (earlier, orders) = (each(what, "earlier", group)?, each(what, "orders", order)?);
    Ok(Deed::State { account: text(what, "account")?, earlier, orders })
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
        let mut deeds = Vec::new();
        let mut of_the_exchange = true;
        for event in events {
            let (kind, what) = event.as_object().and_then(|event| event.iter().next()).ok_or("an empty event")?;
            of_the_exchange &= matches!(kind.as_str(), "listed" | "epoch_start" | "attached" | "detached" | "stated");
            match kind.as_str() {
                "listed" => self.list(what)?,
                "traded" => self.trade(what, text(&entry, "key")?)?,
                "epoch_start" | "attached" | "detached" => {}
                other => deeds.push(self.deed(other, what)?),
            }
        }
        self.market.take(seq, &deeds)?;
        if of_the_exchange {
            return Ok(());
        }
        let key = text(&entry, "key")?;
        let again = matches!(deeds[..], [Deed::Open { .. }]);
        match self.keys.insert(key.clone(), seq) {
            Some(_) if !again => Err(format!("{key} is done twice")),
            _ => Ok(()),
        }
    }

    fn list(&mut self, what: &Value) -> Finding {
        let (price, listed) = (number(what, "price")?, number(what, "quantity")?);
        let book = Book { price, left: BTreeMap::from([(0, listed)]), listed, bought: 0, sold: 0, met: 0 };
        match self.books.insert(text(what, "symbol")?, book) {
            None => Ok(()),
            Some(_) => Err(format!("listed twice: {what}")),
        }
    }

    fn numbered(&mut self, what: &Value) -> Result<u64, String> {
        self.orders += 1;
        let order = number(what, "order")?;
        if order == self.orders { Ok(order) } else { Err(format!("not order {}: {what}", self.orders)) }
    }

    fn trade(&mut self, what: &Value, key: String) -> Finding {
        let (symbol, quantity, side) = (text(what, "symbol")?, number(what, "quantity")?, text(what, "side")?);
        let order = self.numbered(what)?;
        let buys = buys(&side)?;
        let book = self.books.get_mut(&symbol).ok_or_else(|| format!("{symbol} is not listed"))?;
        if number(what, "price")? != book.price {
            return Err(format!("not the price {}: {what}", book.price));
        }
        if buys {
            book.bought += quantity;
        } else {
            book.sold += quantity;
        }
        book.note().map_err(|why| format!("{why}: {what}"))?;
        self.rows.insert(order, Row { symbol, buys, quantity, key });
        Ok(())
    }

    /// What an event does to accounts and books.
    fn deed(&mut self, kind: &str, what: &Value) -> Result<Deed, String> {
        let moved = |inwards: bool| {
            let asset = &what["asset"];
            let stock = asset["stock"][0].as_str().map(str::to_owned);
            let amount = if stock.is_some() { asset["stock"][1].as_u64() } else { asset["cash"].as_u64() };
            let amount = amount.ok_or_else(|| format!("nothing moves: {what}"))?;
            Ok(Deed::Move { account: text(what, "account")?, stock, amount, inwards })
        };
        match kind {
            "opened" => Ok(Deed::Open { account: text(what, "account")? }),
            "deposited" => moved(true),
            "withdrawn" => moved(false),
            "placed" => self.placed(what),
            "matched" => {
                let (symbol, quantity) = (text(what, "symbol")?, number(what, "quantity")?);
                let book = self.books.get_mut(&symbol).ok_or_else(|| format!("{symbol} is not listed"))?;
                book.met += quantity;
                book.note()?;
                let (trade, maker, price) = (number(what, "trade")?, number(what, "maker")?, number(what, "price")?);
                Ok(Deed::Match { trade, maker, price, quantity })
            }
            "stated" => stated(what),
            "cancelled" => Ok(Deed::Cancel { order: number(what, "order")?, quantity: number(what, "quantity")? }),
            other => Err(format!("an event of kind {other}")),
        }
    }

    fn placed(&mut self, what: &Value) -> Result<Deed, String> {
        let quantity = number(what, "quantity")?;
        let patience = patience(&text(what, "time_in_force")?)?;
        Ok(Deed::Place(Ordered {
            number: self.numbered(what)?,
            account: text(what, "account")?,
            symbol: text(what, "symbol")?,
            buys: buys(&text(what, "side")?)?,
            quantity,
            price: what["price"].as_u64(),
            patience,
            post_only: what["post_only"].as_bool().unwrap_or(false),
            left: quantity,
            done: false,
            fills: Vec::new(),
        }))
    }

    /// Per stock, summed over all rows anew: what was listed and sold to the house is what is left and was bought from it.
    fn conserves(&self) -> Finding {
        for (symbol, book) in &self.books {
            let sum = |buys: bool| -> u64 {
                let rows = self.rows.values().filter(|row| row.symbol == *symbol && row.buys == buys);
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
                    Some(key) => row.key == name_of(command, key),
                    None => row.key.starts_with("g:"),
                };
                if made_for { Ok(()) } else { Err(format!("the order was made under {}", row.key)) }
            }
            (ClientRequest::Command(key, command), ClientAnswer::Outcome(Outcome::Done { receipt, .. })) => {
                self.has_done(key.as_ref(), command, receipt)
            }
            (ClientRequest::Command(_, command), ClientAnswer::Outcome(Outcome::Refused(refusal))) => {
                self.refuses(command, *refusal)
            }
            (ClientRequest::Market(query), ClientAnswer::Market(answer)) => self.showed(query, answer),
            (_, ClientAnswer::Stock { stock: Some(stock), .. }) => self.had(stock),
            (_, ClientAnswer::Stocks(stocks)) => stocks.iter().try_for_each(|stock| self.had(stock)),
            (_, ClientAnswer::Order(Some(order))) => self.row(order.number).ok_or("there is no such order")?.is(order),
            // What was not there yet, or not done: when that was right, the file can't say.
            _ => Ok(()),
        }
    }

    fn row(&self, order: OrderNumber) -> Option<&Row> {
        self.rows.get(&order.0)
    }

    /// What a client was told of its account's command was so when that was done, or later.
    fn has_done(&self, key: Option<&IdempotencyKey>, command: &Command, receipt: &Receipt) -> Finding {
        let made = key.map(|key| name_of(command, key));
        let entry = made.as_ref().map(|name| self.keys.get(name).ok_or_else(|| format!("{name} has done nothing")));
        let from = entry.transpose()?.copied().unwrap_or(0);
        let Command::Account { caller, .. } = command else { return Ok(()) };
        let account = caller.account.as_str();
        let so = match receipt {
            Receipt::Opened => return Ok(()),
            Receipt::Balance(balance) => {
                self.market.when_balance(account, balance, from).filter(|(begin, _)| *begin <= from)
            }
            Receipt::Order(order) => self.market.when_order(account, order, from),
        };
        so.map(|_| ()).ok_or_else(|| "it was never so since".to_owned())
    }

    fn showed(&self, query: &Query, answer: &Answer) -> Finding {
        match answer {
            Answer::Book(None) | Answer::Trades(None) => Ok(()), // Not listed yet.
            Answer::Events { .. } => Ok(()),                     // They are numbered nowhere in the file.
            answer => self.market.when(query, answer, 0).map(|_| ()),
        }
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
        let Some((symbol, side, quantity)) = house_trade(command) else {
            // When an account's command was to be refused is the auditor's part.
            return Ok(());
        };
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
        let commands = history.trades()?;
        let mut keyed = BTreeMap::new();
        let (mut without_key, mut told_twice) = (0, BTreeSet::new());
        for asked in &commands {
            match &asked.key {
                Some(key) => drop(keyed.insert(name_of(&asked.command, key), asked)),
                None => without_key += 1,
            }
            let cancels = matches!(&asked.command, Command::Account { instruction: Instruction::Cancel(_), .. });
            if let Some((_, number)) = asked.told.filter(|(_, number)| number.0 > 0 && !cancels)
                && !told_twice.insert(number)
            {
                return Err(format!("order {number} is the answer to two commands"));
            }
        }
        let (of_clients, generated): (Vec<_>, Vec<_>) = self.keys.keys().partition(|key| !key.starts_with("g:"));
        let unasked = of_clients.into_iter().find(|key| !keyed.contains_key(*key));
        if let Some(key) = unasked {
            return Err(format!("nobody asked for {key}, or was told it is not done"));
        }
        for row in self.rows.values() {
            keyed.get(&row.key).map_or(Ok(()), |asked| row.does(&asked.command))?;
        }
        if generated.len() > without_key {
            return Err(format!("{} commands without a client's key, asked for were {without_key}", generated.len()));
        }
        Ok(())
    }
}

fn buys(side: &str) -> Result<bool, String> {
    match side {
        "buy" => Ok(true),
        "sell" => Ok(false),
        other => Err(format!("nobody trades {other}")),
    }
}

impl Book {
    /// What is left by now, under the volume of now.
    fn note(&mut self) -> Finding {
        let left = (self.listed + self.sold).checked_sub(self.bought).ok_or("less than nothing is left")?;
        self.left.insert(self.bought + self.sold + self.met, left);
        Ok(())
    }
}

/// How a client's key stands in the file.
fn name_of(command: &Command, key: &IdempotencyKey) -> String {
    command.key(key).as_str().to_owned()
}

impl Row {
    fn does(&self, command: &Command) -> Finding {
        let same = house_trade(command).is_some_and(|(symbol, side, quantity)| {
            self.symbol == symbol.as_str() && self.buys == (side == Side::Buy) && self.quantity == quantity.get()
        });
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
