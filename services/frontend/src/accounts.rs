//! The contract's requests about accounts, books and trades between accounts.
//!
//! Problem: whoever is not the account's owner must learn nothing, not even whether a request would have been well formed.
//! Idea: a token names its account, so the path is compared with it here, and the leader compares the hash of its secret
//! before it looks at anything else. Where a request is malformed, the leader is asked about the token alone.
//! Rules kept: the first of 401, 403, and everything else, in this order; a token is made here, is shown once, and goes no
//! further: behind the edge there is only its hash.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::account::{
    Account, AccountAnswer, AccountQuery, Asset, Cash, Credentials, Instruction, Interval, NewOrder, OrderStatus, Page,
    TimeInForce, Token, TokenHash,
};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::limits::PAGE_MAX;
use tradenet_schemas::message::{Answer, Query};
use tradenet_schemas::rest::market as shown;
use tradenet_schemas::trade::{Command, IdempotencyKey, Outcome, Price, Quantity, Receipt, Refusal, Side, Symbol};

use crate::envelope::{Failure, created, data};
use crate::query::Parameters;
use crate::routes::{Edge, body, no_answer, percent_decoded, replayed_if, strange, unknown_outcome};
use crate::{fields, placing};

/// How many levels, trades or orders are shown if nobody asks for another number.
const DEPTH: usize = 10;
const TRADES: usize = 50;
const ORDERS: usize = 50;
const CANDLES: usize = 100;

/// The routes of this page.
pub(crate) fn routes() -> Router<Edge> {
    Router::new()
        .route("/accounts", post(open))
        .route("/accounts/{account}", get(balance))
        .route("/accounts/{account}/deposits", post(deposit))
        .route("/accounts/{account}/withdrawals", post(withdraw))
        .route("/accounts/{account}/orders", post(place).get(orders))
        .route("/accounts/{account}/orders/{number}", get(order).delete(cancel))
        .route("/stocks/{name}/book", get(book))
        .route("/stocks/{name}/trades", get(trades))
        .route("/stocks/{name}/candles", get(candles))
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, message)
}

/// The part of the path between so many slashes, decoded; nothing if it can't be.
fn segment(uri: &Uri, place: usize) -> String {
    uri.path().split('/').nth(place).and_then(percent_decoded).unwrap_or_default()
}

// ---------------------------------------------------------------- who calls

/// The secret of a token is random and has 256 bits, so one round of hashing is as good as many.
fn hash(secret: &[u8; 32]) -> TokenHash {
    TokenHash(Sha256::digest(secret).into())
}

/// The caller of a request whose path begins with `/accounts/{account}`, whose token is still to be compared unless the
/// account is another's.
async fn caller(edge: &Edge, uri: &Uri, headers: &HeaderMap) -> Result<Credentials, Failure> {
    let token = bearer(headers).ok_or(Refusal::Unauthorised)?;
    let caller = Credentials { token: hash(&token.secret), account: token.account };
    if segment(uri, 2) == caller.account.as_str() {
        return Ok(caller);
    }
    authorise(edge, caller).await?;
    Err(Failure::new(StatusCode::FORBIDDEN, "this token is another account's"))
}

fn bearer(headers: &HeaderMap) -> Option<Token> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = sent.next()?.to_str().ok()?.split_once(' ')?;
    let alone = sent.next().is_none() && scheme.eq_ignore_ascii_case("bearer");
    alone.then(|| token.trim().parse().ok()).flatten()
}

async fn authorise(edge: &Edge, caller: Credentials) -> Result<(), Failure> {
    match ask(edge, caller, AccountQuery::Authorise).await? {
        AccountAnswer::Authorised => Ok(()),
        other => Err(strange(&other)),
    }
}

/// Asks about an account. [`AccountAnswer::Unauthorised`] is an error.
async fn ask(edge: &Edge, caller: Credentials, query: AccountQuery) -> Result<AccountAnswer, Failure> {
    match market(edge, Query::Account(caller, query)).await? {
        Answer::Account(answer) if *answer == AccountAnswer::Unauthorised => Err(Refusal::Unauthorised.into()),
        Answer::Account(answer) => Ok(*answer),
        other => Err(strange(&other)),
    }
}

async fn market(edge: &Edge, query: Query) -> Result<Answer, Failure> {
    match edge.desk.ask(ClientRequest::Market(query)).await? {
        ClientAnswer::Market(answer) => Ok(answer),
        other => Err(no_answer(other)),
    }
}

// ---------------------------------------------------------------- opening

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenFields<'a> {
    #[serde(borrow)]
    account: Option<&'a RawValue>,
}

async fn open(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    let key = placing::key(request.headers())?;
    let keyed = key.is_some();
    let body = body(request, edge.body_read).await?;
    let fields: OpenFields<'_> = fields::object(&body).map_err(|why| malformed(r#"{"account": "alice"}"#, &why))?;
    let name = fields::string(fields.account).unwrap_or_default();
    let account = Account::new(&name).map_err(|invalid| bad(invalid.0))?;
    let token = Token { account: account.clone(), secret: rand::random() };
    let command = Command::Open { account, token: hash(&token.secret) };
    match edge.desk.ask(ClientRequest::Command(key, command)).await? {
        ClientAnswer::Outcome(Outcome::Done { replayed, .. }) => {
            let opened = shown::Opened { account: token.account.as_str(), token: &token };
            Ok(replayed_if(replayed, created(opened)))
        }
        other => Err(not_done(other, keyed)),
    }
}

fn malformed(example: &str, why: &str) -> Failure {
    bad(format!("the body must be a JSON object such as {example}: {why}"))
}

/// For everything but success.
fn not_done(answer: ClientAnswer, keyed: bool) -> Failure {
    match answer {
        ClientAnswer::Outcome(Outcome::Refused(refusal)) => refusal.into(),
        ClientAnswer::Unknown => unknown_outcome(keyed),
        other => no_answer(other),
    }
}

// ---------------------------------------------------------------- instructions

async fn deposit(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    instruct(&edge, request, |body| Ok(Instruction::Deposit(asset(body, Refusal::TooMuchCash)?))).await
}

async fn withdraw(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    instruct(&edge, request, |body| Ok(Instruction::Withdraw(asset(body, Refusal::InsufficientFunds)?))).await
}

async fn place(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    instruct(&edge, request, |body| Ok(Instruction::Place(new_order(body)?))).await
}

async fn cancel(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    let caller = caller(&edge, request.uri(), request.headers()).await?;
    let read = placing::key(request.headers()).map_err(Failure::from);
    let read = read.and_then(|key| Ok((key, number(request.uri())?)));
    let (key, number) = if_authorised(&edge, &caller, read).await?;
    perform(&edge, key, caller, Instruction::Cancel(number)).await
}

/// Carries out what the body says.
async fn instruct(
    edge: &Edge,
    request: Request,
    read: fn(&[u8]) -> Result<Instruction, Failure>,
) -> Result<Response, Failure> {
    let caller = caller(edge, request.uri(), request.headers()).await?;
    let read = well_formed(edge, request, read).await;
    let (key, instruction) = if_authorised(edge, &caller, read).await?;
    perform(edge, key, caller, instruction).await
}

async fn well_formed(
    edge: &Edge,
    request: Request,
    read: fn(&[u8]) -> Result<Instruction, Failure>,
) -> Result<(Option<IdempotencyKey>, Instruction), Failure> {
    let key = placing::key(request.headers())?;
    Ok((key, read(&body(request, edge.body_read).await?)?))
}

/// What is wrong with a request is told only to whom it concerns.
async fn if_authorised<T>(edge: &Edge, caller: &Credentials, read: Result<T, Failure>) -> Result<T, Failure> {
    if read.is_err() {
        authorise(edge, caller.clone()).await?;
    }
    read
}

async fn perform(
    edge: &Edge,
    key: Option<IdempotencyKey>,
    caller: Credentials,
    instruction: Instruction,
) -> Result<Response, Failure> {
    let keyed = key.is_some();
    let command = Command::Account { caller, instruction };
    match edge.desk.ask(ClientRequest::Command(key, command)).await? {
        ClientAnswer::Outcome(Outcome::Done { receipt, replayed }) => match &*receipt {
            Receipt::Balance(balance) => Ok(replayed_if(replayed, data(shown::Account::from(balance)))),
            Receipt::Order(order) => Ok(replayed_if(replayed, data(shown::AccountOrder::from(order)))),
            Receipt::Opened => Err(strange(&receipt)),
        },
        other => Err(not_done(other, keyed)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssetFields<'a> {
    #[serde(borrow)]
    amount: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
}

const ASSETS: &str = r#"{"amount": 100.00} or {"name": "GameStart", "quantity": 1}"#;

/// Money or stocks; `too_much`: what an amount is that nobody can have.
fn asset(body: &[u8], too_much: Refusal) -> Result<Asset, Failure> {
    let AssetFields { amount, name, quantity } = fields::object(body).map_err(|why| malformed(ASSETS, &why))?;
    match (amount, name, quantity) {
        (Some(amount), None, None) => {
            let cents = fields::cents(amount.get()).filter(|cents| *cents > 0);
            let cents = cents.ok_or_else(|| bad("amount must be a positive number with at most two decimals"))?;
            Ok(Asset::Cash(Cash::from_cents(cents).ok_or(too_much)?))
        }
        (None, name, count) if name.is_some() || count.is_some() => {
            let too_many =
                if too_much == Refusal::TooMuchCash { Refusal::TooManyStocks } else { Refusal::InsufficientStocks };
            let count = self::quantity(count)?;
            Ok(Asset::Stock(symbol(name)?, Quantity::new(count).ok_or(too_many)?))
        }
        _ => Err(malformed(ASSETS, "it must have either amount, or name and quantity")),
    }
}

fn quantity(raw: Option<&RawValue>) -> Result<u64, Failure> {
    let count = raw.and_then(|raw| fields::whole(raw.get())).filter(|count| *count > 0);
    count.ok_or_else(|| bad("quantity must be a positive whole number"))
}

fn symbol(raw: Option<&RawValue>) -> Result<Symbol, Failure> {
    let name = fields::string(raw).ok_or_else(|| bad("name must be the name of a stock, as text"))?;
    Ok(Symbol::new(&name).map_err(|_| Refusal::UnknownSymbol)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderFields<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    side: Option<&'a RawValue>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
    #[serde(borrow)]
    time_in_force: Option<&'a RawValue>,
    #[serde(borrow)]
    post_only: Option<&'a RawValue>,
}

fn new_order(body: &[u8]) -> Result<NewOrder, Failure> {
    const EXAMPLE: &str = r#"{"name": "GameStart", "side": "buy", "quantity": 1, "price": 15.99}"#;
    let fields: OrderFields<'_> = fields::object(body).map_err(|why| malformed(EXAMPLE, &why))?;
    let side = match fields::string(fields.side).as_deref() {
        Some("buy") => Side::Buy,
        Some("sell") => Side::Sell,
        _ => return Err(bad("side must be buy or sell")),
    };
    let count = quantity(fields.quantity)?;
    let price = fields.price.map(price).transpose()?;
    let time_in_force = match (fields.time_in_force, fields::string(fields.time_in_force).as_deref()) {
        (None, _) => TimeInForce::default(),
        (_, Some("gtc")) => TimeInForce::Gtc,
        (_, Some("ioc")) => TimeInForce::Ioc,
        (_, Some("fok")) => TimeInForce::Fok,
        _ => return Err(bad("time_in_force must be gtc, ioc or fok")),
    };
    let post_only = match fields.post_only.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("post_only must be true or false")),
    };
    let symbol = symbol(fields.name)?;
    let quantity = Quantity::new(count).ok_or(match side {
        Side::Buy => Refusal::InsufficientFunds,
        Side::Sell => Refusal::InsufficientStocks,
    })?;
    Ok(NewOrder { symbol, side, quantity, price, time_in_force, post_only })
}

fn price(raw: &RawValue) -> Result<Price, Failure> {
    let cents = fields::cents(raw.get()).filter(|cents| *cents > 0).and_then(Price::from_cents);
    cents.ok_or_else(|| bad("price must be a positive number with at most two decimals, at most 10000000000.00"))
}

// ---------------------------------------------------------------- questions

async fn balance(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    let caller = caller(&edge, request.uri(), request.headers()).await?;
    match ask(&edge, caller, AccountQuery::Balance).await? {
        AccountAnswer::Balance(balance) => Ok(data(shown::Account::from(&balance))),
        other => Err(strange(&other)),
    }
}

/// The order that the path names.
fn number(uri: &Uri) -> Result<OrderNumber, Failure> {
    let number = fields::positive(&segment(uri, 4)).ok_or(Refusal::UnknownOrder)?;
    Ok(OrderNumber(number))
}

async fn order(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    let caller = caller(&edge, request.uri(), request.headers()).await?;
    let number = if_authorised(&edge, &caller, number(request.uri())).await?;
    match ask(&edge, caller, AccountQuery::Order(number)).await? {
        AccountAnswer::Order(order) => {
            let order = order.ok_or(Refusal::UnknownOrder)?;
            Ok(data(shown::AccountOrder::from(&order)))
        }
        other => Err(strange(&other)),
    }
}

async fn orders(State(edge): State<Edge>, request: Request) -> Result<Response, Failure> {
    let caller = caller(&edge, request.uri(), request.headers()).await?;
    let page = if_authorised(&edge, &caller, page(request.uri())).await?;
    match ask(&edge, caller, AccountQuery::Orders(page)).await? {
        AccountAnswer::Orders(orders) => Ok(data(orders.iter().map(shown::AccountOrder::from).collect::<Vec<_>>())),
        other => Err(strange(&other)),
    }
}

fn page(uri: &Uri) -> Result<Page, Failure> {
    let parameters = Parameters::read(uri, &["status", "limit", "before"]).map_err(bad)?;
    let status = match parameters.text("status") {
        None => None,
        Some("open") => Some(OrderStatus::Open),
        Some("filled") => Some(OrderStatus::Filled),
        Some("cancelled") => Some(OrderStatus::Cancelled),
        Some(_) => return Err(bad("status must be open, filled or cancelled")),
    };
    let limit = parameters.count("limit", ORDERS, PAGE_MAX).map_err(bad)?;
    let before = parameters.number("before").map_err(bad)?.map(OrderNumber);
    Ok(Page { status, limit, before })
}

/// The stock that the path names; no stock has a name that is none.
fn listed(uri: &Uri) -> Result<Symbol, Failure> {
    Ok(Symbol::new(&segment(uri, 2)).map_err(|_| Refusal::UnknownSymbol)?)
}

/// One of the questions that everybody may ask about a stock.
async fn of_stock(edge: &Edge, query: Query) -> Result<Response, Failure> {
    fn list<'a, T, S: From<&'a T> + Serialize>(all: &'a [T]) -> Response {
        data(all.iter().map(S::from).collect::<Vec<_>>())
    }
    let shown = match market(edge, query).await? {
        Answer::Book(book) => book.map(|book| data(shown::Book::from(&book))),
        Answer::Trades(trades) => trades.map(|trades| list::<_, shown::Trade>(&trades)),
        Answer::Candles(candles) => candles.map(|candles| list::<_, shown::Candle>(&candles)),
        other => return Err(strange(&other)),
    };
    Ok(shown.ok_or(Refusal::UnknownSymbol)?)
}

async fn book(State(edge): State<Edge>, uri: Uri) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["depth"]).map_err(bad)?;
    let depth = parameters.count("depth", DEPTH, PAGE_MAX).map_err(bad)?;
    of_stock(&edge, Query::Book(listed(&uri)?, depth)).await
}

async fn trades(State(edge): State<Edge>, uri: Uri) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["limit"]).map_err(bad)?;
    let limit = parameters.count("limit", TRADES, PAGE_MAX).map_err(bad)?;
    of_stock(&edge, Query::Trades(listed(&uri)?, limit)).await
}

async fn candles(State(edge): State<Edge>, uri: Uri) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["interval", "limit"]).map_err(bad)?;
    let interval = match parameters.text("interval") {
        Some("1s") => Interval::Second,
        Some("1m") => Interval::Minute,
        Some("1h") => Interval::Hour,
        _ => return Err(bad("interval must be 1s, 1m or 1h")),
    };
    let limit = parameters.count("limit", CANDLES, PAGE_MAX).map_err(bad)?;
    of_stock(&edge, Query::Candles(listed(&uri)?, interval, limit)).await
}
