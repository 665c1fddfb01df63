//! The words stories are told with.

use tradenet_core::{ClientAnswer, ClientRequest, Input};
use tradenet_schemas::ids::{OrderNumber, StoreId};
use tradenet_schemas::message::Floor;
use tradenet_schemas::trade::{Command, IdempotencyKey, Outcome, Quantity, Side, Stock};

use crate::machine::{Who, frontend};
use crate::register::Register;
use crate::world::{Answered, STOCKS, World, symbol};

/// A story waits for nothing longer than this, in microseconds.
const PATIENCE_US: u64 = 180_000_000;

impl World {
    /// Lets the world go on until `done`.
    ///
    /// # Panics
    /// An invariant was violated, or it did not come to pass within [`PATIENCE_US`]; the end of the trace is shown.
    pub fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool, waited_for: &str) {
        let patience = self.now + PATIENCE_US;
        while !done(self) {
            let goes_on = self.step() && self.now < patience;
            if !goes_on {
                self.give_up(waited_for);
            }
        }
    }

    /// Lets so many milliseconds pass.
    pub fn run_for(&mut self, ms: u64) {
        let until = self.now + ms * 1_000;
        self.at(until, crate::world::Event::Nothing);
        self.run_until(|world| world.now >= until, "time passes");
    }

    fn give_up(&self, waited_for: &str) -> ! {
        let last = self.trace.last(80);
        let why = match &self.violation {
            Some(violation) => format!("{}: {}", violation.invariant, violation.text),
            None => format!("waited in vain: {waited_for}"),
        };
        panic!("{}\n\n{why}", last.join("\n"));
    }

    /// Milliseconds that `what` takes.
    pub fn time_of(&mut self, what: impl FnOnce(&mut Self)) -> u64 {
        let before = self.now;
        what(self);
        (self.now - before) / 1_000
    }

    // ------------------------------------------------------------ faults

    /// Starts everything that does not run.
    pub fn start_all(&mut self) {
        (0..self.crew).for_each(|machine| self.start_machine(machine));
    }
    /// Starts a process.
    pub fn start(&mut self, who: Who) {
        let machine = self.index(who);
        self.start_machine(machine);
    }
    /// Kills a process.
    pub fn kill(&mut self, who: Who) {
        let machine = self.index(who);
        self.kill_machine(machine, false);
    }
    /// Takes a machine away; the broker does not notice for a while.
    pub fn lose_power(&mut self, who: Who) {
        let machine = self.index(who);
        self.kill_machine(machine, true);
    }
    /// Asks a process to end.
    pub fn stop(&mut self, who: Who) {
        let machine = self.index(who);
        self.put_in(machine, Input::Leave);
    }
    /// Stops a process in its tracks for so long.
    pub fn pause(&mut self, who: Who, ms: u64) {
        let machine = self.index(who);
        self.pause_machine(machine, self.now + ms * 1_000);
    }
    /// Cuts a machine off, both ways.
    pub fn cut(&mut self, who: Who) {
        let machine = self.index(who);
        self.cut_line(machine, true, true);
    }
    /// Cuts only what a machine says.
    pub fn silence(&mut self, who: Who) {
        let machine = self.index(who);
        self.cut_line(machine, true, false);
    }
    /// Connects it again.
    pub fn mend(&mut self, who: Who) {
        let machine = self.index(who);
        self.mend_line(machine);
    }
    /// Puts some machines on the other side of a split: away from all others, and from the register.
    pub fn split(&mut self, away: &[Who]) {
        self.split = self.machines.iter().map(|machine| away.contains(&machine.who)).collect();
    }
    /// The two sides hear each other again.
    pub fn join(&mut self) {
        self.split.clear();
    }
    /// Delays all that a machine says and hears.
    pub fn lag(&mut self, who: Who, ms: u64) {
        let machine = self.index(who);
        self.machines[machine].lag_us = ms * 1_000;
    }
    /// Keeps a second copy of each command that is sent from now on.
    pub fn keep_copies(&mut self) {
        self.copies = Some(Vec::new());
    }
    /// The second copies come, late.
    pub fn deliver_copies(&mut self) {
        let now = self.now;
        for (from, parcel) in self.copies.take().unwrap_or_default() {
            self.at(now, crate::world::Event::AtBroker { from, parcel });
        }
    }
    /// Takes the end of its last line from the journal of a replica that does not run.
    pub fn tear(&mut self, who: Who) {
        let machine = self.index(who);
        let disk = &mut self.machines[machine].disk;
        disk.cut(disk.file.len() - 3);
    }
    /// Kills a replica; of what its disk had not done yet nothing is done.
    pub fn kill_before_its_disk(&mut self, who: Who) {
        let machine = self.index(who);
        self.machines[machine].disk.crash_with(false);
        self.kill_machine(machine, false);
    }
    /// Kills a replica and empties its disk.
    pub fn wipe(&mut self, who: Who) {
        let machine = self.index(who);
        self.kill_machine(machine, false);
        self.wipe_disk(machine);
    }
    /// A new, empty directory.
    pub(crate) fn wipe_disk(&mut self, machine: usize) {
        let store = StoreId(self.fresh());
        let empty = crate::disk::Disk::new(store, self.sync_us, self.orders_kept);
        let before = std::mem::replace(&mut self.machines[machine].disk, empty);
        self.attic.push((machine, before));
        let (now, name) = (self.now, self.machines[machine].name.clone());
        self.trace.line(now, &name, "wiped", || format!("its disk is now store {store}"));
    }
    /// A bit of the line that makes that order goes bad on that replica's disk.
    pub fn rot(&mut self, who: Who, number: OrderNumber) {
        let machine = self.index(who);
        let seq = self.invariants.truth.order(number).map(|(seq, _)| *seq).unwrap_or_default();
        let end = self.machines[machine].disk.journal_up_to(seq).map(<[u8]>::len);
        end.into_iter().for_each(|end| self.rot_before(machine, end));
    }
    /// A bit of the last line in that replica's journal flips.
    pub fn rot_last_line(&mut self, who: Who) {
        let machine = self.index(who);
        self.rot_before(machine, self.machines[machine].disk.file.len());
    }
    fn rot_before(&mut self, machine: usize, end: usize) {
        let (disk, at) = (&mut self.machines[machine].disk, end - 10);
        disk.file[at] ^= 1;
        disk.flipped = Some(at);
    }
    /// Whether that replica's journal is as it was written.
    pub fn is_rotten(&self, who: Who) -> bool {
        self.machines[self.index(who)].disk.flipped.is_some()
    }
    /// What a sync of that replica's disk takes, in milliseconds.
    pub fn slow_disk(&mut self, who: Who, ms: u64) {
        let machine = self.index(who);
        self.machines[machine].disk.sync_us = ms * 1_000;
    }
    /// Whether that replica's journal ends in bytes that were never written.
    pub fn ends_in_zeros(&self, who: Who) -> bool {
        self.machines[self.index(who)].disk.file.last() == Some(&0)
    }
    /// The next read of that replica's disk fails.
    pub fn fail_read(&mut self, who: Who) {
        let machine = self.index(who);
        self.machines[machine].disk.fails = Some(crate::disk::Fails::Read);
    }
    /// Whether that replica's disk has no room.
    pub fn full_disk(&mut self, who: Who, full: bool) {
        let machine = self.index(who);
        self.machines[machine].disk.full = full;
    }
    /// The register forgets everything.
    pub fn wipe_register(&mut self) {
        self.register.configuration.wipe(false);
        self.register.floor.wipe(false);
        self.register_was_tampered();
    }
    /// The register forgets the floor, and nothing else.
    pub fn lose_the_floor(&mut self) {
        self.register.floor.wipe(true);
        self.register_was_tampered();
    }
    /// The register serves its record before the newest again.
    pub fn register_goes_back(&mut self) {
        self.register.configuration.go_back();
        self.register_was_tampered();
    }
    pub(crate) fn register_was_tampered(&mut self) {
        self.register.tampered = true;
        self.invariants.register_tampered();
        let Register { configuration, floor, .. } = &self.register;
        let epochs = (configuration.value().map(|held| held.epoch), floor.value().map(Floor::epoch));
        let unreadable = (configuration.unreadable, floor.unreadable);
        let told = || format!("now holds epoch and floor {epochs:?}; can't be read: {unreadable:?}");
        self.trace.line(self.now, "nemesis", "register", told);
    }
    /// The broker stops, and is back after so long.
    pub fn restart_broker(&mut self, ms: u64) {
        self.broker_up = false;
        (0..self.machines.len()).for_each(|machine| self.disconnect(machine, true));
        let at = self.now + ms * 1_000;
        self.at(at, crate::world::Event::BrokerUp);
        let now = self.now;
        self.trace.line(now, "broker", "restarts", || format!("{ms} ms"));
    }

    // ------------------------------------------------------------ clients

    /// Asks a frontend, and waits for what comes of it.
    pub fn ask(&mut self, who: Who, request: ClientRequest) -> Answered {
        let call = self.ask_later(who, request);
        self.answer_to(call)
    }
    /// Asks a frontend, and does not wait.
    pub fn ask_later(&mut self, who: Who, request: ClientRequest) -> u64 {
        let machine = self.index(who);
        self.call(machine, request, None)
    }
    /// Waits for the answer to a call.
    pub fn answer_to(&mut self, call: u64) -> Answered {
        self.run_until(|world| world.answers.contains_key(&call), "an answer to a client");
        self.answers.remove(&call).unwrap_or(Answered::Broken)
    }
    /// Buys one of a stock through a frontend under a key; the order's number.
    ///
    /// # Panics
    /// It is not accepted.
    pub fn buy(&mut self, who: Who, name: &str, key: &str) -> OrderNumber {
        match self.ask(who, buy(name, 1, key)) {
            Answered::With(ClientAnswer::Outcome(Outcome::Accepted { order, .. })) => order,
            other => {
                let last = self.trace.last(80);
                panic!("{}\n\nnot accepted: {other:?}", last.join("\n"))
            }
        }
    }
    /// Buys through any frontend until it is accepted; how long that took, in milliseconds.
    pub fn keep_buying(&mut self, name: &str, key: &str) -> u64 {
        let before = self.now;
        loop {
            let answer = self.ask(frontend(1), buy(name, 1, key));
            if let Answered::With(ClientAnswer::Outcome(Outcome::Accepted { .. })) = answer {
                return (self.now - before) / 1_000;
            }
            if self.now > before + PATIENCE_US {
                self.give_up("an order that is accepted");
            }
            self.run_for(20);
        }
    }
    /// Reads a stock; whether the cache had it.
    ///
    /// # Panics
    /// There is no answer.
    pub fn read(&mut self, who: Who, name: &str) -> (Stock, bool) {
        match self.ask(who, ClientRequest::Stock(symbol(name))) {
            Answered::With(ClientAnswer::Stock { stock: Some(stock), hit }) => (stock, hit),
            other => panic!("no stock: {other:?}"),
        }
    }
    /// What a frontend says is wrong.
    pub fn trouble(&self, who: Who) -> String {
        let machine = &self.machines[self.index(who)];
        let now = machine.clock.local(self.now);
        let trouble = machine.frontend().and_then(|frontend| frontend.cluster(now).trouble);
        trouble.unwrap_or_default()
    }
    /// The newest epoch that was written.
    pub fn epoch(&self) -> u64 {
        self.invariants.newest.as_ref().map_or(0, |newest| newest.epoch.0)
    }
    /// How many entries are committed.
    pub fn committed(&self) -> u64 {
        self.invariants.truth.end().0
    }
    /// Whether that rare situation has come to pass: a name of [`crate::marks`].
    pub fn came_to_pass(&self, mark: &str) -> bool {
        self.marks.contains_key(mark)
    }
    /// Whether the process at that place runs.
    pub fn runs(&self, who: Who) -> bool {
        self.machines[self.index(who)].process.is_some()
    }
    /// Why the process at that place ended by itself.
    pub fn ended_because(&self, who: Who) -> Option<&str> {
        self.machines[self.index(who)].ended.as_deref()
    }
    /// Whether the newest record counts that replica, with the disk it has now, as in sync.
    pub fn counts_in_sync(&self, who: Who) -> bool {
        let machine = &self.machines[self.index(who)];
        let newest = self.invariants.newest.as_ref();
        newest.is_some_and(|newest| machine.id.is_some_and(|id| newest.is_in_sync(id, machine.disk.store)))
    }
    /// A journal with everything that was committed, and no more; none if every disk that had it is gone.
    pub(crate) fn whole_journal(&self) -> Option<&[u8]> {
        let end = self.invariants.truth.end();
        let disks = self.machines.iter().map(|machine| &machine.disk).chain(self.attic.iter().map(|(_, disk)| disk));
        let mut whole =
            disks.filter(|disk| disk.is_good() && disk.position(end) == self.invariants.truth.position(end));
        whole.find_map(|disk| disk.journal_up_to(end))
    }
    /// Whether all journals hold the same bytes.
    pub fn journals_are_equal(&self) -> bool {
        let mut files = self.machines.iter().filter(|m| m.is_replica()).map(|m| &m.disk.file);
        let first = files.next();
        files.all(|file| Some(file) == first)
    }
}

/// A purchase under a key.
///
/// # Panics
/// The key is none.
pub fn buy(name: &str, quantity: u64, key: &str) -> ClientRequest {
    trade(Side::Buy, name, quantity, key)
}

/// A sale under a key.
///
/// # Panics
/// The key is none.
pub fn sell(name: &str, quantity: u64, key: &str) -> ClientRequest {
    trade(Side::Sell, name, quantity, key)
}

fn trade(side: Side, name: &str, quantity: u64, key: &str) -> ClientRequest {
    debug_assert!(STOCKS.iter().any(|(known, ..)| *known == name));
    let key = IdempotencyKey::new(key).expect("a key");
    let quantity = Quantity::new(quantity).unwrap_or_default();
    ClientRequest::Command(Some(key), Command::Trade { symbol: symbol(name), side, quantity })
}
