//! A broker whose answers to lookups come late: stands between one service and the broker.
//!
//! It speaks just enough of the NATS protocol to tell one message from the next. A message that holds the answer to a
//! lookup waits, and all others overtake it; what the service says itself goes on as it comes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What only the answer to a lookup holds.
const FOUND: &[u8] = b"\"found\"";

/// Listens until its test ends.
pub(crate) struct Proxy {
    address: String,
    held_back: Arc<AtomicU64>,
}

impl Proxy {
    /// Stands before the broker at `url`.
    pub(crate) fn start(url: &str, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (held_back, broker) = (Arc::new(AtomicU64::new(0)), url.trim_start_matches("nats://").to_owned());
        let counter = Arc::clone(&held_back);
        std::thread::spawn(move || {
            while let Ok((service, _)) = listener.accept() {
                let Ok(broker) = TcpStream::connect(&broker) else { return };
                let (from, to) = (service.try_clone().unwrap(), broker.try_clone().unwrap());
                std::thread::spawn(move || pass_on(from, to));
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || hold_back(broker, service, delay, &counter));
            }
        });
        Self { address, held_back }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// How many messages came late so far.
    pub(crate) fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// Passes the broker's messages on until either side ends.
fn hold_back(broker: TcpStream, service: TcpStream, delay: Duration, counter: &AtomicU64) {
    let _ = service.set_nodelay(true);
    let mut broker = BufReader::new(broker);
    let service = Arc::new(Mutex::new(service));
    while let Ok(message) = next(&mut broker) {
        if message.windows(FOUND.len()).any(|part| part == FOUND) {
            counter.fetch_add(1, Ordering::Relaxed);
            let service = Arc::clone(&service);
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                let _ = service.lock().unwrap().write_all(&message);
            });
        } else if service.lock().unwrap().write_all(&message).is_err() {
            break;
        }
    }
    let _ = service.lock().unwrap().shutdown(Shutdown::Both);
}

/// One operation of the broker: a line, and for a message as many bytes more as its last word says.
fn next(broker: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    broker.read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if bytes.starts_with(b"MSG ") || bytes.starts_with(b"HMSG ") {
        let line = String::from_utf8_lossy(&bytes);
        let length = line.split_whitespace().next_back().and_then(|word| word.parse::<usize>().ok());
        let head = bytes.len();
        bytes.resize(head + length.ok_or(io::ErrorKind::InvalidData)? + "\r\n".len(), 0);
        broker.read_exact(&mut bytes[head..])?;
    }
    Ok(bytes)
}
