//! Accounts, books and trades over real sockets; the test plays the leader.

use tradenet_schemas::account::{
    AccountAnswer, AccountOrder, AccountQuery, Balance, Book, Candle, Cash, Credentials, Fill, Holding, Instruction,
    Level, OrderStatus, TimeInForce, Trade,
};
use tradenet_schemas::ids::{SeqNum, TradeNumber};
use tradenet_schemas::message::{Answer, Query};
use tradenet_schemas::trade::Receipt;

use super::*;

/// The token of alice, whose secret is all 1, and one of somebody who calls himself so.
pub(super) const ALICE: &str =
    "Authorization: Bearer alice.0101010101010101010101010101010101010101010101010101010101010101\r\n";
const MALLORY: &str =
    "Authorization: Bearer alice.0202020202020202020202020202020202020202020202020202020202020202\r\n";
const UNAUTHORISED: &str = "send the account's token in the header Authorization: Bearer TOKEN";

fn is_alice(caller: &Credentials) -> bool {
    // The SHA-256 of 32 bytes of 1.
    let hash = "72cd6e8422c407fb6d098690f1130b7ded7ec2f7f5e1d30bd9d521f015363793";
    caller.account.as_str() == "alice" && caller.token.to_string() == hash
}

fn price(cents: u64) -> Price {
    Price::from_cents(cents).unwrap()
}

fn quantity(count: u64) -> Quantity {
    Quantity::new(count).unwrap()
}

fn game() -> Symbol {
    Symbol::new("GameStart").unwrap()
}

fn balance(caller: &Credentials) -> Balance {
    Balance {
        account: caller.account.clone(),
        cash: Cash::from_cents(10_050).unwrap(),
        reserved_cash: Cash::from_cents(5).unwrap(),
        holdings: vec![Holding { symbol: game(), quantity: quantity(7), reserved: quantity(2) }],
    }
}

const BALANCE: &str = r#"{"data":{"account":"alice","cash":100.50,"reserved_cash":0.05,"holdings":[{"name":"GameStart","quantity":7,"reserved":2}]}}"#;

fn an_order(limit: Option<Price>) -> AccountOrder {
    AccountOrder {
        number: OrderNumber(42),
        symbol: game(),
        side: Side::Buy,
        quantity: quantity(3),
        price: limit,
        time_in_force: TimeInForce::Gtc,
        status: OrderStatus::Open,
        filled: quantity(1),
        fills: vec![Fill { trade: TradeNumber(9), price: price(1_599), quantity: quantity(1) }],
    }
}

const ORDER: &str = r#"{"order_num":42,"name":"GameStart","side":"buy","quantity":3,"price":16.00,"time_in_force":"gtc","status":"open","filled":1,"remaining":2,"fills":[{"trade":9,"price":15.99,"quantity":1}]}"#;

/// What this leader does, so that a table of requests reads by itself.
pub(super) fn done(command: &Command) -> ClientAnswer {
    let refused = |refusal| ClientAnswer::Outcome(Outcome::Refused(refusal));
    let done = |receipt| ClientAnswer::Outcome(Outcome::Done { receipt: Box::new(receipt), replayed: false });
    match command {
        Command::Open { account, .. } if account.as_str() == "taken" => refused(Refusal::AccountTaken),
        Command::Open { .. } => done(Receipt::Opened),
        Command::Account { caller, .. } if !is_alice(caller) => refused(Refusal::Unauthorised),
        Command::Account { caller, instruction } => match instruction {
            Instruction::Deposit(_) => done(Receipt::Balance(balance(caller))),
            Instruction::Withdraw(_) => refused(Refusal::InsufficientFunds),
            Instruction::Place(order) if order.post_only => refused(Refusal::WouldCross),
            Instruction::Place(order) => done(Receipt::Order(an_order(order.price))),
            Instruction::Cancel(number) if number.0 == 42 => done(Receipt::Order(an_order(None))),
            Instruction::Cancel(number) if number.0 == 41 => refused(Refusal::OrderDone),
            Instruction::Cancel(_) => refused(Refusal::UnknownOrder),
        },
        Command::Trade { .. } => panic!("{command:?} is no command of an account"),
    }
}

pub(super) fn answer(query: &Query) -> Answer {
    let answer = match query {
        Query::Account(caller, _) if !is_alice(caller) => AccountAnswer::Unauthorised,
        Query::Account(_, AccountQuery::Authorise) => AccountAnswer::Authorised,
        Query::Account(caller, AccountQuery::Balance) => AccountAnswer::Balance(balance(caller)),
        Query::Account(_, AccountQuery::Order(number)) => {
            AccountAnswer::Order((number.0 == 42).then(|| an_order(Some(price(1_600)))))
        }
        Query::Account(_, AccountQuery::Orders(page)) => {
            let expected = (Some(OrderStatus::Open), 2, Some(OrderNumber(50)));
            let found = (page.status, page.limit, page.before) == expected;
            AccountAnswer::Orders(if found { vec![an_order(Some(price(1_600)))] } else { vec![] })
        }
        Query::Book(symbol, depth) => {
            let bids = vec![Level(price(1_599), quantity(4)); (*depth).min(2)];
            let book = Book { symbol: symbol.clone(), sequence: SeqNum(8), bids, asks: vec![] };
            return Answer::Book((*symbol == game()).then_some(book));
        }
        Query::Trades(symbol, limit) => {
            let trade =
                Trade { number: TradeNumber(9), price: price(5), quantity: quantity(1), side: Side::Sell, at: 7 };
            return Answer::Trades((*symbol == game()).then(|| vec![trade; (*limit).min(2)]));
        }
        Query::Candles(symbol, interval, limit) => {
            let at = interval.ms();
            let (open, high, low, close) = (price(2), price(4), price(1), price(3));
            let candle = Candle { at, open, high, low, close, quantity: quantity(9), trades: 2 };
            return Answer::Candles((*symbol == game()).then(|| vec![candle; (*limit).min(1)]));
        }
        // Streams have a leader of their own: see `events`.
        Query::LastEvent | Query::Events(_) => panic!("nobody follows this market"),
        Query::Order(_) | Query::Stock(_) | Query::Stocks => panic!("{query:?} is no question of the market"),
    };
    Answer::Account(Box::new(answer))
}

fn send(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_account_is_opened_with_a_token_of_its_own() {
    let at = exchange().await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let response = ask(at, send("POST", "/accounts", "", r#"{"account":"alice"}"#).as_bytes()).await;
        assert_eq!(response.status, 201, "{}", response.body);
        let token = response.body.strip_prefix(r#"{"data":{"account":"alice","token":"alice."#).unwrap();
        tokens.push(token.strip_suffix(r#""}}"#).unwrap().to_owned());
    }
    assert!(tokens.iter().all(|token| token.len() == 64) && tokens[0] != tokens[1], "{tokens:?}");
    let taken = send("POST", "/accounts", "", r#"{"account":"taken"}"#);
    check(at, taken, 409, "account is taken; choose another name").await;
    let name = "account must be a name of 1 to 32 of a-z 0-9 _ -";
    for bad in ["{}", r#"{"account":""}"#, r#"{"account":7}"#, r#"{"account":"Al"}"#, r#"{"account":"a.b"}"#] {
        check(at, send("POST", "/accounts", "", bad), 400, name).await;
    }
    for bad in ["", "[]", "null", r#"{"account":"a","more":1}"#, r#"{"account":"a","account":"a"}"#] {
        assert_eq!(ask(at, send("POST", "/accounts", "", bad).as_bytes()).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn whoever_is_not_the_owner_learns_nothing_else() {
    let at = exchange().await;
    let nonsense = ["/accounts/alice/orders?limit=0", "/accounts/alice/orders/nonsense", "/accounts/alice"];
    let posts = ["/accounts/alice/deposits", "/accounts/alice/withdrawals", "/accounts/alice/orders"];
    let long = "x".repeat(20_000);
    for headers in
        ["", MALLORY, "Authorization: Basic YTpi\r\n", "Authorization: Bearer alice\r\n", "Authorization: \r\n"]
    {
        for path in nonsense {
            let response = check(at, send("GET", path, headers, ""), 401, UNAUTHORISED).await;
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        }
        for (path, body) in posts.iter().flat_map(|path| ["", "{}", &long].map(|body| (path, body))) {
            check(at, send("POST", path, headers, body), 401, UNAUTHORISED).await;
        }
        check(at, send("DELETE", "/accounts/alice/orders/x", headers, ""), 401, UNAUTHORISED).await;
    }
    for path in ["/accounts/bob", "/accounts/nobody/orders/1", "/accounts/ALICE", "/accounts/%zz"] {
        check(at, send("GET", path, ALICE, ""), 403, "this token is another account's").await;
        check(at, send("GET", path, MALLORY, ""), 401, UNAUTHORISED).await;
    }
}

#[tokio::test]
async fn an_account_sees_and_moves_what_it_owns() {
    let at = exchange().await;
    check(at, send("GET", "/accounts/alice", ALICE, ""), 200, BALANCE).await;
    let deposit = |body: &str| send("POST", "/accounts/alice/deposits", ALICE, body);
    for good in [r#"{"amount":100.00}"#, r#"{"amount":1e2}"#, r#"{"name":"GameStart","quantity":1}"#] {
        check(at, deposit(good), 200, BALANCE).await;
    }
    let amount = "amount must be a positive number with at most two decimals";
    for bad in ["0", "-1", "0.001", "\"1\"", "[]"] {
        check(at, deposit(&format!(r#"{{"amount":{bad}}}"#)), 400, amount).await;
    }
    let half = r#"{"name":"GameStart","quantity":0.5}"#;
    check(at, deposit(half), 400, "quantity must be a positive whole number").await;
    check(at, deposit(r#"{"name":"a b","quantity":1}"#), 404, "stock not found").await;
    let most = "too much cash: all accounts together hold less than 2^53 cents, so deposit less";
    check(at, deposit(r#"{"amount":90071992547409.92}"#), 409, most).await;
    for bad in ["{}", r#"{"amount":1,"name":"GameStart"}"#, r#"{"amount":1,"more":2}"#, r#"{"amount":1.}"#] {
        assert_eq!(ask(at, deposit(bad).as_bytes()).await.status, 400, "{bad}");
    }
    let withdraw = send("POST", "/accounts/alice/withdrawals", ALICE, r#"{"amount":1}"#);
    check(at, withdraw, 409, "insufficient funds").await;
}

#[tokio::test]
async fn an_account_places_sees_and_cancels_its_orders() {
    let at = exchange().await;
    let place = |body: &str| send("POST", "/accounts/alice/orders", ALICE, body);
    let data = format!(r#"{{"data":{ORDER}}}"#);
    let market = data.replace("16.00", "null");
    let order = |more: &str| place(&format!(r#"{{"name":"GameStart","side":"buy","quantity":3{more}}}"#));
    for more in [r#","price":16"#, r#","price":16.00,"time_in_force":"fok","post_only":false"#] {
        check(at, order(more), 200, &data).await;
    }
    check(at, order(""), 200, &market).await;
    check(at, order(r#","post_only":true"#), 409, "would cross").await;
    let limit = "price must be a positive number with at most two decimals, at most 10000000000.00";
    for bad in ["0", "-1", "15.999", "1e11", "\"16\""] {
        check(at, order(&format!(r#","price":{bad}"#)), 400, limit).await;
    }
    check(at, order(r#","time_in_force":"day""#), 400, "time_in_force must be gtc, ioc or fok").await;
    check(at, order(r#","post_only":1"#), 400, "post_only must be true or false").await;
    check(at, place(r#"{"name":"GameStart","side":"give","quantity":3}"#), 400, "side must be buy or sell").await;
    let much = r#"{"name":"GameStart","side":"sell","quantity":9007199254740992}"#;
    check(at, place(much), 409, "insufficient stocks").await;
    assert_eq!(ask(at, order(r#","type":"buy""#).as_bytes()).await.status, 400, "a field that is not known");
    check(at, send("GET", "/accounts/alice/orders/42", ALICE, ""), 200, &data).await;
    for missing in ["41", "0", "-1", "+42", "x", "99999999999999999999"] {
        check(at, send("GET", &format!("/accounts/alice/orders/{missing}"), ALICE, ""), 404, "order not found").await;
    }
    let list = |query: &str| send("GET", &format!("/accounts/alice/orders{query}"), ALICE, "");
    check(at, list("?status=open&limit=2&before=50"), 200, &format!(r#"{{"data":[{ORDER}]}}"#)).await;
    check(at, list(""), 200, r#"{"data":[]}"#).await;
    check(at, list("?status=done"), 400, "status must be open, filled or cancelled").await;
    check(at, list("?limit=501"), 400, "limit must be a whole number from 1 to 500").await;
    for before in ["0", "9007199254740992"] {
        let refused = "before must be a whole number from 1 to 9007199254740991";
        check(at, list(&format!("?before={before}")), 400, refused).await;
    }
    let cancel = |number: &str| send("DELETE", &format!("/accounts/alice/orders/{number}"), ALICE, "");
    check(at, cancel("42"), 200, &market).await;
    check(at, cancel("41"), 409, "order is done").await;
    check(at, cancel("7"), 404, "order not found").await;
}

#[tokio::test]
async fn books_and_trades_are_shown_to_everybody() {
    let at = exchange().await;
    let book = r#"{"data":{"name":"GameStart","sequence":8,"bids":[[15.99,4]],"asks":[]}}"#;
    check(at, get("/stocks/GameStart/book?depth=1"), 200, book).await;
    let trade = r#"{"data":[{"trade":9,"price":0.05,"quantity":1,"side":"sell","at":7}]}"#;
    check(at, get("/stocks/GameStart/trades?limit=1"), 200, trade).await;
    let candle = r#"{"at":60000,"open":0.02,"high":0.04,"low":0.01,"close":0.03,"quantity":9,"trades":2}"#;
    let candles = format!(r#"{{"data":[{candle}]}}"#);
    check(at, get("/stocks/GameStart/candles?interval=1m"), 200, &candles).await;
    for bad in ["", "?interval=2m", "?interval="] {
        check(at, get(&format!("/stocks/GameStart/candles{bad}")), 400, "interval must be 1s, 1m or 1h").await;
    }
    for nothing in
        ["/stocks/Nope/book", "/stocks/Nope/trades", "/stocks/Nope/candles?interval=1h", "/stocks/a%20b/book"]
    {
        check(at, get(nothing), 404, "stock not found").await;
    }
    check(at, get("/stocks/GameStart/book?depth=0"), 400, "depth must be a whole number from 1 to 500").await;
    check(at, get("/stocks/GameStart/trades?depth=1"), 400, "\"depth\" is not known here; known are limit").await;
}
