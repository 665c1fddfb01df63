//! What requests are refused with, for the OpenAPI document: every status and sentence that a client may get.
//!
//! Problem: a document that names the successes alone tells half the truth. Idea: each route's attribute names one type of
//! this page, whose parts are shared as the code that answers so is shared. Rule kept: sentences stand here as examples, from
//! where the code has them; the status and the envelope are what a client may rely on.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use tradenet_schemas::rest;
use tradenet_schemas::trade::Refusal;
use utoipa::IntoResponses;
use utoipa::ToSchema as _;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::refusals;

/// A status, and a sentence that comes with it.
type Told = (StatusCode, &'static str);

const fn refused(refusal: Refusal) -> Told {
    (refusals::status(refusal), refusals::message(refusal))
}

/// By the connection, whatever is asked for.
const EDGE: &[Told] = &[
    (StatusCode::BAD_REQUEST, "this is not an HTTP/1.1 request"),
    (StatusCode::REQUEST_TIMEOUT, "the headers did not arrive in time; send the request again"),
    (StatusCode::TOO_MANY_REQUESTS, "this client sends more than 100 requests a second; send fewer"),
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the URL and the headers together must have at most 16384 bytes"),
    (StatusCode::SERVICE_UNAVAILABLE, "4096 connections are open already; try again with fewer"),
];
/// By what lies behind the edge.
const ASKED: &[Told] = &[
    (StatusCode::INTERNAL_SERVER_ERROR, "an answer got lost in this frontend; its log says more"),
    (StatusCode::SERVICE_UNAVAILABLE, "no answer in time; try again"),
];
const BODY: &[Told] = &[
    (StatusCode::BAD_REQUEST, "the body must be a JSON object"),
    (StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 5000 ms"),
    (StatusCode::PAYLOAD_TOO_LARGE, "the body must have at most 16384 bytes"),
];
const KEY: &[Told] = &[
    (StatusCode::BAD_REQUEST, "Idempotency-Key must have 1 to 255 visible ASCII characters"),
    refused(Refusal::KeyReused),
    (
        StatusCode::GATEWAY_TIMEOUT,
        "this may or may not have been done: retry with the same Idempotency-Key to learn which",
    ),
];
const PATH: &[Told] = &[(StatusCode::BAD_REQUEST, "the path must be percent-encoded UTF-8, %25 for a %")];
const QUERY: &[Told] = &[(StatusCode::BAD_REQUEST, "\"limits\" is not known here; known are limit")];
const STOCK: &[Told] = &[refused(Refusal::UnknownSymbol)];
const QUANTITY: &[Told] = &[(StatusCode::BAD_REQUEST, "quantity must be a positive whole number")];
const OWNER: &[Told] = &[refused(Refusal::Unauthorised), (StatusCode::FORBIDDEN, "this token is another account's")];
const ORDER: &[Told] = &[refused(Refusal::UnknownOrder)];

/// Types that the attributes of handlers name.
macro_rules! failures {
    ($($name:ident: $($part:expr),+;)+) => {
        $(
            pub(crate) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    of(&[$($part),+])
                }
            }
        )+
    };
}

failures! {
    AtTheEdge: EDGE;
    Ready: EDGE, &[(StatusCode::SERVICE_UNAVAILABLE, "only order-3 has every order: start it")];
    Read: EDGE, ASKED;
    ReadStock: EDGE, ASKED, PATH, STOCK;
    ReadOrder: EDGE, ASKED, PATH, &[(StatusCode::NOT_FOUND, "transaction number not found")];
    Place: EDGE, ASKED, BODY, KEY, STOCK, QUANTITY, &[
        (StatusCode::BAD_REQUEST, "invalid transaction type"),
        (StatusCode::BAD_REQUEST, "name must be the name of a stock, as text"),
        refused(Refusal::NotEnoughStocks),
        refused(Refusal::TooManyStocks),
    ];
    Follow: EDGE, ASKED, QUERY, &[
        (StatusCode::BAD_REQUEST, "Last-Event-ID must be the id of an event, or 0 for the oldest that is remembered"),
        (StatusCode::SERVICE_UNAVAILABLE, "1024 clients follow the events of this frontend; try another one"),
    ];
    ReadMarket: EDGE, ASKED, QUERY, STOCK;
    Open: EDGE, ASKED, BODY, KEY, &[
        (StatusCode::BAD_REQUEST, "account must be a name of 1 to 32 of a-z 0-9 _ -"),
        refused(Refusal::AccountTaken),
        refused(Refusal::TooManyAccounts),
    ];
    ReadAccount: EDGE, ASKED, OWNER;
    ReadAccountOrders: EDGE, ASKED, OWNER, QUERY;
    ReadAccountOrder: EDGE, ASKED, OWNER, ORDER;
    Cancel: EDGE, ASKED, OWNER, KEY, ORDER, &[refused(Refusal::OrderDone)];
    Deposit: EDGE, ASKED, OWNER, BODY, KEY, STOCK, QUANTITY, &[
        (StatusCode::BAD_REQUEST, "amount must be a positive number with at most two decimals"),
        refused(Refusal::TooMuchCash),
        refused(Refusal::TooManyStocks),
    ];
    Withdraw: EDGE, ASKED, OWNER, BODY, KEY, STOCK, QUANTITY, &[
        (StatusCode::BAD_REQUEST, "amount must be a positive number with at most two decimals"),
        refused(Refusal::InsufficientFunds),
        refused(Refusal::InsufficientStocks),
    ];
    PlaceInBook: EDGE, ASKED, OWNER, BODY, KEY, STOCK, QUANTITY, &[
        (StatusCode::BAD_REQUEST, "side must be buy or sell"),
        (StatusCode::BAD_REQUEST, "price must be a positive number with at most two decimals, at most 10000000000.00"),
        (StatusCode::BAD_REQUEST, "time_in_force must be gtc, ioc or fok"),
        (StatusCode::BAD_REQUEST, "post_only must be true or false"),
        refused(Refusal::InsufficientFunds),
        refused(Refusal::InsufficientStocks),
        refused(Refusal::WouldCross),
        refused(Refusal::TooManyOpenOrders),
        refused(Refusal::TooManyFills),
    ];
}

/// One response a status, with its sentences as examples.
fn of(parts: &[&[Told]]) -> BTreeMap<String, RefOr<Response>> {
    let mut told: BTreeMap<StatusCode, Vec<&'static str>> = BTreeMap::new();
    for (status, message) in parts.iter().copied().flatten() {
        told.entry(*status).or_default().push(message);
    }
    told.into_iter()
        .map(|(status, messages)| (status.as_str().to_owned(), response(status, &messages).into()))
        .collect()
}

fn response(status: StatusCode, messages: &[&str]) -> Response {
    let schema = Ref::from_schema_name(rest::Failure::name());
    let example = |message| {
        let body = serde_json::json!({"error": {"code": status.as_u16(), "message": message}});
        ExampleBuilder::new().value(Some(body)).build()
    };
    let examples = (1..).zip(messages).map(|(number, message)| (number.to_string(), example(message)));
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples);
    let description = status.canonical_reason().unwrap_or_default();
    let response = ResponseBuilder::new().description(description).content("application/json", content.build());
    let header = |kind, description| {
        HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(kind).build()))
            .description(Some(description))
            .build()
    };
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            response.header("Retry-After", header(Type::Integer, "When to come back, in seconds"))
        }
        StatusCode::UNAUTHORIZED => response.header("WWW-Authenticate", header(Type::String, "`Bearer`")),
        _ => response,
    }
    .build()
}
