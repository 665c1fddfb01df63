//! Which connections nothing is asked on at this moment, and who of them goes when another client finds no place.
//!
//! Problem: places for connections are bounded, and a client that opens many and lets its requests trickle in, byte by byte,
//! could hold them all. Idea: a connection without a whole request, its body included, is in the lobby. When all places are
//! taken, whoever has been there longest gives its place to who comes next. Rule kept: a connection whose request is being
//! answered is never in the lobby, so nobody is sent away who may have changed something; a client that does not read its answer
//! is back in the lobby.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use lru::LruCache;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// All connections that wait for a request.
///
/// A lock needs a reason: connections are tasks of their own, and none owns the others. Nobody awaits under it, and the
/// service runs on one thread, so it is never contended.
#[derive(Clone, Default)]
pub(crate) struct Lobby(Arc<Mutex<Waiting>>);

struct Waiting {
    /// How many guests there have been; the last one's number.
    guests: u64,
    /// By number, in the order in which they came in.
    seats: LruCache<u64, Seat>,
}

impl Default for Waiting {
    fn default() -> Self {
        // Bounded by the number of places.
        Self { guests: 0, seats: LruCache::unbounded() }
    }
}

struct Seat {
    place: OwnedSemaphorePermit,
    go: Arc<Notify>,
}

/// A connection's way in and out. Its place is here while it is asked something, and in the lobby otherwise.
pub(crate) struct Guest {
    lobby: Lobby,
    number: u64,
    state: Mutex<State>,
    go: Arc<Notify>,
}

struct State {
    place: Place,
    request: Asks,
}

enum Place {
    InLobby,
    Here(OwnedSemaphorePermit),
    GivenAway,
}

/// How much there is of a request that has not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// A part of its head, or nothing.
    Nothing,
    /// Its head.
    InPart,
    /// All of it.
    Something,
}

impl Lobby {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that has just got its place.
    pub(crate) fn welcome(&self, place: OwnedSemaphorePermit) -> Arc<Guest> {
        let go = Arc::new(Notify::new());
        let mut waiting = self.lock();
        waiting.guests += 1;
        let number = waiting.guests;
        waiting.seats.put(number, Seat { place, go: Arc::clone(&go) });
        let state = State { place: Place::InLobby, request: Asks::Nothing };
        Arc::new(Guest { lobby: self.clone(), number, state: Mutex::new(state), go })
    }

    /// The place of whoever has waited longest, who is told to go.
    pub(crate) fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        let (_, seat) = self.lock().seats.pop_lru()?;
        seat.go.notify_one();
        Some(seat.place)
    }
}

impl Guest {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of a request has arrived.
    pub(crate) fn asks(&self) {
        self.state().request = Asks::InPart;
    }

    /// All of a request has arrived. One that comes in the moment in which the place is given away is served all the same.
    pub(crate) fn asked(&self) {
        let mut state = self.state();
        state.request = Asks::Something;
        if let Place::InLobby = state.place {
            let seat = self.lobby.lock().seats.pop(&self.number);
            state.place = seat.map_or(Place::GivenAway, |seat| Place::Here(seat.place));
        }
    }

    /// The request has been answered.
    pub(crate) fn answered(&self) {
        let mut state = self.state();
        state.request = Asks::Nothing;
        if let Place::Here(place) = std::mem::replace(&mut state.place, Place::GivenAway) {
            self.lobby.lock().seats.put(self.number, Seat { place, go: Arc::clone(&self.go) });
            state.place = Place::InLobby;
        }
    }

    /// What is to be answered on it.
    pub(crate) fn request(&self) -> Asks {
        self.state().request
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

/// The body of a request whose head has just arrived on the connection of `guest`.
pub(crate) fn arriving(body: Incoming, guest: &Arc<Guest>) -> Body {
    if body.is_end_stream() {
        guest.asked();
        return Body::empty();
    }
    guest.asks();
    Body::new(Arriving { body, guest: Some(Arc::clone(guest)) })
}

/// The body of a request, which has been asked once all of that is here, or nobody waits for it any more.
struct Arriving {
    body: Incoming,
    guest: Option<Arc<Guest>>,
}

impl Arriving {
    fn arrived(&mut self) {
        if let Some(guest) = self.guest.take() {
            guest.asked();
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.arrived();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrived();
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
