//! The OpenAPI document of this edge, which `GET /openapi.json` serves and `schemas/openapi.json` keeps.
//!
//! Problem: a document beside the code is wrong after the next change. Idea: a route exists only by the attribute that
//! documents it ([`crate::routes::table`]), its parameters are those it is read by ([`crate::query`]), and the bounds of values
//! are the constants that keep them (`tradenet_schemas::rest::openapi`). Rule kept: what is committed is what is served, which a
//! test compares; `TRADENET_BLESS=1` has it written anew.

use std::collections::BTreeMap;

use tradenet_schemas::rest;
use tradenet_schemas::trade::IdempotencyKey;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder, ServerBuilder,
};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::limits::NUMBER_MAX;

/// What requests are about, as tags.
pub(crate) const STOCKS: &str = "stocks";
pub(crate) const HOUSE: &str = "house";
pub(crate) const ACCOUNTS: &str = "accounts";
pub(crate) const OPERATION: &str = "operation";

const ABOUT: &str = "\
A success is `{\"data\": …}`, a failure `{\"error\": {\"code\": STATUS, \"message\": \"…\"}}`, always. Prices are numbers with two \
decimals, quantities whole numbers. An answered trade is on disk on every in-sync replica, and is seen by every later \
read through any frontend.

Send an `Idempotency-Key` with each request that changes something, and after 503, 504 or a broken connection send the same \
again with the same key: it happens once.

`HEAD` works wherever `GET` does. Another method is answered 405, another URL 404.";

/// What the routes are put into.
pub(crate) fn about() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    let info = InfoBuilder::new().title("Trade-Net").version(env!("CARGO_PKG_VERSION"));
    let info = info.description(Some(ABOUT)).license(Some(license)).build();
    let tag = |name, about| TagBuilder::new().name(name).description(Some(about)).build();
    let tags = [
        tag(STOCKS, "What is traded, its book, its trades, and what happens"),
        tag(HOUSE, "Trading with the house at its price"),
        tag(ACCOUNTS, "Accounts, and trading with each other in a book per stock"),
        tag(OPERATION, "Looking after the exchange"),
    ];
    let here = ServerBuilder::new().url("/").description(Some("This frontend")).build();
    let mut document = OpenApiBuilder::new().info(info).tags(Some(tags)).servers(Some([here])).build();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("The token that `POST /accounts` has answered")).build();
    let mut components = Components::new();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    document.components = Some(components);
    document
}

/// Adds what no route names by itself: the failure, and the events of a stream.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    let mut schemas = Vec::new();
    add::<rest::Failure>(&mut schemas);
    add::<IdempotencyKey>(&mut schemas);
    add::<rest::feed::Traded<'_>>(&mut schemas);
    add::<rest::feed::StockChanged<'_>>(&mut schemas);
    add::<rest::feed::Leadership>(&mut schemas);
    add::<rest::feed::Gap>(&mut schemas);
    add::<rest::feed::End>(&mut schemas);
    document.components.get_or_insert_default().schemas.extend(schemas);
    document
}

type Schemas = Vec<(String, RefOr<utoipa::openapi::Schema>)>;

fn add<T: ToSchema>(schemas: &mut Schemas) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// The document as it is served and kept.
pub(crate) fn written(document: &OpenApi) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("plain data serializes into memory");
    text.push('\n');
    text
}

/// `Idempotency-Key`
pub(crate) struct Key;

impl IntoParams for Key {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "Makes the request happen once, however often it is sent: the same key and body get the first success \
                     again. At least the newest 100,000 keys are kept";
        vec![header("Idempotency-Key", about, Ref::from_schema_name(IdempotencyKey::name()))]
    }
}

/// `If-None-Match`
pub(crate) struct IfNoneMatch;

impl IntoParams for IfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        vec![header("If-None-Match", "`ETag`s that the client has answers for, or `*`", text)]
    }
}

/// `Last-Event-ID`
pub(crate) struct LastEventId;

impl IntoParams for LastEventId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(NUMBER_MAX));
        vec![header("Last-Event-ID", "The last event that the client has; 0 for the oldest that is remembered", number)]
    }
}

fn header(name: &str, about: &str, schema: impl Into<RefOr<utoipa::openapi::Schema>>) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::False);
    parameter.description(Some(about)).schema(Some(schema)).build()
}

/// 304
pub(crate) struct Unchanged;

impl IntoResponses for Unchanged {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let tag = HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String).build())).build();
        let response = ResponseBuilder::new().description("The same as the client has").header("ETag", tag).build();
        BTreeMap::from([("304".to_owned(), response.into())])
    }
}

#[cfg(test)]
mod tests;
