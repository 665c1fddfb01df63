//! How much each client may ask for: so many requests a second, and as many at once after a pause.
//!
//! Problem: one client that asks without a pause takes what all others need. Idea: the generic cell rate algorithm: for each
//! client one moment, until when it has used up its share; each request moves it on by one interval, and one that would move
//! it more than a second ahead is refused. Rule kept: the table is bounded, and it forgets first whoever has not asked for the
//! longest time, who has the least to be remembered for.
//!
//! A client is an IPv4 address or an IPv6 network of 64 bits, which one machine is usually given. Behind a proxy all are
//! one: there the proxy has to do this.

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::envelope::Failure;
use crate::limits::METERED_CLIENTS_MAX;

/// Requests at once after a pause: those of this time.
const BURST: Duration = Duration::from_secs(1);

/// What those who watch a frontend ask for; it costs little, and they must not take a busy client's neighbour for dead.
const UNMETERED: [&str; 3] = ["/healthz", "/readyz", "/cluster"];

/// Counts the requests of all connections.
///
/// The table is every request's, and held for no longer than it takes to look something up in it.
pub(crate) struct Gate(Mutex<Meter>);

impl Gate {
    /// For `rate` requests a second of each client.
    pub(crate) fn new(rate: NonZeroU32) -> Self {
        Self(Mutex::new(Meter::new(rate)))
    }

    /// Lets a request through.
    ///
    /// # Errors
    /// It is one too many.
    pub(crate) fn pass(&self, path: &str, client: IpAddr) -> Result<(), Failure> {
        if UNMETERED.contains(&path) {
            return Ok(());
        }
        let mut meter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        meter.count(Instant::now(), client).map_err(|wait| Failure::too_fast(meter.rate, wait))
    }
}

/// Counts the requests of all clients.
struct Meter {
    rate: NonZeroU32,
    used_until: LruCache<IpAddr, Instant>,
}

impl Meter {
    /// For `rate` requests a second of each client.
    fn new(rate: NonZeroU32) -> Self {
        let most = NonZeroUsize::new(METERED_CLIENTS_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { rate, used_until: LruCache::new(most) }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// It is one too many, and was not counted: how long to wait for the next.
    fn count(&mut self, now: Instant, client: IpAddr) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / self.rate.get();
        let used_until = self.used_until.get_or_insert_mut(network(client), || now);
        let next = (*used_until).max(now) + interval;
        match next.checked_duration_since(now + BURST) {
            Some(early) if !early.is_zero() => Err(early),
            _ => {
                *used_until = next;
                Ok(())
            }
        }
    }
}

fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(address) => address
            .to_ipv4_mapped()
            .map_or_else(|| IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)), IpAddr::V4),
        IpAddr::V4(_) => client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At each moment, in milliseconds: how many of 1,000 requests of that client are let through.
    #[track_caller]
    fn check(rate: u32, asked: &[(u64, &str, usize)]) {
        let (start, mut meter) = (Instant::now(), Meter::new(NonZeroU32::new(rate).unwrap()));
        for &(ms, client, expected) in asked {
            let (now, client) = (start + Duration::from_millis(ms), client.parse().unwrap());
            let passed = (0..1_000).filter(|_| meter.count(now, client).is_ok()).count();
            assert_eq!(passed, expected, "{client} at {ms} ms of {asked:?}");
        }
    }

    #[test]
    fn each_client_has_its_rate_and_a_second_of_it_at_once() {
        check(10, &[(0, "10.0.0.1", 10), (50, "10.0.0.1", 0), (100, "10.0.0.1", 1), (400, "10.0.0.1", 3)]);
        check(10, &[(0, "10.0.0.1", 10), (0, "10.0.0.2", 10), (5_000, "10.0.0.1", 10)]);
        check(1, &[(0, "10.0.0.1", 1), (999, "10.0.0.1", 0), (1_000, "10.0.0.1", 1)]);
        check(10, &[(0, "2001:db8::1", 10), (0, "2001:db8::2", 0), (0, "2001:db8:0:1::1", 10)]);
        check(10, &[(0, "::ffff:10.0.0.1", 10), (0, "10.0.0.1", 0), (0, "::ffff:10.0.0.2", 10)]);
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_back_and_loses_nothing_by_asking() {
        let (now, mut meter) = (Instant::now(), Meter::new(NonZeroU32::new(4).unwrap()));
        let client = "10.0.0.1".parse().unwrap();
        for _ in 0..4 {
            assert_eq!(meter.count(now, client), Ok(()));
        }
        for _ in 0..1_000 {
            assert_eq!(meter.count(now, client), Err(Duration::from_millis(250)));
        }
        assert_eq!(meter.count(now + Duration::from_millis(250), client), Ok(()));
    }

    #[test]
    fn more_clients_than_the_table_holds_are_served_and_it_does_not_grow() {
        let (now, mut meter) = (Instant::now(), Meter::new(NonZeroU32::MIN));
        for number in 0..=u32::try_from(METERED_CLIENTS_MAX).unwrap() {
            assert_eq!(meter.count(now, IpAddr::V4(number.into())), Ok(()));
        }
        assert_eq!(meter.used_until.len(), METERED_CLIENTS_MAX);
        // The first was forgotten.
        assert_eq!(meter.count(now, IpAddr::V4(0.into())), Ok(()));
        assert!(meter.count(now, IpAddr::V4(2.into())).is_err());
    }
}
