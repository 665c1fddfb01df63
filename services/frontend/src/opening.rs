//! Whether anything has been listed yet, which a new exchange is asked for before it is called ready.
//!
//! Problem: trades can be served as soon as there is a leader, and a moment before the catalog's list of stocks is in the log; who
//! waited for `GET /readyz` was told 404 in that moment. Idea: the first times, the catalog is asked for its stocks. Rules kept:
//! once there has been one, nobody is asked again, for none is ever taken off the list; and only a list that *is* empty counts: where
//! there is no catalog to ask, trades are served all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tradenet_core::{ClientAnswer, ClientRequest};

use crate::desk::Desk;
use crate::limits::OPENING_WAIT_MS;

/// Whether a stock has been seen.
#[derive(Debug, Default)]
pub(crate) struct Opening(AtomicBool);

impl Opening {
    /// Whether there is something to trade, as far as can be known.
    ///
    /// # Errors
    /// There is not, and what would help.
    pub(crate) async fn open(&self, desk: &Desk) -> Result<(), &'static str> {
        if self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        let asked = timeout(Duration::from_millis(OPENING_WAIT_MS), desk.ask(ClientRequest::Stocks)).await;
        if let Ok(Ok(ClientAnswer::Stocks(stocks))) = asked {
            if stocks.is_empty() {
                return Err("no stock is listed yet: the catalog lists those of its --stocks file at its start");
            }
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
