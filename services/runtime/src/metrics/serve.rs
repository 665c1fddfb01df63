//! The listener of a service that has no other: `GET /metrics`, `GET /healthz`.
//!
//! The problem: replicas and catalogs speak to the broker alone, but who scrapes speaks HTTP. The idea: a small server beside
//! the driver, on an address of its own. The rules: it is off unless an address is given; whatever a client does ends at a
//! bound below; nothing that happens here reaches the driver but a question that it may leave unanswered.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::Scraper;

/// Connections at once; who comes next is closed without a word.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection lasts at most, in milliseconds; a scraper connects again.
const CONNECTION_MS: u64 = 120_000;
/// From the start of the connection, or the last answer, to the end of a request's headers, in milliseconds.
const HEAD_READ_MS: u64 = 60_000;
/// A request's first line and headers, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// An address that cannot be had is tried again so often, in milliseconds.
const LISTEN_RETRY_MS: u64 = 100;
/// And is not complained of for so long, in milliseconds.
const TAKEN_QUIETLY_MS: u64 = 1_000;
/// After a failed accept the next try comes so much later, in milliseconds.
const ACCEPT_BACKOFF_MS: u64 = 100;

/// Where a service shows itself.
#[derive(Clone, Debug, clap::Args)]
pub struct MetricsArgs {
    /// Serve GET /metrics (OpenMetrics) and GET /healthz on this address; port 0 takes any free one [default: nowhere].
    #[arg(long, env = "TRADENET_METRICS", value_name = "ADDR", value_parser = address)]
    // Compose sets what is not wanted to nothing.
    pub metrics: Option<Address>,
}

/// An address to listen on, or none at all for an empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub Option<SocketAddr>);

fn address(text: &str) -> Result<Address, String> {
    match text {
        "" => Ok(Address(None)),
        text => text.parse().map(|address| Address(Some(address))).map_err(|_| "write it as 127.0.0.1:9100".to_owned()),
    }
}

impl MetricsArgs {
    /// Serves in the background for as long as the process runs, if an address was given. An address that cannot be had now
    /// is tried again and again: nobody stops trading for want of a graph.
    pub fn serve(&self, scraper: Scraper) {
        if let Some(Address(Some(address))) = self.metrics {
            tokio::spawn(async move { accept(listen(address).await, scraper).await });
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let began = Instant::now();
    let mut complained = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!("serving metrics on http://{address}/metrics");
                return listener;
            }
            // Whoever held the address for this process may hold it a moment longer.
            Err(error) if !complained && began.elapsed() >= Duration::from_millis(TAKEN_QUIETLY_MS) => {
                warn!(
                    "no metrics yet: cannot listen on {address} ({error}); free it, or choose another with --metrics"
                );
                complained = true;
            }
            Err(_) => {}
        }
        sleep(Duration::from_millis(LISTEN_RETRY_MS)).await;
    }
}

async fn accept(listener: TcpListener, scraper: Scraper) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut complained = false;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                complained = false;
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let scraper = scraper.clone();
                    tokio::spawn(async move {
                        let served = timeout(Duration::from_millis(CONNECTION_MS), attend(socket, scraper)).await;
                        debug!("a scraper's connection ended: {served:?}");
                        drop(place);
                    });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !complained {
                    warn!("no scraper can connect: {error}; trying on, see `ulimit -n`");
                    complained = true;
                }
                sleep(Duration::from_millis(ACCEPT_BACKOFF_MS)).await;
            }
        }
    }
}

async fn attend(socket: TcpStream, scraper: Scraper) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let scraper = scraper.clone();
        async move { Ok::<_, Infallible>(answer(&request, &scraper).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(HEAD_READ_MS));
    http.max_buf_size(HEAD_BYTES_MAX);
    http.serve_connection(TokioIo::new(socket), service).await
}

async fn answer(request: &Request<Incoming>, scraper: &Scraper) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, text) = match request.uri().path() {
        "/metrics" | "/healthz" if !get => {
            (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is served here\n".to_owned())
        }
        "/metrics" => match scraper.text(|_| {}).await {
            Ok(text) => (StatusCode::OK, super::CONTENT_TYPE, text),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{error}\n")),
        },
        // Alive is who answers a scrape: the loop goes round.
        "/healthz" => match scraper.text(|_| {}).await {
            Ok(_) => (StatusCode::OK, PLAIN, "alive\n".to_owned()),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{error}\n")),
        },
        _ => (StatusCode::NOT_FOUND, PLAIN, "GET /metrics or GET /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
    }
    response
}
