//! The few requests that the operator's commands make of a frontend: one request, one answer, on a connection of its own.
//!
//! The rules: every request ends, within the time it is given; an answer is bounded; and where there is none, it is said
//! whether the request can have reached anybody.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// What [`get`] asks for is answered from a frontend's memory; slower than this counts as no answer.
const ANSWER_WAIT_MAX_MS: u64 = 1_000;
/// The list of all stocks is the longest answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
const PORT_DEFAULT: u16 = 80;

/// Where a frontend is: `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    host: String,
    port: u16,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{why}; a frontend's address looks like http://127.0.0.1:8080");
        let uri: Uri = text.parse().map_err(|_| bad("not an address"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("frontends speak plain HTTP")),
            _ => return Err(bad("http:// is missing")),
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| bad("it names no host"))?;
        if uri.path() != "/" || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(bad("only a host and a port are wanted"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default().strip_prefix(':') {
            None => PORT_DEFAULT,
            Some(port) => port.parse().map_err(|_| bad("its port is no number below 65536"))?,
        };
        Ok(Self { host: authority.host().to_owned(), port })
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        let host = if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() };
        Self { host, port: address.port() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// `GET`, `POST`
    pub(crate) method: Method,
    /// Path and query, encoded.
    pub(crate) path: String,
    /// The value of `Idempotency-Key`.
    pub(crate) key: Option<String>,
    /// A JSON body; empty for none.
    pub(crate) body: Bytes,
}

impl Ask {
    /// For what anybody may read.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), key: None, body: Bytes::new() }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 200, 503, …
    pub(crate) status: u16,
    /// As sent.
    pub(crate) headers: HeaderMap,
    /// As sent.
    pub(crate) body: Bytes,
}

/// Why there is no whole answer, to stand in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Nothing was sent.
    #[error("{0}")]
    NotSent(String),
    /// It may have been carried out or not.
    #[error("{0}")]
    CutOff(String),
}

/// Asks the frontend at `address` for `path`. The error says what came of it, to stand in a sentence.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    let within = Duration::from_millis(ANSWER_WAIT_MAX_MS);
    call(&address.into(), &Ask::get(path), within).await.map_err(|broken| broken.to_string())
}

/// Asks, and waits for the whole answer, `within` that time.
///
/// # Errors
/// See [`Broken`].
pub(crate) async fn call(origin: &Origin, ask: &Ask, within: Duration) -> Result<Answer, Broken> {
    let until = Instant::now() + within;
    let late = || format!("no answer within {} ms", within.as_millis());
    let not_sent = |error: &dyn fmt::Display| Broken::NotSent(error.to_string());
    let cut_off = |error: &dyn fmt::Display| Broken::CutOff(format!("the answer was cut off ({error})"));
    let host = origin.host.trim_start_matches('[').trim_end_matches(']');
    let stream = timeout_at(until, TcpStream::connect((host, origin.port))).await;
    let stream = stream.map_err(|_| not_sent(&late()))?.map_err(|error| not_sent(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| not_sent(&error))?;
    let request = request(origin, ask).map_err(|error| not_sent(&error))?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(|error| cut_off(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| cut_off(&error))?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    };
    // The connection's own end reaches the answer as well; here it only has to be driven.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = timeout_at(until, answer) => answer.unwrap_or_else(|_| Err(Broken::CutOff(late()))),
        never = driven => never,
    }
}

fn request(origin: &Origin, ask: &Ask) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::builder()
        .method(&ask.method)
        .uri(&ask.path)
        .header(HOST, format!("{}:{}", origin.host, origin.port))
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close");
    if let Some(key) = &ask.key {
        request = request.header("Idempotency-Key", key);
    }
    if !ask.body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(ask.body.clone()))
}

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => path.push(char::from(byte)),
            byte => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        let check = |text: &str, expected: Result<&str, &str>| match (text.parse::<Origin>(), expected) {
            (Ok(origin), Ok(shown)) => assert_eq!(origin.to_string(), shown),
            (Err(error), Err(part)) => assert!(error.contains(part), "{text:?}: {error}"),
            (got, _) => panic!("{text:?}: {got:?}"),
        };
        check("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080"));
        check("http://exchange.test/", Ok("http://exchange.test:80"));
        check("http://[::1]:8080", Ok("http://[::1]:8080"));
        check("https://127.0.0.1:8080", Err("plain HTTP"));
        check("127.0.0.1:8080", Err("http://"));
        check("localhost", Err("http://"));
        check("http://a:8080/stocks", Err("only a host"));
        check("http://a:8080/?x", Err("only a host"));
        check("http://me@a:8080", Err("only a host"));
        check("http://a:99999", Err("port"));
        check("http://a:", Err("port"));
        check("http://:8080", Err("host"));
        check("", Err("not an address"));
    }

    #[test]
    fn a_name_is_one_segment_of_a_path_whatever_it_is() {
        assert_eq!(segment("GameStart-1"), "GameStart-1");
        assert_eq!(segment("a?b#c%d/e\"ü"), "a%3Fb%23c%25d%2Fe%22%C3%BC");
    }

    #[tokio::test]
    async fn only_a_whole_answer_is_one() {
        async fn check(bytes: &'static str, expected: Option<(u16, &str)>) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(bytes.as_bytes()).await.unwrap();
            };
            let within = Duration::from_secs(60);
            let (origin, ask) = (address.into(), Ask::get("/"));
            let (answer, ()) = tokio::join!(call(&origin, &ask, within), server);
            match (answer, expected) {
                (Ok(answer), Some((status, body))) => {
                    assert_eq!((answer.status, &answer.body[..]), (status, body.as_bytes()), "{bytes:?}");
                }
                (Err(Broken::CutOff(_)), None) => {}
                (got, _) => panic!("{bytes:?}: {got:?}"),
            }
        }
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Some((200, "{}"))).await;
        check("HTTP/1.0 503 Service Unavailable\r\n\r\n", Some((503, ""))).await;
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None).await;
        check("HTTP/1.1 200 OK\r\n", None).await;
        check("INFO {}\r\n\r\n", None).await;
        check("", None).await;
    }

    #[tokio::test]
    async fn whether_anything_was_sent_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = call(&address.into(), &Ask::get("/"), Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(silent, Broken::CutOff("no answer within 20 ms".to_owned()));
        drop(listener);
        let refused = call(&address.into(), &Ask::get("/"), Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(refused, Broken::NotSent(_)), "{refused:?}");
    }
}
