//! The few requests that the operator's commands make of a frontend: one GET, one answer.
//!
//! HTTP/1.0 on a connection of its own: the answer then ends where the connection does, and no client library is needed
//! to say so. The rule: every request ends, after a second at the latest, and holds a bounded answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is asked for here is answered from a frontend's memory; slower than this counts as no answer.
const ANSWER_WAIT_MAX_MS: u64 = 1_000;
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// 200, 503, …
    pub(crate) status: u16,
    /// As sent.
    pub(crate) body: Vec<u8>,
}

/// Asks the frontend at `address` for `path`. The error says what came of it, to stand in a sentence.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    match tokio::time::timeout(Duration::from_millis(ANSWER_WAIT_MAX_MS), exchange(address, path)).await {
        Err(_) => Err(format!("no answer within {ANSWER_WAIT_MAX_MS} ms")),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(bytes)) => parse(&bytes).ok_or_else(|| "not an HTTP answer".to_owned()),
    }
}

async fn exchange(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next()?.parse().ok()?;
    Some(Answer { status, body: bytes[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_head_of_http_1_is_an_answer() {
        fn check(bytes: &str, expected: Option<(u16, &str)>) {
            let answer = parse(bytes.as_bytes()).map(|answer| (answer.status, answer.body));
            assert_eq!(answer, expected.map(|(status, body)| (status, body.as_bytes().to_vec())), "{bytes:?}");
        }
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Some((200, "{}")));
        check("HTTP/1.0 503 Service Unavailable\r\n\r\n", Some((503, "")));
        check("HTTP/1.1 200 OK\r\n", None);
        check("INFO {}\r\n\r\n", None);
        check("HTTP/1.1 many\r\n\r\n", None);
        check("", None);
    }
}
