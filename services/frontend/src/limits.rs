//! Every bound of the REST edge, on one page.
//!
//! The edge faces clients that nobody chose: some are slow, some are broken, some are many. The rule: whatever a client
//! can make grow or wait ends at one of these bounds, with an answer that names the bound wherever one can still be sent.
//! The bound of a body is shared with other programs: [`REST_BODY_BYTES_MAX`](tradenet_schemas::limits).

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// Connections at once. Who comes next takes the place of whoever asks nothing at the moment, and for the longest time; if all
/// ask, it gets 503 and is closed.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;
/// Files and sockets that the system must allow beside those connections: [`REFUSALS_MAX`], and some of the process's own.
pub(crate) const OTHER_FILES_MAX: usize = REFUSALS_MAX + 64;
/// Connections over [`CONNECTIONS_MAX`] that are being refused at once; those over this are closed without a word.
pub(crate) const REFUSALS_MAX: usize = 64;
/// Connections that the kernel keeps until they are accepted.
pub(crate) const BACKLOG_CONNECTIONS: u32 = 1_024;
/// An address that is taken is tried again for so long, and so often: `tradenet dev` holds a frontend's port until it starts
/// it, and a child that it has started just before may hold it a moment longer.
pub(crate) const TAKEN_WAIT_MS: u64 = 1_000;
/// See [`TAKEN_WAIT_MS`].
pub(crate) const TAKEN_RETRY_MS: u64 = 20;
/// Highest number of an order or an event that a request may name, be there one or not: the largest whole number that every JSON
/// reader holds exactly (RFC 8259, section 6), so that the document can say it, and its page can show it, as it is.
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Clients whose requests are counted where there is a rate limit, in 100 bytes each; then whoever has not asked for the
/// longest time is forgotten.
pub(crate) const METERED_CLIENTS_MAX: usize = 16_384;
/// Requests that wait for the core at once; the next gets 503. What the cache answers does not count.
pub(crate) const REQUESTS_UNDER_WAY_MAX: usize = 2_048;
/// A request's first line and headers, together. Longer: 431.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// From the end of one answer (or the start of the connection) to the end of the next request's headers. So it bounds a
/// head that trickles in, which gets 408, and an idle connection, which is closed in silence.
pub(crate) const HEAD_READ_MS: u64 = 30_000;
/// From the end of a request's headers to the end of its body. Longer: 408.
pub(crate) const BODY_READ_MS: u64 = 5_000;
/// A client that takes nothing of its answer for so long is cut off.
pub(crate) const WRITE_STALL_MS: u64 = 10_000;
/// The same once the process is to leave: whoever reads can read the end by then.
pub(crate) const LEAVE_STALL_MS: u64 = 500;
/// What hyper keeps for a connection whose client does not read, in bytes, but for the last piece.
pub(crate) const BUFFER_BYTES_MAX: usize = 32 * 1024;
/// Answers longer than this are handed to hyper in pieces of so many bytes.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;
/// Long answers that were made for one client each, of all clients together, in bytes, until they are handed over; reads over
/// that get 503. With [`BUFFER_BYTES_MAX`] and [`PIECE_BYTES`] for each connection it is less than half a GiB.
pub(crate) const UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Before a connection is closed, what its client still sends is read and dropped for so long, so that the last answer is
/// not lost to a reset.
pub(crate) const LINGER_MS: u64 = 500;
/// The most that is read and dropped so.
pub(crate) const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How much longer than the core's own deadline an answer is waited for. The core always answers in time; this is for the
/// day on which it does not.
pub(crate) const ANSWER_MARGIN_MS: u64 = 500;
/// How often waits are looked at that may have lasted too long; so each of those ends up to so much later.
pub(crate) const WAITS_ROUND_MS: u64 = 100;
/// How long requests under way have to finish once the process is to leave; above the core's deadline, the margin and a
/// round, so that none is cut off.
pub(crate) const DRAIN_MS: u64 = 6_000;
/// After a failed accept, such as with no file descriptor left, the next try comes so much later.
pub(crate) const ACCEPT_BACKOFF_MS: u64 = 100;
/// Streams of events at once, well below [`CONNECTIONS_MAX`]. Who comes next gets 503.
pub(crate) const STREAMS_MAX: usize = 1_024;
/// How much memory the newest events may take, in bytes, whatever the number of streams: some 70,000 of them.
pub(crate) const FEED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many bytes of events a stream hands over at once, but for the last one.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;
/// A stream on which nothing happens says so after so long, so that nobody in between takes it for dead, and a client that
/// has gone is noticed.
pub(crate) const KEEP_ALIVE_MS: u64 = 15_000;
/// How long a client of a stream that broke waits before it connects again.
pub(crate) const RECONNECT_MS: u64 = 1_000;
/// After the leader could not be asked for events, it is asked again so much later.
pub(crate) const FEED_RETRY_MS: u64 = 100;
/// How many stocks are kept as they were written last, in some 500 bytes each.
pub(crate) const WRITTEN_STOCKS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// How many of the last trades are timed for `GET /cluster`, in 8 bytes each.
pub(crate) const TIMED_MAX: usize = 1_024;
/// And for how long each of them counts.
pub(crate) const TIMED_FOR_MS: u64 = 10_000;
/// While somebody reads `GET /cluster`, the services are asked so often how they stand.
pub(crate) const NEIGHBOURS_EVERY_MS: u64 = 750;
/// And may take so long to answer.
pub(crate) const NEIGHBOURS_ANSWER_MS: u64 = 500;
/// How many services are shown; no exchange has more.
pub(crate) const NEIGHBOURS_MAX: usize = 128;
/// A service that does not answer any more is shown for so long.
pub(crate) const ABSENT_SHOWN_MS: u64 = 600_000;
/// How long `GET /readyz` of a new exchange waits to hear whether a stock is listed.
pub(crate) const OPENING_WAIT_MS: u64 = 500;
/// What `Retry-After` says, in seconds: a new leader is there in less.
pub(crate) const RETRY_AFTER_S: u64 = 1;

/// How many connections there may be where the system allows so many files and sockets, if it says: with one more, the next
/// client could not even be refused.
pub(crate) fn connections_max(open_files: Option<u64>) -> usize {
    let allowed = open_files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    allowed.saturating_sub(OTHER_FILES_MAX).clamp(1, CONNECTIONS_MAX)
}

/// The bounds that one server keeps; tests shrink them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// [`CONNECTIONS_MAX`].
    pub(crate) connections_max: usize,
    /// [`HEAD_READ_MS`].
    pub(crate) head_read: Duration,
    /// [`BODY_READ_MS`].
    pub(crate) body_read: Duration,
    /// [`WRITE_STALL_MS`].
    pub(crate) write_stall: Duration,
    /// [`LEAVE_STALL_MS`].
    pub(crate) leave_stall: Duration,
    /// [`DRAIN_MS`].
    pub(crate) drain: Duration,
    /// [`UNREAD_BYTES_MAX`].
    pub(crate) unread_bytes_max: usize,
    /// [`STREAMS_MAX`].
    pub(crate) streams_max: usize,
    /// [`FEED_BYTES_MAX`].
    pub(crate) feed_bytes_max: usize,
    /// [`KEEP_ALIVE_MS`].
    pub(crate) keep_alive: Duration,
    /// Requests a second of each client, if they are bounded.
    pub(crate) rate: Option<NonZeroU32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            head_read: Duration::from_millis(HEAD_READ_MS),
            body_read: Duration::from_millis(BODY_READ_MS),
            write_stall: Duration::from_millis(WRITE_STALL_MS),
            leave_stall: Duration::from_millis(LEAVE_STALL_MS),
            drain: Duration::from_millis(DRAIN_MS),
            unread_bytes_max: UNREAD_BYTES_MAX,
            streams_max: STREAMS_MAX,
            feed_bytes_max: FEED_BYTES_MAX,
            keep_alive: Duration::from_millis(KEEP_ALIVE_MS),
            rate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_places_than_sockets() {
        let check = |open_files, expected| assert_eq!(connections_max(open_files), expected, "{open_files:?}");
        check(None, 4_096);
        check(Some(u64::MAX), 4_096);
        check(Some(4_224), 4_096);
        check(Some(4_223), 4_095);
        check(Some(1_024), 896);
        check(Some(64), 1);
    }
}
