//! Which connections nothing is asked on at this moment, and who of them goes when another client finds no place.
//!
//! Problem: places for connections are bounded, and a client that opens many and lets its requests trickle in, byte by byte,
//! could hold them all. Idea: a connection without a whole request is in the lobby. When all places are taken, whoever has
//! been there longest gives its place to who comes next. Rule kept: a connection whose request is being answered is never in
//! the lobby; how long a body may take is bounded by [`crate::limits::BODY_READ_MS`], and a client that does not read its answer
//! is back in the lobby.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit};

/// All connections that wait for a request.
///
/// A lock needs a reason: connections are tasks of their own, and none owns the others. Nobody awaits under it, and the
/// service runs on one thread, so it is never contended.
#[derive(Clone, Default)]
pub(crate) struct Lobby(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// How many have come in so far; the next one's number.
    entered: u64,
    /// By when they came in.
    seats: BTreeMap<u64, Seat>,
}

struct Seat {
    place: OwnedSemaphorePermit,
    go: Arc<Notify>,
}

/// A connection's way in and out. Its place is here while it is asked something, and in the lobby otherwise.
pub(crate) struct Guest {
    lobby: Lobby,
    state: Mutex<State>,
    go: Arc<Notify>,
}

enum State {
    Waits(u64),
    Asked(OwnedSemaphorePermit),
    Gone,
}

impl Lobby {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that has just got its place.
    pub(crate) fn welcome(&self, place: OwnedSemaphorePermit) -> Arc<Guest> {
        let go = Arc::new(Notify::new());
        let number = self.seat(place, Arc::clone(&go));
        Arc::new(Guest { lobby: self.clone(), state: Mutex::new(State::Waits(number)), go })
    }

    fn seat(&self, place: OwnedSemaphorePermit, go: Arc<Notify>) -> u64 {
        let mut waiting = self.lock();
        waiting.entered += 1;
        let number = waiting.entered;
        waiting.seats.insert(number, Seat { place, go });
        number
    }

    /// The place of whoever has waited longest, who is told to go.
    pub(crate) fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        let (_, seat) = self.lock().seats.pop_first()?;
        seat.go.notify_one();
        Some(seat.place)
    }
}

impl Guest {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has arrived. One that comes in the moment in which the place is given away is served all the same.
    pub(crate) fn asked(&self) {
        let mut state = self.state();
        if let State::Waits(number) = *state {
            let seat = self.lobby.lock().seats.remove(&number);
            *state = seat.map_or(State::Gone, |seat| State::Asked(seat.place));
        }
    }

    /// The request has been answered.
    pub(crate) fn answered(&self) {
        let mut state = self.state();
        if let State::Asked(place) = std::mem::replace(&mut *state, State::Gone) {
            *state = State::Waits(self.lobby.seat(place, Arc::clone(&self.go)));
        }
    }

    /// Waits until the place is given to somebody else.
    pub(crate) async fn must_go(&self) {
        self.go.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.asked();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn who_waits_longest_goes_first_and_who_is_asked_stays() {
        let places = Arc::new(Semaphore::new(3));
        let lobby = Lobby::default();
        let place = || Arc::clone(&places).try_acquire_owned().ok();
        let [first, second, third] = std::array::from_fn(|_| lobby.welcome(place().unwrap()));
        assert!(place().is_none());
        first.asked();
        let taken = lobby.make_room();
        assert!(taken.is_some(), "the second waits longest");
        first.answered();
        assert!(lobby.make_room().is_some(), "the third has waited longer than the first by now");
        assert!(lobby.make_room().is_some());
        assert!(lobby.make_room().is_none(), "nobody is left");
        // Those whose places were given away change nothing any more.
        for guest in [&first, &second, &third] {
            guest.asked();
            guest.answered();
        }
        assert!(lobby.make_room().is_none());
        drop(taken);
        assert_eq!(places.available_permits(), 3);
    }

    #[test]
    fn who_leaves_gives_its_place_back() {
        let places = Arc::new(Semaphore::new(2));
        let lobby = Lobby::default();
        let [waits, asked] = std::array::from_fn(|_| lobby.welcome(Arc::clone(&places).try_acquire_owned().unwrap()));
        asked.asked();
        drop(waits);
        assert_eq!(places.available_permits(), 1);
        drop(asked);
        assert_eq!(places.available_permits(), 2);
        assert!(lobby.make_room().is_none());
    }
}
