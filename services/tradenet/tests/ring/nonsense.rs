//! Nonsense at the door: a clear error, and nothing has changed.
//!
//! Each case is bytes that a client may send, the status that it gets, and what its message must say. After each the whole
//! exchange is looked at again: what is shown to everybody and to both accounts, and how many commands are in the log.

use serde_json::{Value, json};

use crate::harness::{Exchange, request, send};
use crate::market::Owner;

/// Everything that could have changed.
fn state(exchange: &Exchange, owners: &[&Owner]) -> Value {
    let everybodys = ["/stocks", "/stocks/GameStart/book?depth=500", "/stocks/GameStart/trades?limit=500"];
    let mut seen: Vec<Value> = everybodys.iter().map(|path| exchange.get(1, path).body).collect();
    for owner in owners {
        let own = ["", "/orders?limit=500"].map(|path| owner.call(exchange, "GET", path, "", &Value::Null).body);
        seen.extend(own);
    }
    seen.push(json!((1..=3).map(|id| commands(exchange, id)).max()));
    Value::from(seen)
}

/// How many commands a replica has in its log; the exchange's own entries, as of a new epoch, may come at any time.
fn commands(exchange: &Exchange, id: u8) -> usize {
    let journal = std::fs::read_to_string(exchange.journal(id)).unwrap();
    journal.lines().filter(|line| line.contains(r#""key":"#)).count()
}

/// A request as it stands on the wire.
fn raw(method: &str, path: &[u8], headers: &str, body: &[u8]) -> Vec<u8> {
    let length = if headers.contains("-Length:") || headers.contains("-Encoding:") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let head = [method.as_bytes(), b" ", path, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"].concat();
    [head, headers.as_bytes().to_vec(), length.into_bytes(), b"\r\n".to_vec(), body.to_vec()].concat()
}

#[test]
fn nonsense_gets_a_clear_error_and_changes_nothing() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    let (ann, bob) = (Owner::of(&exchange, "ann"), Owner::of(&exchange, "bob"));
    assert_eq!(bob.place(&exchange, "sell", 3, 15.0, "offer").status, 200);
    assert_eq!(ann.place(&exchange, "buy", 1, 15.0, "bid").status, 200);
    exchange.until_cluster("a catalog", |cluster| cluster.catalog.is_some());
    let token = format!("Authorization: Bearer {}\r\n", ann.token);
    let before = state(&exchange, &[&ann, &bob]);
    let check = |request: &[u8], status: u16, says: &str| {
        let answer = send(&exchange.url(1), request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        let answer = answer.unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(answer.status, status, "{shown}\n{answer:?}");
        assert_eq!(answer.body["error"]["code"], status, "{shown}\n{answer:?}");
        assert!(answer.message().contains(says), "{shown}\n{answer:?}");
        assert_eq!(state(&exchange, &[&ann, &bob]), before, "{shown}");
    };

    let post = |path: &str, body: &[u8]| raw("POST", path.as_bytes(), &token, body);
    let order = |body: &str| post("/accounts/ann/orders", body.as_bytes());
    let limit = |quantity: &str, price: &str| {
        order(&format!(r#"{{"name":"GameStart","side":"buy","quantity":{quantity},"price":{price}}}"#))
    };
    let (count, price) = ("quantity must be a positive whole number", "price must be a positive number");
    for none in [
        "0",
        "-1",
        "-0",
        "1.5",
        "0.1e0",
        "\"1\"",
        "true",
        "null",
        "[1]",
        "{}",
        "1e400",
        "1e-400",
        "1e99999999999999999999",
    ] {
        check(&limit(none, "1"), 400, count);
    }
    for none in [
        "0",
        "-1",
        "0.001",
        "15.999",
        "1e-3",
        "\"15\"",
        "true",
        "[15]",
        "{}",
        "1e400",
        "10000000000.01",
        "18446744073709551616",
    ] {
        check(&limit("1", none), 400, price);
    }
    for none in ["NaN", "Infinity", "+1", "01", "1.", ".5", "0x10", "1_000", "1e", ""] {
        check(&limit("1", none), 400, "the body must be a JSON object");
        check(&limit(none, "1"), 400, "the body must be a JSON object");
    }
    // More than a 64-bit number of cents can say.
    check(&limit("9007199254740991", "10000000000.00"), 409, "insufficient funds");
    check(&limit("18446744073709551615", "10000000000.00"), 409, "insufficient funds");
    check(&limit("1000000000", "1e10"), 409, "insufficient funds");
    for (body, says) in [
        (r#"{"name":"GameStart","side":"hold","quantity":1}"#, "side must be buy or sell"),
        (r#"{"name":"GameStart","side":"BUY","quantity":1}"#, "side must be buy or sell"),
        (r#"{"name":"GameStart","quantity":1}"#, "side must be buy or sell"),
        (r#"{"name":7,"side":"buy","quantity":1}"#, "name must be"),
        (r#"{"side":"buy","quantity":1}"#, "name must be"),
        (r#"{"name":"GameStart","side":"buy","quantity":1,"time_in_force":"day"}"#, "time_in_force must be"),
        (r#"{"name":"GameStart","side":"buy","quantity":1,"time_in_force":1}"#, "time_in_force must be"),
        (r#"{"name":"GameStart","side":"buy","quantity":1,"post_only":"true"}"#, "post_only must be"),
        (r#"{"name":"GameStart","side":"buy","quantity":1,"stop":1}"#, "unknown field `stop`"),
        (r#"{"name":"GameStart","side":"buy","quantity":1,"quantity":2}"#, "duplicate field `quantity`"),
        (r#"{"name":"GameStart","side":"buy","quantity":1,"\u0071uantity":2}"#, "duplicate field `quantity`"),
        (r#"{"name":"GameStart","side":"buy","quantity":1}{}"#, "trailing characters"),
        (r#"[{"name":"GameStart","side":"buy","quantity":1}]"#, "does not start with {"),
        ("null", "does not start with {"),
        ("", "does not start with {"),
        ("{", "EOF"),
    ] {
        check(&order(body), 400, says);
    }
    check(&post("/accounts/ann/orders", b"{\"name\":\"Game\xff\"}"), 400, "utf-8");
    check(&post("/accounts/ann/orders", &[0; 100]), 400, "does not start with {");
    let deep = format!(r#"{{"price":{}{}}}"#, "[".repeat(8_000), "]".repeat(8_000));
    check(&order(&deep), 400, "");
    check(&order(&format!(r#"{{"name":"{}"}}"#, "x".repeat(16 * 1024))), 413, "at most 16384 bytes");
    let endless = format!("{token}Content-Length: 99999999999\r\n");
    check(&raw("POST", b"/accounts/ann/orders", &endless, b"{"), 413, "at most 16384 bytes");
    let chunks = format!("{token}Transfer-Encoding: chunked\r\n");
    let chunk = [b"8000\r\n".to_vec(), vec![b' '; 0x8000], b"\r\n0\r\n\r\n".to_vec()].concat();
    check(&raw("POST", b"/accounts/ann/orders", &chunks, &chunk), 413, "at most 16384 bytes");

    let money = |way: &str, body: &str| post(&format!("/accounts/ann/{way}"), body.as_bytes());
    for way in ["deposits", "withdrawals"] {
        for none in ["0", "-5", "0.001", "1e-3", "\"5\"", "null", "[]", "1e400"] {
            check(&money(way, &format!(r#"{{"amount":{none}}}"#)), 400, "");
        }
        for body in
            [r#"{"amount":1,"name":"GameStart","quantity":1}"#, "{}", r#"{"cash":1}"#, r#"{"amount":1,"amount":1}"#]
        {
            check(&money(way, body), 400, "the body must be a JSON object such as");
        }
        for stock in ["Nope", "a b", "", "GameStart\\u0000", "*", "a/b"] {
            check(&money(way, &format!(r#"{{"name":"{stock}","quantity":1}}"#)), 404, "stock not found");
        }
    }
    for much in ["90071992547409.92", "1e15", "184467440737095516.15"] {
        check(&money("deposits", &format!(r#"{{"amount":{much}}}"#)), 409, "too much cash");
        check(&money("withdrawals", &format!(r#"{{"amount":{much}}}"#)), 409, "insufficient funds");
    }
    for much in ["9007199254740991", "9007199254740992", "18446744073709551615"] {
        check(&money("deposits", &format!(r#"{{"name":"GameStart","quantity":{much}}}"#)), 409, "too many stocks");
        check(
            &money("withdrawals", &format!(r#"{{"name":"GameStart","quantity":{much}}}"#)),
            409,
            "insufficient stocks",
        );
    }

    let get = |path: &[u8]| raw("GET", path, &token, b"");
    for depth in ["0", "-1", "501", "1e2", "10.0", "x", "", "99999999999999999999", "%31%"] {
        check(&get(format!("/stocks/GameStart/book?depth={depth}").as_bytes()), 400, "");
        check(&get(format!("/stocks/GameStart/trades?limit={depth}").as_bytes()), 400, "");
        check(&get(format!("/accounts/ann/orders?limit={depth}").as_bytes()), 400, "");
    }
    check(&get(b"/stocks/GameStart/book?deep=1"), 400, "known are depth");
    check(&get(b"/accounts/ann/orders?status=gone"), 400, "status must be");
    check(&get(b"/accounts/ann/orders?before=0"), 400, "before must be");
    for number in ["0", "-1", "1.0", "+1", "x", "18446744073709551616", "%31%30%30"] {
        check(&get(format!("/accounts/ann/orders/{number}").as_bytes()), 404, "order not found");
        check(&raw("DELETE", format!("/accounts/ann/orders/{number}").as_bytes(), &token, b""), 404, "order not found");
    }
    for path in ["/accounts/ann/../bob", "/accounts/ann/", "//accounts/ann", "/accounts/ann/orders/1/2", "/account"] {
        check(&get(path.as_bytes()), 404, "is not here");
    }
    for path in ["/accounts/ann%2Forders", "/accounts/%00", "/accounts/%ff", "/accounts/ANN", "/accounts/ann%20"] {
        check(&get(path.as_bytes()), 403, "another account's");
    }
    check(&get(b"/stocks/\xff\xfe"), 400, "not an HTTP/1.1 request");
    check(&get(&[b"/stocks/".to_vec(), vec![b'x'; 10_000]].concat()), 404, "stock not found");
    check(&get(&[b"/stocks/".to_vec(), vec![b'x'; 20_000]].concat()), 431, "");
    check(&raw("PATCH", b"/accounts/ann", &token, b"{}"), 405, "the Allow header");
    check(&raw("GET", b"/accounts", &token, b""), 405, "the Allow header");

    let keyed = |key: &str| {
        let headers = format!("{token}Idempotency-Key: {key}\r\n");
        raw("POST", b"/accounts/ann/deposits", &headers, br#"{"amount":1}"#)
    };
    for key in ["", "\"\"", "a b", "k\r\nIdempotency-Key: k", &"k".repeat(256), "\u{fc}"] {
        check(&keyed(key), 400, "Idempotency-Key must");
    }
    let keyed = format!("{token}Idempotency-Key: a b\r\n");
    check(&raw("DELETE", b"/accounts/ann/orders/2", &keyed, b""), 400, "Idempotency-Key must have");
    check(&raw("POST", b"/accounts", "", br#"{"account":"Ann"}"#), 400, "1 to 32 of a-z 0-9 _ -");
    check(&raw("POST", b"/accounts", "", br#"{"account":"ann"}"#), 409, "taken");
    check(&raw("POST", b"/orders", "", br#"{"name":"GameStart","quantity":1e400,"type":"buy"}"#), 400, count);
    check(&raw("POST", b"/orders", "", br#"{"name":"GameStart","quantity":101,"type":"buy"}"#), 409, "not enough");
    exchange.stop_and_verify();
}

#[test]
fn an_account_has_a_thousand_open_orders_and_no_more() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    let ann = Owner::of(&exchange, "ann");
    let place = |number: usize| {
        let order = json!({"name": "GameStart", "side": "buy", "quantity": 1, "price": 0.01});
        ann.call(&exchange, "POST", "/orders", &format!("Idempotency-Key: {number}\r\n"), &order)
    };
    // Several at once, so that a batch carries them.
    std::thread::scope(|scope| {
        for first in 0..8 {
            let place = &place;
            scope.spawn(move || (first..1_000).step_by(8).for_each(|number| assert_eq!(place(number).status, 200)));
        }
    });
    let before = state(&exchange, &[&ann]);
    let refused = place(1_000);
    assert_eq!(
        (refused.status, refused.message()),
        (409, "1000 orders of this account are open already; cancel some first")
    );
    assert_eq!(state(&exchange, &[&ann]), before);
    assert_eq!(ann.balance(&exchange)["reserved_cash"], json!(10.0));
    let market = json!({"name": "GameStart", "side": "buy", "quantity": 1});
    assert_eq!(ann.call(&exchange, "POST", "/orders", "", &market).status, 200, "what does not rest is taken");
    assert_eq!(ann.call(&exchange, "DELETE", "/orders/7", "", &Value::Null).status, 200);
    assert_eq!(place(1_000).status, 200, "there is room again");
    exchange.stop_and_verify();
}

#[test]
fn a_token_is_shown_once_and_written_nowhere_and_nothing_of_another_account_is_told() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    let open = |name: &str, key: &str| {
        let headers = format!("Idempotency-Key: {key}\r\n");
        request(&exchange.url(1), "POST", "/accounts", &headers, &json!({"account": name}).to_string()).unwrap()
    };
    let lost = open("dan", "k");
    let again = open("dan", "k");
    assert_eq!((lost.status, lost.header("idempotent-replayed")), (201, None), "{lost:?}");
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")), "{again:?}");
    let token = |answer: &crate::harness::Answer| answer.body["data"]["token"].as_str().unwrap().to_owned();
    let (old, dan) = (Owner { name: "dan", token: token(&lost) }, Owner { name: "dan", token: token(&again) });
    assert_ne!(old.token, dan.token);
    let status = |owner: &Owner, method: &str, path: &str, body: Value| {
        let answer = owner.call(&exchange, method, path, "", &body);
        (answer.status, answer.message().to_owned())
    };
    assert_eq!(status(&old, "GET", "", Value::Null).0, 401, "the one that was lost is void");
    assert_eq!(status(&dan, "POST", "/deposits", json!({"amount": 1})).0, 200);
    assert_eq!(open("dan", "k").status, 409, "an account that was used keeps its token");

    let bob = Owner::of(&exchange, "bob");
    let secret = bob.place(&exchange, "sell", 3, 15.0, "k");
    let number = secret.body["data"]["order_num"].as_u64().unwrap();
    for path in [format!("/orders/{number}"), format!("/orders/{}", number + 1)] {
        for method in ["GET", "DELETE"] {
            assert_eq!(
                status(&dan, method, &path, Value::Null),
                (404, "order not found".to_owned()),
                "{method} {path}"
            );
        }
    }
    let house = |number: u64| exchange.get(1, &format!("/orders/{number}"));
    assert_eq!((house(number).status, house(number).body), (404, house(number + 1).body), "an order of nobody's");
    let (intruder, nobody) = (
        |name| Owner { name, token: dan.token.clone() },
        |name| Owner { name, token: format!("{name}.{}", "0".repeat(64)) },
    );
    for (method, path) in [("GET", ""), ("GET", "/orders"), ("DELETE", "/orders/1"), ("POST", "/deposits")] {
        let (there, not_there) =
            (status(&intruder("bob"), method, path, json!({})), status(&intruder("eve"), method, path, json!({})));
        assert_eq!((there.0, &there), (403, &not_there), "{method} {path}");
        let (there, not_there) =
            (status(&nobody("bob"), method, path, json!({})), status(&nobody("eve"), method, path, json!({})));
        assert_eq!((there.0, &there), (401, &not_there), "{method} {path}");
    }

    let secret = |owner: &Owner| owner.token.split_once('.').unwrap().1.to_owned();
    let written: String = (1..=3).map(|id| std::fs::read_to_string(exchange.journal(id)).unwrap()).collect();
    for owner in [&old, &dan, &bob] {
        assert_eq!(secret(owner).len() * 4, 256, "bits");
        assert!(!written.contains(&secret(owner)) && !exchange.log().contains(&secret(owner)), "{}", owner.name);
    }
    exchange.stop_and_verify();
}
