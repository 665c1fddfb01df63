//! The live page in a real browser, on a real exchange, while parts of it are killed.
//!
//! Each test leaves pictures of what it saw in `target/tmp/page`, for people: that something is there is checked here, that it is
//! worth looking at is not. With `TRADENET_WRITE_DOCS=1` the README's pictures are made anew.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::harness::{Answer, Exchange, order, request, until};

/// All that a browser loads of the page.
const BYTES_MAX: u64 = 150_000;
/// A phone, a laptop, and a desk.
const SIZES: [(u32, u32); 3] = [(360, 780), (1280, 800), (1600, 1000)];
/// What people act on, in the words of accessibility.
const CONTROLS: [&str; 8] = ["button", "link", "textbox", "spinbutton", "radio", "checkbox", "combobox", "menuitem"];

/// A picture of every size in both lights.
#[track_caller]
fn pictures(browser: &Browser, name: &str) {
    for (width, height) in SIZES {
        for scheme in ["light", "dark"] {
            browser.look_like(width, height, scheme);
            browser.js("scrollTo(0, 0)");
            let fits = "return [document.documentElement, ...document.querySelectorAll('.scroll')]
                .every((box) => box.scrollWidth <= box.clientWidth)";
            browser.until_js(&format!("{name} fits into {width} pixels"), fits);
            browser.until_js("colours have enough contrast", LEGIBLE);
            keep(&pictures_dir().join(format!("{name}-{width}-{scheme}.png")), &browser.picture(width < 1000));
        }
    }
}

fn pictures_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("page")
}

fn keep(path: &Path, picture: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, STANDARD.decode(picture).unwrap()).unwrap();
}

/// Whether each text stands out from what is behind it by 4.5 to 1, as WCAG 2.2 AA has it (1.4.3).
const LEGIBLE: &str = "
    const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const paint = (colours) => {
        context.clearRect(0, 0, 1, 1);
        for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((part) => part / 255).map((part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = (node) => node ? [...behind(node.parentElement), getComputedStyle(node).backgroundColor] : [];
    const texts = [...document.querySelectorAll('body *')].filter((node) => node.checkVisibility()
        && !node.closest('.skip, .hidden, svg') && node.getAnimations().length === 0
        && [...node.childNodes].some((child) => child.nodeType === 3 && child.nodeValue.trim()));
    const low = texts.map((node) => {
        const ground = behind(node);
        const [one, other] = [light(paint(ground)), light(paint([...ground, getComputedStyle(node).color]))];
        return [(Math.max(one, other) + .05) / (Math.min(one, other) + .05), node.className, node.textContent.trim().slice(0, 40)];
    }).filter(([contrast]) => contrast < 4.5);
    return low.length === 0 || JSON.stringify(low);
";

/// Nothing is in the console: neither an error, nor anything that the page's policy forbids.
#[track_caller]
fn check_quiet(browser: &Browser) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Whoever cannot see a control is told what it is.
#[track_caller]
fn check_named(browser: &Browser) {
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let role = |node: &Value| node["role"]["value"].as_str().unwrap_or_default().to_owned();
    let named = |node: &&Value| node["name"]["value"].as_str().is_some_and(|name| !name.trim().is_empty());
    let controls = nodes.iter().filter(|node| node["ignored"] != true && CONTROLS.contains(&role(node).as_str()));
    let (with, without): (Vec<_>, Vec<_>) = controls.partition(named);
    assert!(without.is_empty(), "controls without a name: {without:?}");
    assert!(with.len() > 20, "{}", with.len());
    for wanted in ["main", "banner", "status", "log", "navigation", "heading"] {
        assert!(wanted == "log" || nodes.iter().any(|node| role(node) == wanted), "no {wanted}");
    }
}

#[test]
fn the_page_is_small_and_quiet_and_names_its_controls() {
    let Some(browser) = Browser::start() else { return };
    let exchange = Exchange::start(&[]);
    browser.open(&exchange.url(1));
    let bytes = "
        const files = performance.getEntriesByType('resource').filter(({name}) => /\\/page\\./.test(name));
        const [page] = performance.getEntriesByType('navigation');
        return files.length < 3 ? 1e9 : [page, ...files].reduce((sum, file) => sum + file.encodedBodySize, 0);
    ";
    let bytes = browser.js(bytes).as_u64().unwrap();
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
    let from = "return performance.getEntriesByType('resource').every(({name}) => name.startsWith(location.origin))";
    assert_eq!(browser.js(from), true, "something comes from elsewhere");
    check_named(&browser);
    pictures(&browser, "quiet");
    check_quiet(&browser);
    // What a page could be made to run, it does not.
    let inline = "
        const script = document.createElement('script');
        script.textContent = 'window.ran = true';
        document.body.append(script);
        return window.ran === undefined;
    ";
    assert_eq!(browser.js(inline), true, "a script in the page was run");
    assert!(browser.complaints().iter().any(|line| line.contains("Content Security Policy")), "nobody was told");
}

#[test]
fn a_trade_by_clicking_or_by_keys_appears_on_a_second_page() {
    let Some(browser) = Browser::start() else { return };
    let exchange = Exchange::start(&["--frontends", "2"]);
    browser.open(&exchange.url(1));
    browser.new_window();
    browser.open(&exchange.url(2));
    browser.switch_to(0);
    browser.click("#stocks button[title=GameStart]");
    browser.until_text("#chart-title", "GameStart");
    browser.fill("#house input", "3");
    browser.click("#house button.buy");
    browser.until_text("#house .outcome", "order 1: bought 3 GameStart");
    browser.switch_to(1);
    let shown = "
        const [row] = [...document.querySelectorAll('#stocks tr')].filter((row) => row.innerText.includes('GameStart'));
        return [...row.children].slice(1).map((cell) => cell.innerText.replace(/[^\\d.]/g, '')).join(' ');
    ";
    until("the second page shows the trade", || browser.js(shown) == "15.99 97 3");
    // From one stock to the next, and a sale, without a mouse.
    browser.js("document.querySelector('#stocks button').focus()");
    let (down, enter, tab) = ("\u{e015}", "\u{e007}", "\u{e004}");
    let name = "return document.activeElement.title";
    let first = browser.js(name);
    browser.press(down);
    let second = browser.js(name);
    assert_ne!(first, second);
    browser.press(enter);
    browser.until_text("#chart-title", second.as_str().unwrap());
    browser.js("document.querySelector('#house input').focus()");
    browser.press(&format!("{tab}{tab}{enter}"));
    browser.until_text("#house .outcome", &format!("order 2: sold 1 {}", second.as_str().unwrap()));
    browser.until_text("#tape", "sell · H");
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.js(outline), "solid", "the focus is not seen");
    browser.until_text("#log-newest", second.as_str().unwrap());
    check_quiet(&browser);
}

#[test]
fn the_strip_shows_how_a_leader_dies_and_comes_back() {
    let Some(browser) = Browser::start() else { return };
    let mut exchange = Exchange::start(&["--catalogs", "2"]);
    exchange.until_whole();
    browser.open(&exchange.url(1));
    browser.until_text("#leader", "order-3");
    let card = |name: &str| format!("#services [data-name={name}]");
    browser.until_text(&card("order-3"), "in sync");
    browser.until_js("four services besides the replicas", "return document.querySelectorAll('.service').length === 6");
    browser.until_text("#services", "has authority from the leader");
    browser.until_text("#services", "stands by");
    browser.until_text(&card("frontend-1"), "lease on its cache");
    browser.click(&card("order-3"));
    browser.until_text("#command", &format!("kill -9 {}", exchange.pid("order-3")));
    browser.click("#copy");
    browser.until_text("#copy", "Copied");
    browser.until_text("#log [class=row]:last-child", "order-3");

    exchange.kill("order-3");
    browser.until_text("#leader", "order-2");
    browser.until_text("#state", "2 of 3 replicas in sync");
    browser.until_text(&card("order-3"), "out of sync since");
    browser.until_text("#timeline", "order-3 does not answer");
    browser.until_text("#timeline", "order-2 leads, before it order-3");
    browser.until_text("#timeline", "order-3 is out of the in-sync set");
    browser.until_text("#command-about", "Start order-3 again");
    check_named(&browser);
    pictures(&browser, "without-a-leader");

    exchange.restart("order-3");
    browser.until_text("#timeline", "order-3 is in sync again");
    browser.until_text("#leader", "order-3");
    browser.until_js("all is well", "return document.querySelector('#state').innerText === 'Live'");
    check_quiet(&browser);
}

#[test]
fn a_lost_feed_is_told_and_what_was_missed_is_caught_up() {
    let Some(browser) = Browser::start() else { return };
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    browser.open(&exchange.url(1));
    browser.until_text("#tape-empty", "Nothing has been traded");
    browser.click("#stocks button[title=GameStart]");
    exchange.kill("frontend-1");
    browser.until_text("#state", "Stale since");
    // Nobody is there to tell that it has gone: the page knows, and how it comes back.
    browser.click("#services [data-name=frontend-1]");
    browser.until_text("#services [data-name=frontend-1]", "no answer since");
    browser.until_text("#command-about", "Start frontend-1 again");
    pictures(&browser, "stale");
    assert_eq!(exchange.post(2, &order("GameStart", 5, "buy")).status, 200);
    exchange.restart("frontend-1");
    browser.until_text("#state", "Live");
    browser.until_text("#tape", "buy · H");
    browser.until_text("#quote", "95");
}

#[test]
fn hostile_names_are_text() {
    let Some(browser) = Browser::start() else { return };
    let names = ["<img", "<script", "'onclick=alert(1)", "'--<!--", "&lt;b&gt;", "javascript:alert(1)", "${alert(1)}"];
    let rows = names.map(|name| format!("{name},1.00,10\n"));
    let dir = tempfile::TempDir::new().unwrap();
    let stocks = dir.path().join("stocks.csv");
    std::fs::write(&stocks, format!("name,price,quantity\n{}", rows.concat())).unwrap();
    let mut exchange = Exchange::start(&["--stocks", stocks.to_str().unwrap()]);
    let hostile = "<img src=x onerror=alert(1)>";
    exchange.kill("frontend-1");
    exchange.restart_with("frontend-1", &[("--name", "<b>frontend</b>")]);
    until("the frontend of that name", || exchange.ready(1));
    browser.open(&exchange.url(1));
    for name in names {
        browser.click(&format!("#stocks button[title={}]", json!(name)));
        let chosen = format!("return document.querySelector('#chart-title').textContent === {}", json!(name));
        browser.until_js(name, &chosen);
    }
    browser.fill("#sign-in [name=account]", hostile);
    browser.click("#sign-in button[value=open]");
    browser.until_js("a refusal", "return document.querySelector('#sign-in .outcome').dataset.tone === 'bad'");
    browser.until_text("#services", "<b>frontend</b>");
    browser.click("#services .service:last-child");
    let alien =
        "return document.querySelectorAll('main img, main b > *, script:not([src]), [onclick], [onerror]').length";
    assert_eq!(browser.js(alien), 0);
    check_quiet_but_for(&browser, "400");
}

/// Whoever works by keys is where they were, though what they pressed is gone.
#[track_caller]
fn check_focus(browser: &Browser, id: &str) {
    browser.until_js(&format!("{id} has the focus"), &format!("return document.activeElement.id === '{id}'"));
}

/// What the exchange refuses is in the browser's console, too.
#[track_caller]
fn check_quiet_but_for(browser: &Browser, status: &str) {
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains(status)), "{complaints:?}");
}

#[test]
fn an_account_is_opened_trades_and_cancels_by_the_page() {
    let Some(browser) = Browser::start() else { return };
    let exchange = Exchange::start(&[]);
    browser.open(&exchange.url(1));
    browser.click("#stocks button[title=GameStart]");
    browser.fill("#sign-in [name=account]", "carol");
    browser.click("#sign-in button[value=open]");
    browser.until_text("#account-name", "carol");
    check_focus(&browser, "account-title");
    let token = browser.js("return document.querySelector('#secret-token').value");
    assert!(token.as_str().unwrap().starts_with("carol."), "{token}");
    browser.fill("#deposit input", "100");
    browser.click("#deposit button[value=cash]");
    browser.until_text("#balances", "100.00");
    browser.fill("#order [name=quantity]", "4");
    browser.fill("#order [name=price]", "12.50");
    browser.click("#order button");
    browser.until_text("#order .outcome", "open");
    browser.until_text("#orders", "12.50");
    browser.until_text("#bids", "12.50");
    browser.until_text("#balances", "50.00");

    // Another account takes two of them: the page hears of it.
    let dave = Account::open(&exchange, "dave");
    dave.bring(&json!({"name": "GameStart", "quantity": 10}));
    let sale = json!({"name": "GameStart", "side": "sell", "quantity": 2, "price": 12.00});
    assert_eq!(dave.order(&sale).body["data"]["status"], "filled");
    browser.until_text("#tape", "12.50");
    browser.until_text("#balances", "GameStart");
    browser.until_js("two are left", "return document.querySelector('#orders td:nth-child(2)').innerText === '2'");
    check_named(&browser);
    pictures(&browser, "account");
    browser.click("#orders button");
    browser.until_text("#orders-empty", "None");
    check_focus(&browser, "orders-title");
    browser.until_text("#spread", "no orders");

    // A refusal is told in the exchange's words; who signs out is gone from here, and comes back with the token.
    browser.fill("#order [name=quantity]", "4000");
    browser.click("#order button");
    browser.until_text("#order .outcome", "insufficient funds");
    browser.click("#sign-out");
    assert_eq!(browser.js("return sessionStorage.length"), 0);
    check_focus(&browser, "account-title");
    browser.fill("#sign-in [name=account]", "carol");
    browser.fill("#sign-in [name=token]", token.as_str().unwrap());
    browser.click("#sign-in button[value=sign-in]");
    browser.until_text("#account-name", "carol");
    check_quiet_but_for(&browser, "409");
}

/// An account that trades without a page.
struct Account {
    url: String,
    name: &'static str,
    headers: String,
}

impl Account {
    #[track_caller]
    fn open(exchange: &Exchange, name: &'static str) -> Self {
        let url = exchange.url(1);
        let body = json!({"account": name}).to_string();
        let opened = request(&url, "POST", "/accounts", "", &body).unwrap();
        let token = opened.body["data"]["token"].as_str().unwrap();
        Self { url, name, headers: format!("Authorization: Bearer {token}\r\n") }
    }

    #[track_caller]
    fn post(&self, what: &str, body: &Value) -> Answer {
        let path = format!("/accounts/{}/{what}", self.name);
        let answer = request(&self.url, "POST", &path, &self.headers, &body.to_string()).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    #[track_caller]
    fn bring(&self, body: &Value) {
        self.post("deposits", body);
    }

    #[track_caller]
    fn order(&self, body: &Value) -> Answer {
        self.post("orders", body)
    }
}

#[test]
fn a_market_in_motion_is_shown_without_a_break() {
    let Some(browser) = Browser::start() else { return };
    let mut exchange = Exchange::start(&["--catalogs", "2", "--frontends", "2"]);
    exchange.until_whole();
    browser.open(&exchange.url(1));
    browser.click("#stocks button[title=GameStart]");
    browser.js("document.querySelector('[value=\"1s\"]').click()");
    let write = std::env::var_os("TRADENET_WRITE_DOCS").is_some();
    let load = exchange.load(&[1, 2], if write { 30 } else { 3 });
    // A walk of prices: each sale takes the best bid, each purchase the best ask, and the book is filled again around it.
    // Who fills it takes turns, as an account may have so many orders open and no more.
    let makers = ["alice", "carol", "dave", "erin"].map(|name| Account::open(&exchange, name));
    let bob = Account::open(&exchange, "bob");
    for account in makers.iter().chain([&bob]) {
        account.bring(&json!({"amount": 1_000_000.00}));
        account.bring(&json!({"name": "GameStart", "quantity": 100_000}));
    }
    let mut number = 11_u64;
    let mut random = |below: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    let mut middle = 1_540_u64;
    let limit = |account: &Account, side: &str, quantity: u64, cents: u64| {
        #[allow(clippy::cast_precision_loss, reason = "small sums")]
        let price = cents as f64 / 100.0;
        account.order(&json!({"name": "GameStart", "side": side, "quantity": quantity, "price": price}));
    };
    for turn in 0..if write { 1200 } else { 60 } {
        middle = (middle + random(13)).saturating_sub(if turn % 90 < 55 { 5 } else { 8 });
        let maker = &makers[turn % makers.len()];
        limit(maker, "buy", 5 + random(60), middle - 1 - random(24));
        limit(maker, "sell", 5 + random(60), middle + 1 + random(24));
        let (side, cents) = if random(2) == 0 { ("buy", middle + 4) } else { ("sell", middle - 4) };
        limit(&bob, side, 1 + random(40), cents);
    }
    for report in load.verified() {
        assert_eq!(report.error_count(), 0, "{report}");
    }
    browser
        .until_js("candles are drawn", "return document.querySelector('#candles .wick').getAttribute('d').length > 20");
    // The house's orders went on for longer, and the tape shows the newest only: one more, now that it is quiet.
    // Of somebody who has no order there to meet, at whatever price.
    let frank = Account::open(&exchange, "frank");
    frank.bring(&json!({"amount": 1_000.00}));
    frank.order(&json!({"name": "GameStart", "side": "buy", "quantity": 1}));
    let newest = exchange.get(1, "/stocks/GameStart/trades?limit=1").body["data"][0]["price"].as_f64().unwrap();
    browser.until_text("#tape", &format!("{newest:.2}"));
    check_same_book(&browser, &exchange);
    browser.until_js("trades are timed", "return /ms/.test(document.querySelector('#p99').innerText)");
    if write {
        exchange.kill("order-3");
        browser.until_text("#leader", "order-2");
        for turn in 0..25 {
            limit(
                &bob,
                if turn % 2 == 0 { "buy" } else { "sell" },
                1 + random(20),
                if turn % 2 == 0 { middle + 9 } else { middle - 9 },
            );
        }
        browser.click("#services [data-name=order-2]");
        browser.js("document.activeElement.blur()");
        for scheme in ["light", "dark"] {
            browser.look_like(1600, 1000, scheme);
            browser.js("scrollTo(0, 0)");
            // All of the page, and no bar to scroll it.
            let height = browser.js("return document.documentElement.scrollHeight").as_u64().unwrap();
            browser.look_like(1600, u32::try_from(height).unwrap(), scheme);
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/page-{scheme}.png"));
            browser.until_js(
                "drawn",
                "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))",
            );
            keep(&path, &browser.picture(false));
        }
    }
    pictures(&browser, "market");
    check_quiet(&browser);
}

/// The page's book, made of changes, is the exchange's.
#[track_caller]
pub(crate) fn check_same_book(browser: &Browser, exchange: &Exchange) {
    until("the book on the page is the exchange's", || {
        let book = exchange.get(1, "/stocks/GameStart/book?depth=10").body["data"].clone();
        let side = |name: &str| {
            let levels = book[name].as_array().unwrap().iter();
            levels.map(|level| format!("{:.2} {}", level[0].as_f64().unwrap(), level[1])).collect::<Vec<_>>()
        };
        let (bids, mut asks) = (side("bids"), side("asks"));
        asks.reverse();
        let shown = "
            const rows = (id) => [...document.querySelectorAll(`#${id} tr`)].map((row) =>
                `${row.children[0].innerText.trim()} ${row.children[1].innerText.replaceAll(',', '')}`);
            return [rows('asks'), rows('bids')];
        ";
        browser.js(shown) == json!([asks, bids])
    });
}
