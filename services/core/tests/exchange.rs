//! The market against a naive model of it, and by example.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use tradenet_core::exchange::{Decision, Exchange, ORDERS_KEPT};
use tradenet_schemas::ids::{Boot, Digest, Epoch, Leader, OrderNumber, ReplicaId, SeqNum};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::{QUANTITY_MAX, STOCKS_MAX};
use tradenet_schemas::trade::{
    Command, CommandKey, IdempotencyKey, Order, Price, Quantity, Refusal, Side, Stock, Symbol,
};

use Side::{Buy, Sell};

const CATALOG: Boot = Boot(0xca);

fn symbol(name: &str) -> Symbol {
    Symbol::new(name).unwrap()
}

fn stock(name: &str, cents: u64, quantity: u64) -> Stock {
    Stock {
        symbol: symbol(name),
        price: Price::from_cents(cents).unwrap(),
        quantity: Quantity::new(quantity).unwrap(),
        volume: Quantity::ZERO,
    }
}

/// `g…` is a key that a frontend made, anything else a client's.
fn key(text: &str) -> CommandKey {
    match text.strip_prefix('g') {
        Some(number) => CommandKey::generated(Boot(1), number.parse().unwrap()),
        None => CommandKey::of_client(&IdempotencyKey::new(text).unwrap()),
    }
}

fn trade(name: &str, side: Side, quantity: u64) -> Command {
    Command::Trade { symbol: symbol(name), side, quantity: Quantity::new(quantity).unwrap() }
}

fn parts(command: &Command) -> (&Symbol, &Side, &Quantity) {
    let Command::Trade { symbol, side, quantity } = command else { panic!("only trades with the house here") };
    (symbol, side, quantity)
}

fn traded(order: u64, name: &str, side: Side, quantity: u64, cents: u64) -> Event {
    let (quantity, price) = (Quantity::new(quantity).unwrap(), Price::from_cents(cents).unwrap());
    Event::Traded { order: OrderNumber(order), symbol: symbol(name), side, quantity, price }
}

fn listed(stock: &Stock) -> Event {
    Event::Listed { symbol: stock.symbol.clone(), price: stock.price, quantity: stock.quantity }
}

fn epoch_start(digest: Digest) -> Event {
    Event::EpochStart { leader: Leader { id: ReplicaId::new(1).unwrap(), boot: Boot(1) }, digest }
}

fn entry_at(seq: u64, key: Option<CommandKey>, events: Vec<Event>) -> Entry {
    Entry { seq: SeqNum(seq), epoch: Epoch(1), at: 0, key, events }
}

/// The entry that comes next, with these events.
fn next(exchange: &Exchange, key: Option<CommandKey>, events: Vec<Event>) -> Entry {
    entry_at(exchange.applied().0 + 1, key, events)
}

fn house() -> Vec<Stock> {
    vec![stock("Zoo", 250, 3), stock("GameStart", 1599, 100), stock("Max", 1, QUANTITY_MAX - 2)]
}

/// Three stocks (entry 1), a catalog (entry 2), then the commands, each of which must be accepted. Two keys of each kind
/// are remembered.
fn given(commands: &[(&str, &str, Side, u64)]) -> Exchange {
    let mut exchange = Exchange::keeping(2, ORDERS_KEPT);
    exchange.apply(&entry_at(1, None, exchange.list(&house())));
    exchange.apply(&entry_at(2, None, vec![Event::Attached { catalog: CATALOG }]));
    for (text, name, side, quantity) in commands {
        let Decision::Accept(events) = exchange.decide(&key(text), &trade(name, *side, *quantity)) else {
            panic!("{text} {name} is given, but not accepted");
        };
        exchange.apply(&next(&exchange, Some(key(text)), events));
    }
    exchange
}

// ---------------------------------------------------------------- decide

#[track_caller]
fn check(
    behaviour: &str,
    commands: &[(&str, &str, Side, u64)],
    (text, name, side, quantity): (&str, &str, Side, u64),
    expected: &Decision,
) {
    let exchange = given(commands);
    let before = exchange.digest();
    assert_eq!(exchange.decide(&key(text), &trade(name, side, quantity)), *expected, "{behaviour}");
    assert_eq!(exchange.digest(), before, "{behaviour}: deciding changes nothing");
}

fn accept(order: u64, name: &str, side: Side, quantity: u64, cents: u64) -> Decision {
    Decision::Accept(vec![traded(order, name, side, quantity, cents)])
}

fn replay(order: u64, seq: u64) -> Decision {
    Decision::Replay { order: OrderNumber(order), seq: SeqNum(seq) }
}

#[test]
fn trades_are_decided_by_what_is_left() {
    let refuse = Decision::Refuse;
    check("a buy", &[], ("a", "GameStart", Buy, 1), &accept(1, "GameStart", Buy, 1, 1599));
    check("a sell", &[], ("a", "Zoo", Sell, 7), &accept(1, "Zoo", Sell, 7, 250));
    check("a buy of all that is left", &[], ("a", "Zoo", Buy, 3), &accept(1, "Zoo", Buy, 3, 250));
    check("a buy of one too many", &[], ("a", "Zoo", Buy, 4), &refuse(Refusal::NotEnoughStocks));
    check("a buy of what is gone", &[("a", "Zoo", Buy, 3)], ("b", "Zoo", Buy, 1), &refuse(Refusal::NotEnoughStocks));
    check("a buy of what was sold", &[("a", "Zoo", Sell, 2)], ("b", "Zoo", Buy, 5), &accept(2, "Zoo", Buy, 5, 250));
    check("a stock that is not listed", &[], ("a", "Nix", Buy, 1), &refuse(Refusal::UnknownSymbol));
    check("another case is another name", &[], ("a", "ZOO", Buy, 1), &refuse(Refusal::UnknownSymbol));
    check("nothing bought", &[], ("a", "Zoo", Buy, 0), &refuse(Refusal::NotEnoughStocks));
    check("nothing sold", &[], ("a", "Zoo", Sell, 0), &refuse(Refusal::NotEnoughStocks));
    check("a sell up to the bound", &[], ("a", "Max", Sell, 2), &accept(1, "Max", Sell, 2, 1));
    check("a sell over the bound", &[], ("a", "Max", Sell, 3), &refuse(Refusal::TooManyStocks));
    let all = ("a", "Max", Buy, QUANTITY_MAX - 2);
    check("a volume up to the bound", &[all], ("b", "Max", Sell, 2), &accept(2, "Max", Sell, 2, 1));
    check("a sell with a volume over the bound", &[all], ("b", "Max", Sell, 3), &refuse(Refusal::TooManyStocks));
    let volume = [("a", "Max", Buy, QUANTITY_MAX - 2), ("b", "Max", Sell, 2)];
    check("a buy with a volume over the bound", &volume, ("c", "Max", Buy, 1), &refuse(Refusal::TooManyStocks));
}

#[test]
fn a_key_is_done_once() {
    let reused = Decision::Refuse(Refusal::KeyReused);
    let a = ("a", "Zoo", Buy, 3);
    check("the same again", &[a], a, &replay(1, 3));
    check("the same again, after others", &[a, ("b", "Zoo", Sell, 1)], a, &replay(1, 3));
    check("the second again", &[a, ("b", "Zoo", Sell, 1)], ("b", "Zoo", Sell, 1), &replay(2, 4));
    check("a generated key again", &[("g1", "Zoo", Buy, 1)], ("g1", "Zoo", Buy, 1), &replay(1, 3));
    check("with another quantity", &[a], ("a", "Zoo", Buy, 2), &reused);
    check("with another side", &[a], ("a", "Zoo", Sell, 3), &reused);
    check("with another stock", &[a], ("a", "GameStart", Buy, 3), &reused);
    check("with a stock that is not listed", &[a], ("a", "Nix", Buy, 3), &reused);
    let refused_before = Decision::Refuse(Refusal::NotEnoughStocks);
    check("a refusal is not remembered (refused)", &[], ("a", "Zoo", Buy, 4), &refused_before);
    check("(then decided anew)", &[("b", "Zoo", Sell, 1)], ("a", "Zoo", Buy, 4), &accept(2, "Zoo", Buy, 4, 250));
    let (b, c) = (("b", "Zoo", Sell, 1), ("c", "Zoo", Sell, 1));
    check("the oldest is forgotten", &[a, b, c], ("a", "Zoo", Buy, 1), &accept(4, "Zoo", Buy, 1, 250));
    check("only the oldest is forgotten", &[a, b, c], b, &replay(2, 4));
    let (g1, g2, g3) = (("g1", "Zoo", Sell, 1), ("g2", "Zoo", Sell, 1), ("g3", "Zoo", Sell, 1));
    check("generated keys push out no client's", &[a, g1, g2, g3], a, &replay(1, 3));
    check("generated keys push out their own kind", &[g1, g2, g3], g1, &accept(4, "Zoo", Sell, 1, 250));
    let again = [a, b, c, ("a", "Zoo", Buy, 1)];
    check("a forgotten key is new", &again, ("a", "Zoo", Buy, 1), &replay(4, 6));
}

#[test]
fn only_what_is_new_is_listed_once_and_within_the_bound() {
    let exchange = given(&[("a", "Zoo", Buy, 3)]);
    let (new, zoo) = (stock("New", 5, 6), stock("Zoo", 1, 1));
    assert_eq!(exchange.list(&house()), vec![]);
    let twice = [new.clone(), zoo, stock("New", 7, 8), stock("Anew", 1, 0)];
    assert_eq!(exchange.list(&twice), vec![listed(&new), listed(&stock("Anew", 1, 0))]);

    let many: Vec<_> = (0..STOCKS_MAX + 5).map(|at| stock(&format!("S{at}"), 1, 1)).collect();
    assert_eq!(exchange.list(&many).len(), STOCKS_MAX - 3, "three are listed already");
    let mut full = Exchange::new();
    full.apply(&entry_at(1, None, full.list(&many)));
    assert_eq!((full.stocks().len(), full.list(&[new])), (STOCKS_MAX, vec![]));
}

// ---------------------------------------------------------------- apply

#[test]
fn what_was_applied_can_be_looked_up() {
    let exchange = given(&[("a", "Zoo", Buy, 3), ("b", "GameStart", Sell, 20), ("c", "Zoo", Sell, 1)]);
    let with = |mut stock: Stock, quantity, volume| {
        (stock.quantity, stock.volume) = (Quantity::new(quantity).unwrap(), Quantity::new(volume).unwrap());
        stock
    };
    let (zoo, game) = (with(stock("Zoo", 250, 3), 1, 4), with(stock("GameStart", 1599, 100), 120, 20));
    assert_eq!(exchange.stocks(), [game.clone(), stock("Max", 1, QUANTITY_MAX - 2), zoo.clone()], "by name");
    assert_eq!(exchange.stock(&symbol("Zoo")), Some(zoo));
    assert_eq!(exchange.stock(&symbol("Nix")), None);
    let changed = ["Zoo", "GameStart", "Max", "Nix"].map(|name| exchange.changed(&symbol(name)).0);
    assert_eq!(changed, [5, 4, 1, 0]);
    let order = Order { number: OrderNumber(2), symbol: game.symbol, side: Sell, quantity: Quantity::new(20).unwrap() };
    assert_eq!(exchange.order(OrderNumber(2)), Some((order, SeqNum(4))));
    let missing = [0, 4, u64::MAX].map(|number| exchange.order(OrderNumber(number)));
    assert_eq!(missing, [None, None, None]);
    assert_eq!([0, 1, 3, 4].map(|number| exchange.is_too_old(OrderNumber(number))), [false; 4]);
    assert_eq!((exchange.orders(), exchange.applied(), exchange.catalog()), (3, SeqNum(5), Some(CATALOG)));
}

#[test]
fn an_entry_touches_the_stocks_of_its_events() {
    let events = vec![
        epoch_start(Digest(0)),
        listed(&stock("Zoo", 1, 1)),
        Event::Attached { catalog: CATALOG },
        traded(1, "Max", Buy, 1, 1),
        Event::Detached { catalog: CATALOG },
    ];
    let entry = entry_at(1, None, events);
    let touched: Vec<_> = Exchange::touched(&entry).map(Symbol::as_str).collect();
    assert_eq!(touched, ["Zoo", "Max"]);
}

#[test]
fn impossible_entries_are_fatal() {
    let buy = || traded(2, "Zoo", Buy, 1, 250);
    let digest = given(&[("a", "Zoo", Buy, 1)]).digest();
    check_apply("what fits is applied", 4, Some("b"), vec![buy()], None);
    check_apply("a gap", 5, Some("b"), vec![buy()], Some("without gaps"));
    check_apply("the same entry again", 3, Some("b"), vec![buy()], Some("without gaps"));
    check_apply("a gap in the orders", 4, Some("b"), vec![traded(3, "Zoo", Buy, 1, 250)], Some("have no gaps"));
    check_apply("an order again", 4, Some("b"), vec![traded(1, "Zoo", Buy, 1, 250)], Some("have no gaps"));
    check_apply("an unlisted stock", 4, Some("b"), vec![traded(2, "Nix", Buy, 1, 1)], Some("not listed"));
    check_apply("another price", 4, Some("b"), vec![traded(2, "Zoo", Buy, 1, 251)], Some("another price"));
    check_apply("more than is left", 4, Some("b"), vec![traded(2, "Zoo", Buy, 3, 250)], Some("NotEnoughStocks"));
    check_apply("over the bound", 4, Some("b"), vec![traded(2, "Max", Sell, 3, 1)], Some("TooManyStocks"));
    check_apply("a trade of nothing", 4, Some("b"), vec![traded(2, "Zoo", Sell, 0, 250)], Some("can't be"));
    check_apply("a key again", 4, Some("a"), vec![buy()], Some("was done already"));
    check_apply("a trade without a key", 4, None, vec![buy()], Some("without does none"));
    check_apply("a key without a trade", 4, Some("b"), vec![], Some("does one command"));
    let two = vec![buy(), traded(3, "Zoo", Buy, 1, 250)];
    check_apply("two trades of a key", 4, Some("b"), two, Some("does one command"));
    check_apply("a stock again", 4, None, vec![listed(&stock("Zoo", 250, 3))], Some("listed twice"));
    check_apply("a second catalog", 4, None, vec![Event::Attached { catalog: Boot(2) }], Some("while another is"));
    check_apply(
        "the same catalog again",
        4,
        None,
        vec![Event::Attached { catalog: CATALOG }],
        Some("while another is"),
    );
    check_apply("another catalog gone", 4, None, vec![Event::Detached { catalog: Boot(2) }], Some("not attached"));
    let gone = || Event::Detached { catalog: CATALOG };
    check_apply("the catalog gone", 4, None, vec![gone()], None);
    check_apply("the catalog gone twice", 4, None, vec![gone(), gone()], Some("not attached"));
    check_apply("a leader of the same state", 4, None, vec![epoch_start(digest)], None);
    let other = Digest(digest.0 ^ 1);
    check_apply("a leader of another state", 4, None, vec![epoch_start(other)], Some("is not this one"));
    let late = vec![gone(), epoch_start(digest)];
    check_apply("a leader that starts in the middle", 4, None, late, Some("before anything else"));
}

/// Applies an entry behind entry 3 (order 1, key `a`); it must panic with a message that has `expected` in it, if any.
#[track_caller]
fn check_apply(behaviour: &str, seq: u64, text: Option<&str>, events: Vec<Event>, expected: Option<&str>) {
    let mut exchange = given(&[("a", "Zoo", Buy, 1)]);
    let entry = entry_at(seq, text.map(key), events);
    let result = catch_unwind(AssertUnwindSafe(|| exchange.apply(&entry)));
    let message = result.err().map(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast_ref::<&str>().unwrap()).to_string(),
    });
    match expected {
        None => assert_eq!(message, None, "{behaviour}"),
        Some(text) => {
            let message = message.unwrap_or_else(|| panic!("{behaviour}: it was applied"));
            assert!(message.contains(text), "{behaviour}: {message}");
        }
    }
}

// ---------------------------------------------------------------- against a model

const CAPACITY: usize = 3;
/// Fewer orders than keys: a key is known for longer than what it did is kept.
const KEPT: usize = 2;
const NAMES: [&str; 4] = ["Zoo", "GameStart", "Max", "Later"];

/// What happens in a random history.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Command(CommandKey, Command),
    List(Vec<usize>),
    Catalog,
    Epoch,
}

/// Everything that ever happened, in plain lists; every answer is worked out from the beginning.
#[derive(Clone, Default)]
struct Model {
    entries: u64,
    listed: Vec<(Stock, u64)>,
    /// Key, command and entry of each order.
    orders: Vec<(CommandKey, Command, u64)>,
    catalog: Option<Boot>,
}

impl Model {
    /// The remembered keys of one kind with their orders' places, newest first.
    fn remembered(&self, of_clients: bool) -> Vec<(&CommandKey, usize)> {
        let keys = self.orders.iter().enumerate().rev().map(|(place, (key, ..))| (key, place));
        keys.filter(|(key, _)| key.is_of_client() == of_clients).take(CAPACITY).collect()
    }

    /// What is left of a stock, its volume, and the last entry that changed it.
    fn stock(&self, name: &Symbol) -> Option<(i128, i128, u64)> {
        let &(ref stock, mut changed) = self.listed.iter().find(|(stock, _)| stock.symbol == *name)?;
        let (mut left, mut volume) = (i128::from(stock.quantity.get()), 0);
        for (_, command, entry) in &self.orders {
            let (symbol, side, quantity) = parts(command);
            if symbol == name {
                let quantity = i128::from(quantity.get());
                left += if *side == Buy { -quantity } else { quantity };
                volume += quantity;
                changed = *entry;
            }
        }
        Some((left, volume, changed))
    }

    fn decide(&self, key: &CommandKey, command: &Command) -> Decision {
        if let Some((_, place)) = self.remembered(key.is_of_client()).iter().find(|(known, _)| *known == key) {
            let (_, done, entry) = &self.orders[*place];
            let number = *place as u64 + 1;
            return if done == command { replay(number, *entry) } else { Decision::Refuse(Refusal::KeyReused) };
        }
        let (symbol, side, quantity) = parts(command);
        let Some((left, volume, _)) = self.stock(symbol) else {
            return Decision::Refuse(Refusal::UnknownSymbol);
        };
        let many = i128::from(quantity.get());
        let max = i128::from(QUANTITY_MAX);
        if many == 0 || (*side == Buy && many > left) {
            return Decision::Refuse(Refusal::NotEnoughStocks);
        }
        if volume + many > max || (*side == Sell && left + many > max) {
            return Decision::Refuse(Refusal::TooManyStocks);
        }
        let price = self.listed.iter().find(|(stock, _)| stock.symbol == *symbol).unwrap().0.price;
        accept(self.orders.len() as u64 + 1, symbol.as_str(), *side, quantity.get(), price.cents())
    }

    /// All that an exchange has to know, in a form that can be compared.
    fn state(&self) -> impl PartialEq + std::fmt::Debug {
        let orders: Vec<_> = self.orders.iter().map(|(_, command, entry)| (command.clone(), *entry)).collect();
        let keys = [true, false].map(|of_clients| {
            let keys = self.remembered(of_clients);
            keys.into_iter().map(|(key, place)| (key.clone(), place)).collect::<Vec<_>>()
        });
        (self.entries, self.listed.clone(), orders, keys, self.catalog)
    }
}

/// An exchange and its model, which go through the same history.
struct Pair {
    exchange: Exchange,
    model: Model,
    log: Vec<Entry>,
}

impl Pair {
    fn run(steps: &[Step]) -> Self {
        let exchange = Exchange::keeping(CAPACITY, KEPT);
        let mut pair = Self { exchange, model: Model::default(), log: vec![] };
        pair.apply(None, house().iter().map(listed).collect());
        pair.model.listed = house().into_iter().map(|stock| (stock, 1)).collect();
        for step in steps {
            pair.step(step);
            pair.compare();
        }
        pair
    }

    fn apply(&mut self, key: Option<CommandKey>, events: Vec<Event>) {
        let entry = next(&self.exchange, key, events);
        self.exchange.apply(&entry);
        self.log.push(entry);
        self.model.entries += 1;
    }

    fn step(&mut self, step: &Step) {
        let entry = self.model.entries + 1;
        match step {
            Step::Command(key, command) => {
                let decision = self.exchange.decide(key, command);
                assert_eq!(decision, self.model.decide(key, command));
                if let Decision::Accept(events) = decision {
                    self.apply(Some(key.clone()), events);
                    self.model.orders.push((key.clone(), command.clone(), entry));
                }
            }
            Step::List(places) => {
                let stocks: Vec<_> = places.iter().map(|&place| stock(NAMES[place], 10, 5)).collect();
                let events = self.exchange.list(&stocks);
                let mut new = vec![];
                for stock in stocks {
                    if self.model.listed.iter().all(|(listed, _)| listed.symbol != stock.symbol) {
                        new.push(listed(&stock));
                        self.model.listed.push((stock, entry));
                    }
                }
                assert_eq!(events, new);
                self.apply(None, events);
            }
            Step::Catalog => {
                let (event, catalog) = match self.model.catalog {
                    Some(catalog) => (Event::Detached { catalog }, None),
                    None => (Event::Attached { catalog: Boot(entry) }, Some(Boot(entry))),
                };
                self.apply(None, vec![event]);
                self.model.catalog = catalog;
            }
            Step::Epoch => self.apply(None, vec![epoch_start(self.exchange.digest())]),
        }
    }

    fn compare(&self) {
        let Self { exchange, model, .. } = self;
        assert_eq!((exchange.applied().0, exchange.catalog()), (model.entries, model.catalog));
        let mut stocks = model.listed.iter().map(|(stock, _)| stock.clone()).collect::<Vec<_>>();
        stocks.sort_by_key(|stock| stock.symbol.clone());
        for stock in &mut stocks {
            let (left, volume, changed) = model.stock(&stock.symbol).unwrap();
            stock.quantity = Quantity::new(left.try_into().unwrap()).unwrap();
            stock.volume = Quantity::new(volume.try_into().unwrap()).unwrap();
            assert_eq!(exchange.stock(&stock.symbol).as_ref(), Some(&*stock));
            assert_eq!(exchange.changed(&stock.symbol).0, changed);
        }
        assert_eq!(exchange.stocks(), stocks);
        assert_eq!(exchange.orders(), model.orders.len() as u64);
        for ((_, command, entry), number) in model.orders.iter().zip(1..) {
            let kept = exchange.order(OrderNumber(number));
            assert_eq!(kept.is_none(), exchange.is_too_old(OrderNumber(number)), "order {number}");
            assert_eq!(kept.is_some(), number + KEPT as u64 > exchange.orders(), "order {number}");
            let of_log = |entry: &Entry| Some((Exchange::made(entry, OrderNumber(number))??, entry.seq));
            let (order, seq) = kept.or_else(|| self.log.iter().find_map(of_log)).unwrap();
            let Order { number: found, symbol, side, quantity } = order;
            assert_eq!((found.0, seq.0, Command::Trade { symbol, side, quantity }), (number, *entry, command.clone()));
        }
    }
}

fn any_command() -> impl Strategy<Value = (CommandKey, Command)> {
    // Few keys and stocks, so that commands meet; few left of each, so that some are refused.
    let key = prop_oneof!["[a-f]", "g[1-6]"].prop_map(|text| key(&text));
    let side = prop_oneof![Just(Buy), Just(Sell)];
    let quantity = prop_oneof![8 => 0..4_u64, 1 => Just(QUANTITY_MAX - 2), 1 => Just(50)];
    let name = prop_oneof![8 => 0..NAMES.len(), 1 => Just(NAMES.len())]
        .prop_map(|place| *NAMES.get(place).unwrap_or(&"Never"));
    (key, name, side, quantity).prop_map(|(key, name, side, quantity)| (key, trade(name, side, quantity)))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => any_command().prop_map(|(key, command)| Step::Command(key, command)),
        1 => prop::collection::vec(0..NAMES.len(), 0..4).prop_map(Step::List),
        1 => Just(Step::Catalog),
        1 => Just(Step::Epoch),
    ]
}

proptest! {
    #[test]
    fn it_decides_and_applies_as_the_model_does(steps in prop::collection::vec(any_step(), 0..60)) {
        let pair = Pair::run(&steps);
        let mut again = Exchange::keeping(CAPACITY, KEPT);
        for entry in &pair.log {
            again.apply(entry);
        }
        prop_assert_eq!(again.digest(), pair.exchange.digest(), "the same log gives the same state");
        prop_assert_eq!(pair.exchange.clone().digest(), pair.exchange.digest());
    }

    /// Two histories that differ in one step: their states are the same (the step changed nothing, or was only about a key
    /// that is forgotten by now) exactly if their digests are.
    #[test]
    fn digests_are_equal_exactly_if_states_are(
        steps in prop::collection::vec(any_step(), 1..25),
        place in any::<prop::sample::Index>(),
        (other, part) in (any_command(), 0..5),
    ) {
        let mut others = steps.clone();
        let step = &mut others[place.index(steps.len())];
        *step = match (&step, other) {
            (Step::Command(_, command), (key, _)) if part > 0 => Step::Command(key, command.clone()),
            (_, (key, command)) => Step::Command(key, command),
        };
        let (one, two) = (Pair::run(&steps), Pair::run(&others));
        let same = one.model.state() == two.model.state();
        prop_assert_eq!(one.exchange.digest() == two.exchange.digest(), same);
    }
}

fn quiet_from_the_start() -> Exchange {
    let mut exchange = Exchange::new();
    exchange.apply(&entry_at(1, None, vec![]));
    exchange
}

/// The part of the property above that random histories seldom reach: equal but for one thing each.
#[test]
fn digests_differ_where_states_differ_in_one_thing_only() {
    type Commands<'a> = &'a [(&'a str, &'a str, Side, u64)];
    let base = [("a", "GameStart", Buy, 2), ("b", "GameStart", Buy, 1)];
    let histories: [Commands<'_>; 8] = [
        &[],
        &base[..1],
        &base,
        &[("a", "GameStart", Buy, 1), ("b", "GameStart", Buy, 2)],
        &[("b", "GameStart", Buy, 2), ("a", "GameStart", Buy, 1)],
        &[("a", "GameStart", Buy, 2), ("g1", "GameStart", Buy, 1)],
        &[("a", "Max", Buy, 2), ("b", "GameStart", Buy, 1)],
        &[("a", "GameStart", Buy, 2), ("b", "GameStart", Sell, 1)],
    ];
    let mut digests: Vec<_> = histories.iter().map(|commands| given(commands).digest()).collect();
    let mut quiet = given(&[]);
    quiet.apply(&next(&quiet, None, vec![]));
    digests.push(quiet.digest());
    let mut detached = given(&[]);
    detached.apply(&next(&detached, None, vec![Event::Detached { catalog: CATALOG }]));
    digests.push(detached.digest());
    let all = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), all);

    // Orders between which no stock, key or count tells any more: only what each of them was.
    let four = |what: [(&str, Side, u64); 4]| {
        let mut commands = Vec::new();
        for (key, (name, side, quantity)) in ["a", "b", "c", "d"].into_iter().zip(what) {
            commands.push((key, name, side, quantity));
        }
        given(&commands).digest()
    };
    let (zoo, max, sell, two) = (("Zoo", Buy, 1), ("Max", Buy, 1), ("Zoo", Sell, 1), ("Zoo", Buy, 2));
    assert_ne!(four([zoo, max, zoo, max]), four([max, zoo, zoo, max]), "the stocks of two orders are exchanged");
    assert_ne!(four([zoo, sell, zoo, sell]), four([sell, zoo, zoo, sell]), "the sides of two orders are exchanged");
    assert_ne!(four([zoo, two, sell, sell]), four([two, zoo, sell, sell]), "the quantities of two are exchanged");
    let attached = |boot| {
        let mut exchange = Exchange::new();
        exchange.apply(&entry_at(1, None, vec![Event::Attached { catalog: Boot(boot) }]));
        exchange.digest()
    };
    assert_ne!(attached(0), attached(1), "another catalog is attached");
    assert_ne!(attached(0), quiet_from_the_start().digest(), "none is");

    let forgotten = |first| given(&[(first, "Zoo", Buy, 1), ("b", "Zoo", Buy, 1), ("c", "Zoo", Buy, 1)]).digest();
    assert_eq!(forgotten("a"), forgotten("z"), "a key that nobody remembers is no part of the state");
    let remembered = |last| given(&[("a", "Zoo", Buy, 1), ("b", "Zoo", Buy, 1), (last, "Zoo", Buy, 1)]).digest();
    assert_ne!(remembered("c"), remembered("z"));
}
