//! Clients: they trade, read and look up, and ask again when they were told nothing.
//!
//! Problem: faults matter only to requests that are under way; and the answers that go wrong are those to retries.
//! Idea: each client does one thing at a time through any frontend, hot stocks more often than cold ones, with keys and
//! without; what got no answer is asked again under the same key, mostly through another frontend. In most worlds they have
//! accounts too: they bring in money and stocks, and place, cancel and look at orders in a few cents' range, so that orders
//! meet. One in four only saves: what its account has depends on nobody else ([`crate::linear`]).

use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::account::{
    Account, AccountQuery, Asset, Cash, Credentials, Instruction, NewOrder, OrderStatus, Page, TimeInForce, TokenHash,
};
use tradenet_schemas::ids::{EventNumber, OrderNumber};
use tradenet_schemas::message::Query;
use tradenet_schemas::trade::{Command, IdempotencyKey, Outcome, Price, Quantity, Receipt, Refusal, Side, Symbol};

use crate::machine::Who;
use crate::world::{Answered, Event, STOCKS, World, symbol};

/// How often a request is made again.
const RETRIES_MAX: u32 = 12;

/// One client.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// What has got no answer, and how often it was asked.
    again: Option<(ClientRequest, u32)>,
    keys: u64,
    /// The last order it was told of.
    order: Option<OrderNumber>,
    /// Its account is open.
    opened: bool,
    /// How many of the first deposits were made.
    deposits: usize,
    /// The last orders that its account placed.
    placed: Vec<OrderNumber>,
}

impl Client {
    /// What it was told of its account.
    fn hears(&mut self, request: &ClientRequest, outcome: &Outcome) {
        match (request, outcome) {
            // Its own name is taken by nobody else.
            (ClientRequest::Command(_, Command::Open { .. }), Outcome::Refused(Refusal::AccountTaken)) => {
                self.opened = true;
            }
            (_, Outcome::Accepted { order, .. }) => self.order = Some(*order),
            (_, Outcome::Done { receipt, .. }) => match &**receipt {
                Receipt::Opened => self.opened = true,
                Receipt::Balance(_) => self.deposits += 1,
                Receipt::Order(order) => {
                    self.placed.push(order.number);
                    if self.placed.len() > PLACED_KEPT {
                        self.placed.remove(0);
                    }
                }
            },
            (_, Outcome::Refused(_)) => {}
        }
    }
}

/// An account's client remembers so many of its orders.
const PLACED_KEPT: usize = 6;
/// What each account brings in first: so many cents, and of each stock so many.
const FIRST_CENTS: u64 = 5_000;
const FIRST_STOCKS: u64 = 60;

/// How busy clients are.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many.
    pub clients: usize,
    /// The mean time between an answer and the next request, in microseconds.
    pub think_us: u64,
    /// Of a hundred requests, so many are trades.
    pub trades: u32,
    /// Of a hundred requests, so many are about accounts and books.
    pub market: u32,
    /// They never pause. Others come in bursts once they have asked [`ASKED_AT_ONCE`] times: a busy run costs as much time
    /// as twenty others, and finds little more.
    pub breathless: bool,
}

/// Requests of all clients after which these come in bursts,
const ASKED_AT_ONCE: usize = 1_500;
/// so long, in microseconds,
const BURST_US: u64 = 50_000;
/// and so long after each other.
const BURST_EVERY_US: u64 = 1_000_000;

/// What a command trades with the house, if it does.
pub fn house_trade(command: &Command) -> Option<(&Symbol, Side, Quantity)> {
    match command {
        Command::Trade { symbol, side, quantity } => Some((symbol, *side, *quantity)),
        Command::Open { .. } | Command::Account { .. } => None,
    }
}

/// The credentials of that client's account.
fn credentials(client: usize) -> Credentials {
    let account = Account::new(&format!("client{client}")).unwrap_or_else(|_| unreachable!("it is a name"));
    Credentials { account, token: TokenHash([u8::try_from(client).unwrap_or(u8::MAX); 32]) }
}

/// Whether that client's account only has money, and gives no orders.
fn only_saves(client: usize) -> bool {
    client % 4 == 3
}

impl World {
    /// Lets clients come.
    pub fn open(&mut self, load: Load) {
        self.nemesis.load = Some(load);
        for client in 0..load.clients {
            self.clients.push(Client::default());
            let at = self.now + self.rng.u64(0..load.think_us * 2 + 1);
            self.at(at, Event::Client { client });
        }
    }

    pub(crate) fn client_acts(&mut self, client: usize) {
        let request = match &self.clients[client].again {
            Some((request, _)) => request.clone(),
            None if self.nemesis.closing => return,
            None => self.new_request(client),
        };
        let tries = self.clients[client].again.take().map_or(0, |(_, tries)| tries);
        self.clients[client].again = Some((request.clone(), tries + 1));
        let frontends: Vec<usize> =
            (0..self.machines.len()).filter(|&m| matches!(self.machines[m].who, Who::Frontend(_))).collect();
        let machine = frontends[self.rng.usize(0..frontends.len())];
        self.call(machine, request, Some(client));
    }

    fn new_request(&mut self, client: usize) -> ClientRequest {
        let trades = self.nemesis.load.map_or(50, |load| load.trades);
        let market = self.nemesis.load.map_or(0, |load| load.market);
        let (name, ..) = STOCKS[[0, 0, 0, 1, 1, 2, 3][self.rng.usize(0..7)]];
        if market > 0 && self.rng.u32(0..100) < market {
            return self.new_market_request(client, name);
        }
        if self.rng.u32(0..100) < trades {
            return self.new_trade(client, name);
        }
        match self.rng.u32(0..100) {
            0..70 => ClientRequest::Stock(symbol(name)),
            70..80 => ClientRequest::Stocks,
            _ => {
                let last = self.clients[client].order.unwrap_or(OrderNumber(1));
                match self.rng.u64(0..8) {
                    // There are about as many events as orders, so some of these wait for the next one.
                    7 => ClientRequest::Market(Query::Events(EventNumber(last.0 + 2))),
                    near @ 0..3 => ClientRequest::Order(OrderNumber(last.0 + near)),
                    // Mostly too old to be in the leader's memory.
                    _ => ClientRequest::Order(OrderNumber(self.rng.u64(1..=last.0))),
                }
            }
        }
    }

    fn new_trade(&mut self, client: usize, name: &str) -> ClientRequest {
        let side = if self.rng.u32(0..100) < 60 { Side::Buy } else { Side::Sell };
        let command = Command::Trade {
            symbol: symbol(name),
            side,
            quantity: Quantity::new(self.rng.u64(1..12)).unwrap_or_default(),
        };
        let key = self.new_key(client);
        ClientRequest::Command(key.filter(|_| self.rng.u32(0..100) < 80), command)
    }

    fn new_key(&mut self, client: usize) -> Option<IdempotencyKey> {
        self.clients[client].keys += 1;
        let number = self.clients[client].keys;
        IdempotencyKey::new(&format!("client{client}-{number}")).ok()
    }

    // ------------------------------------------------------------ accounts

    fn new_market_request(&mut self, client: usize, name: &str) -> ClientRequest {
        let caller = credentials(client);
        if !self.clients[client].opened {
            let command = Command::Open { account: caller.account, token: caller.token };
            return ClientRequest::Command(self.new_key(client), command);
        }
        let first: Vec<_> = [None].into_iter().chain(STOCKS.map(|(name, ..)| Some(name))).collect();
        let first = if only_saves(client) { &first[..1] } else { &first[..] };
        if let Some(stock) = first.get(self.clients[client].deposits) {
            let asset = match stock {
                None => money(FIRST_CENTS),
                Some(name) => Asset::Stock(symbol(name), Quantity::new(FIRST_STOCKS).unwrap_or_default()),
            };
            return self.instruct(client, Instruction::Deposit(asset));
        }
        if only_saves(client) {
            return self.new_saving(client);
        }
        let account = |query| ClientRequest::Market(Query::Account(credentials(client), query));
        match self.rng.u32(0..100) {
            0..45 => self.new_placement(client, name),
            45..60 => {
                let number = self.any_placed(client);
                self.instruct(client, Instruction::Cancel(number))
            }
            60..66 => {
                let asset = match self.rng.bool() {
                    true => money(self.rng.u64(1..FIRST_CENTS)),
                    false => Asset::Stock(symbol(name), Quantity::new(self.rng.u64(1..40)).unwrap_or_default()),
                };
                let inwards = self.rng.bool();
                self.instruct(client, if inwards { Instruction::Deposit(asset) } else { Instruction::Withdraw(asset) })
            }
            66..76 => account(AccountQuery::Balance),
            76..82 => account(AccountQuery::Order(self.any_placed(client))),
            82..88 => {
                let status = match self.rng.u32(0..8) {
                    0..3 => Some(OrderStatus::Open),
                    3 => Some(OrderStatus::Filled),
                    4 => Some(OrderStatus::Cancelled),
                    _ => None,
                };
                let before = self.rng.bool().then(|| self.any_placed(client));
                let page = Page { status, limit: self.rng.usize(1..9), before };
                account(AccountQuery::Orders(page))
            }
            88..95 => ClientRequest::Market(Query::Book(symbol(name), self.rng.usize(1..6))),
            _ => ClientRequest::Market(Query::Trades(symbol(name), self.rng.usize(1..6))),
        }
    }

    /// One of the account's last orders; at times one that is not its own.
    fn any_placed(&mut self, client: usize) -> OrderNumber {
        let placed = self.clients[client].placed.len();
        if placed == 0 || self.rng.u32(0..100) < 5 {
            return OrderNumber(self.rng.u64(1..50));
        }
        let index = self.rng.usize(0..placed);
        self.clients[client].placed[index]
    }

    fn new_saving(&mut self, client: usize) -> ClientRequest {
        match self.rng.u32(0..100) {
            0..35 => {
                let asset = money(self.rng.u64(1..2_000));
                self.instruct(client, Instruction::Deposit(asset))
            }
            35..70 => {
                let asset = money(self.rng.u64(1..4_000));
                self.instruct(client, Instruction::Withdraw(asset))
            }
            _ => ClientRequest::Market(Query::Account(credentials(client), AccountQuery::Balance)),
        }
    }

    fn new_placement(&mut self, client: usize, name: &str) -> ClientRequest {
        let price = (self.rng.u32(0..100) < 88).then(|| self.rng.u64(95..106)).and_then(Price::from_cents);
        let patience = self.rng.u32(0..100);
        let (time_in_force, post_only) = match patience {
            0..15 => (TimeInForce::Gtc, price.is_some()),
            15..60 => (TimeInForce::Gtc, false),
            60..80 => (TimeInForce::Ioc, false),
            _ => (TimeInForce::Fok, false),
        };
        let order = NewOrder {
            symbol: symbol(name),
            side: if self.rng.bool() { Side::Buy } else { Side::Sell },
            quantity: Quantity::new(self.rng.u64(1..9)).unwrap_or_default(),
            price,
            time_in_force,
            post_only,
        };
        let request = self.instruct(client, Instruction::Place(order));
        match request {
            ClientRequest::Command(_, command) if self.rng.u32(0..100) < 15 => ClientRequest::Command(None, command),
            request => request,
        }
    }

    fn instruct(&mut self, client: usize, instruction: Instruction) -> ClientRequest {
        let command = Command::Account { caller: credentials(client), instruction };
        ClientRequest::Command(self.new_key(client), command)
    }

    pub(crate) fn client_got(&mut self, client: usize, request: &ClientRequest, answer: &Answered) {
        let think = self.nemesis.load.map_or(1_000, |load| load.think_us);
        let keyed = !matches!(request, ClientRequest::Command(None, _));
        let known = match answer {
            Answered::With(ClientAnswer::Outcome(outcome)) => {
                self.clients[client].hears(request, outcome);
                true
            }
            Answered::With(ClientAnswer::Unknown | ClientAnswer::Unavailable(_)) => false,
            Answered::With(_) => true,
            Answered::Refused | Answered::Broken => false,
        };
        let tries = self.clients[client].again.as_ref().map_or(0, |(_, tries)| *tries);
        // Some go away after "nothing was done", to see that it stays so; some ask again though they know.
        let gives_up = !keyed || tries >= RETRIES_MAX || self.rng.u32(0..100) < 10;
        let asks_again = keyed && self.rng.u32(0..100) < 5 && tries < RETRIES_MAX;
        if (known && !asks_again) || (!known && gives_up) {
            self.clients[client].again = None;
        }
        let wait = if known { self.rng.u64(0..think * 2 + 1) } else { self.rng.u64(1_000..100_000) };
        let mut at = self.now + wait;
        let breathless = self.nemesis.load.is_some_and(|load| load.breathless);
        if known && !breathless && self.history.calls().len() > ASKED_AT_ONCE && at % BURST_EVERY_US > BURST_US {
            at = at.next_multiple_of(BURST_EVERY_US) + wait % BURST_US;
        }
        self.at(at, Event::Client { client });
    }

    /// Whether no client waits for anything.
    pub fn is_quiet(&self) -> bool {
        self.calls.is_empty() && self.clients.iter().all(|client| client.again.is_none())
    }
}

/// What opens the account of that number, with money and HOT.
pub(crate) fn first_requests(number: usize) -> [ClientRequest; 3] {
    let caller = credentials(number);
    let stocks = Asset::Stock(symbol("HOT"), Quantity::new(FIRST_STOCKS).unwrap_or_default());
    let instruct = |instruction| Command::Account { caller: caller.clone(), instruction };
    let commands = [
        Command::Open { account: caller.account.clone(), token: caller.token },
        instruct(Instruction::Deposit(money(FIRST_CENTS))),
        instruct(Instruction::Deposit(stocks)),
    ];
    let mut key = (1..).map(|count| IdempotencyKey::new(&format!("first-{number}-{count}")).ok());
    commands.map(|command| ClientRequest::Command(key.next().flatten(), command))
}

/// An order for one HOT, under a key that only `unique` has.
pub(crate) fn limit_order(number: usize, buys: bool, cents: u64, unique: usize) -> ClientRequest {
    let order = NewOrder {
        symbol: symbol("HOT"),
        side: if buys { Side::Buy } else { Side::Sell },
        quantity: Quantity::new(1).unwrap_or_default(),
        price: Price::from_cents(cents),
        time_in_force: TimeInForce::Gtc,
        post_only: false,
    };
    let command = Command::Account { caller: credentials(number), instruction: Instruction::Place(order) };
    ClientRequest::Command(IdempotencyKey::new(&format!("limit-{unique}")).ok(), command)
}

fn money(cents: u64) -> Asset {
    Asset::Cash(Cash::from_cents(cents).unwrap_or_default())
}
