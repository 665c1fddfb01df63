//! What a real exchange says on the broker is what the schemas and `docs/asyncapi.json` say, read as an integrator reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::harness::{Exchange, order, request, until};

/// Messages that are kept; an exchange says some hundred a second.
const RECORDED_MAX: usize = 200_000;
/// What an exchange says in the course of this test, at the least; the others need an accident of their own.
const HEARD: [&str; 32] = [
    "Ack",
    "Announce",
    "Answer",
    "Append",
    "Authority",
    "Chunk",
    "Commit",
    "Confirm",
    "Events",
    "Fetch",
    "Found",
    "Grant",
    "Heartbeat",
    "Invalidate",
    "Lease",
    "List",
    "Listed",
    "Lookup",
    "Outcomes",
    "PreVote",
    "Propose",
    "Proposed",
    "Read",
    "Relinquish",
    "Renew",
    "Snapshot",
    "Staged",
    "Status",
    "Submit",
    "Vote",
    "configuration",
    "floor",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn json_in(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root().join(path)).unwrap()).unwrap()
}

pub(crate) type Recorded = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Records all that is said on the broker, from when this returns until its test ends.
pub(crate) fn record(url: &str) -> Recorded {
    let (recorded, url) = (Recorded::default(), url.to_owned());
    let into = Arc::clone(&recorded);
    let (begun, begins) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client =
                async_nats::ConnectOptions::new().subscription_capacity(RECORDED_MAX).connect(url).await.unwrap();
            let mut messages = client.subscribe(">").await.unwrap();
            client.flush().await.unwrap();
            begun.send(()).unwrap();
            while let Some(message) = messages.next().await {
                let mut recorded = into.lock().unwrap();
                if recorded.len() < RECORDED_MAX {
                    recorded.push((message.subject.to_string(), message.payload.to_vec()));
                }
            }
        });
    });
    begins.recv().unwrap();
    recorded
}

/// Channels of the document: address, token by token, and the names of the messages there.
fn channels(document: &Value) -> Vec<(Vec<String>, BTreeSet<String>)> {
    let all = document["channels"].as_object().unwrap().values();
    let channel = |channel: &Value| {
        let address = channel["address"].as_str().unwrap().replace("{prefix}", "tradenet");
        let tokens =
            address.split('.').map(|token| if token.starts_with('{') { "*".to_owned() } else { token.to_owned() });
        (tokens.collect(), channel["messages"].as_object().unwrap().keys().cloned().collect())
    };
    all.map(channel).collect()
}

fn is_at(subject: &[&str], address: &[String]) -> bool {
    subject.len() == address.len()
        && subject.iter().zip(address).all(|(token, wanted)| wanted == "*" || wanted == token)
}

#[test]
fn all_that_an_exchange_says_is_by_the_schemas_and_on_the_subjects_of_asyncapi() {
    let mut exchange = Exchange::start(&["--frontends", "2"]);
    exchange.until_whole();
    let recorded = record(&exchange.nats_url());
    let url = exchange.url(1);
    let opened = request(&url, "POST", "/accounts", "", &json!({"account": "ann"}).to_string()).unwrap();
    let headers = format!("Authorization: Bearer {}\r\n", opened.body["data"]["token"].as_str().unwrap());
    let own = |method, path: &str, body: Value| {
        request(&url, method, &format!("/accounts/ann{path}"), &headers, &body.to_string()).unwrap().status
    };
    assert_eq!(own("POST", "/deposits", json!({"amount": 100})), 200);
    assert_eq!(own("POST", "/orders", json!({"name": "GameStart", "side": "buy", "quantity": 2, "price": 10})), 200);
    assert_eq!(own("GET", "/orders", json!({})), 200);
    for frontend in [1, 2] {
        exchange.stock(frontend, "GameStart");
        assert_eq!(exchange.post(frontend, &order("GameStart", 1, "buy")).status, 200);
        assert_eq!(exchange.get(frontend, "/orders/2").status, 200);
        assert_eq!(exchange.get(frontend, "/stocks/GameStart/book").status, 200);
    }
    assert_eq!(exchange.post(1, &order("GameStart", 100_000, "buy")).status, 409);
    exchange.kill("order-3");
    until("the next leader serves", || exchange.post(1, &order("GameStart", 1, "sell")).status == 200);
    exchange.end("catalog-1", tradenet_runtime::process::Signal::Terminate);
    exchange.restart("catalog-1");
    exchange.restart("order-3");
    exchange.until_whole();
    exchange.stock(1, "GameStart");
    assert_eq!(exchange.post(2, &order("GameStart", 1, "buy")).status, 200);

    let document = json_in("docs/asyncapi.json");
    let channels = channels(&document);
    let validator = |path: &str| jsonschema::draft202012::new(&json_in(path)).unwrap();
    let mut schemas = BTreeMap::<String, Validator>::new();
    let line_schema = validator("schemas/journal/Entry.json");
    let (mut heard, mut lines) = (BTreeMap::<String, u64>::new(), 0);
    for (subject, bytes) in std::mem::take(&mut *recorded.lock().unwrap()) {
        // The broker's own forms.
        if ["_INBOX.", "$JS.", "$SRV."].iter().any(|foreign| subject.starts_with(foreign)) || bytes.is_empty() {
            continue;
        }
        if let Some(bucket) = subject.strip_prefix("$KV.tradenet-").and_then(|rest| rest.strip_suffix(".current")) {
            let path =
                if bucket == "floor" { "schemas/register/Floor.json" } else { "schemas/register/Configuration.json" };
            let record: Value = serde_json::from_slice(&bytes).unwrap();
            assert!(validator(path).is_valid(&record), "{path}: {record}");
            *heard.entry(bucket.to_owned()).or_default() += 1;
            continue;
        }
        // What is tried at the start means nothing.
        if subject.ends_with(".probe") {
            continue;
        }
        let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
        let message: Value = serde_json::from_slice(&bytes[..end]).unwrap_or_else(|error| panic!("{subject}: {error}"));
        let tag = message["body"].as_object().unwrap().keys().next().unwrap();
        let name: String = tag.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let schema = schemas.entry(name.clone()).or_insert_with(|| validator(&format!("schemas/messages/{name}.json")));
        assert!(schema.is_valid(&message), "{name}: {message}");
        // Large answers stand one token lower, as the channel's description says.
        let tokens: Vec<_> = subject.split('.').filter(|token| *token != "bulk").collect();
        let channel = channels.iter().find(|(address, _)| is_at(&tokens, address));
        let (_, names) = channel.unwrap_or_else(|| panic!("{subject} is in no channel"));
        assert!(names.contains(&name), "{name} on {subject}, where the document has {names:?}");
        for line in bytes[end..].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let entry: Value = serde_json::from_slice(line).unwrap();
            assert!(line_schema.is_valid(&entry), "{entry}");
            lines += 1;
        }
        *heard.entry(name).or_default() += 1;
    }
    println!("{lines} journal lines; {heard:?}");
    let missing: Vec<_> = HEARD.iter().filter(|name| !heard.contains_key(**name)).collect();
    assert!(missing.is_empty() && lines > 10, "not heard: {missing:?}; {lines} lines; {heard:?}");
    exchange.stop_and_verify();
}
