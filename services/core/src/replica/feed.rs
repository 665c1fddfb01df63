//! Telling frontends, and who follows the market on the broker, what happened in public.
//!
//! Problem: a frontend that others follow must hear of every event, once and in order, whoever leads; soon, but without
//! asking all the time; and of none that a client could not have been answered yet.
//! Idea: every replica derives the events of each entry where it applies it, and remembers the newest. A frontend asks the
//! leader for those behind the last it has, and the question waits until there are some.
//! Whoever else may follow is told on one subject, at most once and unasked, so nobody outside can make the leader do anything:
//! a gap shows by the numbers. While the broker says that nobody is there, one message a second is sent, and no event.
//! Rule kept: only events of *released* entries are told. They are committed, so every later leader has them under the same
//! numbers, and even a deposed leader can tell nothing that is not so: no confirmation round is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tradenet_schemas::feed::PublicEvent;
use tradenet_schemas::ids::EventNumber;
use tradenet_schemas::journal::Entry;
use tradenet_schemas::limits::IDEMPOTENCY_KEYS_MAX;
use tradenet_schemas::message::{Answer, Message};
use tradenet_schemas::subjects::Peer;

use super::Replica;
use crate::bugs::{Bug, bug};
use crate::exchange::Exchange;
use crate::feed::{Weigh as _, Window};
use crate::{Mono, ReplyTo};

/// How much memory the newest events may take, in bytes: some 100,000 of them.
const FEED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How much memory the events in one answer take at most, in bytes, but for the last one. As text it is up to three
/// times as much, which is well below the bound of a message.
const TOLD_BYTES_MAX: usize = 128 * 1024;
/// How many frontends may wait for events.
pub(super) const WATCHERS_MAX: usize = 1_024;
/// After so long without news the number of the newest event is published, so that the loss of the last ones shows; and
/// while nobody listens, how often it is looked whether somebody does.
const BEAT: Duration = Duration::from_secs(1);

/// The state after some entry, and the public events on the way there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) exchange: Exchange,
    pub(super) events: Window<PublicEvent>,
}

impl State {
    /// Before the first entry; so many of the newest orders are kept.
    pub(super) fn keeping(orders: usize) -> Self {
        let exchange = Exchange::keeping(IDEMPOTENCY_KEYS_MAX, orders);
        Self { exchange, events: Window::new(FEED_BYTES_MAX) }
    }

    /// Carries out the next entry.
    pub(super) fn apply(&mut self, entry: &Entry) {
        self.exchange.apply(entry);
        for event in self.exchange.public_events(entry) {
            self.events.push(event);
        }
    }
}

/// A question that waits for events.
#[derive(Clone, Debug)]
struct Watcher {
    request: u64,
    /// The last event that the frontend has.
    after: EventNumber,
    until: Mono,
}

/// Who waits for events. A frontend's newest question takes the place of the one before.
#[derive(Clone, Default, Debug)]
pub(super) struct Watchers(BTreeMap<ReplyTo, Watcher>);

impl Watchers {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where answers would go, and to which requests.
    pub(super) fn into_requests(self) -> impl Iterator<Item = (ReplyTo, u64)> {
        self.0.into_iter().map(|(reply, watcher)| (reply, watcher.request))
    }
}

/// What was published for whoever follows the market.
#[derive(Clone, Default, Debug)]
pub(super) struct Published {
    /// The last event that was, or that there was nobody for; none before the first message of this leadership.
    last: Option<EventNumber>,
    /// When the next message is sent at the latest.
    due: Mono,
    /// The broker says that nobody listens.
    unheard: bool,
}

impl Replica {
    /// The broker knows nobody who follows the market.
    pub(super) fn nobody_follows(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.published.unheard = true;
        }
    }

    /// Publishes the events that have been released since.
    pub(super) fn publish_events(&mut self) {
        let (now, events, tail) = (self.now.mono, &self.state.events, self.log.tail().seq);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.serves()) else { return };
        let is_due = now >= leading.published.due;
        if leading.published.unheard && !is_due {
            return;
        }
        let released = if bug(Bug::TellEventsBeforeRelease) { tail } else { leading.released };
        let last = events.last_of(|event| event.seq <= released);
        // What nobody was there for is not sent: who comes now begins here, or sees by the number what is missing.
        let heard = leading.published.last.filter(|_| !leading.published.unheard);
        let mut after = heard.map_or(last, |told| told.max(events.before()).min(last));
        if after == last && !is_due {
            return;
        }
        leading.published = Published { last: Some(last), due: now.after(BEAT), unheard: false };
        let mut messages = Vec::new();
        while after < last {
            let events = batch(events, after, last);
            let next = EventNumber(after.0 + events.len() as u64);
            assert!(next > after, "an event is told even where it is larger than a message is meant to be");
            messages.push(Message::Events { after, events });
            after = next;
        }
        if messages.is_empty() {
            messages.push(Message::Events { after: last, events: Vec::new() });
        }
        for message in messages {
            self.send(Peer::All, message);
        }
    }

    /// A frontend wants the events behind `after`.
    pub(super) fn watched(&mut self, request: u64, after: EventNumber, reply: ReplyTo) {
        let until = self.now.mono.after(self.options.times.watch);
        let Some(leading) = &mut self.leading else { return };
        let watchers = &mut leading.watchers.0;
        if watchers.len() >= WATCHERS_MAX && !watchers.contains_key(&reply) {
            return self.reply(reply, Message::Overloaded { requests: vec![request] });
        }
        watchers.insert(reply, Watcher { request, after, until });
    }

    /// Answers those for whom there is something, and those who have waited long enough.
    pub(super) fn tell_watchers(&mut self) {
        let (now, events, tail) = (self.now.mono, &self.state.events, self.log.tail().seq);
        let Some(leading) = self.leading.as_mut().filter(|leading| !leading.watchers.0.is_empty()) else { return };
        let released = if bug(Bug::TellEventsBeforeRelease) { tail } else { leading.released };
        let last = events.last_of(|event| event.seq <= released);
        let answer = |watcher: &Watcher| {
            let after = watcher.after.max(events.before());
            let news = (last > after).then(|| Answer::Events { after, events: batch(events, after, last) });
            let none = || Answer::Events { after: watcher.after, events: Vec::new() };
            news.or_else(|| (now >= watcher.until).then(none))
        };
        let told: Vec<_> = leading.watchers.0.iter().filter_map(|(to, who)| Some((to.clone(), answer(who)?))).collect();
        for (reply, answer) in told {
            let watcher = self.leading.as_mut().and_then(|leading| leading.watchers.0.remove(&reply));
            if let Some(Watcher { request, .. }) = watcher {
                self.reply(reply, Message::Answer { request, seq: released, answer });
            }
        }
    }
}

/// The events behind `after`, up to `last` or the bound of an answer.
fn batch(events: &Window<PublicEvent>, after: EventNumber, last: EventNumber) -> Vec<PublicEvent> {
    let mut bytes = 0;
    let fits = |event: &&PublicEvent| {
        let fits = bytes < TOLD_BYTES_MAX;
        bytes += event.bytes();
        fits
    };
    let count = usize::try_from(last.0 - after.0).unwrap_or(usize::MAX);
    events.behind(after).take(count).take_while(fits).cloned().collect()
}
