//! Two frontends, each with a cache, and nobody ever reads what a trade has made old.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::{Exchange, order};

#[test]
fn what_is_answered_through_one_frontend_is_never_read_older_through_the_other_while_caches_hit() {
    const TRADES: u64 = 150;
    let exchange = Exchange::start(&["--frontends", "2"]);
    let (answered, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut hits = 0;
    std::thread::scope(|scope| {
        for frontend in [1, 2] {
            let (exchange, answered, done) = (&exchange, &answered, &done);
            // Beside the reader below, which waits for each trade: one that is under way while trades are made.
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let least = answered.load(Ordering::SeqCst);
                    let (_, volume) = exchange.stock(frontend, "GameStart");
                    assert!(volume >= least, "stale: {volume} after {least}");
                }
            });
        }
        // Whatever fails here must not leave them reading for ever.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for volume in 1..=TRADES {
                let (by, other) = if volume % 2 == 0 { (1, 2) } else { (2, 1) };
                exchange.post(by, &order("GameStart", 1, "sell")).number();
                answered.store(volume, Ordering::SeqCst);
                for frontend in [other, other, by] {
                    let answer = exchange.get(frontend, "/stocks/GameStart");
                    assert_eq!(answer.body["data"]["quantity"], 100 + volume, "{answer:?}");
                    assert_eq!(answer.body["data"]["volume"], volume, "{answer:?}");
                    hits += u64::from(answer.header("x-cache") == Some("hit"));
                }
            }
        }));
        done.store(true, Ordering::SeqCst);
        result.unwrap();
    });
    println!("{hits} of {} reads were hits", 3 * TRADES);
    assert!(hits > TRADES / 3, "{hits}");
    for frontend in [1, 2] {
        let cache = exchange.cluster(frontend).frontend.cache;
        assert!(cache.hits > 0 && cache.invalidations > 0, "{cache:?}");
    }
}

#[test]
fn a_cache_drops_what_was_used_longest_ago_and_without_one_nothing_hits() {
    let exchange = Exchange::start(&["--cache-size", "2"]);
    let names: Vec<String> = exchange.get(1, "/stocks").body["data"].as_array().unwrap()[..3]
        .iter()
        .map(|stock| stock["name"].as_str().unwrap().to_owned())
        .collect();
    let check = |exchange: &Exchange, stock: usize, expected: &str| {
        let answer = exchange.get(1, &format!("/stocks/{}", names[stock]));
        assert_eq!(answer.header("x-cache"), Some(expected), "{answer:?}");
    };
    let steps = [(0, "miss"), (1, "miss"), (0, "hit"), (2, "miss"), (0, "hit"), (1, "miss"), (2, "miss")];
    for (stock, expected) in steps {
        check(&exchange, stock, expected);
    }
    assert_eq!(exchange.cluster(1).frontend.cache.evictions, 3);
    drop(exchange);
    let exchange = Exchange::start(&["--cache-size", "0"]);
    check(&exchange, 0, "miss");
    check(&exchange, 0, "miss");
}

/// The head of an answer, in lower case, and its body.
fn ask(exchange: &Exchange, method: &str, path: &str, header: &str) -> (String, String) {
    let mut stream = TcpStream::connect(exchange.url(1).trim_start_matches("http://")).unwrap();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: x\r\n{header}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn what_the_cache_answers_is_the_same_in_whatever_way_it_is_asked() {
    let exchange = Exchange::start(&[]);
    exchange.get(1, "/stocks/GameStart");
    let (head, body) = ask(&exchange, "GET", "/stocks/GameStart", "");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned();
    let check = |method, path, header: &str, status: &str, x_cache: Option<&str>, expected: &str| {
        let (head, body) = ask(&exchange, method, path, header);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        assert_eq!(head.split(' ').nth(1), Some(status), "{method} {path}: {head}");
        assert_eq!(field("x-cache: ").as_deref(), x_cache, "{method} {path}: {head}");
        assert!(x_cache.is_none() || field("etag: ").as_ref() == Some(&tag), "{method} {path}: {head}");
        assert!(field("x-request-id: ").is_some(), "{method} {path}: {head}");
        assert!(body == expected || x_cache.is_none(), "{method} {path}: {body}");
    };
    let known = format!("If-None-Match: {tag}\r\n");
    check("GET", "/stocks/GameStart", "", "200", Some("hit"), &body);
    check("GET", "/stocks/Game%53tart?depth=1", "", "200", Some("hit"), &body);
    check("GET", "/stocks/GameStart", &known, "304", Some("hit"), "");
    check("HEAD", "/stocks/GameStart", "", "200", Some("hit"), "");
    check("HEAD", "/stocks/GameStart", &known, "304", Some("hit"), "");
    check("GET", "/stocks/GameStart", "Content-Length: 2\r\n\r\n{}", "200", Some("hit"), &body);
    check("GET", "/stocks/GameStart/", "", "404", None, "");
    check("POST", "/stocks/GameStart", "", "405", None, "");
}
