//! Accounts that trade with each other, through failovers and restarts.

use serde_json::{Value, json};

use crate::harness::{Answer, Exchange, request};

/// An account's owner.
pub(crate) struct Owner {
    pub(crate) name: &'static str,
    pub(crate) token: String,
}

impl Owner {
    /// Opens an account with 1,000.00 and ten GameStarts.
    #[track_caller]
    pub(crate) fn of(exchange: &Exchange, name: &'static str) -> Self {
        let body = json!({"account": name}).to_string();
        let opened = request(&exchange.url(1), "POST", "/accounts", "", &body).unwrap();
        assert_eq!(opened.status, 201, "{opened:?}");
        let owner = Self { name, token: opened.body["data"]["token"].as_str().unwrap().to_owned() };
        for asset in [json!({"amount": 1000}), json!({"name": "GameStart", "quantity": 10})] {
            assert_eq!(owner.call(exchange, "POST", "/deposits", "", &asset).status, 200);
        }
        owner
    }

    #[track_caller]
    pub(crate) fn call(&self, exchange: &Exchange, method: &str, path: &str, headers: &str, body: &Value) -> Answer {
        let headers = format!("Authorization: Bearer {}\r\n{headers}", self.token);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(&exchange.url(1), method, &format!("/accounts/{}{path}", self.name), &headers, &body).unwrap()
    }

    #[track_caller]
    pub(crate) fn place(&self, exchange: &Exchange, side: &str, quantity: u64, price: f64, key: &str) -> Answer {
        let order = json!({"name": "GameStart", "side": side, "quantity": quantity, "price": price});
        self.call(exchange, "POST", "/orders", &format!("Idempotency-Key: {key}\r\n"), &order)
    }

    #[track_caller]
    pub(crate) fn balance(&self, exchange: &Exchange) -> Value {
        self.call(exchange, "GET", "", "", &Value::Null).body["data"].clone()
    }
}

/// What ann and bob own once she has bought six of him for 15 each, and bids 14 for two more.
#[track_caller]
fn check_traded(exchange: &Exchange, ann: &Owner, bob: &Owner) {
    let own = |cash: f64, reserved_cash: f64, quantity: u64| (json!(cash), json!(reserved_cash), json!(quantity));
    for (owner, expected) in [(ann, own(910.0, 28.0, 16)), (bob, own(1090.0, 0.0, 4))] {
        let found = owner.balance(exchange);
        let holding = &found["holdings"][0];
        let found = (found["cash"].clone(), found["reserved_cash"].clone(), holding["quantity"].clone());
        assert_eq!(found, expected, "{}", owner.name);
    }
    let book = &exchange.get(1, "/stocks/GameStart/book").body["data"];
    assert_eq!((&book["bids"], &book["asks"]), (&json!([[14.0, 2]]), &json!([])));
    let trades = &exchange.get(1, "/stocks/GameStart/trades").body["data"];
    assert_eq!((trades.as_array().unwrap().len(), &trades[0]["price"]), (1, &json!(15.0)));
    assert_eq!(exchange.stock(1, "GameStart"), (100, 6), "the house has what it had, and the volume has grown");
}

#[test]
fn accounts_trade_with_each_other_through_a_failover_and_a_restart_of_everything() {
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    let (ann, bob) = (Owner::of(&exchange, "ann"), Owner::of(&exchange, "bob"));
    assert_eq!(exchange.stock(1, "GameStart"), (100, 0));
    let offered = bob.place(&exchange, "sell", 6, 15.0, "offer");
    assert_eq!(offered.body["data"]["status"], "open", "{offered:?}");
    let bought = ann.place(&exchange, "buy", 6, 16.0, "bid");
    assert_eq!((&bought.body["data"]["status"], &bought.body["data"]["filled"]), (&json!("filled"), &json!(6)));
    ann.place(&exchange, "buy", 2, 14.0, "more");
    check_traded(&exchange, &ann, &bob);

    exchange.kill("order-3");
    let again = bob.place(&exchange, "sell", 6, 15.0, "offer");
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{again:?}");
    assert_eq!(again.body, offered.body, "the same answer, though the order is filled by now");
    check_traded(&exchange, &ann, &bob);
    let mallory = Owner { name: "ann", token: bob.token.replace("bob", "ann") };
    assert_eq!(mallory.call(&exchange, "GET", "", "", &Value::Null).status, 401);

    exchange.stop_all();
    exchange.start_again();
    exchange.until_whole();
    check_traded(&exchange, &ann, &bob);
    let number =
        ann.call(&exchange, "GET", "/orders?status=open", "", &Value::Null).body["data"][0]["order_num"].clone();
    let cancelled = ann.call(&exchange, "DELETE", &format!("/orders/{number}"), "", &Value::Null);
    assert_eq!(cancelled.body["data"]["status"], "cancelled", "{cancelled:?}");
    assert_eq!(ann.balance(&exchange)["reserved_cash"], json!(0.0));
    exchange.stop_and_verify();
}

/// What somebody did is told as at first, by any leader, though all but the last few orders are in the journal alone.
#[test]
fn an_accounts_old_orders_are_told_and_done_once_through_failovers() {
    const FEW: [(&str, &str); 1] = [("--orders-kept", "5")];
    const ORDERS: u64 = 50;
    let mut exchange = Exchange::start(&[]);
    exchange.until_whole();
    for name in ["order-1", "order-2", "order-3"] {
        exchange.kill(name);
        exchange.restart_with(name, &FEW);
        exchange.until_whole();
    }
    let (ann, bob) = (Owner::of(&exchange, "ann"), Owner::of(&exchange, "bob"));
    let offer = |exchange: &Exchange, at: u64| bob.place(exchange, "sell", 1, 2.0, &format!("offer-{at}"));
    let bid = |exchange: &Exchange, at: u64| ann.place(exchange, "buy", 1, 2.0, &format!("bid-{at}"));
    let enough = json!({"name": "GameStart", "quantity": ORDERS});
    assert_eq!(bob.call(&exchange, "POST", "/deposits", "", &enough).status, 200);
    let placed: Vec<_> = (0..ORDERS).map(|at| (offer(&exchange, at), bid(&exchange, at))).collect();
    let number = |answer: &Answer| answer.body["data"]["order_num"].as_u64().unwrap();
    let check = |exchange: &Exchange| {
        for (at, (offered, bought)) in (0..).zip(&placed) {
            let order = format!("/orders/{}", number(bought));
            assert_eq!(ann.call(exchange, "GET", &order, "", &Value::Null).body, bought.body);
            assert_eq!(bid(exchange, at).body, bought.body, "as at first");
            assert_eq!(offer(exchange, at).body, offered.body, "as at first, when it was open");
            let order = format!("/orders/{}", number(offered));
            let now = bob.call(exchange, "GET", &order, "", &Value::Null);
            assert_eq!(
                (now.body["data"]["status"].as_str(), now.body["data"]["filled"].as_u64()),
                (Some("filled"), Some(1))
            );
            assert_eq!(ann.call(exchange, "GET", &order, "", &Value::Null).status, 404, "it is bob's");
            let done = bob.call(exchange, "DELETE", &order, "", &Value::Null);
            assert_eq!((done.status, done.message()), (409, "order is done"));
        }
        let (mut before, mut listed) = (String::new(), Vec::new());
        loop {
            let page = ann.call(exchange, "GET", &format!("/orders?limit=7{before}"), "", &Value::Null);
            let page = page.body["data"].as_array().unwrap().clone();
            let Some(last) = page.last() else { break };
            before = format!("&before={}", last["order_num"]);
            listed.extend(page);
        }
        let bought: Vec<_> = placed.iter().rev().map(|(_, bought)| bought.body["data"].clone()).collect();
        assert_eq!(listed, bought);
    };
    check(&exchange);
    exchange.kill("order-3");
    check(&exchange);
    exchange.restart_with("order-3", &FEW);
    exchange.until_whole();
    check(&exchange);
    let journal = std::fs::read_to_string(exchange.journal(3)).unwrap();
    let stated = journal.lines().filter(|line| line.contains("\"stated\":")).count();
    assert!(stated > 10, "{stated} statements");
    exchange.stop_and_verify();
}

#[test]
fn a_client_that_knows_the_house_alone_sees_no_difference() {
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    let (ann, bob) = (Owner::of(&exchange, "ann"), Owner::of(&exchange, "bob"));
    let bought = exchange.post(1, r#"{"name":"GameStart","quantity":2,"type":"buy","comment":"ignored"}"#);
    assert_eq!((bought.status, bought.text.as_str()), (200, r#"{"data":{"transaction_number":1}}"#));
    assert_eq!(bob.place(&exchange, "sell", 3, 1.0, "offer").status, 200, "far below the house's price");
    assert_eq!(ann.place(&exchange, "buy", 3, 99.0, "bid").status, 200);
    assert_eq!(exchange.post(1, r#"{"name":"GameStart","quantity":1,"type":"sell"}"#).number(), 4);
    let order = exchange.get(1, "/orders/4");
    assert_eq!(order.text, r#"{"data":{"order_num":4,"name":"GameStart","type":"sell","quantity":1}}"#);
    assert_eq!(exchange.get(1, "/orders/3").message(), "transaction number not found");
    let stocks = exchange.get(1, "/stocks");
    let game = r#"{"name":"GameStart","price":15.99,"quantity":99,"volume":6}"#;
    assert!(stocks.text.starts_with(r#"{"data":[{"name":"#) && stocks.text.contains(game), "{}", stocks.text);
    assert_eq!(exchange.get(1, "/stocks/GameStart").text, format!(r#"{{"data":{game}}}"#));
    exchange.stop_and_verify();
}
