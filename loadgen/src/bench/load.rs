//! The load of a measurement: as little client as can be, since it shares the core with what is measured.
//!
//! Requests are bytes that were made beforehand, and of an answer only status and length are read. What is sent is not
//! verified here; `loadgen run` does that.
//!
//! The rule: the client does not take the core from whoever answers it. It would be woken by each answer; whether it then runs at
//! once, at the price of two switches of tasks for each answer, or when all answers are out, is Linux's choice, and hangs on such things
//! as how many threads the server has.

use std::panic::resume_unwind;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use rustix::thread::gettid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep_until;

use super::cases::Ask;

/// The largest head and body that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The most fields of a head that is read.
const FIELDS_MAX: usize = 32;
/// After so many turns a client begins again.
const TURNS: usize = 50;
/// The highest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// When requests begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// When the one before has been answered.
    Closed,
    /// So many a second over all connections, and latency counts from then.
    Open(f64),
}

/// What a window showed.
pub(super) struct Window {
    /// Latencies in microseconds.
    pub(super) latencies: Histogram<u64>,
    pub(super) took: Duration,
}

/// Keeps so many connections busy, and so many idle besides, for `warmup` and `measured`. `at_edge` is called at both edges of what
/// is measured.
pub(super) fn run(
    ports: &[u16],
    ask: Ask,
    connections: (usize, usize),
    pace: Pace,
    spans: (Duration, Duration),
    at_edge: impl FnMut() + Send,
) -> anyhow::Result<Window> {
    // A thread of its own, since who is started by this one later is not to give way.
    let load = || {
        give_way()?;
        make(ports, ask, connections, pace, spans, at_edge)
    };
    std::thread::scope(|scope| scope.spawn(load).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Puts this thread into the class `batch` (sched(7)): being woken, it does not take the core from anybody.
fn give_way() -> anyhow::Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let given = Command::new("chrt").args(["--batch", "--pid", "0", &thread]).status();
    ensure!(given.context("chrt, which makes the client give way")?.success(), "chrt: the client can't give way");
    Ok(())
}

fn make(
    ports: &[u16],
    ask: Ask,
    (connections, idle): (usize, usize),
    pace: Pace,
    (warmup, measured): (Duration, Duration),
    mut at_edge: impl FnMut(),
) -> anyhow::Result<Window> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut sockets = Vec::new();
        for number in 0..connections {
            let socket = TcpStream::connect(("127.0.0.1", ports[number % ports.len()])).await?;
            socket.set_nodelay(true)?;
            sockets.push(socket);
        }
        let mut idlers = Vec::new();
        for number in 0..idle {
            idlers.push(TcpStream::connect(("127.0.0.1", ports[number % ports.len()])).await?);
        }
        let latencies = Arc::new(Mutex::new(Histogram::new_with_max(LATENCY_US_MAX, 3)?));
        let turns: Arc<[Vec<String>]> = (0..TURNS).map(|turn| ask.requests(turn)).collect();
        let start = Instant::now();
        let (from, until) = (start + warmup, start + warmup + measured);
        let clients = sockets.into_iter().zip(0..).map(|(socket, turn)| {
            let schedule = match pace {
                Pace::Closed => None,
                Pace::Open(rate) => {
                    let every = Duration::from_secs_f64(connections as f64 / rate);
                    Some((start + every.mul_f64(turn as f64 / connections as f64), every))
                }
            };
            let (turns, latencies) = (Arc::clone(&turns), Arc::clone(&latencies));
            tokio::spawn(Client { socket, turn, turns, schedule, latencies }.work(from, until))
        });
        let clients: Vec<_> = clients.collect();
        sleep_until(from.into()).await;
        at_edge();
        sleep_until(until.into()).await;
        at_edge();
        for client in clients {
            client.await??;
        }
        drop(idlers);
        let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Window { latencies, took: measured })
    })
}

struct Client {
    socket: TcpStream,
    turn: usize,
    turns: Arc<[Vec<String>]>,
    /// When the next request begins, and the time between two.
    schedule: Option<(Instant, Duration)>,
    /// Of all clients, who take turns on one thread.
    latencies: Arc<Mutex<Histogram<u64>>>,
}

impl Client {
    async fn work(mut self, from: Instant, until: Instant) -> anyhow::Result<()> {
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        loop {
            let begin = match &mut self.schedule {
                Some((next, every)) => {
                    let begin = *next;
                    *next += *every;
                    sleep_until(begin.into()).await;
                    begin
                }
                None => Instant::now(),
            };
            if begin >= until {
                return Ok(());
            }
            for request in &self.turns[self.turn % TURNS] {
                let begin = if self.schedule.is_some() { begin } else { Instant::now() };
                self.socket.write_all(request.as_bytes()).await?;
                answer(&mut self.socket, &mut buffer).await?;
                let now = Instant::now();
                if begin >= from && now <= until {
                    let us = u64::try_from((now - begin).as_micros()).unwrap_or(u64::MAX);
                    self.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us);
                }
            }
            self.turn += 1;
        }
    }
}

/// Reads one answer to its end.
async fn answer(socket: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut have = 0;
    loop {
        let read = socket.read(&mut buffer[have..]).await?;
        ensure!(read > 0, "the server closed a connection");
        have += read;
        if length(&buffer[..have])?.is_some_and(|whole| have >= whole) {
            return Ok(());
        }
    }
}

/// The length of head and body, once the head is whole.
fn length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer)? else { return Ok(None) };
    let status = head.code.unwrap_or_default();
    ensure!(status == 200, "answered with {status} {}", head.reason.unwrap_or_default());
    let mut fields = head.headers.iter();
    let body = fields.find(|field| field.name.eq_ignore_ascii_case("content-length")).context("no content-length")?;
    Ok(Some(length + std::str::from_utf8(body.value)?.trim().parse::<usize>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let check =
            |text: &str, expected: Option<usize>| assert_eq!(length(text.as_bytes()).ok(), Some(expected), "{text}");
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", None);
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Some(40));
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Some(40));
        assert!(length(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
    }
}
