//! The contract once more, as plainly as it can be written down.
//!
//! Problem: what the exchange answers must be what the contract says, also where several of its sentences meet. Idea: this
//! is a second exchange that was written from `docs` of the contract alone, with none of the exchange's types: lists that
//! are searched from the start, sums that are added up when they are asked for. Rule: nothing here is fast or clever, and
//! nothing is shared with what it is compared with.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Open { name: String },
    Balance,
    Deposit(Asset),
    Withdraw(Asset),
    Place(New),
    Orders { status: Option<&'static str>, limit: Option<usize>, before: Option<u64> },
    Order(u64),
    Cancel(u64),
    Book { name: &'static str, depth: Option<usize> },
    Trades { name: &'static str, limit: Option<usize> },
    Stocks,
    Stock(&'static str),
    HouseTrade { name: &'static str, buy: bool, quantity: u64 },
    HouseOrder(u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Asset {
    Cents(u64),
    Stock(&'static str, u64),
}

/// An order that is to be placed.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) name: &'static str,
    pub(crate) buy: bool,
    pub(crate) quantity: u64,
    pub(crate) cents: Option<u64>,
    pub(crate) time_in_force: Option<&'static str>,
    pub(crate) post_only: Option<bool>,
}

/// Who asks, for whom, and with which key.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The account in the path.
    pub(crate) account: String,
    /// Whose token is sent; none: one that is nobody's.
    pub(crate) token_of: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) ask: Ask,
}

/// What the contract answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    /// The data, or the message; null where the contract leaves it open.
    pub(crate) content: Value,
    pub(crate) replayed: bool,
}

fn refused(status: u16, message: &str) -> Expected {
    Expected { status, content: json!(message), replayed: false }
}

/// For a refusal whose words the contract leaves open.
fn refused_somehow(status: u16) -> Expected {
    Expected { status, content: Value::Null, replayed: false }
}

fn ok(data: Value) -> Expected {
    Expected { status: 200, content: data, replayed: false }
}

/// What a request means: bodies are the same that ask for the same, whether or not they say what goes without saying.
fn meaning(ask: &Ask) -> String {
    let mut ask = ask.clone();
    if let Ask::Place(new) = &mut ask {
        new.time_in_force.get_or_insert("gtc");
        new.post_only.get_or_insert(false);
    }
    format!("{ask:?}")
}

/// Cents as the contract writes them.
pub(crate) fn decimal(cents: u64) -> Value {
    serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap()
}

fn word(buy: bool) -> &'static str {
    if buy { "buy" } else { "sell" }
}

#[derive(Default)]
struct Owner {
    cents: u64,
    stocks: BTreeMap<String, u64>,
    used: bool,
}

struct Listed {
    name: String,
    cents: u64,
    quantity: u64,
    volume: u64,
}

enum Numbered {
    House { name: String, buy: bool, quantity: u64 },
    Account(Order),
}

struct Order {
    owner: String,
    new: New,
    status: &'static str,
    /// Number, cents, quantity.
    fills: Vec<(u64, u64, u64)>,
}

impl Order {
    fn left(&self) -> u64 {
        self.new.quantity - self.fills.iter().map(|fill| fill.2).sum::<u64>()
    }
}

struct Trade {
    name: String,
    cents: u64,
    quantity: u64,
    buy: bool,
}

/// The whole exchange.
pub(crate) struct Model {
    stocks: Vec<Listed>,
    owners: BTreeMap<String, Owner>,
    orders: Vec<Numbered>,
    trades: Vec<Trade>,
    /// By account (none for the house) and key: what was asked for, and the success.
    keys: BTreeMap<(String, String), (String, Expected)>,
}

impl Model {
    /// With stocks that have a name, a price in cents, and a quantity.
    pub(crate) fn new(stocks: &[(&str, u64, u64)]) -> Self {
        let listed = |(name, cents, quantity): &(&str, u64, u64)| Listed {
            name: (*name).to_owned(),
            cents: *cents,
            quantity: *quantity,
            volume: 0,
        };
        let mut stocks: Vec<_> = stocks.iter().map(listed).collect();
        stocks.sort_by(|a, b| a.name.cmp(&b.name));
        Self { stocks, owners: BTreeMap::new(), orders: Vec::new(), trades: Vec::new(), keys: BTreeMap::new() }
    }

    pub(crate) fn orders(&self) -> u64 {
        self.orders.len() as u64
    }

    /// Answers, and does what was asked for.
    pub(crate) fn answer(&mut self, request: &Request) -> Expected {
        let of_account = !matches!(
            request.ask,
            Ask::Open { .. }
                | Ask::Book { .. }
                | Ask::Trades { .. }
                | Ask::Stocks
                | Ask::Stock(_)
                | Ask::HouseTrade { .. }
                | Ask::HouseOrder(_)
        );
        if of_account {
            match &request.token_of {
                Some(owner) if !self.owners.contains_key(owner) => return refused_somehow(401),
                None => return refused_somehow(401),
                Some(owner) if *owner != request.account => return refused_somehow(403),
                Some(_) => {}
            }
        }
        // A number or name that nothing can have is like a malformed body: refused before any key is looked at.
        if matches!(request.ask, Ask::Cancel(0)) {
            return refused_somehow(404);
        }
        if let Ask::Deposit(Asset::Stock(name, _))
        | Ask::Withdraw(Asset::Stock(name, _))
        | Ask::Place(New { name, .. })
        | Ask::HouseTrade { name, .. } = &request.ask
            && name.contains(' ')
        {
            return refused(404, "stock not found");
        }
        let changes = matches!(
            request.ask,
            Ask::Open { .. }
                | Ask::Deposit(_)
                | Ask::Withdraw(_)
                | Ask::Place(_)
                | Ask::Cancel(_)
                | Ask::HouseTrade { .. }
        );
        let Some(key) = request.key.clone().filter(|_| changes) else { return self.do_it(request) };
        let scope = if of_account { request.account.clone() } else { String::new() };
        let asked = meaning(&request.ask);
        match self.keys.get(&(scope.clone(), key.clone())) {
            Some((first, _)) if *first != asked => return refused_somehow(422),
            // The first success again: but for an account, whose token is another one, and there only before it was used.
            Some((_, answer)) => {
                let used = matches!(&request.ask, Ask::Open { name } if self.owners[name].used);
                return if used { refused_somehow(409) } else { Expected { replayed: true, ..answer.clone() } };
            }
            None => {}
        }
        let answer = self.do_it(request);
        if answer.status < 300 {
            self.keys.insert((scope, key), (asked, answer.clone()));
        }
        answer
    }

    fn do_it(&mut self, request: &Request) -> Expected {
        let owner = &request.account;
        match &request.ask {
            Ask::Open { name } => self.open(name),
            Ask::Balance => ok(self.balance(owner)),
            Ask::Deposit(asset) => self.deposit(owner, asset),
            Ask::Withdraw(asset) => self.withdraw(owner, asset),
            Ask::Place(new) => self.place(owner, new),
            Ask::Orders { status, limit, before } => self.list(owner, *status, limit.unwrap_or(50), *before),
            Ask::Order(number) => match self.own(owner, *number) {
                None => refused_somehow(404),
                Some(order) => ok(show(*number, order)),
            },
            Ask::Cancel(number) => self.cancel(owner, *number),
            Ask::Book { name, depth } => self.book(name, depth.unwrap_or(10)),
            Ask::Trades { name, limit } => self.traded(name, limit.unwrap_or(50)),
            Ask::Stocks => ok(self.stocks.iter().map(show_stock).collect()),
            Ask::Stock(name) => match self.listed(name) {
                None => refused(404, "stock not found"),
                Some(at) => ok(show_stock(&self.stocks[at])),
            },
            Ask::HouseTrade { name, buy, quantity } => self.trade_with_the_house(name, *buy, *quantity),
            Ask::HouseOrder(number) => {
                match (1..).zip(&self.orders).find(|(other, _)| other == number).map(|one| one.1) {
                    Some(Numbered::House { name, buy, quantity }) => {
                        ok(json!({"order_num": number, "name": name, "type": word(*buy), "quantity": quantity}))
                    }
                    _ => refused(404, "transaction number not found"),
                }
            }
        }
    }

    // ------------------------------------------------------------ the house

    fn listed(&self, name: &str) -> Option<usize> {
        self.stocks.iter().position(|stock| stock.name == name)
    }

    fn trade_with_the_house(&mut self, name: &str, buy: bool, quantity: u64) -> Expected {
        let Some(at) = self.listed(name) else { return refused(404, "stock not found") };
        let stock = &mut self.stocks[at];
        if buy && stock.quantity < quantity {
            return refused(409, "not enough stocks left to buy");
        }
        stock.quantity = if buy { stock.quantity - quantity } else { stock.quantity + quantity };
        stock.volume += quantity;
        self.orders.push(Numbered::House { name: name.to_owned(), buy, quantity });
        ok(json!({"transaction_number": self.orders.len()}))
    }

    // ------------------------------------------------------------ accounts

    fn open(&mut self, name: &str) -> Expected {
        if self.owners.contains_key(name) {
            return refused_somehow(409);
        }
        self.owners.insert(name.to_owned(), Owner::default());
        Expected { status: 201, content: json!({"account": name}), replayed: false }
    }

    /// What open orders hold back: cents, and of each stock.
    fn reserved(&self, owner: &str) -> (u64, BTreeMap<String, u64>) {
        let (mut cents, mut stocks) = (0, BTreeMap::new());
        for (_, order) in self.accounts_orders() {
            if order.owner == owner && order.status == "open" {
                match (order.new.buy, order.new.cents) {
                    (true, limit) => cents += limit.unwrap() * order.left(),
                    (false, _) => *stocks.entry(order.new.name.to_owned()).or_default() += order.left(),
                }
            }
        }
        (cents, stocks)
    }

    fn free_cents(&self, owner: &str) -> u64 {
        self.owners[owner].cents - self.reserved(owner).0
    }

    fn free_stocks(&self, owner: &str, name: &str) -> u64 {
        let owned = self.owners[owner].stocks.get(name).copied().unwrap_or(0);
        owned - self.reserved(owner).1.get(name).copied().unwrap_or(0)
    }

    fn balance(&self, name: &str) -> Value {
        let (reserved_cents, reserved) = self.reserved(name);
        let owner = &self.owners[name];
        let holding = |(stock, quantity): (&String, &u64)| {
            let reserved = reserved.get(stock).copied().unwrap_or(0);
            json!({"name": stock, "quantity": quantity, "reserved": reserved})
        };
        let holdings: Vec<_> = owner.stocks.iter().filter(|(_, quantity)| **quantity > 0).map(holding).collect();
        let (cash, reserved_cash) = (decimal(owner.cents), decimal(reserved_cents));
        json!({"account": name, "cash": cash, "reserved_cash": reserved_cash, "holdings": holdings})
    }

    fn deposit(&mut self, name: &str, asset: &Asset) -> Expected {
        if let Asset::Stock(stock, _) = asset
            && self.listed(stock).is_none()
        {
            return refused(404, "stock not found");
        }
        let owner = self.owners.get_mut(name).unwrap();
        owner.used = true;
        match asset {
            Asset::Cents(cents) => owner.cents += cents,
            Asset::Stock(stock, quantity) => *owner.stocks.entry((*stock).to_owned()).or_default() += quantity,
        }
        ok(self.balance(name))
    }

    fn withdraw(&mut self, name: &str, asset: &Asset) -> Expected {
        match asset {
            Asset::Cents(cents) if *cents > self.free_cents(name) => return refused(409, "insufficient funds"),
            Asset::Stock(stock, _) if self.listed(stock).is_none() => return refused(404, "stock not found"),
            Asset::Stock(stock, quantity) if *quantity > self.free_stocks(name, stock) => {
                return refused(409, "insufficient stocks");
            }
            _ => {}
        }
        let owner = self.owners.get_mut(name).unwrap();
        match asset {
            Asset::Cents(cents) => owner.cents -= cents,
            Asset::Stock(stock, quantity) => *owner.stocks.get_mut(*stock).unwrap() -= quantity,
        }
        ok(self.balance(name))
    }

    // ------------------------------------------------------------ orders

    /// All orders of accounts, oldest first, with their numbers.
    fn accounts_orders(&self) -> impl DoubleEndedIterator<Item = (u64, &Order)> {
        let numbered = self.orders.iter().enumerate().map(|(at, order)| (at as u64 + 1, order));
        numbered.filter_map(|(number, order)| match order {
            Numbered::Account(order) => Some((number, order)),
            Numbered::House { .. } => None,
        })
    }

    fn own(&self, owner: &str, number: u64) -> Option<&Order> {
        let mut all = self.accounts_orders();
        all.find(|(other, order)| *other == number && order.owner == owner).map(|(_, order)| order)
    }

    fn order_mut(&mut self, number: u64) -> &mut Order {
        match &mut self.orders[usize::try_from(number - 1).unwrap()] {
            Numbered::Account(order) => order,
            Numbered::House { .. } => panic!("{number} is the house's"),
        }
    }

    /// The orders that wait on one side of a book, best first: number, owner, cents, left.
    fn waiting(&self, name: &str, buy: bool) -> Vec<(u64, String, u64, u64)> {
        let mut waiting: Vec<_> = self
            .accounts_orders()
            .filter(|(_, order)| order.status == "open" && order.new.name == name && order.new.buy == buy)
            .map(|(number, order)| (number, order.owner.clone(), order.new.cents.unwrap(), order.left()))
            .collect();
        // Stable, so the oldest stays first among equals.
        waiting.sort_by_key(|(_, _, cents, _)| if buy { u64::MAX - cents } else { *cents });
        waiting
    }

    fn place(&mut self, owner: &str, new: &New) -> Expected {
        if self.listed(new.name).is_none() {
            return refused(404, "stock not found");
        }
        let free = self.free_cents(owner);
        match new.cents {
            Some(cents) if new.buy && u128::from(cents) * u128::from(new.quantity) > u128::from(free) => {
                return refused(409, "insufficient funds");
            }
            _ if !new.buy && new.quantity > self.free_stocks(owner, new.name) => {
                return refused(409, "insufficient stocks");
            }
            _ => {}
        }
        let (mut meets, met_itself) = self.meets(owner, new, free);
        let filled = |meets: &[(u64, u64, u64)]| meets.iter().map(|meet| meet.2).sum::<u64>();
        if new.time_in_force == Some("fok") && filled(&meets) < new.quantity {
            meets.clear();
        }
        if new.post_only == Some(true) && !meets.is_empty() {
            return refused(409, "would cross");
        }
        let status = if filled(&meets) == new.quantity {
            "filled"
        } else if new.cents.is_some() && matches!(new.time_in_force, None | Some("gtc")) && !met_itself {
            "open"
        } else {
            "cancelled"
        };
        let order = Order { owner: owner.to_owned(), new: new.clone(), status: "open", fills: Vec::new() };
        self.orders.push(Numbered::Account(order));
        self.owners.get_mut(owner).unwrap().used = true;
        let number = self.orders();
        for (maker, cents, quantity) in meets {
            self.exchange(number, maker, cents, quantity);
        }
        self.order_mut(number).status = status;
        ok(show(number, self.own(owner, number).unwrap()))
    }

    /// Whom an order meets (number, cents, quantity), and whether it met an order of its own account.
    fn meets(&self, owner: &str, new: &New, mut free: u64) -> (Vec<(u64, u64, u64)>, bool) {
        let (mut meets, mut left) = (Vec::new(), new.quantity);
        for (number, other, cents, waiting) in self.waiting(new.name, !new.buy) {
            let reaches = new.cents.is_none_or(|limit| if new.buy { limit >= cents } else { limit <= cents });
            if left == 0 || !reaches {
                break;
            }
            if other == owner {
                return (meets, true);
            }
            let wanted = left.min(waiting);
            let paid_for = if new.buy && new.cents.is_none() { wanted.min(free / cents) } else { wanted };
            if paid_for > 0 {
                meets.push((number, cents, paid_for));
                left -= paid_for;
                free = free.saturating_sub(paid_for * cents);
            }
            if paid_for < wanted {
                break;
            }
        }
        (meets, false)
    }

    fn exchange(&mut self, taker: u64, maker: u64, cents: u64, quantity: u64) {
        let (name, buy) = (self.order_mut(taker).new.name, self.order_mut(taker).new.buy);
        self.trades.push(Trade { name: name.to_owned(), cents, quantity, buy });
        let trade = self.trades.len() as u64;
        for number in [taker, maker] {
            let order = self.order_mut(number);
            order.fills.push((trade, cents, quantity));
            if order.left() == 0 {
                order.status = "filled";
            }
        }
        let (buyer, seller) = if buy { (taker, maker) } else { (maker, taker) };
        let buyer = self.order_mut(buyer).owner.clone();
        let seller = self.order_mut(seller).owner.clone();
        let buyer = self.owners.get_mut(&buyer).unwrap();
        buyer.cents -= cents * quantity;
        *buyer.stocks.entry(name.to_owned()).or_default() += quantity;
        let seller = self.owners.get_mut(&seller).unwrap();
        seller.cents += cents * quantity;
        *seller.stocks.get_mut(name).unwrap() -= quantity;
        let at = self.listed(name).unwrap();
        self.stocks[at].volume += quantity;
    }

    fn cancel(&mut self, owner: &str, number: u64) -> Expected {
        match self.own(owner, number).map(|order| order.status) {
            None => refused_somehow(404),
            Some("open") => {
                self.order_mut(number).status = "cancelled";
                ok(show(number, self.own(owner, number).unwrap()))
            }
            Some(_) => refused(409, "order is done"),
        }
    }

    fn list(&self, owner: &str, status: Option<&str>, limit: usize, before: Option<u64>) -> Expected {
        let wanted = |(number, order): &(u64, &Order)| {
            order.owner == owner
                && status.is_none_or(|status| order.status == status)
                && before.is_none_or(|before| *number < before)
        };
        let newest_first = self.accounts_orders().rev().filter(wanted).take(limit);
        ok(newest_first.map(|(number, order)| show(number, order)).collect())
    }

    // ------------------------------------------------------------ market data

    fn book(&self, name: &str, depth: usize) -> Expected {
        if self.listed(name).is_none() {
            return refused(404, "stock not found");
        }
        let side = |buy| {
            let mut levels: Vec<(u64, u64)> = Vec::new();
            for (_, _, cents, left) in self.waiting(name, buy) {
                match levels.last_mut().filter(|level| level.0 == cents) {
                    Some(level) => level.1 += left,
                    None => levels.push((cents, left)),
                }
            }
            levels.truncate(depth);
            Value::from_iter(levels.iter().map(|(cents, left)| json!([decimal(*cents), left])))
        };
        ok(json!({"name": name, "bids": side(true), "asks": side(false)}))
    }

    fn traded(&self, name: &str, limit: usize) -> Expected {
        if self.listed(name).is_none() {
            return refused(404, "stock not found");
        }
        let numbered = self.trades.iter().enumerate().rev().filter(|(_, trade)| trade.name == name);
        let show = |(at, trade): (usize, &Trade)| {
            let Trade { cents, quantity, buy, .. } = trade;
            json!({"trade": at + 1, "price": decimal(*cents), "quantity": quantity, "side": word(*buy)})
        };
        ok(numbered.take(limit).map(show).collect())
    }
}

fn show_stock(stock: &Listed) -> Value {
    let Listed { name, cents, quantity, volume } = stock;
    json!({"name": name, "price": decimal(*cents), "quantity": quantity, "volume": volume})
}

fn show(number: u64, order: &Order) -> Value {
    let fill = |(trade, cents, quantity): &(u64, u64, u64)| json!({"trade": trade, "price": decimal(*cents), "quantity": quantity});
    let new = &order.new;
    json!({
        "order_num": number,
        "name": new.name,
        "side": word(new.buy),
        "quantity": new.quantity,
        "price": new.cents.map(decimal),
        "time_in_force": new.time_in_force.unwrap_or("gtc"),
        "status": order.status,
        "filled": new.quantity - order.left(),
        "remaining": order.left(),
        "fills": order.fills.iter().map(fill).collect::<Vec<_>>(),
    })
}
