//! `tradenet status --watch`: the same again and again.
//!
//! The rules: on a terminal the newest look stands where the last one stood; elsewhere only what has changed is written, and
//! what every trade moves is no change; and a broker that goes away is something to show, not a reason to end.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tradenet_runtime::shutdown::Shutdown;

use super::Args;
use super::view::View;
use crate::cluster::Cluster;
use crate::out::{self, HEADING, styled};

/// Between two looks; a look itself takes some 200 ms.
const LOOK_EVERY_MS: u64 = 300;
/// To the top left, and what is below the text is deleted when it is written.
const HOME: &str = "\x1b[H";
const CLEAR: &str = "\x1b[2J";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Looks until it is ended.
///
/// # Errors
/// The options can't be used, or nobody reads any more.
pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let broker = Cluster::connect(&args.connection).await?;
    let mut screen = Screen { in_place: out::is_terminal() && !args.json, json: args.json, shown: None };
    let started = Instant::now();
    loop {
        let looked = tokio::select! {
            _ = shutdown.requested() => return Ok(()),
            looked = Cluster::look(broker.clone(), &args.members) => looked,
        };
        let view = looked.map_or_else(|error| View::without_a_broker(error.to_string()), |cluster| View::of(&cluster));
        if let Some(text) = screen.show(&view, started.elapsed())? {
            if screen.in_place { out::draw(&text)? } else { out::print(&text)? }
        }
        tokio::select! {
            _ = shutdown.requested() => return Ok(()),
            () = sleep(Duration::from_millis(LOOK_EVERY_MS)) => {}
        }
    }
}

struct Screen {
    in_place: bool,
    json: bool,
    shown: Option<View>,
}

impl Screen {
    /// What is to be written, if anything is.
    fn show(&mut self, view: &View, since: Duration) -> anyhow::Result<Option<String>> {
        if self.in_place {
            let first = self.shown.replace(View::without_a_broker(String::new())).is_none();
            let lines = out::as_wanted(&view.text()).replace('\n', &format!("{CLEAR_LINE}\n"));
            let hint = "Ctrl-C ends this";
            let start = if first { CLEAR } else { "" };
            return Ok(Some(format!("{start}{HOME}{lines}{CLEAR_LINE}\n{hint}{CLEAR_LINE}\n{CLEAR_BELOW}")));
        }
        let known = view.without_watermarks();
        if self.shown.as_ref() == Some(&known) {
            return Ok(None);
        }
        let first = self.shown.replace(known).is_none();
        if self.json {
            return Ok(Some(serde_json::to_string(view)? + "\n"));
        }
        let between = if first { "" } else { "\n" };
        let head = styled(HEADING, &format!("[{:8.2} s]", since.as_secs_f64()));
        Ok(Some(format!("{between}{head} {}", view.text())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    #[test]
    fn a_change_is_one_block_and_a_trade_is_none() {
        let mut screen = Screen { in_place: false, json: false, shown: None };
        let mut check = |view: View, expected: Option<&str>| {
            let text = screen.show(&view, Duration::from_millis(1_500)).unwrap();
            let text = text.map(|text| anstream::adapter::strip_str(&text).to_string());
            assert_eq!(text.as_deref().and_then(|text| text.split("   in sync").next()), expected);
        };
        check(view(Some(3), 10), Some("[    1.50 s] epoch 2   leader order-3"));
        check(view(Some(3), 11), None);
        check(view(None, 11), Some("\n[    1.50 s] epoch 2   leader none"));
        check(view(None, 11), None);
        check(view(Some(2), 11), Some("\n[    1.50 s] epoch 2   leader order-2"));
    }

    #[test]
    fn on_a_terminal_every_look_takes_the_place_of_the_last() {
        let mut screen = Screen { in_place: true, json: false, shown: None };
        for start in ["\x1b[2J\x1b[Hepoch 2", "\x1b[Hepoch 2"] {
            let text = screen.show(&view(Some(3), 10), Duration::ZERO).unwrap().unwrap();
            assert!(text.starts_with(start), "{text:?}");
            assert!(text.lines().all(|line| line.contains("\x1b[K") || line == "\x1b[J"), "{text:?}");
        }
    }
}
