//! Ports for servers that must be able to come back on the same port.
//!
//! The problem: the kernel's answer to "any free port" lies in the range that it also hands to outgoing connections.
//! While such a server is down, some client's connection may take its number, even a client that is trying to reconnect
//! to it (TCP lets a socket connect to itself), and then the server cannot come back. Tests kill and restart brokers all
//! the time, so a rare accident becomes a weekly one.
//!
//! The idea: choose below that range. The rule: the port is handed out as a bound listener, to be dropped only at the
//! moment when its user starts; whoever looks for one meanwhile sees it taken.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Outside of what Linux (32768 up), macOS and the BSDs (49152 up) use for outgoing connections, and above the ports of
/// well-known services.
const PORT_FIRST: u16 = 16_000;
const PORT_LAST: u16 = 31_999;
/// Draws before giving up. Even with half the range taken, missing that often is beyond chance.
const DRAWS_MAX: usize = 64;

/// Finds `count` ports in a row that are free on 127.0.0.1 and holds them.
///
/// # Errors
/// When 64 draws found no such row; the last refusal is returned.
pub fn hold_free(count: u16) -> io::Result<Vec<TcpListener>> {
    let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..DRAWS_MAX {
        let first = rand::random_range(PORT_FIRST..=PORT_LAST.saturating_sub(count));
        match hold_row(first, count) {
            Ok(row) => return Ok(row),
            Err((_, error)) => refusal = error,
        }
    }
    Err(refusal)
}

/// Holds exactly the ports `first`, `first + 1`, … on 127.0.0.1.
///
/// # Errors
/// The first port that cannot be had and why: most often another program listens on it.
pub fn hold_row(first: u16, count: u16) -> Result<Vec<TcpListener>, (u16, io::Error)> {
    let mut row = Vec::with_capacity(usize::from(count));
    for offset in 0..count {
        let overflow = || (u16::MAX, io::Error::from(io::ErrorKind::InvalidInput));
        let port = first.checked_add(offset).ok_or_else(overflow)?;
        row.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| (port, error))?);
    }
    Ok(row)
}
