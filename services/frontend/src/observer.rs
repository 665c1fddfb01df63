//! What holds for every request: it is counted by route and status, timed, and told at `GET /metrics`; a client may send so many, and
//! long answers that are not read have a bound.
//!
//! The problem: handlers should not count or name what they work on, and a scrape must be answered also when the exchange is overloaded. The idea: the
//! observer stands around all routes, between them and the connection. The rules: a route is named by its pattern, never
//! by what the client wrote, and what is no route is `other`, so the number of series is bounded; a scrape takes no place
//! among the requests that wait for the core; counting costs a few additions, and no lock.

use std::array;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use tokio::sync::Semaphore;
use tradenet_core::metric_table;
use tradenet_core::metrics::{DURATION_BOUNDS_US, Readings};
use tradenet_runtime::metrics::{CONTENT_TYPE, Scraper, Shared};
use tradenet_schemas::trace::Trace;

use crate::desk::Desk;
use crate::envelope::Failure;
use crate::events::Feed;
use crate::failures::AtTheEdge;
use crate::following::Ids;
use crate::lengthy::{hand_over, is_long};
use crate::limits::{Limits, REQUESTS_UNDER_WAY_MAX};
use crate::meter::Gate;
use crate::openapi::OPERATION;
use crate::routes::Routes;
use crate::standing::Standing;

/// The patterns of all paths that are served, the busiest first.
pub(crate) const ROUTES: [&str; 27] = [
    "/stocks/{name}",
    "/orders",
    "/orders/{number}",
    "/stocks",
    "/accounts/{account}/orders",
    "/accounts/{account}/orders/{number}",
    "/accounts/{account}",
    "/accounts/{account}/deposits",
    "/accounts/{account}/withdrawals",
    "/accounts",
    "/stocks/{name}/book",
    "/stocks/{name}/trades",
    "/stocks/{name}/candles",
    "/events",
    "/cluster",
    "/healthz",
    "/readyz",
    "/",
    "/page.js",
    "/page.css",
    "/page.svg",
    "/openapi.json",
    "/docs",
    "/docs/page.js",
    "/docs/page.css",
    METRICS_PATH,
    OTHER,
];
/// Those by which trades are made.
const TRADES: [&str; 2] = ["/orders", "/accounts/{account}/orders"];
const METRICS_PATH: &str = "/metrics";
pub(crate) const OTHER: &str = "other";
/// `HEAD` counts as `GET`.
const METHODS: [&str; 5] = ["GET", "POST", "DELETE", "PUT", OTHER];
/// Every status that is answered.
const STATUSES: [(u16, &str); 20] = [
    (200, "200"),
    (201, "201"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (412, "412"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (503, "503"),
    (504, "504"),
    (0, OTHER),
];

metric_table! {
    /// What the REST edge shows.
    METRICS;
    REQUESTS = Counter "tradenet_http_requests" ["method", "route", "status"],
        "Requests that were answered; route: the pattern of the path, other where there is none.";
    TOOK = Histogram "tradenet_http_request_duration_seconds" ["method", "route"],
        "From the end of a request's headers until its answer begins.";
    REFUSED = Counter "tradenet_http_connections_refused" [],
        "Connections that found no place; the client was told so, or cut off where too many were.";
}

/// Counts of one method at one route.
#[derive(Debug)]
struct Counts {
    statuses: [AtomicU64; STATUSES.len()],
    took: Shared,
}

/// Stands around the routes. See the module.
pub(crate) struct Observer {
    pub(crate) routes: Routes,
    /// Where there is a rate limit.
    gate: Option<Gate>,
    scraper: Scraper,
    desk: Arc<Desk>,
    feed: Arc<Feed>,
    standing: Arc<Standing>,
    /// By route, then method.
    counts: [[Counts; METHODS.len()]; ROUTES.len()],
    /// One for each connection that may be open.
    pub(crate) places: Arc<Semaphore>,
    /// One for each byte of long answers that may wait for their clients.
    pub(crate) unread: Arc<Semaphore>,
    limits: Limits,
    refused: AtomicU64,
}

impl Observer {
    pub(crate) fn new(
        routes: Routes,
        scraper: Scraper,
        desk: Arc<Desk>,
        feed: Arc<Feed>,
        standing: Arc<Standing>,
        limits: &Limits,
    ) -> Arc<Self> {
        let counts = || Counts {
            statuses: [const { AtomicU64::new(0) }; STATUSES.len()],
            took: Shared::new(DURATION_BOUNDS_US),
        };
        Arc::new(Self {
            routes,
            gate: limits.rate.map(Gate::new),
            scraper,
            desk,
            feed,
            standing,
            counts: array::from_fn(|_| array::from_fn(|_| counts())),
            places: Arc::new(Semaphore::new(limits.connections_max)),
            unread: Arc::new(Semaphore::new(limits.unread_bytes_max)),
            limits: *limits,
            refused: AtomicU64::new(0),
        })
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, request: Request<Body>, client: IpAddr) -> Response {
        let began = Instant::now();
        let (method, route) = (method(request.method()), route(request.uri().path()));
        let ids = Ids::of(request.headers());
        let mut response = match (ROUTES[route], METHODS[method]) {
            (METRICS_PATH, "GET") => {
                // Nobody waits for its body: it has been asked.
                drop(request);
                self.metrics().await
            }
            (METRICS_PATH, _) => not_to_be_written(),
            _ => ids.scope(pin!(self.answer_in_bounds(request, client))).await,
        };
        self.count(route, method, response.status(), began);
        ids.put_into(&mut response);
        if let Some(trace) = &ids.trace {
            tell(trace, METHODS[method], ROUTES[route], &response);
        }
        response
    }

    /// Asks the routes, within the bounds that hold for all of them.
    async fn answer_in_bounds(&self, request: Request<Body>, client: IpAddr) -> Response {
        if let Some(Err(refusal)) = self.gate.as_ref().map(|gate| gate.pass(request.uri().path(), client)) {
            return refusal.into_response();
        }
        let changes_nothing = request.method().is_safe();
        let answer = self.routes.answer(request).await;
        if is_long(&answer) { hand_over(answer, changes_nothing, &self.unread).await } else { answer }
    }

    fn count(&self, route: usize, method: usize, status: StatusCode, began: Instant) {
        let counts = &self.counts[route][method];
        let known = STATUSES.iter().position(|(known, _)| *known == status.as_u16()).unwrap_or(STATUSES.len() - 1);
        counts.statuses[known].fetch_add(1, Ordering::Relaxed);
        let took = began.elapsed();
        counts.took.record(took);
        if METHODS[method] == "POST" && TRADES.contains(&ROUTES[route]) && status.is_success() {
            self.standing.timings.record(took);
        }
    }

    /// A connection found no place.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    async fn metrics(&self) -> Response {
        match self.scraper.text(|readings| self.observe(readings)).await {
            Ok(text) => {
                let mut response = Response::new(Body::from(text));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
                response
            }
            Err(error) => Failure::unavailable(error.to_string()).into_response(),
        }
    }

    /// What nobody ever asked for is left out.
    fn observe(&self, readings: &mut Readings) {
        for (route, of_route) in ROUTES.iter().zip(&self.counts) {
            for (method, Counts { statuses, took }) in METHODS.iter().zip(of_route) {
                let took = took.read();
                if took.count() > 0 {
                    readings.spread(&TOOK, &[method, route], &took);
                }
                for ((_, status), count) in STATUSES.iter().zip(statuses) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        readings.count(&REQUESTS, &[method, route, status], count);
                    }
                }
            }
        }
        let open = self.limits.connections_max.saturating_sub(self.places.available_permits());
        readings.count(&REFUSED, &[], self.refused.load(Ordering::Relaxed));
        let unread = self.limits.unread_bytes_max.saturating_sub(self.unread.available_permits());
        readings.queue("http_connections", open, self.limits.connections_max);
        readings.queue("http_unread_bytes", unread, self.limits.unread_bytes_max);
        readings.queue("http_requests", self.desk.waiting(), REQUESTS_UNDER_WAY_MAX);
        readings.queue("event_streams", self.feed.streams(), self.limits.streams_max);
    }
}

/// What this frontend has counted and timed, in OpenMetrics
// For the document: the observer answers before the routes are asked.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = OPERATION,
    responses((status = 200, description = "Metrics", body = String, content_type = CONTENT_TYPE), AtTheEdge)
)]
pub(crate) async fn metrics() -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics are not answered here")
}

/// The line of a followed request.
fn tell(trace: &Trace, method: &str, route: &str, response: &Response) {
    let trace_id = format_args!("{:032x}", trace.context.trace_id);
    let (request_id, status) = (trace.request_id.as_str(), response.status().as_u16());
    let cache = response.headers().get("x-cache").and_then(|cache| cache.to_str().ok());
    tracing::debug!(%trace_id, request_id, method, route, status, cache, "answered");
}

fn not_to_be_written() -> Response {
    let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "/metrics takes GET alone");
    let mut response = failure.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
    response
}

/// The place of a method in [`METHODS`].
fn method(method: &Method) -> usize {
    let name = if *method == Method::HEAD { "GET" } else { method.as_str() };
    METHODS.iter().position(|known| *known == name).unwrap_or(METHODS.len() - 1)
}

/// The place of a path's pattern in [`ROUTES`].
fn route(path: &str) -> usize {
    ROUTES.iter().position(|pattern| matches(pattern, path)).unwrap_or(ROUTES.len() - 1)
}

/// Whether the router would take the path for that pattern: a name in braces stands for one part that is not empty.
fn matches(pattern: &str, path: &str) -> bool {
    let mut given = parts(path);
    let fits = |part: &[u8]| {
        given.next().is_some_and(|given| if part.starts_with(b"{") { !given.is_empty() } else { given == part })
    };
    parts(pattern).all(fits) && given.next().is_none()
}

/// Bytes, since a search for a character is made for longer texts than these.
fn parts(path: &str) -> impl Iterator<Item = &[u8]> {
    path.as_bytes().split(|byte| *byte == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_its_pattern_whatever_the_client_wrote() {
        let check = |path, expected| assert_eq!(ROUTES[route(path)], expected, "{path}");
        check("/stocks", "/stocks");
        check("/stocks/GameStart", "/stocks/{name}");
        check("/stocks/a%2Fb", "/stocks/{name}");
        check("/stocks/", OTHER);
        check("/stocks/x/book", "/stocks/{name}/book");
        check("/stocks/x/books", OTHER);
        check("/accounts/alice/orders/7", "/accounts/{account}/orders/{number}");
        check("/metrics", METRICS_PATH);
        check("/", "/");
        check("", OTHER);
        check("*", OTHER);
        check("//stocks", OTHER);
    }
}
