//! The contract's requests, one handler each.
//!
//! A handler turns a request into one question to the core and the core's answer into one of the two shapes of
//! [`crate::envelope`]. The two requests of which there are most are answered before a handler is looked for: a stock that
//! the cache may serve, and a trade with the house. The rules: what is no request of the contract gets its error from the
//! two fallbacks, so that no middleware stands in the way of the others; a handler has one place where a status is chosen; a
//! 2xx for a command is sent only for [`Outcome::Accepted`].
//!
//! `HEAD` works wherever `GET` does. `OPTIONS` is a wrong method like any other: browsers of other origins are not served.

use std::borrow::Cow;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::time::timeout;
use tower_service::Service as _;
use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::limits::REST_BODY_BYTES_MAX;
use tradenet_schemas::rest::{Cluster, Data, Order, Placed, Stock};
use tradenet_schemas::trade::{self, Outcome, Refusal, Symbol};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::desk::{Desk, NotTaken};
use crate::envelope::{Failure, data};
use crate::events::Feed;
use crate::limits::{Limits, REQUESTS_UNDER_WAY_MAX};
use crate::openapi::{HOUSE, IfNoneMatch, Key, OPERATION, STOCKS, Unchanged};
use crate::opening::Opening;
use crate::standing::Standing;
use crate::validators::{Written, fresh};
use crate::{accounts, docs, events, failures, fields, market, observer, openapi, page, placing};

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const STOCK_PATH: &str = "/stocks/";
const TRADES_PATH: &str = "/orders";
const ORDER_PATH: &str = "/orders/";

/// What every handler needs.
pub(crate) struct Edge {
    pub(crate) desk: Arc<Desk>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) opening: Arc<Opening>,
    written: Written,
    pub(crate) body_read: Duration,
    /// The OpenAPI document.
    pub(crate) document: Bytes,
}

/// All routes, and the document of them. A route gets in by its `#[utoipa::path]` only, so there is none without its part of the
/// document; `clippy.toml` forbids the other ways.
pub(crate) fn table() -> (Router<Arc<Edge>>, OpenApi) {
    let table = OpenApiRouter::with_openapi(openapi::about())
        .routes(routes!(stocks))
        .routes(routes!(stock))
        .routes(routes!(place))
        .routes(routes!(order))
        .routes(routes!(events::events))
        .routes(routes!(cluster))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(observer::metrics))
        .merge(accounts::routes())
        .merge(market::routes())
        .merge(docs::routes())
        .merge(page::routes());
    let (router, document) = table.split_for_parts();
    (router, openapi::complete(document))
}

/// What answers all requests.
pub(crate) struct Routes {
    router: Router,
    edge: Arc<Edge>,
}

impl Routes {
    pub(crate) fn new(desk: Arc<Desk>, feed: Arc<Feed>, standing: Arc<Standing>, limits: &Limits) -> Self {
        let (router, document) = table();
        let document = openapi::written(&document).into();
        let edge = Arc::new(Edge {
            desk,
            feed,
            standing,
            opening: Arc::default(),
            written: Written::default(),
            body_read: limits.body_read,
            document,
        });
        let router = router.fallback(unknown_url).method_not_allowed_fallback(wrong_method);
        Self { router: router.with_state(Arc::clone(&edge)), edge }
    }

    pub(crate) async fn answer(&self, request: Request) -> Response {
        if let Some(answer) = self.edge.cached(&request) {
            return answer;
        }
        // The way through the router costs half as much as the handler itself.
        if *request.method() == Method::POST && request.uri().path() == TRADES_PATH {
            return place(State(Arc::clone(&self.edge)), request).await.into_response();
        }
        // A router is always ready.
        let Ok(answer) = self.router.clone().call(request).await;
        answer
    }
}

/// All stocks, by name
#[utoipa::path(
    get,
    path = "/stocks",
    tag = STOCKS,
    params(IfNoneMatch),
    responses(
        (status = 200, description = "All stocks", body = Data<Vec<Stock<'static>>>, headers(("ETag" = String), ("Cache-Control" = String))),
        Unchanged,
        failures::Read
    )
)]
async fn stocks(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Result<Response, Failure> {
    match edge.desk.ask(ClientRequest::Stocks).await? {
        ClientAnswer::Stocks(stocks) => Ok(fresh(&headers, stocks.iter().map(Stock::from).collect::<Vec<_>>())),
        other => Err(no_answer(other)),
    }
}

/// One stock
///
/// From this frontend's cache where that may be served, which `X-Cache` tells; never staler than any answered trade.
#[utoipa::path(
    get,
    path = "/stocks/{name}",
    tag = STOCKS,
    params(("name" = Symbol, Path, description = "The stock"), IfNoneMatch),
    responses(
        (status = 200, description = "The stock", body = Data<Stock<'static>>, headers(
            ("ETag" = String), ("Cache-Control" = String), ("X-Cache" = String, description = "`hit` or `miss`")
        )),
        Unchanged,
        failures::ReadStock
    )
)]
async fn stock(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    // A name that no stock can have is not looked up.
    let Ok(symbol) = Symbol::new(&segment(request.uri(), STOCK_PATH)?) else {
        return Ok(edge.stock_answer(request.headers(), None, false));
    };
    match edge.desk.ask(ClientRequest::Stock(symbol)).await? {
        ClientAnswer::Stock { stock, hit } => Ok(edge.stock_answer(request.headers(), stock.as_ref(), hit)),
        other => Err(no_answer(other)),
    }
}

impl Edge {
    /// The answer to a look-up of a stock that the cache may serve at this moment.
    ///
    /// No request is more frequent, and the way to its handler takes twice as long as this. What is wrong with a request is
    /// for the handler to say.
    fn cached(&self, request: &Request) -> Option<Response> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let name = segment(request.uri(), STOCK_PATH).ok()?;
        let stock = self.desk.cached(&Symbol::new(&name).ok()?)?;
        Some(self.stock_answer(request.headers(), Some(&stock), true))
    }

    fn stock_answer(&self, request: &HeaderMap, stock: Option<&trade::Stock>, hit: bool) -> Response {
        let mut response = match stock {
            Some(stock) => self.written.fresh(request, stock),
            None => Failure::from(Refusal::UnknownSymbol).into_response(),
        };
        response.headers_mut().insert(X_CACHE, HeaderValue::from_static(if hit { "hit" } else { "miss" }));
        response
    }
}

/// Trade with the house at its price
///
/// Answered when the order is on disk on every in-sync replica and visible to every reader. Fields that are not named here are
/// ignored.
#[utoipa::path(
    post,
    path = "/orders",
    tag = HOUSE,
    params(Key),
    request_body(content = placing::Fields<'static>, content_type = "application/json"),
    responses(
        (status = 200, description = "The order is placed", body = Data<Placed>, headers(("Idempotent-Replayed" = String, description = "`true` for the answer of an earlier request with this key"))),
        failures::Place
    )
)]
async fn place(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    let key = placing::key(request.headers())?;
    let keyed = key.is_some();
    let command = placing::command(&body(request, edge.body_read).await?)?;
    match edge.desk.ask(ClientRequest::Command(key, command)).await? {
        ClientAnswer::Outcome(Outcome::Accepted { order, replayed }) => {
            Ok(replayed_if(replayed, data(Placed { transaction_number: order.0 })))
        }
        ClientAnswer::Outcome(Outcome::Refused(refusal)) => Err(refusal.into()),
        ClientAnswer::Unknown => Err(unknown_outcome(keyed)),
        other => Err(no_answer(other)),
    }
}

/// Says of an answer whether it is that of an earlier request.
pub(crate) fn replayed_if(replayed: bool, mut response: Response) -> Response {
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

pub(crate) fn unknown_outcome(keyed: bool) -> Failure {
    let message = if keyed {
        "this may or may not have been done: retry with the same Idempotency-Key to learn which"
    } else {
        "this may or may not have been done, and without a key a retry may do it twice: send an Idempotency-Key with \
         each request that changes something, then retry with the same Idempotency-Key"
    };
    Failure::new(StatusCode::GATEWAY_TIMEOUT, message)
}

/// One of the house's orders
#[utoipa::path(
    get,
    path = "/orders/{number}",
    tag = HOUSE,
    params(("number" = OrderNumber, Path, description = "Its `transaction_number`"), IfNoneMatch),
    responses(
        (status = 200, description = "The order", body = Data<Order>, headers(("ETag" = String), ("Cache-Control" = String))),
        Unchanged,
        failures::ReadOrder
    )
)]
async fn order(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    let not_found = || Failure::new(StatusCode::NOT_FOUND, "transaction number not found");
    let number = fields::positive(&segment(request.uri(), ORDER_PATH)?).ok_or_else(not_found)?;
    match edge.desk.ask(ClientRequest::Order(OrderNumber(number))).await? {
        ClientAnswer::Order(order) => Ok(fresh(request.headers(), Order::from(&order.ok_or_else(not_found)?))),
        other => Err(no_answer(other)),
    }
}

/// The exchange as this frontend sees it
///
/// Answered from memory, whatever is wrong.
#[utoipa::path(
    get,
    path = "/cluster",
    tag = OPERATION,
    responses((status = 200, description = "Who leads, who is in sync, how far everybody is", body = Data<Cluster>), failures::AtTheEdge)
)]
async fn cluster(State(edge): State<Arc<Edge>>) -> Response {
    data(edge.standing.complete(edge.desk.cluster()))
}

/// The answer to both health checks.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `alive` or `ready`.
    status: &'static str,
}

/// Whether this frontend is alive
#[utoipa::path(
    get,
    path = "/healthz",
    tag = OPERATION,
    responses((status = 200, description = "It is", body = Data<Health>), failures::AtTheEdge)
)]
async fn healthz() -> Response {
    data(Health { status: "alive" })
}

/// Whether trades can be served
#[utoipa::path(
    get,
    path = "/readyz",
    tag = OPERATION,
    responses((status = 200, description = "They can", body = Data<Health>), failures::Ready)
)]
async fn readyz(State(edge): State<Arc<Edge>>) -> Result<Response, Failure> {
    edge.desk.ready().map_err(Failure::unavailable)?;
    edge.opening.open(&edge.desk).await.map_err(Failure::unavailable)?;
    Ok(data(Health { status: "ready" }))
}

async fn unknown_url(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("{} is not here; see GET /stocks", uri.path()))
}

/// The router adds `Allow`.
async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let message = format!("{} does not take {method}; the Allow header names what it takes", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

impl From<NotTaken> for Failure {
    fn from(reason: NotTaken) -> Self {
        Self::unavailable(match reason {
            NotTaken::Overloaded => {
                format!("{REQUESTS_UNDER_WAY_MAX} requests are under way already; try again with fewer at once")
            }
            NotTaken::Stopped => "this frontend is leaving: use another one".to_owned(),
        })
    }
}

/// For the answers that every question may get. Reads have no effect, so for them an unknown outcome is no outcome.
pub(crate) fn no_answer(answer: ClientAnswer) -> Failure {
    match answer {
        ClientAnswer::Unavailable(why) => Failure::unavailable(why),
        ClientAnswer::Unknown => Failure::unavailable("no answer in time; try again"),
        other => strange(&other),
    }
}

/// For an answer to another question than was asked.
pub(crate) fn strange(answer: &impl Debug) -> Failure {
    tracing::error!("the core answered another question than was asked: {answer:?}");
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "an answer got lost in this frontend; its log says more")
}

/// What stands in the path after `prefix`, decoded; nothing in another path.
fn segment<'a>(uri: &'a Uri, prefix: &str) -> Result<Cow<'a, str>, Failure> {
    let raw = uri.path().strip_prefix(prefix).unwrap_or_default();
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let malformed = || Failure::new(StatusCode::BAD_REQUEST, "the path must be percent-encoded UTF-8, %25 for a %");
    percent_decoded(raw).map(Cow::Owned).ok_or_else(malformed)
}

pub(crate) fn percent_decoded(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Reads a request's body within the bounds of size and time.
pub(crate) async fn body(request: Request, within: Duration) -> Result<Bytes, Failure> {
    let too_large = || {
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body must have at most {REST_BODY_BYTES_MAX} bytes"))
    };
    // One that says how long it is need not be read, nor be asked for when it waits for `100 Continue`.
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > REST_BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    read(request.into_body(), within).await.map_err(|failure| failure.unwrap_or_else(too_large))
}

/// # Errors
/// Why; none for too large.
async fn read(body: Body, within: Duration) -> Result<Bytes, Option<Failure>> {
    let mut whole = pin!(whole(body));
    // Most bodies have come with their heads. Only for others there is a timer.
    let read = match whole.as_mut().now_or_never() {
        Some(read) => Ok(read),
        None => timeout(within, whole).await,
    };
    match read {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(None),
        Ok(Err(error)) => {
            Err(Some(Failure::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}"))))
        }
        Err(_) => {
            let message = format!("the body did not arrive within {} ms", within.as_millis());
            Err(Some(Failure::new(StatusCode::REQUEST_TIMEOUT, message)))
        }
    }
}

/// All of a body. One in a single piece, as nearly all are, is taken as it is.
async fn whole(body: Body) -> Result<Bytes, BoxError> {
    let mut body = Limited::new(body, REST_BODY_BYTES_MAX);
    let Some(first) = body.frame().await.transpose()? else { return Ok(Bytes::new()) };
    // What is no data are trailers, and nobody asks for those.
    let first = first.into_data().unwrap_or_default();
    if body.is_end_stream() {
        return Ok(first);
    }
    let rest = body.collect().await?.to_bytes();
    Ok(if rest.is_empty() { first } else { [first, rest].concat().into() })
}
