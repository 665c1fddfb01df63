//! Looking up orders that are too old to be in memory.
//!
//! Problem: an order with the house can be looked up for ever, there is no end of them, and memory must not grow with each.
//! Idea: the state keeps the newest. The number of an older one leads to a mark of the log, and from there one part of the file
//! (64 KiB and a line) is read, along the chain of checksums, up to the line that made the order. Who asks for orders of one
//! part waits for one read of it; a few parts are read at once, and so many look-ups wait as there is room for.
//! Rules kept: only lines of committed entries are read, and each is checked from the mark on, whose chain is known from when they
//! were written or read at the start. So what is found was always so; it has to be released, and no more (rule R5). Of what
//! has rotted or can't be read nothing is said but that: it is got back ([`scrub`](super::scrub)), and the client asks again.

use std::collections::BTreeSet;

use memchr::memmem;
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::message::{Answer, Message};
use tradenet_schemas::trade::Order;

use super::log::Place;
use super::observe::Lookup;
use super::{READS_MAX, ReadFor, Replica};
use crate::exchange::Exchange;
use crate::journal::{Scan, scan};
use crate::{Output, ReplyTo};

/// How many parts are read at once: half of [`READS_MAX`], so that peers that catch up find a place.
const PARTS_READ_MAX: usize = 4;
/// How many look-ups may wait for a part.
pub(super) const LOOKUPS_MAX: usize = 1_024;

/// A part of the file: the lines behind the first place, up to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    from: Place,
    to: Place,
}

/// Who asked for an order.
#[derive(Clone, Debug)]
struct Asking {
    number: OrderNumber,
    request: u64,
    reply: ReplyTo,
}

/// The look-ups of one part.
#[derive(Clone, Debug)]
struct Asked {
    part: Part,
    reading: bool,
    by: Vec<Asking>,
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

    /// Where answers would go, and to which requests.
    pub(super) fn into_requests(self) -> impl Iterator<Item = (ReplyTo, u64)> {
        self.parts.into_iter().flat_map(|asked| asked.by).map(|asking| (asking.reply, asking.request))
    }

    /// Has one wait for that part, or for one that begins there too and is long enough.
    fn wait(&mut self, part: Part, asking: Asking) {
        let same = |asked: &&mut Asked| asked.part.from == part.from && asking.number.0 <= asked.part.to.orders;
        match self.parts.iter_mut().find(same) {
            Some(asked) => asked.by.push(asking),
            None => self.parts.push(Asked { part, reading: false, by: vec![asking] }),
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
    fn take(&mut self, part: Part) -> Vec<Asking> {
        let read = self.parts.iter().position(|asked| asked.reading && asked.part == part);
        read.map(|at| self.parts.remove(at).by).unwrap_or_default()
    }
}

impl Replica {
    /// A client asks the leader for an order that its state does not keep any more.
    pub(super) fn look_up(&mut self, request: u64, number: OrderNumber, reply: ReplyTo) {
        let part = self.log.part_with(number, self.committed.min(self.durable()));
        let Some(leading) = &mut self.leading else { return };
        if leading.lookups.len() >= LOOKUPS_MAX {
            self.counts.lookup(Lookup::Overloaded, 1);
            return self.reply(reply, Message::Overloaded { requests: vec![request] });
        }
        match part {
            Some((from, to)) => leading.lookups.wait(Part { from, to }, Asking { number, request, reply }),
            // More orders are under way than are kept.
            None => self.not_now(reply, vec![request], "the order is not on every disk yet: try again"),
        }
    }

    fn not_now(&mut self, reply: ReplyTo, requests: Vec<u64>, why: &str) {
        self.counts.lookup(Lookup::Unavailable, requests.len());
        self.reply(reply, Message::Unavailable { requests, why: why.to_owned() });
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
        let mut asking = leading.lookups.take(part);
        if asking.is_empty() {
            return;
        }
        self.outputs.push_back(Output::debug(format!(
            "read entries {} to {} for {} look-ups of old orders",
            part.from.position.seq.next(),
            part.to.position.seq,
            asking.len()
        )));
        let numbers: BTreeSet<_> = asking.iter().map(|asking| asking.number).collect();
        let mut scan = scan(bytes, part.from.position);
        for number in numbers {
            let Some((seq, order)) = find(&mut scan, number) else { break };
            for found in asking.extract_if(.., |asking| asking.number == number) {
                self.counts.lookup(Lookup::Answered, 1);
                self.owe_released(found.reply, seq, found.request, Answer::Order(order.clone()));
            }
        }
        if asking.is_empty() {
            return;
        }
        let good = scan.position();
        assert!(good.chain != part.to.position.chain, "the index says that orders stand where there are others");
        let byte = part.from.end + (bytes.len() - scan.rest().len()) as u64;
        self.outputs
            .push_back(Output::debug(format!("line {} has rotted, where an old order stands", good.seq.next())));
        self.scrub_from(byte);
        for Asking { request, reply, .. } in asking {
            let why = "the leader's journal has rotted where the order stands, and is got back from another replica: try again";
            self.not_now(reply, vec![request], why);
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
        for Asking { request, reply, .. } in asking {
            self.not_now(reply, vec![request], "the leader can't read its journal where the order stands: try again");
        }
    }
}

/// Goes on to the entry that made the order of that number: which one it is, and the order, unless that is an account's. None where
/// the lines end or one is bad.
fn find(scan: &mut Scan<'_>, number: OrderNumber) -> Option<(SeqNum, Option<Order>)> {
    // So an order is named in the line that makes it and in later ones, and so begin the names of later orders.
    let name = format!("\"order\":{number}");
    let finder = memmem::Finder::new(&name);
    loop {
        scan.pass_over(|entry| finder.find(entry).is_none());
        let good = scan.next()?.ok()?;
        if let Some(order) = Exchange::made(&good.entry, number) {
            return Some((good.position.seq, order));
        }
    }
}
