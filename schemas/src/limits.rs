//! Every bound that two programs must agree on, on one page.
//!
//! A value over its bound is refused where it enters, with a message that names the bound; nothing grows without one.

/// Longest stock name, in bytes.
pub const SYMBOL_BYTES_MAX: usize = 32;
/// Longest `Idempotency-Key`, in bytes, without its quotes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// How many keys of clients are remembered; the oldest goes first.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;
/// How many holdings are remembered of what accounts had after their keyed deposits and withdrawals, so that a repeated one
/// is answered as the first; money counts as one. Enough for [`IDEMPOTENCY_KEYS_MAX`] accounts with nine stocks each.
pub const RECEIPT_HOLDINGS_MAX: usize = 1_000_000;
/// Largest quantity or volume of a stock: the largest whole number that every JSON reader holds exactly (RFC 8259,
/// section 6).
pub const QUANTITY_MAX: u64 = (1 << 53) - 1;
/// Highest price, in cents.
pub const PRICE_CENTS_MAX: u64 = 1_000_000_000_000;
/// Most stocks that can be listed, so that all of them fit in one message.
pub const STOCKS_MAX: usize = 2_000;
/// Largest message between services, in bytes; below the broker's `max_payload` of 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// Largest body of a REST request, in bytes.
pub const REST_BODY_BYTES_MAX: usize = 16 * 1024;
/// Most commands in one message from a frontend.
pub const SUBMISSIONS_PER_MESSAGE_MAX: usize = 256;
/// Most entries in one batch of the leader.
pub const BATCH_ENTRIES_MAX: usize = 1_024;
/// Largest number of journal bytes in one batch.
pub const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Largest number of journal bytes in one chunk of a catch-up.
pub const CHUNK_BYTES_MAX: usize = 512 * 1024;
/// How many records another one may follow: so many elections in a row may come to nothing.
pub const FOLLOWED_MAX: usize = 16;
/// Highest replica id.
pub const REPLICA_ID_MAX: u8 = 63;
/// Longest name of an account, in bytes.
pub const ACCOUNT_BYTES_MAX: usize = 32;
/// How many accounts there can be; they are never forgotten.
pub const ACCOUNTS_MAX: usize = 100_000;
/// All money in all accounts together, in cents: the largest whole number that every JSON reader holds exactly. A bound on
/// the sum is one on each, so no trade can make anybody too rich to be written down.
pub const CASH_CENTS_MAX: u64 = (1 << 53) - 1;
/// Orders of one account that rest in books at once.
pub const OPEN_ORDERS_MAX: usize = 1_000;
/// How many resting orders one order may meet at once, so that its entry stays well below [`BATCH_BYTES_MAX`].
pub const FILLS_PER_ORDER_MAX: usize = 1_000;
/// How many trades of one order, or of all orders of one page, are shown; how much was filled is always exact. So many are in a
/// [statement](crate::statement), too, which is of the log's form: that number must never change.
pub const FILLS_SHOWN_MAX: usize = 1_000;
/// How many of an account's orders one entry states as done; fewer where they have more than [`FILLS_SHOWN_MAX`] trades.
pub const STATEMENT_ORDERS_MAX: usize = 64;
/// How many periods with trades are remembered of each length for each stock.
pub const CANDLES_MAX: usize = 1_000;
/// Longest page of a list: orders of an account, trades of a stock, levels of a book a side.
pub const PAGE_MAX: usize = 500;
