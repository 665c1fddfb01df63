//! Clients: they trade, read and look up, and ask again when they were told nothing.
//!
//! Problem: faults matter only to requests that are under way; and the answers that go wrong are those to retries.
//! Idea: each client does one thing at a time through any frontend, hot stocks more often than cold ones, with keys and
//! without; what got no answer is asked again under the same key, mostly through another frontend.

use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::trade::{Command, IdempotencyKey, Outcome, Quantity, Side, Symbol};

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
}

/// How busy clients are.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many.
    pub clients: usize,
    /// The mean time between an answer and the next request, in microseconds.
    pub think_us: u64,
    /// Of a hundred requests, so many are trades.
    pub trades: u32,
}

/// What a command of these clients trades.
///
/// # Panics
/// It is about an account; these clients have none.
pub fn house_trade(command: &Command) -> (&Symbol, Side, Quantity) {
    match command {
        Command::Trade { symbol, side, quantity } => (symbol, *side, *quantity),
        Command::Open { .. } | Command::Account { .. } => panic!("no client has an account: {command:?}"),
    }
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
        let (name, ..) = STOCKS[[0, 0, 0, 1, 1, 2, 3][self.rng.usize(0..7)]];
        if self.rng.u32(0..100) < trades {
            return self.new_trade(client, name);
        }
        match self.rng.u32(0..100) {
            0..70 => ClientRequest::Stock(symbol(name)),
            70..80 => ClientRequest::Stocks,
            _ => {
                let last = self.clients[client].order.unwrap_or(OrderNumber(1));
                let near = self.rng.u64(0..4);
                ClientRequest::Order(OrderNumber(last.0 + near))
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
        self.clients[client].keys += 1;
        let number = self.clients[client].keys;
        let key = IdempotencyKey::new(&format!("client{client}-{number}")).ok();
        ClientRequest::Command(key.filter(|_| self.rng.u32(0..100) < 80), command)
    }

    pub(crate) fn client_got(&mut self, client: usize, request: &ClientRequest, answer: &Answered) {
        let think = self.nemesis.load.map_or(1_000, |load| load.think_us);
        let keyed = !matches!(request, ClientRequest::Command(None, _));
        let known = match answer {
            Answered::With(ClientAnswer::Outcome(Outcome::Accepted { order, .. })) => {
                self.clients[client].order = Some(*order);
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
        let at = self.now + wait;
        self.at(at, Event::Client { client });
    }

    /// Whether no client waits for anything.
    pub fn is_quiet(&self) -> bool {
        self.calls.is_empty() && self.clients.iter().all(|client| client.again.is_none())
    }
}
