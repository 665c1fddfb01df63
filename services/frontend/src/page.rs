//! `GET /`: the exchange as people see it, live.
//!
//! Three files of ours and an icon; what they show comes from the requests that everybody may send (`/stocks`, `/events`,
//! `/cluster`, …), so the page can do nothing that a client could not. `docs/page.md` says how it works.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::assets::{CSS, HTML, SCRIPT, SVG, file};
use crate::failures;
use crate::openapi::{IfNoneMatch, OPERATION, Unchanged};
use crate::routes::Edge;

/// The routes of this page.
pub(crate) fn routes() -> OpenApiRouter<Arc<Edge>> {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(script)).routes(routes!(style)).routes(routes!(icon))
}

/// The market and the cluster, live, as a page for people
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page",
    tag = OPERATION,
    params(IfNoneMatch),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), Unchanged, failures::AtTheEdge)
)]
async fn page(headers: HeaderMap) -> Response {
    file(&headers, HTML, include_str!("page/page.html"))
}

/// The script of the live page
#[utoipa::path(
    get,
    path = "/page.js",
    operation_id = "page_script",
    tag = OPERATION,
    params(IfNoneMatch),
    responses((status = 200, description = "It", body = String, content_type = "text/javascript"), Unchanged, failures::AtTheEdge)
)]
async fn script(headers: HeaderMap) -> Response {
    file(&headers, SCRIPT, include_str!("page/page.js"))
}

/// The style of the live page
#[utoipa::path(
    get,
    path = "/page.css",
    operation_id = "page_style",
    tag = OPERATION,
    params(IfNoneMatch),
    responses((status = 200, description = "It", body = String, content_type = "text/css"), Unchanged, failures::AtTheEdge)
)]
async fn style(headers: HeaderMap) -> Response {
    file(&headers, CSS, include_str!("page/page.css"))
}

/// The icon of the live page
#[utoipa::path(
    get,
    path = "/page.svg",
    operation_id = "page_icon",
    tag = OPERATION,
    params(IfNoneMatch),
    responses((status = 200, description = "It", body = String, content_type = "image/svg+xml"), Unchanged, failures::AtTheEdge)
)]
async fn icon(headers: HeaderMap) -> Response {
    file(&headers, SVG, include_str!("page/page.svg"))
}
