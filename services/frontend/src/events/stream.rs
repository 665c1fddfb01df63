//! One client's stream of events, and what they look like.
//!
//! Each message has an `event`, an `id` and one line of JSON. The `id` is the number of the last event that the client has
//! once it has the message: its own number for an event of the market, the one before for news of the cluster. So it may
//! come back with the last `id` it has seen, whatever that was.
//!
//! The rules: at most [`CHUNK_BYTES`] are taken out of the window at once, and the next only when the connection has room, so
//! a client that reads slowly costs no more than one that reads fast; events that are gone from the window by then are a
//! `gap`; the end is told, and comes as soon as the process is to leave.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::stream::unfold;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::sleep;
use tradenet_core::feed::{Weigh, Window};
use tradenet_schemas::feed::{Fact, PublicEvent};
use tradenet_schemas::ids::EventNumber;
use tradenet_schemas::rest::feed::{End, Gap, Leadership, StockChanged, Traded};
use tradenet_schemas::rest::market::Book;

use super::Place;
use crate::limits::{CHUNK_BYTES, RECONNECT_MS};

/// An event as its clients get it.
pub(super) struct Text(Bytes);

impl Text {
    /// The event of that number.
    pub(super) fn of(number: EventNumber, PublicEvent { seq, fact }: &PublicEvent) -> Self {
        Self(match fact {
            Fact::Traded(symbol, trade) => message("trade", number, &Traded::new(*seq, symbol, trade)),
            Fact::BookChanged(book) => message("book", number, &Book::from(book)),
            Fact::StockChanged(stock) => message("stock", number, &StockChanged::new(*seq, stock)),
        })
    }
}

impl Weigh for Text {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.len()
    }
}

fn message(kind: &str, id: EventNumber, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("plain data serializes into memory");
    format!("event: {kind}\nid: {id}\ndata: {json}\n\n").into()
}

/// How far a stream has come.
enum Phase {
    /// Nothing is told yet. The last event that the client says it has, where that can't be.
    Begins(Option<EventNumber>),
    Goes,
    Ends,
}

/// A client's stream.
pub(super) struct Stream {
    place: Place,
    window: watch::Receiver<Window<Text>>,
    leadership: watch::Receiver<Leadership>,
    leaving: watch::Receiver<bool>,
    /// The last event that the client has.
    at: EventNumber,
    phase: Phase,
}

impl Stream {
    /// A stream from behind `known`, or from now on. `newest`: the last event that there is.
    pub(super) fn new(place: Place, known: Option<EventNumber>, newest: EventNumber) -> Self {
        let feed = &place.0;
        // One that is yet to come is another exchange's, or this one's before its data was lost.
        let impossible = known.filter(|known| *known > newest);
        Self {
            window: feed.window.subscribe(),
            leadership: feed.desk.leadership(),
            leaving: feed.desk.leaving(),
            at: known.filter(|_| impossible.is_none()).unwrap_or(newest),
            phase: Phase::Begins(impossible),
            place,
        }
    }

    pub(super) fn into_body(self) -> Body {
        Body::from_stream(unfold(self, async |mut stream| {
            let bytes = stream.next().await?;
            Some((Ok::<_, Infallible>(bytes), stream))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.phase, Phase::Goes) {
            Phase::Begins(impossible) => return Some(self.beginning(impossible)),
            Phase::Goes => {}
            Phase::Ends => return None,
        }
        loop {
            if *self.leaving.borrow() {
                self.phase = Phase::Ends;
                let message = "this frontend is leaving: connect again, here or elsewhere, with the last id".to_owned();
                return Some(self::message("end", self.at, &End { message }));
            }
            if let Some(events) = self.events() {
                return Some(events);
            }
            // The senders live as long as the place does.
            tokio::select! {
                Ok(()) = self.leadership.changed() => return Some(self.cluster()),
                Ok(()) = self.window.changed() => {}
                Ok(()) = self.leaving.changed() => {}
                () = sleep(self.place.0.keep_alive) => return Some(Bytes::from_static(b": nothing new\n\n")),
            }
        }
    }

    /// The first of all tells where the stream begins.
    fn beginning(&mut self, impossible: Option<EventNumber>) -> Bytes {
        let mut text = format!("retry: {RECONNECT_MS}\n").into_bytes();
        text.extend_from_slice(&self.cluster());
        if let Some(after) = impossible {
            text.extend_from_slice(&self.gap(after));
        }
        text.into()
    }

    fn cluster(&mut self) -> Bytes {
        message("cluster", self.at, &*self.leadership.borrow_and_update())
    }

    /// The client has `after`, and the next it gets is the one behind [`Stream::at`].
    fn gap(&self, after: EventNumber) -> Bytes {
        message("gap", self.at, &Gap { after, next: self.at.next() })
    }

    /// Some of the events that the client lacks, or none if it has all.
    fn events(&mut self) -> Option<Bytes> {
        let window = self.window.borrow_and_update();
        let mut text = Vec::new();
        let after = self.at;
        if after < window.before() {
            self.at = window.before();
            text.extend_from_slice(&message("gap", self.at, &Gap { after, next: self.at.next() }));
        }
        for event in window.behind(self.at) {
            if text.len() >= CHUNK_BYTES {
                break;
            }
            text.extend_from_slice(&event.0);
            self.at = self.at.next();
        }
        (!text.is_empty()).then(|| text.into())
    }
}
