//! From a listening socket to requests, and to the end in good order.
//!
//! axum's own `serve` has no bound on connections, on the time of a head or on a graceful end, and answers a bad head
//! without the envelope. This is the same loop over the same hyper, with the bounds of [`crate::limits`].
//!
//! The rules: a client over a bound is told so, if it can be told at all; once the process is to leave, nobody new is
//! let in, idle connections are closed and requests under way are answered. Where all places are taken, a connection on
//! which nothing is asked makes room ([`crate::lobby`]).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::StatusCode;
use axum::response::Response;
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::envelope::Failure;
use crate::limits::{ACCEPT_BACKOFF_MS, BUFFER_BYTES_MAX, HEAD_BYTES_MAX, Limits, REFUSALS_MAX};
use crate::lobby::{Asks, Guest, Lobby, arriving};
use crate::observer::Observer;
use crate::patience::Patience;

/// Serves until `leave` resolves, then finishes what is under way, which takes [`Limits::drain`] at most.
pub(crate) async fn serve(
    listener: TcpListener,
    observer: Arc<Observer>,
    limits: Limits,
    leave: impl Future<Output = ()>,
) {
    let (close, closing) = watch::channel(());
    let server = Server::new(observer, limits, closing);
    let mut leave = pin!(leave);
    let mut complained = false;
    loop {
        tokio::select! {
            biased;
            () = &mut leave => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, client)) => {
                    complained = false;
                    server.welcome(socket, client.ip());
                }
                // The client went before it was let in.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !complained {
                        tracing::warn!("no connection can be accepted: {error}; trying on, see `ulimit -n`");
                        complained = true;
                    }
                    sleep(Duration::from_millis(ACCEPT_BACKOFF_MS)).await;
                }
            }
        }
    }
    drop(listener);
    close.send_replace(());
    if timeout(limits.drain, server.all_gone()).await.is_err() {
        tracing::warn!("some requests did not end within {} ms and are cut off", limits.drain.as_millis());
    }
}

struct Server {
    observer: Arc<Observer>,
    http: http1::Builder,
    limits: Limits,
    places: Arc<Semaphore>,
    lobby: Lobby,
    refusals: Arc<Semaphore>,
    closing: watch::Receiver<()>,
}

impl Server {
    fn new(observer: Arc<Observer>, limits: Limits, closing: watch::Receiver<()>) -> Self {
        let mut http = http1::Builder::new();
        http.header_read_timeout(limits.head_read).max_header_size(HEAD_BYTES_MAX).max_buf_size(BUFFER_BYTES_MAX);
        let places = Arc::clone(&observer.places);
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Self { observer, http, limits, places, lobby: Lobby::default(), refusals, closing }
    }

    /// Gives the client a place, or tells it that there is none.
    fn welcome(&self, socket: TcpStream, client: IpAddr) {
        // Answers are small and whole: waiting for more to send would only delay them. Fails only on a dead socket.
        let _ = socket.set_nodelay(true);
        let connection = Connection::new(socket, &self.limits, self.closing.clone());
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if let Some(place) = place.or_else(|| self.lobby.make_room()) {
            let guest = self.lobby.welcome(place);
            let (observer, asking) = (Arc::clone(&self.observer), Arc::clone(&guest));
            let answer = move |request| answer(request, client, Arc::clone(&observer), Arc::clone(&asking));
            let mut http = self.http.clone();
            let http = http.timer(Patience::default()).serve_connection(connection, service_fn(answer));
            tokio::spawn(attend(http, self.closing.clone(), guest, Arc::clone(&self.refusals)));
            return;
        }
        self.observer.refused();
        if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
            let full = format!("{} connections are open already; try again with fewer", self.limits.connections_max);
            tokio::spawn(async move {
                connection.farewell(Some(Failure::unavailable(full))).await;
                drop(place);
            });
        }
    }

    async fn all_gone(&self) {
        let all = u32::try_from(self.limits.connections_max).unwrap_or(u32::MAX);
        // Never closed, so never an error.
        let _ = self.places.acquire_many(all).await;
    }
}

/// Answers a request of a guest.
async fn answer(
    request: Request<Incoming>,
    client: IpAddr,
    observer: Arc<Observer>,
    guest: Arc<Guest>,
) -> Result<Response, Infallible> {
    let request = request.map(|body| arriving(body, &guest));
    let asked = Asked(guest);
    let answer = observer.answer(request, client).await;
    // A whole answer is hyper's from here on. A stream is being answered until it ends.
    let whole = answer.body().size_hint().exact().is_some();
    Ok(if whole {
        answer
    } else {
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _asked = &asked;
                frame
            }))
        })
    })
}

/// A request under way.
struct Asked(Arc<Guest>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// What a connection is called upon to do.
enum Call {
    /// To finish what is under way on it.
    Leave,
    /// To go, since its place was given to somebody else.
    MakeRoom,
}

async fn called(mut closing: watch::Receiver<()>, guest: Arc<Guest>) -> Call {
    tokio::select! {
        _ = closing.changed() => Call::Leave,
        () = guest.must_go() => Call::MakeRoom,
    }
}

/// Serves one connection to its end.
async fn attend<S>(
    mut http: http1::Connection<Connection, S>,
    closing: watch::Receiver<()>,
    guest: Arc<Guest>,
    refusals: Arc<Semaphore>,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    let mut makes_room = None;
    let mut slow_body = false;
    // In a set, where it is polled only when it was woken, and not at every step of every request.
    let mut calls: FuturesUnordered<_> = [called(closing, Arc::clone(&guest))].into_iter().collect();
    let ended = tokio::select! {
        // What has come by now is begun first: who has asked is served, though the place is given away in this very moment.
        biased;
        ended = &mut http => Some(ended),
        call = calls.select_next_some() => match call {
            Call::Leave => {
                Pin::new(&mut http).graceful_shutdown();
                Some((&mut http).await)
            }
            Call::MakeRoom => {
                // It has no place any more, so it takes one of those for whom there is none, or just goes.
                let refusal = refusals.try_acquire_owned().ok();
                let asks = guest.request();
                let last_one = refusal.is_some() && asks == Asks::Something;
                makes_room = Some(refusal);
                Pin::new(&mut http).graceful_shutdown();
                match asks {
                    // All of it came in this very moment, and it may be on its way to the leader.
                    _ if last_one => Some((&mut http).await),
                    // Not one step more: the rest of the body may be here, and what is told then is that nothing was done.
                    Asks::InPart => {
                        slow_body = true;
                        None
                    }
                    // An answer that is still to be handed over goes out in this one step, unless its client does not read.
                    Asks::Nothing | Asks::Something => (&mut http).now_or_never(),
                }
            }
        },
    };
    let parts = http.into_parts();
    let begun = !parts.read_buf.is_empty();
    let words = match ended {
        Some(Err(error)) if error.is_parse() => parts.io.held_back().or_else(|| Some(not_http())),
        // An idle client that never began another request expects no answer to one.
        Some(Err(error)) if error.is_timeout() && begun => Some(too_slow("headers")),
        None if slow_body => Some(too_slow("body")),
        _ if makes_room.is_some() && begun => Some(too_slow("headers")),
        Some(Err(error)) => {
            tracing::debug!("a connection broke: {error}");
            None
        }
        Some(Ok(())) | None => None,
    };
    if makes_room.as_ref().is_none_or(Option::is_some) {
        parts.io.farewell(words).await;
    }
    drop(guest);
}

fn too_slow(what: &str) -> Failure {
    Failure::new(StatusCode::REQUEST_TIMEOUT, format!("the {what} did not arrive in time; send the request again"))
}

/// For what hyper has no answer to, such as the beginning of HTTP/2.
fn not_http() -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, "only HTTP/1.1 is spoken here")
}
