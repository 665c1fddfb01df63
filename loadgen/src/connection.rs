//! One keep-alive HTTP/1.1 connection, and what can go wrong on it.
//!
//! A pool would hide which request waited for a connection, and a load generator must know. So a client owns exactly
//! one connection, opens it when needed and drops it whenever an answer did not arrive whole: a late answer can then
//! never be taken for the next request's.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::url::BaseUrl;

/// Largest answer that is read: the list of all stocks is the longest of this contract.
const MAX_BODY: usize = 16 << 20;

/// What is sent.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Path only, already encoded.
    pub(crate) path: &'a str,
    /// The value of `Idempotency-Key`.
    pub(crate) key: Option<&'a str>,
    /// What an account's owner calls with.
    pub(crate) token: Option<&'a str>,
    /// A JSON body; empty for none.
    pub(crate) body: Bytes,
}

impl<'a> Call<'a> {
    /// Asks for a path, for everybody.
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, key: None, token: None, body: Bytes::new() }
    }
}

/// A whole answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// No whole answer arrived. The request may or may not have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// No connection could be opened.
    Refused,
    /// The connection ended before the answer was whole.
    Closed,
    /// The time for one attempt was over.
    TimedOut,
    /// The answer is larger than `MAX_BODY`.
    TooLarge,
}

/// A client's connection to one frontend.
pub(crate) struct Connection {
    url: BaseUrl,
    sender: Option<SendRequest<Full<Bytes>>>,
    opened: u64,
}

impl Connection {
    /// Nothing is opened yet.
    pub(crate) fn new(url: BaseUrl) -> Self {
        Self { url, sender: None, opened: 0 }
    }

    /// How many TCP connections were opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Sends `call` and waits for the whole answer, both within `limit`.
    pub(crate) async fn call(&mut self, call: &Call<'_>, limit: Duration) -> Result<Answer, Broken> {
        timeout(limit, self.call_unbounded(call)).await.unwrap_or(Err(Broken::TimedOut))
    }

    async fn call_unbounded(&mut self, call: &Call<'_>) -> Result<Answer, Broken> {
        // Taken out, so that a call given up half-way leaves no connection behind.
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.open().await?,
        };
        let request = self.request(call).map_err(|_| Broken::Closed)?;
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failed) => {
                // Handed back: not one byte of it was written, for the server had ended the idle connection. That is
                // keep-alive at work and no failure; a new connection gets its one chance.
                let request = failed.take_message().ok_or(Broken::Closed)?;
                sender = self.open().await?;
                sender.send_request(request).await.map_err(|_| Broken::Closed)?
            }
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() { Broken::TooLarge } else { Broken::Closed }
        })?;
        self.sender = Some(sender);
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    async fn open(&mut self) -> Result<SendRequest<Full<Bytes>>, Broken> {
        let stream = TcpStream::connect(self.url.endpoint()).await.map_err(|_| Broken::Refused)?;
        // Small requests must not wait for the acknowledgement of the one before (Nagle).
        stream.set_nodelay(true).map_err(|_| Broken::Refused)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Broken::Refused)?;
        self.opened += 1;
        // Ends with the connection, whose sender this client owns; its error reaches the sender as well.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok(sender)
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder().method(&call.method).uri(call.path).header(HOST, self.url.authority());
        if let Some(key) = call.key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(token) = call.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.body(Full::new(call.body.clone()))
    }
}
