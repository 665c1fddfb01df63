//! A client's connection, as hyper sees it.
//!
//! hyper answers a head that it can't read by itself, without a body, and ends in silence when a head takes too long. The
//! contract wants the envelope on every answer. So [`Connection`] lies between hyper and the socket and holds back hyper's
//! own answers, and the server speaks the last words itself ([`Connection::farewell`]).
//!
//! The rules: an answer of ours passes untouched, at the cost of comparing its last four bytes; a client that stops
//! reading is cut off; a connection is closed only after the client had the chance to read what was sent last.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::envelope::Failure;
use crate::limits::{HEAD_BYTES_MAX, LINGER_BYTES_MAX, LINGER_MS, Limits};

/// How hyper's own answers begin.
const ANSWER_START: &[u8] = b"HTTP/1.1 ";
/// What marks hyper's own answers: none of ours is empty.
const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// A socket that hyper may read from and write to.
pub(crate) struct Connection {
    socket: TokioIo<TcpStream>,
    held_back: Option<StatusCode>,
    stall: Duration,
    /// What is left of `stall` once `closing` has changed.
    leave_stall: Duration,
    closing: watch::Receiver<()>,
    /// Since when the client takes nothing, and the wait for its end.
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Connection {
    /// Cuts the client off when it has taken nothing for [`Limits::write_stall`] while there is something to take; once
    /// `closing` has changed, for [`Limits::leave_stall`].
    pub(crate) fn new(socket: TcpStream, limits: &Limits, closing: watch::Receiver<()>) -> Self {
        let Limits { write_stall: stall, leave_stall, .. } = *limits;
        Self { socket: TokioIo::new(socket), held_back: None, stall, leave_stall, closing, stalled: None }
    }

    /// The failure to tell about a request that never came to be, if hyper wanted to answer one.
    pub(crate) fn held_back(&self) -> Option<Failure> {
        let status = self.held_back?;
        Some(match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => Failure::new(
                status,
                format!("the URL and the headers together must have at most {HEAD_BYTES_MAX} bytes"),
            ),
            _ => Failure::new(status, "this is not an HTTP/1.1 request"),
        })
    }

    /// Says the last words, if there are any, and closes. Ends by itself in little more than [`LINGER_MS`].
    ///
    /// The socket is not just dropped: with something unread in it, that would send a reset, which can overtake the last
    /// answer and make the client lose it.
    pub(crate) async fn farewell(self, words: Option<Failure>) {
        let mut socket = self.socket.into_inner();
        let closed = async {
            if let Some(words) = words {
                socket.write_all(&words.last_words()).await?;
            }
            socket.shutdown().await?;
            let mut dropped = [0_u8; 4096];
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                match socket.read(&mut dropped).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            io::Result::Ok(())
        };
        // However this ends, the connection is over.
        let _ = timeout(Duration::from_millis(LINGER_MS), closed).await;
    }

    /// Turns "the client takes nothing" into an error once it has lasted too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        // Its sender is gone when the server is.
        let leaving = self.closing.has_changed().unwrap_or(true);
        let stall = if leaving { self.leave_stall } else { self.stall };
        let now = Instant::now();
        let (since, end) = self.stalled.get_or_insert_with(|| (now, Box::pin(sleep_until(now + stall))));
        if end.deadline() != *since + stall {
            end.as_mut().reset(*since + stall);
        }
        end.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Where hyper's own answer begins in what it writes, and with which status.
fn own_answer(written: &[u8]) -> Option<(usize, StatusCode)> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let start = written.windows(ANSWER_START.len()).rposition(|window| window == ANSWER_START)?;
    let answer = &written[start..];
    let status = StatusCode::from_bytes(answer.get(ANSWER_START.len()..ANSWER_START.len() + 3)?).ok()?;
    let empty = answer.windows(EMPTY.len()).any(|window| window == EMPTY);
    (status.is_client_error() && empty).then_some((start, status))
}

impl Read for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(context, bytes)
    }
}

impl Write for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let passed = match own_answer(bytes) {
            Some((0, status)) => {
                this.held_back = Some(status);
                return Poll::Ready(Ok(bytes.len()));
            }
            // First the answer before it; hyper comes again with the rest.
            Some((start, _)) => &bytes[..start],
            None => bytes,
        };
        let written = Pin::new(&mut this.socket).poll_write(context, passed);
        this.watch(context, written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    /// Does nothing: there may be last words to say.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_answer_to_a_bad_head_is_held_back() {
        let check = |written: &str, expected: Option<(usize, u16)>| {
            let found = own_answer(written.as_bytes()).map(|(start, status)| (start, status.as_u16()));
            assert_eq!(found, expected, "{written:?}");
        };
        let bad = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        check(bad, Some((0, 400)));
        check(&format!("{good}{bad}"), Some((good.len(), 400)));
        check(good, None);
        check("HTTP/1.1 100 Continue\r\n\r\n", None);
        check("HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n", None);
        check("", None);
    }
}
