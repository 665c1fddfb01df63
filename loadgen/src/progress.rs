//! A line on the terminal that shows how a run goes.
//!
//! It is for people who watch: on standard error, and only where that is a terminal, so that neither pipes nor logs
//! ever see it. It reads the recorder's counts five times a second and asks nothing of the exchange.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::exchange::Shared;

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line, which goes away with this value.
pub(crate) struct Progress {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Progress {
    /// Shows the counts of `shared` from now on.
    pub(crate) fn show(shared: Arc<Shared>) -> Self {
        // Hides itself where standard error is no terminal.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise}  {msg}") {
            bar.set_style(style);
        }
        let line = bar.clone();
        let task = tokio::spawn(async move {
            let mut interval = tokio::time::interval(INTERVAL);
            let mut before = 0;
            loop {
                interval.tick().await;
                let (counts, errors) = shared.recorder.glance();
                let requests = counts.lookups + counts.trades;
                let rate = crate::report::as_f64(requests - before) / INTERVAL.as_secs_f64();
                before = requests;
                let (trades, retries) = (counts.trades, counts.retries);
                line.set_message(format!(
                    "{rate:.0}/s  {requests} requests, {trades} trades, {errors} errors, {retries} retries"
                ));
                line.tick();
            }
        });
        Self { bar, task }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
