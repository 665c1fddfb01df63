//! A journal with everything in it, for tests of what reads one.

use fastrand::Rng;
use tradenet_core::exchange::{Decision, Exchange};
use tradenet_core::journal::encode;
use tradenet_core::replica::snapshot::{MakeError, Making, Snapshot};
use tradenet_schemas::account::{Account, Asset, Cash, Credentials, Instruction, NewOrder, TimeInForce, TokenHash};
use tradenet_schemas::ids::{Boot, Chain, Epoch, Leader, OrderNumber, Position, ReplicaId, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::IDEMPOTENCY_KEYS_MAX;
use tradenet_schemas::trade::{Command, CommandKey, IdempotencyKey, Price, Quantity, Side, Stock, Symbol};

const STOCKS: [&str; 3] = ["GameStart", "Zoo", "Zoom"];
const PEOPLE: [&str; 3] = ["ann", "bob", "cy"];

/// A replica's id.
pub(crate) fn id(id: u8) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

/// A journal of everything that can happen, and where each of its lines ends.
#[derive(Default)]
#[allow(dead_code, reason = "each test uses some of it")]
pub(crate) struct History {
    pub(crate) exchange: Exchange,
    pub(crate) entries: Vec<Entry>,
    pub(crate) chain: Chain,
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<u64>,
}

#[allow(dead_code, reason = "each test uses some of it")]
impl History {
    /// So many commands are tried; some are refused.
    pub(crate) fn of(seed: u64, commands: u64) -> Self {
        let (mut history, mut rng) = (Self::default(), Rng::with_seed(seed));
        history.exchange = Exchange::keeping(IDEMPOTENCY_KEYS_MAX, 7);
        history.begin(1);
        let stock = |name| Stock {
            symbol: Symbol::new(name).unwrap(),
            price: Price::from_cents(500).unwrap(),
            quantity: Quantity::new(100).unwrap(),
            volume: Quantity::ZERO,
        };
        let listed = history.exchange.list(&STOCKS.map(stock));
        history.enter(1, None, listed);
        history.enter(1, None, vec![Event::Attached { catalog: Boot(5) }]);
        for number in 0..commands {
            if number == commands / 2 {
                history.begin(2);
            }
            let epoch = if number < commands / 2 { 1 } else { 2 };
            let command = command(&mut rng);
            let key = match rng.bool() {
                true => command.key(&IdempotencyKey::new(&format!("key-{number}")).unwrap()),
                false => CommandKey::generated(Boot(9), number),
            };
            if let Some(statement) = history.exchange.statement_due() {
                history.enter(epoch, None, vec![statement]);
            }
            if let Decision::Accept(events) = history.exchange.decide(&key, &command) {
                history.enter(epoch, Some(key), events);
            }
        }
        history
    }

    pub(crate) fn begin(&mut self, epoch: u64) {
        let leader = Leader { id: id(1), boot: Boot(epoch) };
        self.enter(epoch, None, vec![Event::EpochStart { leader, digest: self.exchange.digest() }]);
    }

    pub(crate) fn enter(&mut self, epoch: u64, key: Option<CommandKey>, events: Vec<Event>) {
        let seq = self.exchange.applied().next();
        let entry = Entry { seq, epoch: Epoch(epoch), at: 1_000 * seq.0, key, events };
        self.exchange.apply(&entry);
        self.chain = encode(&entry, self.chain, &mut self.bytes);
        self.ends.push(self.bytes.len() as u64);
        self.entries.push(entry);
    }

    /// A journal that has gone its own way in epoch 1, where this one has epoch 2; and how many entries they have in common.
    pub(crate) fn astray(&self) -> (Vec<u8>, usize) {
        let common = self.entries.iter().take_while(|entry| entry.epoch == Epoch(1)).count();
        let mut astray = self.bytes[..usize::try_from(self.ends[common - 1]).unwrap()].to_vec();
        let last = tradenet_core::journal::scan(&astray, Position::default()).last().unwrap().unwrap();
        let mut chain = last.position.chain;
        for seq in (last.position.seq.0 + 1)..=(self.entries.len() as u64) {
            let entry = Entry { seq: SeqNum(seq), epoch: Epoch(1), at: 7, key: None, events: vec![] };
            chain = encode(&entry, chain, &mut astray);
        }
        (astray, common)
    }

    /// The snapshot that ends with the entry that ends there.
    pub(crate) fn snapshot(&self, before: Option<Snapshot>, until: u64) -> Result<Snapshot, MakeError> {
        self.make(Making::new(before, until))
    }

    pub(crate) fn make(&self, making: Making) -> Result<Snapshot, MakeError> {
        making.run(&mut |offset, _| Ok(self.piece(offset).to_vec()))
    }

    /// Small pieces, so that lines are cut.
    pub(crate) fn piece(&self, offset: u64) -> &[u8] {
        let rest = &self.bytes[usize::try_from(offset).unwrap().min(self.bytes.len())..];
        &rest[..rest.len().min(4_096)]
    }
}

fn command(rng: &mut Rng) -> Command {
    let name = PEOPLE[rng.usize(0..PEOPLE.len())];
    let (account, token) = (Account::new(name).unwrap(), TokenHash([name.as_bytes()[0]; 32]));
    let symbol = Symbol::new(STOCKS[rng.usize(0..STOCKS.len())]).unwrap();
    let side = if rng.bool() { Side::Buy } else { Side::Sell };
    let quantity = Quantity::new(rng.u64(1..9)).unwrap();
    let instruction = match rng.u8(0..10) {
        0 => return Command::Open { account, token },
        1 | 2 => return Command::Trade { symbol, side, quantity },
        3 => Instruction::Deposit(Asset::Cash(Cash::from_cents(rng.u64(1..9_999)).unwrap())),
        4 => Instruction::Deposit(Asset::Stock(symbol, quantity)),
        5 => Instruction::Withdraw(Asset::Cash(Cash::from_cents(rng.u64(1..999)).unwrap())),
        6 => Instruction::Cancel(OrderNumber(rng.u64(1..80))),
        _ => Instruction::Place(NewOrder {
            symbol,
            side,
            quantity,
            price: (rng.u8(0..5) > 0).then(|| Price::from_cents(rng.u64(490..510)).unwrap()),
            time_in_force: [TimeInForce::Gtc, TimeInForce::Gtc, TimeInForce::Ioc, TimeInForce::Fok][rng.usize(0..4)],
            post_only: false,
        }),
    };
    Command::Account { caller: Credentials { account, token }, instruction }
}
