//! `GET /events`: what happens in the market and in the cluster, as server-sent events.
//!
//! Problem: many clients want every event once and in order, at their own pace, and to go on where they were after a
//! failure, here or at another frontend; and a client that falls behind must not make memory grow.
//! Idea: one task reads events from the leader, as long as there is anybody to tell, into a window of the newest. A stream
//! ([`stream`]) is no more than a number: that of the last event its client has. Events have the same numbers at every
//! frontend, so that number is all that a client must know to go on elsewhere.
//! Rules kept: a stream begins where the leader is when it is asked for, so whatever is asked for later is told; nothing is
//! left out in silence; without a stream, nobody is asked for anything.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use tokio::sync::watch;
use tokio::time::sleep;
use tradenet_core::feed::Window;
use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::feed::PublicEvent;
use tradenet_schemas::ids::EventNumber;
use tradenet_schemas::message::{Answer, Query};

use crate::desk::Desk;
use crate::envelope::Failure;
use crate::failures;
use crate::limits::{FEED_RETRY_MS, Limits, NUMBER_MAX};
use crate::openapi::{LastEventId, STOCKS};
use crate::query::{Kind, Known, Parameters, query};
use crate::routes::{Edge, no_answer, strange};
use stream::{Stream, Text};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The same for clients that can't send a header.
const LAST_EVENT_ID_PARAMETER: &str = "last_event_id";
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Tells nginx and its like to pass events on as they come.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What all streams share.
pub(crate) struct Feed {
    desk: Arc<Desk>,
    /// The newest events; written by [`Feed::follow`] alone.
    window: watch::Sender<Window<Text>>,
    /// How many streams there are.
    streams: watch::Sender<usize>,
    streams_max: usize,
    keep_alive: Duration,
}

impl Feed {
    pub(crate) fn new(desk: Arc<Desk>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            desk,
            window: watch::Sender::new(Window::new(limits.feed_bytes_max)),
            streams: watch::Sender::new(0),
            streams_max: limits.streams_max,
            keep_alive: limits.keep_alive,
        })
    }

    /// How many streams there are.
    pub(crate) fn streams(&self) -> usize {
        *self.streams.borrow()
    }

    /// Reads events as long as there are streams. Never ends.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut streams = self.streams.subscribe();
        // Its sender lives as long as this, so there is no error to look at.
        while streams.wait_for(|streams| *streams > 0).await.is_ok() {
            tokio::select! {
                () = self.read_on() => {}
                _ = streams.wait_for(|streams| *streams == 0) => {}
            }
        }
    }

    /// Asks the leader for the next events. It answers when there are some, or in a while.
    async fn read_on(&self) {
        let known = self.window.borrow().last();
        match self.desk.ask(ClientRequest::Market(Query::Events(known))).await {
            Ok(ClientAnswer::Market(Answer::Events { after, events })) => self.take(after, &events),
            other => {
                tracing::debug!("no events behind {known}: {other:?}");
                sleep(Duration::from_millis(FEED_RETRY_MS)).await;
            }
        }
    }

    fn take(&self, after: EventNumber, events: &[PublicEvent]) {
        self.window.send_if_modified(|window| {
            if after > window.last() {
                window.skip_to(after); // Those between are forgotten everywhere; each stream tells its client.
            }
            let follow = after == window.last();
            for event in events.iter().filter(|_| follow) {
                window.push(Text::of(window.last().next(), event));
            }
            follow
        });
    }

    /// A place for one more stream.
    fn place(self: &Arc<Self>) -> Result<Place, Failure> {
        let most = self.streams_max;
        let mut taken = false;
        self.streams.send_if_modified(|streams| {
            taken = *streams < most;
            *streams += usize::from(taken);
            taken
        });
        let full =
            || Failure::unavailable(format!("{most} clients follow the events of this frontend; try another one"));
        taken.then(|| Place(Arc::clone(self))).ok_or_else(full)
    }
}

/// A stream's place among those that may be.
struct Place(Arc<Feed>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.send_modify(|streams| *streams -= 1);
    }
}

query! {
    /// Where a stream begins.
    EventsQuery = [Known {
        name: LAST_EVENT_ID_PARAMETER,
        about: "The same as the header `Last-Event-ID`, for clients that can't send one",
        kind: Kind::Number { least: 0 },
    }];
}

/// What happens in the market and in the cluster, as server-sent events
///
/// `docs/events.md` has the events. Their `data` is `Traded`, `Book`, `StockChanged`, `Leadership`, `Gap` or `End`.
#[utoipa::path(
    get,
    path = "/events",
    tag = STOCKS,
    params(EventsQuery, LastEventId),
    responses(
        (status = 200, description = "A stream without an end", body = String, content_type = "text/event-stream"),
        failures::Follow
    )
)]
pub(crate) async fn events(State(edge): State<Arc<Edge>>, headers: HeaderMap, uri: Uri) -> Result<Response, Failure> {
    let known = last_event_id(&headers, &uri)?;
    let place = edge.feed.place()?;
    let newest = match edge.desk.ask(ClientRequest::Market(Query::LastEvent)).await? {
        ClientAnswer::Market(Answer::LastEvent(newest)) => newest,
        ClientAnswer::Market(other) => return Err(strange(&other)),
        other => return Err(no_answer(other)),
    };
    let mut response = Response::new(Stream::new(place, known, newest).into_body());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The last event that the client has, if it says so. A browser that reconnects repeats the URL as it was, and says in the
/// header how far it has come since; both are read, so that a wrong URL is told of at any time.
fn last_event_id(headers: &HeaderMap, uri: &Uri) -> Result<Option<EventNumber>, Failure> {
    let bad = |message| Failure::new(StatusCode::BAD_REQUEST, message);
    let parameters = Parameters::read(uri, EventsQuery::KNOWN).map_err(bad)?;
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && *number <= NUMBER_MAX).map(EventNumber).ok_or_else(|| {
            bad("Last-Event-ID must be the id of an event, or 0 for the oldest that is remembered".to_owned())
        })
    };
    let header = headers.get(LAST_EVENT_ID).map(|header| number(header.to_str().unwrap_or("-"))).transpose()?;
    let parameter = parameters.text(LAST_EVENT_ID_PARAMETER).map(number).transpose()?;
    Ok(header.or(parameter))
}
