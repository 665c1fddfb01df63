//! `GET /openapi.json`, and `GET /docs`: the same for people, without anything from the internet.
//!
//! The page is three small files of ours that show the document in a browser. The well-known viewers are 1 to 4 MB of other
//! people's scripts each, in the repository and in the program, or come from another host; this document needs none of what
//! they do besides. How they are served: [`crate::assets`].

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::assets::{CSS, HTML, SCRIPT, file};
use crate::envelope::JSON;
use crate::failures;
use crate::openapi::{IfNoneMatch, OPERATION, Unchanged};
use crate::routes::Edge;
use crate::validators::tagged;

/// The routes of this page.
pub(crate) fn routes() -> OpenApiRouter<Arc<Edge>> {
    OpenApiRouter::new().routes(routes!(document)).routes(routes!(page)).routes(routes!(script)).routes(routes!(style))
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = OPERATION,
    params(IfNoneMatch),
    responses(
        (status = 200, description = "An OpenAPI 3.1 document", body = serde_json::Value, content_type = "application/json"),
        Unchanged,
        failures::AtTheEdge
    )
)]
async fn document(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Response {
    tagged(&headers, JSON, edge.document.clone())
}

/// This document as a page for people
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = OPERATION,
    params(IfNoneMatch),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), Unchanged, failures::AtTheEdge)
)]
async fn page(headers: HeaderMap) -> Response {
    file(&headers, HTML, include_str!("docs/page.html"))
}

/// The script of the page
#[utoipa::path(
    get,
    path = "/docs/page.js",
    operation_id = "docs_script",
    tag = OPERATION,
    params(IfNoneMatch),
    responses((status = 200, description = "It", body = String, content_type = "text/javascript"), Unchanged, failures::AtTheEdge)
)]
async fn script(headers: HeaderMap) -> Response {
    file(&headers, SCRIPT, include_str!("docs/page.js"))
}

/// The style of the page
#[utoipa::path(
    get,
    path = "/docs/page.css",
    operation_id = "docs_style",
    tag = OPERATION,
    params(IfNoneMatch),
    responses((status = 200, description = "It", body = String, content_type = "text/css"), Unchanged, failures::AtTheEdge)
)]
async fn style(headers: HeaderMap) -> Response {
    file(&headers, CSS, include_str!("docs/page.css"))
}
