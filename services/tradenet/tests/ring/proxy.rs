//! A broker that one service hears something else from: stands between that service and the broker.
//!
//! It speaks just enough of the NATS protocol to tell one message from the next. A message waits, so that all others
//! overtake it, or holds something else, as its test wants it; what the service says itself goes on as it comes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a message to the service.
pub(crate) enum Fate {
    AsItIs,
    Late(Duration),
    /// It holds this, with the headers that it had.
    Instead(Vec<u8>),
}

/// Listens until its test ends.
pub(crate) struct Proxy {
    address: String,
    changed: Arc<AtomicU64>,
}

impl Proxy {
    /// Stands before the broker at `url`. `fate` is asked for each message, by its subject and what it holds.
    pub(crate) fn start(url: &str, fate: impl Fn(&str, &[u8]) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (changed, broker) = (Arc::new(AtomicU64::new(0)), url.trim_start_matches("nats://").to_owned());
        let (counter, fate) = (Arc::clone(&changed), Arc::new(fate));
        std::thread::spawn(move || {
            while let Ok((service, _)) = listener.accept() {
                let Ok(broker) = TcpStream::connect(&broker) else { return };
                let (from, to) = (service.try_clone().unwrap(), broker.try_clone().unwrap());
                std::thread::spawn(move || pass_on(from, to));
                let (counter, fate) = (Arc::clone(&counter), Arc::clone(&fate));
                std::thread::spawn(move || change(broker, service, &*fate, &counter));
            }
        });
        Self { address, changed }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// How many messages did not come as they were so far.
    pub(crate) fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// Passes the broker's messages on until either side ends.
fn change(broker: TcpStream, service: TcpStream, fate: impl Fn(&str, &[u8]) -> Fate, counter: &AtomicU64) {
    let _ = service.set_nodelay(true);
    let mut broker = BufReader::new(broker);
    let service = Arc::new(Mutex::new(service));
    while let Ok(operation) = next(&mut broker) {
        let fate = operation.holds.as_ref().map(|range| fate(&operation.subject(), &operation.bytes[range.clone()]));
        let fate = fate.unwrap_or(Fate::AsItIs);
        if !matches!(fate, Fate::AsItIs) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let bytes = match fate {
            Fate::AsItIs => operation.bytes,
            Fate::Instead(holds) => operation.with(&holds),
            Fate::Late(delay) => {
                let service = Arc::clone(&service);
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    let _ = service.lock().unwrap().write_all(&operation.bytes);
                });
                continue;
            }
        };
        if service.lock().unwrap().write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = service.lock().unwrap().shutdown(Shutdown::Both);
}

/// One operation of the broker: a line, and for a message as many bytes more as the last word of the line says.
struct Operation {
    bytes: Vec<u8>,
    /// The line, without what ends it.
    line: String,
    /// Where that stands which a message holds, behind its headers.
    holds: Option<Range<usize>>,
}

impl Operation {
    fn subject(&self) -> String {
        self.line.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// The same message, holding something else.
    fn with(&self, holds: &[u8]) -> Vec<u8> {
        let old = self.holds.clone().unwrap();
        let headers = &self.bytes[self.line.len() + "\r\n".len()..old.start];
        let (words, _) = self.line.rsplit_once(' ').unwrap();
        let line = format!("{words} {}\r\n", headers.len() + holds.len());
        [line.as_bytes(), headers, holds, b"\r\n"].concat()
    }
}

fn next(broker: &mut BufReader<TcpStream>) -> io::Result<Operation> {
    let mut bytes = Vec::new();
    broker.read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let mut holds = None;
    if line.starts_with("MSG ") || line.starts_with("HMSG ") {
        let mut numbers = line.rsplit(' ').map_while(|word| word.parse::<usize>().ok());
        let length = numbers.next().ok_or(io::ErrorKind::InvalidData)?;
        let headers = if line.starts_with('H') { numbers.next().ok_or(io::ErrorKind::InvalidData)? } else { 0 };
        let head = bytes.len();
        holds = Some(head + headers..head + length);
        bytes.resize(head + length + "\r\n".len(), 0);
        broker.read_exact(&mut bytes[head..])?;
    }
    Ok(Operation { bytes, line, holds })
}
