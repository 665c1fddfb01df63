//! Who waits for an answer of the core, and since when.
//!
//! Problem: a wait must end even if its answer never comes, which is not to happen; a timer of its own costs a wait more than all
//! the rest of it. Idea: all waits may last equally long, so they are counted in rounds, and at the end of each round those are
//! ended that began too many rounds ago. Rules kept: a ticket is given out once, so a late answer finds nobody, and never
//! whoever has its place by then; the number of waits is bounded.

use std::time::Duration;

use slab::Slab;
use tokio::sync::oneshot;
use tradenet_core::{ClientAnswer, Ticket};

use crate::limits::{REQUESTS_UNDER_WAY_MAX, WAITS_ROUND_MS};

/// How long a round is.
pub(crate) const ROUND: Duration = Duration::from_millis(WAITS_ROUND_MS);

/// All waits.
pub(crate) struct Waits {
    /// Tickets that were given out.
    issued: u64,
    round: u64,
    /// How many rounds each lasts at least, from the end of the one that it began in.
    rounds: u64,
    places: Slab<Wait>,
}

struct Wait {
    ticket: Ticket,
    began: u64,
    client: oneshot::Sender<ClientAnswer>,
}

impl Waits {
    /// None yet; each may last `within`, and up to one round more.
    pub(crate) fn new(within: Duration) -> Self {
        let rounds = u64::try_from(within.as_nanos().div_ceil(ROUND.as_nanos())).unwrap_or(u64::MAX);
        Self { issued: 0, round: 0, rounds, places: Slab::new() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The ticket of the next wait, if there may be one more. It names the place, so that an answer finds it at once, and the
    /// count before it makes it the only one of its kind.
    pub(crate) fn next_ticket(&self) -> Option<Ticket> {
        let place = Some(self.places.vacant_key()).filter(|_| self.len() < REQUESTS_UNDER_WAY_MAX)?;
        Some(Ticket(self.issued * REQUESTS_UNDER_WAY_MAX as u64 + place as u64))
    }

    /// `client` waits from now on; `ticket` is the one that was to be the next.
    pub(crate) fn begin(&mut self, ticket: Ticket, client: oneshot::Sender<ClientAnswer>) {
        self.issued += 1;
        let place = self.places.insert(Wait { ticket, began: self.round, client });
        debug_assert_eq!(place, place_of(ticket));
    }

    /// Who waited with that ticket, if its wait has not ended before.
    pub(crate) fn end(&mut self, ticket: Ticket) -> Option<oneshot::Sender<ClientAnswer>> {
        let place = place_of(ticket);
        self.places.get(place).filter(|wait| wait.ticket == ticket)?;
        Some(self.places.remove(place).client)
    }

    /// A round is over: ends the waits that have lasted too long, and says whose they were.
    pub(crate) fn end_round(&mut self) -> Vec<Ticket> {
        self.round += 1;
        let (round, rounds) = (self.round, self.rounds);
        let mut late = Vec::new();
        self.places.retain(|_, wait| {
            let in_time = round - wait.began <= rounds;
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

    fn begin(waits: &mut Waits) -> (Ticket, oneshot::Receiver<ClientAnswer>) {
        let (client, answer) = oneshot::channel();
        let ticket = waits.next_ticket().unwrap();
        waits.begin(ticket, client);
        (ticket, answer)
    }

    #[test]
    fn a_late_answer_finds_nobody_where_another_waits_by_now() {
        let mut waits = Waits::new(ROUND);
        let (gone, _) = begin(&mut waits);
        assert!(waits.end(gone).is_some());
        let (waiting, _answer) = begin(&mut waits);
        assert_eq!(place_of(gone), place_of(waiting), "or this shows nothing");
        assert!(waits.end(gone).is_none());
        assert!(waits.end(waiting).is_some());
    }

    #[test]
    fn no_ticket_comes_twice_and_there_are_no_more_than_may_be() {
        let mut waits = Waits::new(ROUND);
        let mut given = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let all: Vec<_> = (0..REQUESTS_UNDER_WAY_MAX).map(|_| begin(&mut waits).0).collect();
            assert!(waits.next_ticket().is_none());
            assert!(all.iter().all(|ticket| given.insert(*ticket)));
            // Half of them in another order than that in which they came.
            let (odd, even): (Vec<_>, Vec<_>) = all.into_iter().partition(|ticket| ticket.0 % 2 == 1);
            assert!(odd.into_iter().chain(even.into_iter().rev()).all(|ticket| waits.end(ticket).is_some()));
        }
        assert_eq!(waits.len(), 0);
    }

    #[test]
    fn a_wait_lasts_as_long_as_it_may_and_one_round_more_at_most() {
        let mut waits = Waits::new(ROUND * 3);
        let (first, mut answer) = begin(&mut waits);
        assert_eq!(waits.end_round(), []);
        let (second, _answer) = begin(&mut waits);
        assert_eq!((waits.end_round(), waits.end_round()), (vec![], vec![]));
        assert_eq!(waits.end_round(), [first]);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(waits.end(first).is_none());
        assert_eq!(waits.end_round(), [second]);
        assert_eq!(waits.len(), 0);
    }
}
