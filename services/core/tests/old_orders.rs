//! Old orders are looked up in the journal: with the answers that memory would have given, or with none.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradenet_core::exchange::{Decision, Exchange, Found, ORDERS_KEPT};
use tradenet_core::journal::{encode, scan};
use tradenet_core::replica::snapshot::Making;
use tradenet_core::replica::{CATCH_UP_BYTES_PER_S, FAR_BEHIND_ENTRIES, Options, Replica};
use tradenet_core::times::Times;
use tradenet_core::{
    Decider, DiskAnswer, DiskRequest, Input, Mono, Now, Output, Packet, RegisterAnswer, RegisterRequest, ReplyTo, Slot,
    Stop,
};
use tradenet_schemas::account::{
    Account, AccountAnswer, AccountQuery, Asset, Credentials, Instruction, NewOrder, OrderStatus, Page, TimeInForce,
    TokenHash,
};
use tradenet_schemas::ids::{
    Boot, Chain, ClusterId, Epoch, Leader, Member, Node, Nonce, OrderNumber, ReplicaId, SeqNum, StoreId,
};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::message::{Answer, Configuration, Envelope, Floor, Message, Query, RecordId, Submission};
use tradenet_schemas::trade::{Command, CommandKey, Order, Outcome, Price, Quantity, Side, Stock, Symbol};

const NOW: Now = Now { mono: Mono(1), wall_ms: 0 };
const STOCKS: [&str; 3] = ["GameStart", "Zoo", "Zoom"];
const ME: Boot = Boot(77);
/// Longer than any line here: that of a statement of 64 orders.
const LINE_BYTES_MAX: usize = 12_000;

fn id(id: u8) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

fn symbol(number: u64) -> Symbol {
    Symbol::new(STOCKS[usize::try_from(number % 3).unwrap()]).unwrap()
}

fn quantity(count: u64) -> Quantity {
    Quantity::new(count).unwrap()
}

fn trade(number: u64) -> Command {
    let side = if number.is_multiple_of(2) { Side::Buy } else { Side::Sell };
    Command::Trade { symbol: symbol(number), side, quantity: quantity(1 + number % 7) }
}

fn ann() -> Credentials {
    Credentials { account: Account::new("ann").unwrap(), token: TokenHash([1; 32]) }
}

/// One order in four is an account's.
fn command(number: u64) -> Command {
    let caller = ann();
    let instruction = match number {
        0 => return Command::Open { account: caller.account, token: caller.token },
        1 => Instruction::Deposit(Asset::Stock(symbol(0), quantity(1_000_000))),
        number if number.is_multiple_of(4) => Instruction::Place(NewOrder {
            symbol: symbol(0),
            side: Side::Sell,
            quantity: quantity(1),
            price: Price::from_cents(900),
            time_in_force: TimeInForce::Gtc,
            post_only: false,
        }),
        number if number % 4 == 1 => Instruction::Cancel(OrderNumber(number / 4 * 3)),
        number => return trade(number),
    };
    Command::Account { caller, instruction }
}

/// A journal, and what was ordered in it.
#[derive(Default)]
struct History {
    exchange: Exchange,
    chain: Chain,
    bytes: Vec<u8>,
    /// Where each line ends, and the order that it makes.
    lines: Vec<(usize, Option<OrderNumber>)>,
    /// By number; none where it is an account's.
    orders: Vec<Option<Order>>,
}

impl History {
    fn of(commands: u64) -> Self {
        let mut history = Self::default();
        let leader = Leader { id: id(1), boot: Boot(1) };
        history.enter(None, vec![Event::EpochStart { leader, digest: history.exchange.digest() }]);
        let stock = |number| Stock {
            symbol: symbol(number),
            price: Price::from_cents(500).unwrap(),
            quantity: quantity(1_000_000),
            volume: Quantity::ZERO,
        };
        let listed = history.exchange.list(&[0, 1, 2].map(stock));
        history.enter(None, listed);
        for number in 0..commands {
            let key = CommandKey::generated(Boot(9), number);
            match history.exchange.decide(&key, &command(number)) {
                Decision::Accept(events) => history.enter(Some(key), events),
                other => assert!(matches!(other, Decision::Refuse(_)), "{other:?}"),
            }
        }
        history
    }

    fn enter(&mut self, key: Option<CommandKey>, events: Vec<Event>) {
        let seq = self.exchange.applied().next();
        let made = match &events[0] {
            Event::Traded { order: number, symbol, side, quantity, .. } => {
                let (symbol, side, quantity) = (symbol.clone(), *side, *quantity);
                Some((*number, Some(Order { number: *number, symbol, side, quantity })))
            }
            Event::Placed { order, .. } => Some((*order, None)),
            _ => None,
        };
        let entry = Entry { seq, epoch: Epoch(1), at: 1_000 * seq.0, key, events };
        self.exchange.apply(&entry);
        self.chain = encode(&entry, self.chain, &mut self.bytes);
        self.lines.push((self.bytes.len(), made.as_ref().map(|(number, _)| *number)));
        self.orders.extend(made.map(|(_, order)| order));
    }

    fn order(&self, number: u64) -> Option<Order> {
        self.orders.get(usize::try_from(number.checked_sub(1)?).unwrap())?.clone()
    }

    fn last(&self) -> u64 {
        self.orders.len() as u64
    }

    /// What an account is told by one who has everything in memory.
    fn account(&self, query: &AccountQuery) -> AccountAnswer {
        match self.exchange.account(&ann(), query) {
            Found::Here(answer) => answer,
            Found::Behind(_) => panic!("there is a statement"),
        }
    }

    /// What a command is answered with by that one, if it changes nothing.
    fn outcome(&self, key: &CommandKey, command: &Command) -> Option<Outcome> {
        match self.exchange.decide(key, command) {
            Decision::Accept(_) => None,
            Decision::Refuse(refusal) => Some(Outcome::Refused(refusal)),
            Decision::Replay { order, seq } => match self.exchange.outcome(command, order, Some(seq)) {
                Found::Here(outcome) => Some(outcome),
                Found::Behind(_) => panic!("there is a statement"),
            },
            Decision::RefuseBy(_) => panic!("there is a statement"),
        }
    }

    fn snapshot(&self, until: usize, kept: usize) -> Vec<u8> {
        let read = &mut |offset: u64, _| Ok(self.bytes[usize::try_from(offset).unwrap()..].to_vec());
        Making::keeping(None, until as u64, kept).run(read).unwrap().encode()
    }
}

/// A replica that is alone in sync, with all that it asks for; it leads.
#[derive(Clone)]
struct Alone {
    replica: Replica,
    journal: Vec<u8>,
    snapshot: Option<Vec<u8>>,
    floor: Floor,
    /// Requests to the disk of that kind are not carried out yet.
    holds: Option<fn(&DiskRequest) -> bool>,
    held: Vec<DiskRequest>,
    /// Those of that kind fail.
    fails: Option<fn(&DiskRequest) -> bool>,
    failed: usize,
    replies: Vec<Message>,
    reads: Vec<usize>,
    stopped: Option<Stop>,
}

fn configuration(epoch: u64, leader: Leader) -> Configuration {
    Configuration {
        cluster: ClusterId(1),
        epoch: Epoch(epoch),
        nonce: Nonce(epoch),
        leader,
        in_sync: vec![Member { id: id(1), store: StoreId(1) }],
        members: vec![id(1), id(2)],
        follows: vec![RecordId { epoch: Epoch(epoch - 1), nonce: Nonce(epoch - 1) }],
        by: Node::Frontend(Boot(1)),
        why: String::new(),
        at: 0,
    }
}

impl Alone {
    fn leads(journal: &[u8], snapshot: Option<Vec<u8>>, orders_kept: usize) -> Self {
        let mut alone = Self::starts(journal, snapshot, orders_kept, None);
        alone.hears(Message::Announce(Box::new(configuration(2, Leader { id: id(1), boot: ME }))));
        assert!(alone.replica.serves_in().is_some(), "it leads");
        alone.reads.clear();
        alone
    }

    fn starts(
        journal: &[u8],
        snapshot: Option<Vec<u8>>,
        orders_kept: usize,
        fails: Option<fn(&DiskRequest) -> bool>,
    ) -> Self {
        let replica = Replica::new(Options {
            id: id(1),
            boot: ME,
            store: StoreId(1),
            members: vec![id(1), id(2)],
            times: Times::default(),
            configuration: Some(configuration(1, Leader { id: id(1), boot: Boot(1) })),
            journal_bytes: journal.len() as u64,
            snapshot_every_bytes: 1 << 40,
            orders_kept,
            far_behind_entries: FAR_BEHIND_ENTRIES,
            catch_up_bytes_per_s: CATCH_UP_BYTES_PER_S,
        });
        let (held, replies, reads) = (Vec::new(), Vec::new(), Vec::new());
        let (journal, floor) = (journal.to_vec(), Floor::Number(Epoch(1)));
        let (holds, failed, stopped) = (None, 0, None);
        let mut alone = Self { replica, journal, snapshot, floor, holds, held, fails, failed, replies, reads, stopped };
        alone.settle();
        alone
    }

    fn handle(&mut self, now: Now, input: Input) {
        self.replica.handle(now, input);
        self.settle();
    }

    /// Another replica says so.
    fn hears(&mut self, body: Message) {
        let from = Node::Order(id(2), Boot(2));
        let packet = Packet::new(Envelope { cluster: Some(ClusterId(1)), epoch: Epoch(2), from, body }, Bytes::new());
        self.handle(NOW, Input::Received { packet, reply: None });
    }

    fn asked(&mut self, body: Message) {
        let from = Node::Frontend(Boot(5));
        let packet = Packet::new(Envelope { cluster: Some(ClusterId(1)), epoch: Epoch(2), from, body }, Bytes::new());
        self.handle(NOW, Input::Received { packet, reply: Some(ReplyTo(Arc::from("frontend"))) });
    }

    fn looks_up(&mut self, number: u64) {
        self.asked(Message::Read { request: number, query: Query::Order(OrderNumber(number)) });
    }

    /// The one answer to an account's question.
    fn account(&mut self, query: &AccountQuery) -> Result<AccountAnswer, String> {
        self.replies.clear();
        self.asked(Message::Read { request: 1, query: Query::Account(ann(), query.clone()) });
        match &self.replies[..] {
            [Message::Answer { request: 1, answer: Answer::Account(answer), .. }] => Ok((**answer).clone()),
            [Message::Unavailable { requests, why }] if requests[..] == [1] => Err(why.clone()),
            other => panic!("{query:?}: {other:?}"),
        }
    }

    /// The one answer to a command, if there is one.
    fn submits(&mut self, request: u64, key: CommandKey, command: Command) -> Option<Outcome> {
        self.replies.clear();
        self.asked(Message::Submit(vec![Submission { request, key, command, known: SeqNum(0), again: true }]));
        self.handle(NOW, Input::Timer);
        match &self.replies[..] {
            [] => None,
            [Message::Outcomes { outcomes, .. }] => Some(outcomes[0].1.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// The one answer to that.
    fn order(&mut self, number: u64) -> Result<Option<Order>, String> {
        self.replies.clear();
        self.looks_up(number);
        match &self.replies[..] {
            [Message::Answer { request, answer: Answer::Order(order), .. }] if *request == number => Ok(order.clone()),
            [Message::Unavailable { requests, why }] if requests[..] == [number] => Err(why.clone()),
            other => panic!("order {number}: {other:?}"),
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            let input = match output {
                Output::Disk(request) if self.holds.is_some_and(|holds| holds(&request)) => {
                    self.held.push(request);
                    continue;
                }
                Output::Disk(request) => Input::Disk(self.carry_out(request)),
                Output::Register(RegisterRequest::Read { ticket }) => {
                    let value = configuration(2, Leader { id: id(1), boot: ME });
                    let (configuration, floor) = (
                        Slot::Present { value, revision: 1 },
                        Slot::Present { value: self.floor.clone(), revision: 1 },
                    );
                    Input::Register(RegisterAnswer::Read { ticket, configuration, floor })
                }
                Output::Register(RegisterRequest::Floor { ticket, floor, .. }) => {
                    self.floor = Floor::Record(floor);
                    Input::Register(RegisterAnswer::Written { ticket })
                }
                Output::Reply { packet, .. } => {
                    self.replies.push(packet.envelope.body);
                    continue;
                }
                Output::Stop(stop) => {
                    self.stopped = Some(stop);
                    continue;
                }
                _ => continue,
            };
            self.replica.handle(NOW, input);
        }
    }

    fn carry_out(&mut self, request: DiskRequest) -> DiskAnswer {
        if let DiskRequest::Read { ticket, .. }
        | DiskRequest::LoadSnapshot { ticket, .. }
        | DiskRequest::Rewrite { ticket, .. } = request
            && self.fails.is_some_and(|fails| fails(&request))
        {
            self.failed += 1;
            return DiskAnswer::Failed { ticket, why: "Input/output error".to_owned() };
        }
        match request {
            DiskRequest::Read { ticket, offset, bytes_max } => {
                let rest = &self.journal[usize::try_from(offset).unwrap().min(self.journal.len())..];
                let bytes = Bytes::copy_from_slice(&rest[..rest.len().min(bytes_max)]);
                self.reads.push(bytes.len());
                DiskAnswer::Read { ticket, bytes }
            }
            DiskRequest::LoadSnapshot { ticket, .. } => {
                let file = self.snapshot.take().map(|file| ("snapshot".to_owned(), file.into()));
                DiskAnswer::Loaded { ticket, file }
            }
            DiskRequest::Append { ticket, lines } => {
                self.journal.extend_from_slice(&lines);
                DiskAnswer::Done { ticket, took: Duration::ZERO }
            }
            DiskRequest::Rewrite { ticket, offset, lines } => {
                let start = usize::try_from(offset).unwrap();
                self.journal[start..start + lines.len()].copy_from_slice(&lines);
                DiskAnswer::Done { ticket, took: Duration::ZERO }
            }
            DiskRequest::Persist { ticket, .. } => DiskAnswer::Done { ticket, took: Duration::ZERO },
            other => panic!("{other:?}"),
        }
    }

    /// Some seconds go by for each turn.
    fn later(&mut self, turn: u64) {
        self.handle(Now { mono: NOW.mono.after(Duration::from_secs(3 * turn)), ..NOW }, Input::Timer);
    }

    /// What was held is carried out after all.
    fn let_go(&mut self) {
        self.holds = None;
        for request in std::mem::take(&mut self.held) {
            let answer = self.carry_out(request);
            self.handle(NOW, Input::Disk(answer));
        }
    }
}

fn submission(request: u64) -> Submission {
    let key = CommandKey::generated(Boot(5), request);
    Submission { request, key, command: trade(request), known: SeqNum(0), again: false }
}

fn is_read(request: &DiskRequest) -> bool {
    matches!(request, DiskRequest::Read { .. })
}

#[test]
fn every_order_is_answered_from_the_journal_as_it_is_from_memory() {
    let history = History::of(2_000);
    let (last, bytes) = (history.last(), history.bytes.len());
    let (houses, accounts): (Vec<u64>, Vec<u64>) = (1..=last).partition(|number| history.order(*number).is_some());
    assert!(bytes > 4 * 65_536 && houses.len() > 900 && accounts.len() > 400, "{bytes} {last}");
    let check = |snapshot: Option<Vec<u8>>, kept: usize| {
        let mut alone = Alone::leads(&history.bytes, snapshot, kept);
        for number in 0..=last + 2 {
            assert_eq!(alone.order(number), Ok(history.order(number)), "order {number}, {kept} kept");
        }
        let old = usize::try_from(last).unwrap().saturating_sub(kept);
        assert_eq!(alone.reads.len(), old, "what is kept needs no reading");
        assert!(
            alone.reads.iter().all(|read| *read < 65_536 + LINE_BYTES_MAX),
            "one part and a line: {:?}",
            alone.reads
        );
    };
    check(None, ORDERS_KEPT);
    check(None, 10);
    check(None, 1);
    for until in [1, bytes / 3, bytes - 300, bytes] {
        check(Some(history.snapshot(until, 10)), 10);
    }
}

#[test]
fn what_has_rotted_is_never_answered_wrong_and_is_answered_when_it_is_got_back() {
    let history = History::of(60);
    let first = Alone::leads(&history.bytes, None, 3);
    let old = history.last() - 3;
    let good: Vec<_> = (1..=old).map(|number| Ok(history.order(number))).collect();
    for byte in (0..history.bytes.len()).step_by(11) {
        let mut alone = first.clone();
        alone.journal[byte] ^= 1 << (byte % 8);
        let bad = history.lines.partition_point(|(end, _)| *end <= byte);
        let before = history.lines[..bad].iter().filter_map(|(_, order)| *order).max().map_or(0, |order| order.0);
        for number in 1..=old {
            match alone.order(number) {
                Ok(order) => assert_eq!((order, number <= before), (history.order(number), true), "byte {byte}"),
                Err(why) => assert!(number > before && why.contains("try again"), "byte {byte}, {number}: {why}"),
            }
        }
        for second in 0..3 {
            alone.handle(Now { mono: NOW.mono.after(Duration::from_secs(3 * second)), ..NOW }, Input::Timer);
        }
        assert!(alone.journal.starts_with(&history.bytes), "byte {byte} is not got back");
        let again: Vec<_> = (1..=old).map(|number| alone.order(number)).collect();
        assert_eq!(again, good, "byte {byte}");
    }
}

#[test]
fn what_is_missing_of_the_journal_is_not_said_not_to_be_there() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 3);
    let (first_lines, _) = history.lines[20];
    alone.journal[..first_lines].fill(0);
    for number in 1..=history.last() - 3 {
        assert!(alone.order(number).is_err(), "order {number}");
    }
    alone.handle(Now { mono: NOW.mono.after(Duration::from_secs(3)), ..NOW }, Input::Timer);
    assert_eq!(alone.order(1), Ok(history.order(1)));
}

#[test]
fn who_waits_for_an_old_order_is_told_when_the_lead_is_lost() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 3);
    alone.holds = Some(is_read);
    alone.looks_up(2);
    alone.looks_up(7);
    assert_eq!((alone.replies.len(), alone.held.len()), (0, 1), "one read is for both");
    alone.hears(Message::Announce(Box::new(configuration(3, Leader { id: id(2), boot: Boot(2) }))));
    let told = std::mem::take(&mut alone.replies);
    let [Message::NotLeader { requests, configuration: Some(newer), .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&requests[..], newer.epoch), (&[2, 7][..], Epoch(3)));
    alone.let_go();
    assert_eq!((alone.replies.len(), alone.stopped), (0, None), "nobody waits for what was read");
}

#[test]
fn a_disk_that_breaks_under_a_look_up_ends_the_replica_and_nothing_is_answered() {
    let mut alone = Alone::leads(&History::of(60).bytes, None, 3);
    alone.holds = Some(is_read);
    alone.looks_up(2);
    let Some(DiskRequest::Read { ticket, .. }) = alone.held.pop() else { panic!("{:?}", alone.held) };
    alone.handle(NOW, Input::Disk(DiskAnswer::Broken { ticket, why: "Input/output error".to_owned() }));
    assert!(matches!(alone.stopped, Some(Stop::Broken(_))), "{:?}", alone.stopped);
    assert_eq!(alone.replies.len(), 0);
}

#[test]
fn what_cannot_be_read_is_not_answered_and_the_leader_goes_on() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 3);
    alone.fails = Some(is_read);
    assert!(alone.order(2).unwrap_err().contains("can't read its journal where the order stands: try again"));
    assert_eq!((alone.failed, alone.stopped.take()), (1, None));
    alone.asked(Message::Submit(vec![submission(1)]));
    assert!(matches!(alone.replies.last(), Some(Message::Outcomes { .. })), "{:?}", alone.replies);
    alone.fails = None;
    assert_eq!(alone.order(2), Ok(history.order(2)));
}

/// A bad sector is one that can be written, and then be read.
#[test]
fn what_cannot_be_read_is_written_anew() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 3);
    alone.journal[..history.lines[20].0].fill(0);
    alone.fails = Some(is_read);
    assert!(alone.order(2).is_err());
    alone.later(1);
    assert_eq!(alone.failed, 2, "the scrub has come at once");
    assert!(alone.journal.starts_with(&history.bytes));
}

#[test]
fn what_can_be_neither_read_nor_written_is_passed_over_however_often_it_is_asked_for() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 3);
    alone.journal[..history.lines[20].0].fill(0);
    alone.fails = Some(|request| is_read(request) || matches!(request, DiskRequest::Rewrite { .. }));
    for _ in 0..100 {
        assert!(alone.order(2).unwrap_err().contains("try again"));
        alone.later(1);
    }
    assert_eq!((alone.failed, alone.stopped.take()), (102, None), "the scrub was there once");
    alone.fails = None;
    (2..8).for_each(|turn| alone.later(turn));
    assert_eq!(alone.order(2), Ok(history.order(2)), "and comes by again");
}

#[test]
fn a_start_that_cannot_read_its_journal_ends_and_says_what_to_do() {
    let history = History::of(60);
    let check = |fails: fn(&DiskRequest) -> bool, starts: bool| {
        let snapshot = Some(history.snapshot(history.bytes.len() / 2, 3));
        let alone = Alone::starts(&history.bytes, snapshot, 3, Some(fails));
        match alone.stopped {
            None => assert!(starts && alone.replica.tail().seq == history.exchange.applied()),
            Some(Stop::Broken(why)) => {
                assert!(!starts && why.contains("which a start needs: Input/output error. Mend that disk"), "{why}");
            }
            Some(other) => panic!("{other:?}"),
        }
    };
    check(is_read, false);
    check(|request| matches!(request, DiskRequest::LoadSnapshot { .. }), true);
    // Of the last line of the snapshot alone.
    check(|request| matches!(request, DiskRequest::Read { bytes_max, .. } if *bytes_max < 1_000), true);
}

#[test]
fn few_parts_are_read_at_once_and_the_look_ups_that_wait_are_bounded() {
    const LOOKUPS_MAX: u64 = 1_024;
    let history = History::of(5_000);
    let mut alone = Alone::leads(&history.bytes, None, 3);
    alone.holds = Some(is_read);
    let number = |lookup| 1 + lookup * 997 % (history.last() - 3);
    (0..LOOKUPS_MAX).for_each(|lookup| alone.looks_up(number(lookup)));
    assert_eq!((alone.replies.len(), alone.held.len()), (0, 4));
    alone.looks_up(1);
    assert_eq!(alone.replies.pop(), Some(Message::Overloaded { requests: vec![1] }));
    alone.let_go();
    let mut answered = Vec::new();
    for reply in &alone.replies {
        let Message::Answer { request, answer: Answer::Order(order), .. } = reply else { panic!("{reply:?}") };
        assert_eq!(*order, history.order(*request));
        answered.push(*request);
    }
    let mut asked: Vec<_> = (0..LOOKUPS_MAX).map(number).collect();
    asked.sort_unstable();
    answered.sort_unstable();
    assert_eq!(answered, asked);
    assert!(alone.reads.len() < 20, "one read for all who ask for orders of a part: {}", alone.reads.len());
}

#[test]
fn an_order_that_is_neither_kept_nor_committed_yet_is_not_said_not_to_be_there() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 1);
    let last = history.last();
    alone.holds = Some(|request| matches!(request, DiskRequest::Append { .. }));
    alone.asked(Message::Submit((1..=3).map(submission).collect()));
    assert_eq!(alone.held.len(), 1, "a batch of three is on its way");
    assert!(alone.order(last + 2).unwrap_err().contains("try again"));
    assert_eq!(alone.order(last - 1), Ok(history.order(last - 1)));
    alone.let_go();
    let ordered = trade(2);
    let found = alone.order(last + 2).unwrap().map(|Order { symbol, side, quantity, .. }| (symbol, side, quantity));
    assert_eq!(found.map(|(symbol, side, quantity)| Command::Trade { symbol, side, quantity }), Some(ordered));
}

#[test]
fn who_asks_for_an_order_that_came_after_a_read_began_waits_for_another_read() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 1);
    let last = history.last();
    alone.holds = Some(is_read);
    alone.looks_up(2);
    alone.asked(Message::Submit((1..=3).map(submission).collect()));
    alone.replies.clear();
    alone.looks_up(last + 1);
    alone.looks_up(4);
    assert_eq!((alone.replies.len(), alone.held.len()), (0, 2));
    alone.let_go();
    let found = |reply: &Message| match reply {
        Message::Answer { request, answer: Answer::Order(Some(order)), .. } => (*request, order.number.0),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = alone.replies.iter().map(found).collect();
    assert_eq!(found, [2, 4, last + 1].map(|number| (number, number)));
}

// ---------------------------------------------------------------- of accounts

/// All that an account can ask for of its orders.
fn queries(last: u64) -> Vec<AccountQuery> {
    let orders = (0..=last + 2).map(|number| AccountQuery::Order(OrderNumber(number)));
    let statuses = [None, Some(OrderStatus::Open), Some(OrderStatus::Filled), Some(OrderStatus::Cancelled)];
    let befores = [None, Some(0), Some(1), Some(last / 3), Some(last / 2), Some(last + 1)];
    let pages = statuses.into_iter().flat_map(move |status| befores.map(|before| (status, before)));
    let pages = pages.flat_map(|(status, before)| {
        [1, 7, 500].map(|limit| AccountQuery::Orders(Page { status, limit, before: before.map(OrderNumber) }))
    });
    orders.chain(pages).collect()
}

#[test]
fn every_order_of_an_account_is_answered_from_the_journal_as_it_is_from_memory() {
    let history = History::of(2_000);
    let check = |kept: usize, reads: std::ops::RangeInclusive<usize>| {
        let mut alone = Alone::leads(&history.bytes, None, kept);
        let mut most = 0;
        for query in queries(history.last()) {
            let before = alone.reads.len();
            is_as(alone.account(&query).unwrap(), history.account(&query), &format!("{query:?}, {kept} kept"));
            most = most.max(alone.reads.len() - before);
        }
        assert!(reads.contains(&most), "{kept} kept, and up to {most} parts read for one question");
    };
    check(ORDERS_KEPT, 0..=0);
    check(100, 1..=32);
    check(1, 1..=32);
    check(0, 1..=32);
}

/// A page may end early, but not empty.
#[track_caller]
fn is_as(answer: AccountAnswer, whole: AccountAnswer, what: &str) {
    match (answer, whole) {
        (AccountAnswer::Orders(page), AccountAnswer::Orders(whole)) => {
            assert!(whole.starts_with(&page) && page.is_empty() == whole.is_empty(), "{what}: {page:?}, not {whole:?}");
        }
        (answer, whole) => assert_eq!(answer, whole, "{what}"),
    }
}

#[test]
fn a_command_about_an_old_order_is_answered_as_if_it_were_in_memory() {
    let history = History::of(400);
    let first = Alone::leads(&history.bytes, None, 1);
    for number in 0..400 {
        let (key, command) = (CommandKey::generated(Boot(9), number), command(number));
        let mut alone = first.clone();
        let outcome = alone.submits(number, key.clone(), command.clone());
        if let Some(expected) = history.outcome(&key, &command) {
            assert_eq!(outcome, Some(expected), "{command:?} again");
        }
        let cancel = Command::Account { caller: ann(), instruction: Instruction::Cancel(OrderNumber(number)) };
        let key = CommandKey::generated(Boot(10), number);
        let outcome = alone.submits(number, key.clone(), cancel.clone());
        if let Some(expected) = history.outcome(&key, &cancel) {
            assert_eq!(outcome, Some(expected), "order {number} is cancelled");
        }
    }
}

#[test]
fn of_what_was_done_and_can_not_be_read_it_is_not_said_that_it_was_not_done() {
    let history = History::of(400);
    let mut alone = Alone::leads(&history.bytes, None, 1);
    alone.fails = Some(is_read);
    let places = |number: &u64| {
        let key = CommandKey::generated(Boot(9), *number);
        number.is_multiple_of(4) && matches!(history.exchange.decide(&key, &command(*number)), Decision::Replay { .. })
    };
    let number = (4..400).find(places).unwrap();
    let key = CommandKey::generated(Boot(9), number);
    assert_eq!(alone.submits(1, key.clone(), command(number)), None, "its client learns that the outcome is unknown");
    let query = AccountQuery::Order(OrderNumber(3));
    assert!(alone.account(&query).unwrap_err().contains("try again"));
    alone.fails = None;
    assert_eq!(alone.submits(2, key.clone(), command(number)), history.outcome(&key, &command(number)));
    assert_eq!(alone.account(&query), Ok(history.account(&query)));
}

#[test]
fn what_has_rotted_of_an_accounts_orders_is_never_answered_wrong_and_is_answered_when_it_is_got_back() {
    let history = History::of(120);
    let first = Alone::leads(&history.bytes, None, 1);
    let good = first.journal.clone();
    let queries = queries(history.last());
    for byte in (0..good.len()).step_by(37) {
        let mut alone = first.clone();
        alone.journal[byte] ^= 1 << (byte % 8);
        for query in &queries {
            match alone.account(query) {
                Ok(answer) => is_as(answer, history.account(query), &format!("byte {byte}")),
                Err(why) => assert!(why.contains("try again"), "byte {byte}, {query:?}: {why}"),
            }
        }
        (0..3).for_each(|turn| alone.later(turn));
        assert!(alone.journal.starts_with(&good), "byte {byte} is not got back");
        for query in &queries {
            is_as(alone.account(query).unwrap(), history.account(query), &format!("byte {byte}"));
        }
    }
}

#[test]
fn what_an_account_is_told_of_a_statement_that_is_not_committed_yet_waits_for_it() {
    let history = History::of(60);
    let mut alone = Alone::leads(&history.bytes, None, 0);
    let placed = alone.submits(1, CommandKey::generated(Boot(11), 1), command(4));
    assert!(matches!(placed, Some(Outcome::Done { .. })), "{placed:?}");
    let number = OrderNumber(history.last() + 1);
    alone.holds = Some(|request| matches!(request, DiskRequest::Append { .. }));
    let command = Command::Account { caller: ann(), instruction: Instruction::Cancel(number) };
    assert_eq!(alone.submits(2, CommandKey::generated(Boot(11), 2), command), None);
    let [DiskRequest::Append { lines, .. }] = &alone.held[..] else { panic!("{:?}", alone.held) };
    let stated = scan(lines, alone.replica.position(alone.replica.committed()).unwrap()).last().unwrap().unwrap().entry;
    assert!(matches!(&stated.events[..], [Event::Stated { orders, .. }] if orders[0].order == number), "{stated:?}");
    let query = AccountQuery::Order(number);
    alone.asked(Message::Read { request: 1, query: Query::Account(ann(), query) });
    assert_eq!(alone.replies.len(), 0);
    alone.let_go();
    let found = alone.replies.iter().find_map(|reply| match reply {
        Message::Answer { answer: Answer::Account(answer), .. } => Some((**answer).clone()),
        _ => None,
    });
    let Some(AccountAnswer::Order(Some(found))) = found else { panic!("{found:?}") };
    assert_eq!((found.number, found.status), (number, OrderStatus::Cancelled));
}

#[test]
fn a_backlog_of_what_is_to_be_stated_holds_no_command_up() {
    // As of a release that knew no statements: some hundred orders are done, and none is stated.
    let history = History::of(2_000);
    let mut alone = Alone::starts(&history.bytes, None, 1, None);
    alone.holds = Some(|request| matches!(request, DiskRequest::Append { .. }));
    alone.hears(Message::Announce(Box::new(configuration(2, Leader { id: id(1), boot: ME }))));
    alone.asked(Message::Submit((1..=3).map(submission).collect()));
    let mut batches = Vec::new();
    while let Some(request) = alone.held.pop() {
        let DiskRequest::Append { lines, .. } = &request else { panic!("{request:?}") };
        let from = alone.replica.position(SeqNum(alone.replica.tail().seq.0 - lines_in(lines))).unwrap();
        let events = scan(lines, from).map(|line| line.unwrap().entry.events[0].clone());
        batches.push(events.map(|event| matches!(event, Event::Traded { .. })).collect::<Vec<_>>());
        let answer = alone.carry_out(request);
        alone.handle(NOW, Input::Disk(answer));
    }
    // The first entry of the epoch; then what waits, with a statement before each and one behind; then the rest, one by one.
    assert_eq!(batches[..2], [vec![false], vec![false, true, false, true, false, true, false]]);
    assert!(batches.len() > 3 && batches[2..].iter().all(|batch| batch[..] == [false]), "{batches:?}");
    let query = AccountQuery::Order(OrderNumber(3));
    alone.holds = None;
    assert_eq!(alone.account(&query), Ok(history.account(&query)));
}

fn lines_in(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[test]
fn the_ways_to_old_orders_that_are_under_way_at_once_are_bounded_and_each_is_gone_once() {
    const WALKS_MAX: u64 = 512;
    let history = History::of(400);
    let mut alone = Alone::leads(&history.bytes, None, 1);
    alone.holds = Some(is_read);
    let old = AccountQuery::Order(OrderNumber(3));
    let asks = |alone: &mut Alone, request| {
        alone.asked(Message::Read { request, query: Query::Account(ann(), old.clone()) });
    };
    (0..WALKS_MAX).for_each(|request| asks(&mut alone, request));
    assert_eq!(alone.replies.len(), 0);
    asks(&mut alone, WALKS_MAX);
    assert_eq!(alone.replies.pop(), Some(Message::Overloaded { requests: vec![WALKS_MAX] }));
    // Who asks again waits for the first way's end; an order with the house has room.
    (0..WALKS_MAX).for_each(|request| asks(&mut alone, request));
    alone.looks_up(1_000_000);
    alone.replies.clear();
    alone.looks_up(1);
    assert_eq!(alone.replies.len(), 0);
    alone.holds = None;
    while !alone.held.is_empty() {
        alone.let_go();
    }
    let answered = |reply: &&Message| matches!(reply, Message::Answer { answer: Answer::Account(_), .. });
    assert_eq!(alone.replies.iter().filter(answered).count() as u64, WALKS_MAX, "each is answered once");
}

#[test]
fn who_is_on_the_way_to_an_old_order_is_told_when_the_lead_is_lost() {
    let history = History::of(400);
    let mut alone = Alone::leads(&history.bytes, None, 1);
    alone.holds = Some(is_read);
    alone.asked(Message::Read { request: 1, query: Query::Account(ann(), AccountQuery::Order(OrderNumber(3))) });
    let places = (8..400).find(|number| number % 4 == 0).map(|number| (CommandKey::generated(Boot(9), number), number));
    let (key, number) = places.unwrap();
    assert_eq!(alone.submits(2, key, command(number)), None);
    let cancel = Command::Account { caller: ann(), instruction: Instruction::Cancel(OrderNumber(3)) };
    assert_eq!(alone.submits(3, CommandKey::generated(Boot(11), 1), cancel), None);
    alone.replies.clear();
    alone.hears(Message::Announce(Box::new(configuration(3, Leader { id: id(2), boot: Boot(2) }))));
    let told = std::mem::take(&mut alone.replies);
    let [Message::NotLeader { requests, .. }] = &told[..] else { panic!("{told:?}") };
    let mut requests = requests.clone();
    requests.sort_unstable();
    assert_eq!(requests, [1, 2, 3]);
    alone.let_go();
    assert_eq!((alone.replies.len(), alone.stopped), (0, None));
}
