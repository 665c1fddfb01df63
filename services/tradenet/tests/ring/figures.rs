//! What the live page costs, in figures, in a real browser on an exchange of its own.
//!
//! Problem: "fast" and "idle" are said of a page by whoever has it open on a machine that does nothing else. Idea: one command opens it
//! again and again, lets it rest, and lets it follow thousands of changes a second from real trades while somebody clicks; what
//! others had of the machine meanwhile is told with each figure. What came is then told to the page again, faster. Rules: no time is
//! asserted, as a machine that is busy would decide it; that the page ends with what the exchange has, is.
//!
//! `cargo test --release -p tradenet --test ring -- --ignored --nocapture figures_of_the_page`; `docs/page.md` has what it showed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loadgen::market::{MarketOptions, MarketReport, market};
use loadgen::{Load, Probability, RunOptions};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::harness::{Exchange, until};
use crate::page::check_same_book;

/// Browsers that are started for the first paint, and how often each opens the page in each way.
const BROWSERS: usize = 5;
const LOADS: usize = 3;
/// After it is opened, before it counts as idle.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);
const LOAD_SECONDS: u64 = 15;
/// Of the house, each a look-up and a trade, a second.
const REQUESTS_PER_S: f64 = 6_000.0;
/// Accounts that trade with each other beside them.
const ACCOUNTS: u32 = 20;
/// Changes that are told to the page again, of those that came with that load.
const CHANGES_PER_S: u32 = 3_000;
/// Between two clicks.
const CLICK: Duration = Duration::from_millis(500);
/// How `/proc` counts processor time.
const TICKS_PER_S: f64 = 100.0;

/// Put before the page's own script: counts what comes, and what it takes, and keeps the first changes that come.
const WATCH: &str = "
    const seen = window.seen = {kinds: {}, opened: 0, errors: 0, frames: [], blocked: [], inputs: []};
    const heard = window.heard = [];
    const Native = EventSource;
    window.EventSource = class extends Native {
        constructor(...args) {
            super(...args);
            this.addEventListener('open', () => seen.opened += 1);
            this.addEventListener('error', () => seen.errors += 1);
            window.source = this;
            const count = ({type, data}) => {
                seen.kinds[type] = (seen.kinds[type] ?? 0) + 1;
                if (seen.watching && heard.length < 10_000) heard.push({type, data});
            };
            ['stock', 'trade', 'book', 'cluster', 'gap', 'end'].forEach((kind) => this.addEventListener(kind, count));
        }
    };
    new PerformanceObserver((list) => list.getEntries().forEach(({duration}) => seen.blocked.push(duration)))
        .observe({type: 'longtask'});
    new PerformanceObserver((list) => list.getEntries().filter(({interactionId}) => interactionId)
        .forEach(({duration}) => seen.inputs.push(duration))).observe({type: 'event', durationThreshold: 16});
";
/// From now on each frame's time is kept, and all that was counted before is forgotten.
const BEGIN: &str = "
    Object.assign(seen, {kinds: {}, opened: 0, errors: 0, frames: [], blocked: [], inputs: [], watching: true});
    const frame = (at) => { seen.frames.push(at); if (seen.watching) requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
";
/// Tells the page what it has heard again, so many a second, each with numbers as if it were new.
const AGAIN: &str = "
    const [began, beyond] = [performance.now(), 1e9];
    const newer = (data, round) => data.replace(/\"(sequence|trade)\":(\\d+)/g, (_, name, number) =>
        `\"${name}\":${Number(number) + round * beyond}`);
    const changes = heard.filter(({type}) => ['stock', 'trade', 'book'].includes(type));
    let told = 0;
    const again = setInterval(() => {
        if (!seen.watching) return clearInterval(again);
        for (; told < (performance.now() - began) / 1000 * RATE; told += 1) {
            const {type, data} = changes[told % changes.length];
            const round = 1 + Math.floor(told / changes.length);
            source.dispatchEvent(new MessageEvent(type, {data: newer(data, round), lastEventId: String(beyond + told)}));
        }
    }, 10);
";
const END: &str = "seen.watching = false; return seen";

#[test]
#[ignore = "two minutes of measurements, to be read by people"]
fn figures_of_the_page() {
    let Some(browser) = Browser::start() else { return };
    drop(browser);
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("\nthe live page, {build} build, {} cores", std::thread::available_parallelism().unwrap());
    let before = Usage::now(&exchange, None);
    std::thread::sleep(SETTLE);
    println!("before it began, {}\n", Usage::now(&exchange, None).since(&before).machine());
    let browser = first_paint(&exchange);
    size(&browser);
    idle(&exchange, &browser);
    drop(browser);
    under_load(&exchange);
}

/// How long it takes until something is seen, from nothing at all and again.
fn first_paint(exchange: &Exchange) -> Browser {
    let (mut fresh, mut empty, mut warm, mut live) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..BROWSERS {
        drop(last.take());
        let browser = Browser::start().unwrap();
        let load = || {
            browser.open(&exchange.url(1));
            browser.until_js("a first paint", PAINTED);
            browser.js("return performance.getEntriesByName('first-contentful-paint')[0].startTime").as_f64().unwrap()
        };
        fresh.push(load());
        for _ in 0..LOADS {
            browser.leave();
            browser.devtools("Network.clearBrowserCache", &json!({}));
            empty.push(load());
            browser.leave();
            warm.push(load());
            live.push(browser.js("return performance.now()").as_f64().unwrap());
        }
        last = Some(browser);
    }
    println!("first contentful paint, ms");
    tell("  browser just started", &mut fresh);
    tell("  its cache empty", &mut empty);
    tell("  its cache warm", &mut warm);
    last.unwrap()
}

const PAINTED: &str = "return performance.getEntriesByName('first-contentful-paint').length > 0";

fn tell(what: &str, figures: &mut [f64]) {
    figures.sort_by(f64::total_cmp);
    let (least, most) = (figures[0], figures[figures.len() - 1]);
    println!("{what:<28}{:>6.0} median of {}, {least:.0} to {most:.0}", quantile(figures, 0.5), figures.len());
}

/// Of figures in their order.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
    let at = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[at]
}

/// What comes over the line.
fn size(browser: &Browser) {
    let files = "
        const files = performance.getEntriesByType('resource').filter(({name}) => /\\/page\\./.test(name));
        return [...performance.getEntriesByType('navigation'), ...files]
            .map(({name, encodedBodySize}) => [new URL(name).pathname, encodedBodySize]);
    ";
    let files = browser.js(files);
    let files: Vec<_> = files.as_array().unwrap().iter().map(|file| (&file[0], file[1].as_u64().unwrap())).collect();
    let each: Vec<_> = files.iter().map(|(name, bytes)| format!("{} {bytes}", name.as_str().unwrap())).collect();
    println!("\nbytes in all {} ({})", files.iter().map(|(_, bytes)| bytes).sum::<u64>(), each.join(", "));
}

/// What it takes to be open, while nothing happens.
fn idle(exchange: &Exchange, browser: &Browser) {
    browser.open(&exchange.url(1));
    assert_eq!(browser.js("return document.hidden"), false);
    println!("\nidle, % of a core");
    idle_for("  the page open", exchange, browser);
    browser.leave();
    idle_for("  an empty page instead", exchange, browser);
}

fn idle_for(what: &str, exchange: &Exchange, browser: &Browser) {
    std::thread::sleep(SETTLE);
    let before = Usage::now(exchange, Some(browser));
    std::thread::sleep(IDLE);
    let used = Usage::now(exchange, Some(browser)).since(&before);
    println!("{what:<28}browser {}, frontend {:.1}", used.browser(), used.of("frontend-1"));
    println!("{:<28}{}", "", used.machine());
}

/// What becomes of it under thousands of changes a second, while somebody clicks.
fn under_load(exchange: &Exchange) {
    let browser = Browser::start().unwrap();
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({"source": WATCH}));
    browser.open(&exchange.url(1));
    browser.look_like(1600, 1000, "dark");
    let names = browser.js("return [...document.querySelectorAll('#stocks button')].map((button) => button.title)");
    let names: Vec<_> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();

    let base = RunOptions { think: Duration::ZERO, clients: 32, ..exchange.load_options(1, 0) };
    let house = RunOptions {
        load: Load::Open { rate: REQUESTS_PER_S, duration: Duration::from_secs(LOAD_SECONDS + 2) },
        trade_probability: Probability::new(1.0).unwrap(),
        ..base.clone()
    };
    let accounts = RunOptions {
        load: Load::ClosedFor(Duration::from_secs(LOAD_SECONDS + 2)),
        think: Duration::from_millis(20),
        clients: 8,
        ..base
    };
    let house = Exchange::generate(house);
    let accounts = std::thread::spawn(move || -> MarketReport {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(market(MarketOptions { run: accounts, accounts: ACCOUNTS, orders: None })).unwrap()
    });
    browser.until_text("#tape", ":");
    clicks_under("under load", BEGIN, exchange, &browser, &names);

    for report in house.verified() {
        assert_eq!(report.error_count(), 0, "{report}");
    }
    assert!(accounts.join().unwrap().ok());
    browser.click("#stocks button[title=GameStart]");
    browser.until_text("#chart-title", "GameStart");
    check_same_stocks(&browser, exchange);
    check_same_book(&browser, exchange);
    println!("  at the end the page shows the stocks and the book that the exchange has");

    // The exchange needs the same cores: what the page alone can follow.
    let again = format!("{BEGIN}{}", AGAIN.replace("RATE", &CHANGES_PER_S.to_string()));
    clicks_under("the same changes again, while the exchange rests", &again, exchange, &browser, &names);
}

/// Clicks one stock after another, and tells how the page was meanwhile.
fn clicks_under(what: &str, begin: &str, exchange: &Exchange, browser: &Browser, names: &[String]) {
    let (began, before) = (Instant::now(), Usage::now(exchange, Some(browser)));
    browser.js(begin);
    let mut answered = Vec::new();
    for name in names.iter().cycle() {
        if began.elapsed() >= Duration::from_secs(LOAD_SECONDS) {
            break;
        }
        let clicked = Instant::now();
        browser.click(&format!("#stocks button[title={}]", json!(name)));
        browser.until_text("#chart-title", name);
        answered.push(clicked.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(CLICK.saturating_sub(clicked.elapsed()));
    }
    let seen = browser.js(END);
    let used = Usage::now(exchange, Some(browser)).since(&before);
    tell_load(what, &seen, &used, &mut answered);
}

fn tell_load(what: &str, seen: &Value, used: &Usage, answered: &mut [f64]) {
    let numbers = |name: &str| -> Vec<f64> {
        let mut numbers: Vec<_> =
            seen[name].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    };
    let frames = numbers("frames");
    let seconds = (frames[frames.len() - 1] - frames[0]) / 1e3;
    let mut gaps: Vec<_> = frames.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    let kinds: BTreeMap<String, u64> = serde_json::from_value(seen["kinds"].clone()).unwrap();
    let each: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let changes: u64 = kinds.values().sum();
    println!("\n{what}, for {seconds:.1} s");
    println!("  changes a second          {:>6.0} ({})", changes as f64 / seconds, each.join(", "));
    println!("  streams opened anew       {:>6}, errors {}", seen["opened"].to_string(), seen["errors"]);
    let (median, late) = (quantile(&gaps, 0.5), quantile(&gaps, 0.99));
    let longest = quantile(&gaps, 1.0);
    println!("  frames a second           {:>6.1}", gaps.len() as f64 / seconds);
    println!("  between two frames, ms    {median:>6.1} median, {late:.1} p99, {longest:.1} longest");
    let blocked = numbers("blocked");
    let most = blocked.last().copied().unwrap_or_default();
    println!("  tasks above 50 ms         {:>6}, the longest {most:.0} ms", blocked.len());
    let mut inputs = numbers("inputs");
    if !inputs.is_empty() {
        tell("  click to next paint, ms", &mut inputs);
    }
    tell("  the driver sees it, ms", answered);
    println!("  % of a core               browser {}, frontend {:.1}", used.browser(), used.of("frontend-1"));
    println!("  {}", used.machine());
}

/// What the page has made of all changes is what the exchange has.
#[track_caller]
fn check_same_stocks(browser: &Browser, exchange: &Exchange) {
    until("the stocks on the page are the exchange's", || {
        let stocks = exchange.get(1, "/stocks").body["data"].clone();
        let expected: Vec<_> =
            stocks.as_array().unwrap().iter().map(|s| json!([s["name"], s["quantity"], s["volume"]])).collect();
        let shown = "
            const number = (cell) => Number(cell.innerText.replace(/[^\\d]/g, ''));
            return [...document.querySelectorAll('#stocks tr')].map((row) =>
                [row.querySelector('button').title, number(row.children[2]), number(row.children[3])]);
        ";
        browser.js(shown) == Value::Array(expected)
    });
}

/// Processor time, in seconds: so far, or between two looks.
struct Usage {
    at: f64,
    /// By the exchange's processes, and of the browser by what each is for.
    by_name: BTreeMap<String, f64>,
    /// Of all cores, idle or not counted.
    busy: f64,
}

const BROWSER: &str = "browser: ";

impl Usage {
    fn now(exchange: &Exchange, browser: Option<&Browser>) -> Self {
        let mut by_name = BTreeMap::from([("client".to_owned(), process(std::process::id()))]);
        by_name.extend(exchange.names().into_iter().map(|name| (name.clone(), process(exchange.pid(&name)))));
        for pid in browser.map(Browser::pids).unwrap_or_default() {
            *by_name.entry(format!("{BROWSER}{}", purpose(pid))).or_default() += process(pid);
        }
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let ticks: Vec<f64> =
            stat.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        // All but idle and waiting for a disk, and the guests that are in the first two.
        let busy = ticks.iter().take(3).chain(ticks.iter().skip(5).take(3)).sum::<f64>() / TICKS_PER_S;
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let at = uptime.split_whitespace().next().unwrap().parse().unwrap();
        Self { at, by_name, busy }
    }

    fn since(&self, before: &Self) -> Self {
        let used = |(name, now): (&String, &f64)| (name.clone(), (now - before.of_raw(name)).max(0.0));
        Self {
            at: self.at - before.at,
            by_name: self.by_name.iter().map(used).collect(),
            busy: self.busy - before.busy,
        }
    }

    fn of_raw(&self, name: &str) -> f64 {
        self.by_name.get(name).copied().unwrap_or_default()
    }

    /// Of one core, in per cent.
    fn of(&self, name: &str) -> f64 {
        100.0 * self.of_raw(name) / self.at
    }

    /// All of the browser, and its parts.
    fn browser(&self) -> String {
        let parts: Vec<_> = self.by_name.keys().filter(|name| name.starts_with(BROWSER)).collect();
        let all: f64 = parts.iter().map(|name| self.of(name)).sum();
        let each: Vec<_> =
            parts.iter().map(|name| format!("{} {:.1}", &name[BROWSER.len()..], self.of(name))).collect();
        format!("{all:.1} ({})", each.join(", "))
    }

    /// How busy the machine was beside what is measured here.
    fn machine(&self) -> String {
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        let ours: f64 = self.by_name.values().sum();
        format!(
            "the machine was {:.0} % busy, with others' work {:.0} %",
            100.0 * self.busy / self.at / cores,
            100.0 * (self.busy - ours).max(0.0) / self.at / cores
        )
    }
}

/// The processor time of a process so far, in seconds, with its threads that have ended; none for one that has gone.
fn process(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0.0 };
    // The 14th and 15th of all: in the program, and in the kernel for it.
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// What a process of the browser is for, as its command line says.
fn purpose(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let kind = line.split_whitespace().find_map(|argument| argument.strip_prefix("--type="));
    kind.unwrap_or("main").to_owned()
}
