//! Who waits for an answer of the core, and since when.
//!
//! Problem: a wait must end even if its answer never comes, which is not to happen; a timer of its own costs a wait more than all
//! the rest of it. Idea: all waits may last equally long, and all of them are looked at each [`ROUND`]. Rules kept: a ticket is
//! given out once, so a late answer finds nobody, and never whoever has its place by then; the number of waits is bounded.

use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::oneshot;
use tradenet_core::{ClientAnswer, Ticket};

use crate::limits::{REQUESTS_UNDER_WAY_MAX, WAITS_ROUND_MS};

/// How often waits are looked at.
pub(crate) const ROUND: Duration = Duration::from_millis(WAITS_ROUND_MS);

/// All waits.
pub(crate) struct Waits {
    /// Tickets that were given out.
    issued: u64,
    /// How long each may last.
    within: Duration,
    places: Slab<Wait>,
}

struct Wait {
    ticket: Ticket,
    began: Instant,
    client: oneshot::Sender<ClientAnswer>,
}

impl Waits {
    /// None yet; each may last `within`, and until it is looked at next.
    pub(crate) fn new(within: Duration) -> Self {
        Self { issued: 0, within, places: Slab::new() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The ticket of the next wait, if there may be one more. It names the place, so that an answer finds it at once, and the
    /// count before it makes it the only one of its kind, also where no wait begins with it.
    pub(crate) fn next_ticket(&mut self) -> Option<Ticket> {
        let place = Some(self.places.vacant_key()).filter(|_| self.len() < REQUESTS_UNDER_WAY_MAX)?;
        let ticket = Ticket(self.issued * REQUESTS_UNDER_WAY_MAX as u64 + place as u64);
        self.issued += 1;
        Some(ticket)
    }

    /// `client` waits from `now` on; `ticket` is the newest.
    pub(crate) fn begin(&mut self, ticket: Ticket, client: oneshot::Sender<ClientAnswer>, now: Instant) {
        let place = self.places.insert(Wait { ticket, began: now, client });
        assert_eq!(place, place_of(ticket), "a ticket names the place that is free next");
    }

    /// Who waited with that ticket, if its wait has not ended before.
    pub(crate) fn end(&mut self, ticket: Ticket) -> Option<oneshot::Sender<ClientAnswer>> {
        let place = place_of(ticket);
        self.places.get(place).filter(|wait| wait.ticket == ticket)?;
        Some(self.places.remove(place).client)
    }

    /// Ends the waits that have lasted as long as they may, and says whose they were.
    pub(crate) fn end_late(&mut self, now: Instant) -> Vec<Ticket> {
        let within = self.within;
        let mut late = Vec::new();
        self.places.retain(|_, wait| {
            let in_time = now.duration_since(wait.began) < within;
            if !in_time {
                late.push(wait.ticket);
            }
            in_time
        });
        late
    }
}

fn place_of(ticket: Ticket) -> usize {
    usize::try_from(ticket.0 % REQUESTS_UNDER_WAY_MAX as u64).expect("below a number of that type")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(waits: &mut Waits, now: Instant) -> (Ticket, oneshot::Receiver<ClientAnswer>) {
        let (client, answer) = oneshot::channel();
        let ticket = waits.next_ticket().unwrap();
        waits.begin(ticket, client, now);
        (ticket, answer)
    }

    #[test]
    fn a_late_answer_finds_nobody_where_another_waits_by_now() {
        let mut waits = Waits::new(ROUND);
        let (gone, _) = begin(&mut waits, Instant::now());
        assert!(waits.end(gone).is_some());
        let (waiting, _answer) = begin(&mut waits, Instant::now());
        assert_eq!(place_of(gone), place_of(waiting), "or this shows nothing");
        assert!(waits.end(gone).is_none());
        assert!(waits.end(waiting).is_some());
    }

    #[test]
    fn no_ticket_comes_twice_and_there_are_no_more_than_may_be() {
        let mut waits = Waits::new(ROUND);
        let mut given = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let all: Vec<_> = (0..REQUESTS_UNDER_WAY_MAX).map(|_| begin(&mut waits, Instant::now()).0).collect();
            assert!(waits.next_ticket().is_none());
            assert!(all.iter().all(|ticket| given.insert(*ticket)));
            // Half of them in another order than that in which they came.
            let (odd, even): (Vec<_>, Vec<_>) = all.into_iter().partition(|ticket| ticket.0 % 2 == 1);
            assert!(odd.into_iter().chain(even.into_iter().rev()).all(|ticket| waits.end(ticket).is_some()));
        }
        assert_eq!(waits.len(), 0);
    }

    #[test]
    fn a_wait_lasts_as_long_as_it_may_and_no_longer() {
        let (start, step) = (Instant::now(), Duration::from_millis(1));
        let mut waits = Waits::new(step * 3);
        let (first, mut answer) = begin(&mut waits, start);
        let (second, _answer) = begin(&mut waits, start + step);
        assert_eq!(waits.end_late(start + step * 2), []);
        assert_eq!(waits.end_late(start + step * 3), [first]);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(waits.end(first).is_none());
        assert_eq!(waits.end_late(start + step * 9), [second]);
        assert_eq!(waits.len(), 0);
    }

    #[test]
    fn a_ticket_with_which_no_wait_begins_is_not_given_out_again() {
        let mut waits = Waits::new(ROUND);
        let unused = waits.next_ticket().unwrap();
        let (ticket, _answer) = begin(&mut waits, Instant::now());
        assert_ne!(ticket, unused);
        assert!(waits.end(unused).is_none());
    }
}
