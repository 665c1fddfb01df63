//! Looking up orders that are too old to be in memory.
//!
//! Problem: an order can be looked up for ever, there is no end of them, and memory must not grow with each.
//! Idea: the state keeps the newest. The number of an older one with the house leads to a mark of the log, and from there one part
//! of the file (64 KiB and a line) is read, along the chain of checksums, up to the line that made the order. An account's older ones
//! are found by a [`Walk`] through its statements, each of which is a line that is read in the same way. Who asks for lines of one
//! part waits for one read of it; a few parts are read at once, and so many look-ups wait as there is room for.
//! Rules kept: only lines of committed entries are read, and each is checked from the mark on, whose chain is known from when they
//! were written or read at the start. So what is found was always so; it has to be released, and no more (rule R5). An answer that
//! holds what the state had too, or says that something is not there, waits for what the state then was like and for a confirmation
//! round. Of what has rotted or can't be read nothing is said but that: it is got back ([`scrub`](super::scrub)), and the client
//! asks again.

use std::collections::{BTreeMap, BTreeSet};

use memchr::memmem;
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::journal::Entry;
use tradenet_schemas::message::{Answer, Message};
use tradenet_schemas::trade::Outcome;

use super::lead::{Due, Sender};
use super::log::{Line, Place};
use super::observe::Lookup;
use super::{READS_MAX, ReadFor, Replica};
use crate::exchange::{Exchange, Walk};
use crate::journal::{Scan, scan};
use crate::{Output, ReplyTo};

/// How many parts are read at once: half of [`READS_MAX`], so that peers that catch up find a place.
const PARTS_READ_MAX: usize = 4;
/// How many look-ups may wait for a part.
pub(super) const LOOKUPS_MAX: usize = 1_024;
/// How many of them may be accounts' questions, and orders to be cancelled.
const WALKS_MAX: usize = LOOKUPS_MAX / 2;

/// A part of the file: the lines behind the first place, up to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    from: Place,
    to: Place,
}

/// Who asked for a line, and what for.
#[derive(Clone, Debug)]
enum Asking {
    /// For an order with the house.
    House { request: u64, reply: ReplyTo },
    /// For the next statement on the way.
    Walk(Walking),
}

/// Somebody on the way to what the journal says.
#[derive(Clone, Debug)]
struct Walking {
    walk: Box<Walk>,
    then: Then,
    /// The end of the log when it was asked: what was found in the state is not older.
    behind: SeqNum,
}

/// What becomes of what is found at the end of a walk.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// An account is shown its orders.
    Show {
        /// Its question.
        request: u64,
        /// Where the answer goes.
        reply: ReplyTo,
    },
    /// A command was done before, and is answered with what it did.
    Repeat {
        /// Who sent it again.
        sender: Sender,
        /// Whether it was done before its client asked.
        before: bool,
        /// What it did, if that can't have changed since.
        fixed: Option<SeqNum>,
    },
    /// A command is refused.
    Refuse(Sender),
}

impl Then {
    /// Where the answer goes, and to which request.
    fn goes_to(&self) -> (&ReplyTo, u64) {
        match self {
            Self::Show { request, reply } => (reply, *request),
            Self::Repeat { sender, .. } | Self::Refuse(sender) => (&sender.reply, sender.request),
        }
    }
}

impl Asking {
    fn goes_to(&self) -> (&ReplyTo, u64) {
        match self {
            Self::House { request, reply } => (reply, *request),
            Self::Walk(walking) => walking.then.goes_to(),
        }
    }
}

/// The look-ups of one part.
#[derive(Clone, Debug)]
struct Asked {
    part: Part,
    reading: bool,
    by: Vec<(Line, Asking)>,
}

/// What a leader was asked and has to read. Whoever asked first is answered first.
#[derive(Clone, Default, Debug)]
pub(super) struct Lookups {
    parts: Vec<Asked>,
}

impl Lookups {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|asked| asked.by.len()).sum()
    }

    /// How many of them are accounts' questions, and orders to be cancelled.
    fn walks(&self) -> usize {
        let is_one =
            |asking: &Asking| matches!(asking, Asking::Walk(Walking { then: Then::Show { .. } | Then::Refuse(_), .. }));
        self.parts.iter().flat_map(|asked| &asked.by).filter(|(_, asking)| is_one(asking)).count()
    }

    /// Where answers would go, and to which requests.
    pub(super) fn into_requests(self) -> impl Iterator<Item = (ReplyTo, u64)> {
        let asking = self.parts.into_iter().flat_map(|asked| asked.by);
        asking.map(|(_, asking)| {
            let (reply, request) = asking.goes_to();
            (reply.clone(), request)
        })
    }

    /// Whether that request waits already.
    fn holds(&self, request: (&ReplyTo, u64)) -> bool {
        self.parts.iter().flat_map(|asked| &asked.by).any(|(_, asking)| asking.goes_to() == request)
    }

    /// Has one wait for that part, or for one that begins there too and is long enough.
    fn wait(&mut self, part: Part, line: Line, asking: Asking) {
        let same = |asked: &&mut Asked| asked.part.from == part.from && line.is_up_to(&asked.part.to);
        match self.parts.iter_mut().find(same) {
            Some(asked) => asked.by.push((line, asking)),
            None => self.parts.push(Asked { part, reading: false, by: vec![(line, asking)] }),
        }
    }

    /// The next part to read, if another one may be.
    fn next(&mut self) -> Option<Part> {
        let reading = self.parts.iter().filter(|asked| asked.reading).count();
        let next = self.parts.iter_mut().find(|asked| !asked.reading).filter(|_| reading < PARTS_READ_MAX)?;
        next.reading = true;
        Some(next.part)
    }

    /// Who waits for that part, which was read.
    fn take(&mut self, part: Part) -> Vec<(Line, Asking)> {
        let read = self.parts.iter().position(|asked| asked.reading && asked.part == part);
        read.map(|at| self.parts.remove(at).by).unwrap_or_default()
    }
}

impl Replica {
    /// A client asks the leader for an order with the house that its state does not keep any more.
    pub(super) fn look_up(&mut self, request: u64, number: OrderNumber, reply: ReplyTo) {
        let asking = Asking::House { request, reply };
        if self.has_room() {
            self.wait_for(Line::Order(number), asking);
        } else {
            self.not_answered(&asking, None);
        }
    }

    /// Whether one more look-up may wait.
    fn has_room(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.lookups.len() < LOOKUPS_MAX)
    }

    /// What somebody asks for is at the end of that walk. Who asks again while it is under way waits for that one's end.
    pub(super) fn walk(&mut self, walk: Box<Walk>, then: Then) {
        if self.leading.as_ref().is_none_or(|leading| leading.lookups.holds(then.goes_to())) {
            return;
        }
        let walking = Walking { walk, then, behind: self.log.tail().seq };
        // They take long, and one account may ask many. What was done before comes first: of that it can't be said to come again.
        let first = matches!(walking.then, Then::Repeat { .. });
        if self.has_room()
            && (first || self.leading.as_ref().is_some_and(|leading| leading.lookups.walks() < WALKS_MAX))
        {
            self.walk_on(walking);
        } else {
            self.not_answered(&Asking::Walk(walking), None);
        }
    }

    fn wait_for(&mut self, line: Line, asking: Asking) {
        let safe = self.committed.min(self.durable());
        let part = self.log.part_with(line, safe);
        let Some(leading) = &mut self.leading else { return };
        match part {
            Some((from, to)) => leading.lookups.wait(Part { from, to }, line, asking),
            // More orders are under way than are kept.
            None => self.not_answered(&asking, Some("the order is not on every disk yet: try again")),
        }
    }

    /// Reads what is waited for, as far as there is room for reads.
    pub(super) fn read_parts(&mut self) {
        while self.reads.len() < READS_MAX
            && let Some(part) = self.leading.as_mut().and_then(|leading| leading.lookups.next())
        {
            let length = usize::try_from(part.to.end - part.from.end).unwrap_or(usize::MAX);
            self.read(ReadFor::Orders(part), part.from.end, length);
        }
    }

    /// A part as it is on the disk. Whoever asked a leader that is none any more was told so.
    pub(super) fn part_read(&mut self, part: Part, bytes: &[u8]) {
        let Some(leading) = &mut self.leading else { return };
        let asking = leading.lookups.take(part);
        if asking.is_empty() {
            return;
        }
        self.outputs.push_back(Output::debug(format!(
            "read entries {} to {} for {} look-ups of old orders",
            part.from.position.seq.next(),
            part.to.position.seq,
            asking.len()
        )));
        let (orders, entries): (BTreeSet<_>, BTreeSet<_>) =
            asking.iter().map(|(line, _)| *line).partition(|line| matches!(line, Line::Order(_)));
        let (mut found, mut rotten) = (BTreeMap::new(), None);
        // Those of one kind come in the order in which they stand in the file.
        for lines in [orders, entries] {
            let mut scan = scan(bytes, part.from.position);
            for line in lines {
                let Some(entry) = find(&mut scan, line) else {
                    rotten = Some((scan.position(), part.from.end + (bytes.len() - scan.rest().len()) as u64));
                    break;
                };
                found.insert(line, entry);
            }
        }
        if let Some((good, byte)) = rotten {
            assert!(good.chain != part.to.position.chain, "the index says that orders stand where there are others");
            let text = format!("line {} has rotted, where an old order stands", good.seq.next());
            self.outputs.push_back(Output::debug(text));
            self.scrub_from(byte);
        }
        for (line, asking) in asking {
            match found.get(&line) {
                Some(entry) => self.found(line, entry, asking),
                None => {
                    let why = "the leader's journal has rotted where the order stands, and is got back from another replica: \
                               try again";
                    self.not_answered(&asking, Some(why));
                }
            }
        }
    }

    /// A part could not be read. Perhaps it can be soon: it is tried by the scrub at once, and by whoever asks again.
    pub(super) fn part_not_read(&mut self, part: Part, why: &str) {
        let Some(leading) = &mut self.leading else { return };
        let asking = leading.lookups.take(part);
        let before = part.from.position.seq;
        let text = format!("an old order's part behind line {before} can't be read: {why}");
        self.outputs.push_back(Output::debug(text));
        self.scrub_unread(part.from.end);
        for (_, asking) in asking {
            let why = "the leader can't read its journal where the order stands: try again";
            self.not_answered(&asking, Some(why));
        }
    }

    fn found(&mut self, line: Line, entry: &Entry, asking: Asking) {
        match (line, asking) {
            (Line::Order(number), Asking::House { request, reply }) => {
                self.counts.lookup(Lookup::Answered, 1);
                let order = Exchange::made(entry, number).flatten();
                self.owe_released(reply, entry.seq, request, Answer::Order(order));
            }
            (Line::Entry(_), Asking::Walk(mut walking)) => {
                walking.walk.take(entry);
                self.walk_on(walking);
            }
            (line, asking) => unreachable!("{line:?} was not wanted for {asking:?}"),
        }
    }

    /// To the next entry on the way, or to the answer at its end.
    fn walk_on(&mut self, mut walking: Walking) {
        let safe = self.committed.min(self.durable());
        while let Some(seq) = walking.walk.next_entry() {
            // What may be cut yet is not on the disk for certain. It is what the state is of, as everything that the answer waits for.
            match self.log.entry(seq).filter(|_| seq > safe) {
                Some(entry) => walking.walk.take(entry),
                None => return self.wait_for(Line::Entry(seq), Asking::Walk(walking)),
            }
        }
        self.counts.lookup(Lookup::Answered, 1);
        let Walking { walk, then, behind } = walking;
        self.outputs.push_back(Output::debug(format!("{} statements read for an account's old orders", walk.read())));
        match then {
            Then::Show { request, reply } => {
                let answer = Answer::Account(Box::new(walk.into_answer()));
                self.owe_read(reply, behind, Due::Answer { request, answer });
            }
            Then::Repeat { sender, before, fixed } => {
                self.tell(sender, Exchange::outcome_by(*walk), before, fixed.unwrap_or(behind), fixed.is_none());
            }
            Then::Refuse(sender) => {
                self.tell(sender, Outcome::Refused(Exchange::refusal_by(*walk)), false, behind, true);
            }
        }
    }

    /// Nothing is found out; `why`, but for too many who wait. Of a command that was done before nothing is said then: that it
    /// can't be told now would be taken for "it was not done". Its client asks again, or learns that the outcome is unknown.
    fn not_answered(&mut self, asking: &Asking, why: Option<&str>) {
        self.counts.lookup(if why.is_none() { Lookup::Overloaded } else { Lookup::Unavailable }, 1);
        if matches!(asking, Asking::Walk(Walking { then: Then::Repeat { .. }, .. })) {
            return;
        }
        let (reply, request) = asking.goes_to();
        let requests = vec![request];
        self.reply(
            reply.clone(),
            match why {
                None => Message::Overloaded { requests },
                Some(why) => Message::Unavailable { requests, why: why.to_owned() },
            },
        );
    }
}

/// Goes on to that line. None where the lines end or one is bad.
fn find(scan: &mut Scan<'_>, line: Line) -> Option<Entry> {
    match line {
        Line::Order(number) => {
            // So an order is named in the line that makes it and in later ones, and so begin the names of later orders.
            let name = format!("\"order\":{number}");
            let finder = memmem::Finder::new(&name);
            loop {
                scan.pass_over(|entry| finder.find(entry).is_none());
                let good = scan.next()?.ok()?;
                if Exchange::made(&good.entry, number).is_some() {
                    return Some(good.entry);
                }
            }
        }
        Line::Entry(seq) => {
            let mut passed = Scan::position(scan).seq;
            scan.pass_over(|_| {
                passed = passed.next();
                passed < seq
            });
            scan.next()?.ok().map(|good| good.entry).filter(|entry| entry.seq == seq)
        }
    }
}
