//! The contract's requests about accounts.
//!
//! Problem: whoever is not the account's owner must learn nothing, not even whether a request would have been well formed.
//! Idea: a token names its account, so the path is compared with it here, and the leader compares the hash of its secret
//! before it looks at anything else. Where a request is malformed, the leader is asked about the token alone.
//! Rules kept: the first of 401, 403, and everything else, in this order; a token is made here, is shown once, and goes no
//! further: behind the edge there is only its hash.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::account::{
    Account, AccountAnswer, AccountQuery, Credentials, Instruction, OrderStatus, Page, Token, TokenHash,
};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::limits::PAGE_MAX;
use tradenet_schemas::message::{Answer, Query};
use tradenet_schemas::rest::Data;
use tradenet_schemas::rest::market as shown;
use tradenet_schemas::trade::{Command, IdempotencyKey, Outcome, Receipt, Refusal};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::bodies::{OpenFields, asset, malformed, new_order};
use crate::envelope::{Failure, created, data};
use crate::openapi::{ACCOUNTS, Key};
use crate::query::{Kind, Known, Parameters, query};
use crate::routes::{Edge, body, no_answer, percent_decoded, replayed_if, strange, unknown_outcome};
use crate::{failures, fields, placing};

mod bodies;

/// How many orders are shown if nobody asks for another number.
const ORDERS: usize = 50;

query! {
    /// Which of an account's orders are listed.
    OrdersQuery = [
        Known { name: "status", about: "Only those", kind: Kind::OneOf(&["open", "filled", "cancelled"]) },
        Known { name: "limit", about: "At most so many", kind: Kind::Count { usual: ORDERS, most: PAGE_MAX } },
        Known { name: "before", about: "Only those with a lower number", kind: Kind::Number { least: 1 } },
    ];
}

/// The routes of this page.
pub(crate) fn routes() -> OpenApiRouter<Arc<Edge>> {
    OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(balance))
        .routes(routes!(deposit))
        .routes(routes!(withdraw))
        .routes(routes!(place, orders))
        .routes(routes!(order, cancel))
}

pub(crate) fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, message)
}

/// The part of the path between so many slashes, decoded; nothing if it can't be.
pub(crate) fn segment(uri: &Uri, place: usize) -> String {
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

pub(crate) async fn market(edge: &Edge, query: Query) -> Result<Answer, Failure> {
    match edge.desk.ask(ClientRequest::Market(query)).await? {
        ClientAnswer::Market(answer) => Ok(answer),
        other => Err(no_answer(other)),
    }
}

// ---------------------------------------------------------------- opening

/// Open an account
#[utoipa::path(
    post,
    path = "/accounts",
    operation_id = "open_account",
    tag = ACCOUNTS,
    params(Key),
    request_body(content = bodies::OpenFields<'static>, content_type = "application/json"),
    responses((status = 201, description = "The account is open. Its token is shown here and nowhere else; the same request with the same key shows it again until the account has been used", body = Data<shown::Opened<'static>>, headers(("Idempotent-Replayed" = String, description = "`true` for the answer of an earlier request with this key"))), failures::Open)
)]
async fn open(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
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

/// For everything but success.
fn not_done(answer: ClientAnswer, keyed: bool) -> Failure {
    match answer {
        ClientAnswer::Outcome(Outcome::Refused(refusal)) => refusal.into(),
        ClientAnswer::Unknown => unknown_outcome(keyed),
        other => no_answer(other),
    }
}

// ---------------------------------------------------------------- instructions

/// Bring in money or stocks
#[utoipa::path(
    post,
    path = "/accounts/{account}/deposits",
    operation_id = "deposit",
    tag = ACCOUNTS,
    security(("token" = [])),
    params(("account" = Account, Path, description = "Whose token it must be"), Key),
    request_body(content = bodies::AssetBody, content_type = "application/json"),
    responses((status = 200, description = "What the account has now", body = Data<shown::Account<'static>>, headers(("Idempotent-Replayed" = String, description = "`true` for the answer of an earlier request with this key"))), failures::Deposit)
)]
async fn deposit(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    instruct(&edge, request, |body| Ok(Instruction::Deposit(asset(body, Refusal::TooMuchCash)?))).await
}

/// Take out money or stocks that no order reserves
#[utoipa::path(
    post,
    path = "/accounts/{account}/withdrawals",
    operation_id = "withdraw",
    tag = ACCOUNTS,
    security(("token" = [])),
    params(("account" = Account, Path, description = "Whose token it must be"), Key),
    request_body(content = bodies::AssetBody, content_type = "application/json"),
    responses((status = 200, description = "What the account has now", body = Data<shown::Account<'static>>, headers(("Idempotent-Replayed" = String, description = "`true` for the answer of an earlier request with this key"))), failures::Withdraw)
)]
async fn withdraw(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    instruct(&edge, request, |body| Ok(Instruction::Withdraw(asset(body, Refusal::InsufficientFunds)?))).await
}

/// Place an order in the book
///
/// With a price it is a limit order; without, a market order, which never rests.
#[utoipa::path(
    post,
    path = "/accounts/{account}/orders",
    operation_id = "place_in_book",
    tag = ACCOUNTS,
    security(("token" = [])),
    params(("account" = Account, Path, description = "Whose token it must be"), Key),
    request_body(content = bodies::OrderFields<'static>, content_type = "application/json"),
    responses((status = 200, description = "The order as it is now", body = Data<shown::AccountOrder<'static>>, headers(("Idempotent-Replayed" = String, description = "`true` for the answer of an earlier request with this key"))), failures::PlaceInBook)
)]
async fn place(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    instruct(&edge, request, |body| Ok(Instruction::Place(new_order(body)?))).await
}

/// Cancel what is left of an order
#[utoipa::path(
    delete,
    path = "/accounts/{account}/orders/{number}",
    operation_id = "cancel",
    tag = ACCOUNTS,
    security(("token" = [])),
    params(("account" = Account, Path, description = "Whose token it must be"), ("number" = OrderNumber, Path, description = "The order"), Key),
    responses((status = 200, description = "The order as it is now", body = Data<shown::AccountOrder<'static>>, headers(("Idempotent-Replayed" = String, description = "`true` for the answer of an earlier request with this key"))), failures::Cancel)
)]
async fn cancel(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
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

// ---------------------------------------------------------------- questions

/// What an account has
#[utoipa::path(
    get,
    path = "/accounts/{account}",
    operation_id = "balance",
    tag = ACCOUNTS,
    security(("token" = [])),
    params(("account" = Account, Path, description = "Whose token it must be")),
    responses((status = 200, description = "What it has", body = Data<shown::Account<'static>>), failures::ReadAccount)
)]
async fn balance(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
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

/// One of an account's orders
#[utoipa::path(
    get,
    path = "/accounts/{account}/orders/{number}",
    operation_id = "account_order",
    tag = ACCOUNTS,
    security(("token" = [])),
    params(("account" = Account, Path, description = "Whose token it must be"), ("number" = OrderNumber, Path, description = "The order")),
    responses((status = 200, description = "The order", body = Data<shown::AccountOrder<'static>>), failures::ReadAccountOrder)
)]
async fn order(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
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

/// An account's orders, newest first
#[utoipa::path(
    get,
    path = "/accounts/{account}/orders",
    operation_id = "account_orders",
    tag = ACCOUNTS,
    security(("token" = [])),
    params(("account" = Account, Path, description = "Whose token it must be"), OrdersQuery),
    responses((status = 200, description = "A page of them, which may be shorter than asked for: the end is an empty one", body = Data<Vec<shown::AccountOrder<'static>>>), failures::ReadAccountOrders)
)]
async fn orders(State(edge): State<Arc<Edge>>, request: Request) -> Result<Response, Failure> {
    let caller = caller(&edge, request.uri(), request.headers()).await?;
    let page = if_authorised(&edge, &caller, page(request.uri())).await?;
    match ask(&edge, caller, AccountQuery::Orders(page)).await? {
        AccountAnswer::Orders(orders) => Ok(data(orders.iter().map(shown::AccountOrder::from).collect::<Vec<_>>())),
        other => Err(strange(&other)),
    }
}

fn page(uri: &Uri) -> Result<Page, Failure> {
    let parameters = Parameters::read(uri, OrdersQuery::KNOWN).map_err(bad)?;
    let status = match parameters.text("status") {
        None => None,
        Some("open") => Some(OrderStatus::Open),
        Some("filled") => Some(OrderStatus::Filled),
        Some("cancelled") => Some(OrderStatus::Cancelled),
        Some(_) => return Err(bad("status must be open, filled or cancelled")),
    };
    let limit = parameters.count("limit").map_err(bad)?;
    let before = parameters.number("before").map_err(bad)?.map(OrderNumber);
    Ok(Page { status, limit, before })
}
