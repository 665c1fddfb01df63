//! The contract's requests about the market of a stock: its book, its trades, its chart. Everybody may ask.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use tradenet_schemas::account::Interval;
use tradenet_schemas::limits::PAGE_MAX;
use tradenet_schemas::message::{Answer, Query};
use tradenet_schemas::rest::Data;
use tradenet_schemas::rest::market as shown;
use tradenet_schemas::trade::{Refusal, Symbol};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accounts::{bad, market, segment};
use crate::envelope::Failure;
use crate::failures;
use crate::openapi::{IfNoneMatch, STOCKS, Unchanged};
use crate::query::{Kind, Known, Parameters, query};
use crate::routes::{Edge, strange};
use crate::validators::fresh;

/// How many levels, trades or periods are shown if nobody asks for another number.
const DEPTH: usize = 10;
const TRADES: usize = 50;
const CANDLES: usize = 100;

query! {
    /// How much of a book is shown.
    BookQuery = [
        Known { name: "depth", about: "Levels of each side", kind: Kind::Count { usual: DEPTH, most: PAGE_MAX } },
    ];
    /// How many trades are shown.
    TradesQuery = [
        Known { name: "limit", about: "At most so many", kind: Kind::Count { usual: TRADES, most: PAGE_MAX } },
    ];
    /// Which periods are shown.
    CandlesQuery = [
        Known { name: "interval", about: "How long a period is", kind: Kind::Required(&["1s", "1m", "1h"]) },
        Known { name: "limit", about: "At most so many", kind: Kind::Count { usual: CANDLES, most: PAGE_MAX } },
    ];
}

/// The routes of this page.
pub(crate) fn routes() -> OpenApiRouter<Arc<Edge>> {
    OpenApiRouter::new().routes(routes!(book)).routes(routes!(trades)).routes(routes!(candles))
}

/// The stock that the path names; no stock has a name that is none.
fn listed(uri: &Uri) -> Result<Symbol, Failure> {
    Ok(Symbol::new(&segment(uri, 2)).map_err(|_| Refusal::UnknownSymbol)?)
}

/// One of the questions that everybody may ask about a stock.
async fn of_stock(edge: &Edge, headers: &HeaderMap, query: Query) -> Result<Response, Failure> {
    fn list<'a, T, S: From<&'a T> + Serialize>(headers: &HeaderMap, all: &'a [T]) -> Response {
        fresh(headers, all.iter().map(S::from).collect::<Vec<_>>())
    }
    let shown = match market(edge, query).await? {
        Answer::Book(book) => book.map(|book| fresh(headers, shown::Book::from(&book))),
        Answer::Trades(trades) => trades.map(|trades| list::<_, shown::Trade>(headers, &trades)),
        Answer::Candles(candles) => candles.map(|candles| list::<_, shown::Candle>(headers, &candles)),
        other => return Err(strange(&other)),
    };
    Ok(shown.ok_or(Refusal::UnknownSymbol)?)
}

/// The best of a stock's book
#[utoipa::path(
    get,
    path = "/stocks/{name}/book",
    tag = STOCKS,
    params(("name" = Symbol, Path, description = "The stock"), BookQuery, IfNoneMatch),
    responses(
        (status = 200, description = "Its levels, best first", body = Data<shown::Book<'static>>, headers(("ETag" = String), ("Cache-Control" = String))),
        Unchanged,
        failures::ReadMarket
    )
)]
async fn book(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    let parameters = Parameters::read(request.uri(), BookQuery::KNOWN).map_err(bad)?;
    let depth = parameters.count("depth").map_err(bad)?;
    of_stock(&edge, request.headers(), Query::Book(listed(request.uri())?, depth)).await
}

/// A stock's newest trades between accounts
#[utoipa::path(
    get,
    path = "/stocks/{name}/trades",
    tag = STOCKS,
    params(("name" = Symbol, Path, description = "The stock"), TradesQuery, IfNoneMatch),
    responses(
        (status = 200, description = "Trades, newest first", body = Data<Vec<shown::Trade>>, headers(("ETag" = String), ("Cache-Control" = String))),
        Unchanged,
        failures::ReadMarket
    )
)]
async fn trades(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    let parameters = Parameters::read(request.uri(), TradesQuery::KNOWN).map_err(bad)?;
    let limit = parameters.count("limit").map_err(bad)?;
    of_stock(&edge, request.headers(), Query::Trades(listed(request.uri())?, limit)).await
}

/// What a chart of a stock needs
#[utoipa::path(
    get,
    path = "/stocks/{name}/candles",
    tag = STOCKS,
    params(("name" = Symbol, Path, description = "The stock"), CandlesQuery, IfNoneMatch),
    responses(
        (status = 200, description = "Periods with trades, newest first", body = Data<Vec<shown::Candle>>, headers(("ETag" = String), ("Cache-Control" = String))),
        Unchanged,
        failures::ReadMarket
    )
)]
async fn candles(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    let parameters = Parameters::read(request.uri(), CandlesQuery::KNOWN).map_err(bad)?;
    let interval = match parameters.text("interval") {
        Some("1s") => Interval::Second,
        Some("1m") => Interval::Minute,
        Some("1h") => Interval::Hour,
        _ => return Err(bad("interval must be 1s, 1m or 1h")),
    };
    let limit = parameters.count("limit").map_err(bad)?;
    of_stock(&edge, request.headers(), Query::Candles(listed(request.uri())?, interval, limit)).await
}
