//! The REST edge under schemathesis, which makes requests of its own from `/openapi.json`.
//!
//! Problem: tests that people write ask what people think of. Idea: a fuzzer reads the document, and sends what it allows, what it
//! forbids, and chains of both; each answer must be one that the document has for it, valid input must be taken, and invalid
//! input refused. Rule: what is fetched is pinned by version and hash (`fuzz/requirements.txt`); where it can't be fetched, the test says so.
//!
//! `RING_FUZZ_SEED` takes other requests, `RING_FUZZ_EXAMPLES` so many an operation.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Exchange, request, skipped};

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ring/fuzz/requirements.txt");
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ring/fuzz/schemathesis.toml");
/// pip waits for an answer so long, and tries so often.
const PIP_PATIENCE: [&str; 4] = ["--timeout", "30", "--retries", "2"];

#[test]
fn a_fuzzer_that_reads_the_document_finds_nothing() {
    let program = match schemathesis(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis")) {
        Ok(program) => program,
        Err(why) => return skipped(&format!("no schemathesis, so REST is not fuzzed: {why}")),
    };
    let exchange = Exchange::start(&[]);
    exchange.until_whole();
    let token = furnish(&exchange);
    let setting = |name, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let fuzzed = Command::new(program)
        .args(["--config-file", CONFIGURATION, "run", "--no-color"])
        .args(["--seed", &setting("RING_FUZZ_SEED", "1"), "--max-examples", &setting("RING_FUZZ_EXAMPLES", "50")])
        .arg(format!("{}/openapi.json", exchange.url(1)))
        .env("FUZZ_TOKEN", token)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&fuzzed.stdout);
    println!("{said}{}", String::from_utf8_lossy(&fuzzed.stderr));
    assert!(fuzzed.status.success(), "see above");
    let log = exchange.log();
    assert!(!log.contains(" ERROR ") && !log.contains("panicked"), "an answer was right, and yet something went wrong");
    exchange.stop_and_verify();
}

/// Two accounts with money and stocks, one of which has quoted what the other may trade with. Returns the other's token.
fn furnish(exchange: &Exchange) -> String {
    let [_, fuzz] = ["maker", "fuzz"].map(|account| {
        let opened = call(exchange, "/accounts", "", &json!({ "account": account }));
        let token = opened["token"].as_str().unwrap().to_owned();
        let deposits = format!("/accounts/{account}/deposits");
        call(exchange, &deposits, &token, &json!({"amount": 1_000_000}));
        for stock in ["GameStart", "Acorn"] {
            call(exchange, &deposits, &token, &json!({"name": stock, "quantity": 1_000}));
            for (side, price) in [("buy", 10), ("sell", 20)].iter().filter(|_| account == "maker") {
                let order = json!({"name": stock, "side": side, "quantity": 100, "price": price});
                call(exchange, "/accounts/maker/orders", &token, &order);
            }
        }
        token
    });
    fuzz
}

/// Asks for what must succeed; its data.
#[track_caller]
fn call(exchange: &Exchange, path: &str, token: &str, body: &Value) -> Value {
    let header = format!("Authorization: Bearer {token}\r\n");
    let answer = request(&exchange.url(1), "POST", path, &header, &body.to_string()).unwrap();
    assert!([200, 201].contains(&answer.status), "{path}: {answer:?}");
    answer.body["data"].clone()
}

/// The fuzzer, installed into `dir` unless it is there.
///
/// # Errors
/// What stood in the way.
fn schemathesis(dir: &Path) -> Result<PathBuf, String> {
    let lock = File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let (program, installed) = (dir.join("bin/schemathesis"), dir.join("requirements.txt"));
    let wanted = std::fs::read(REQUIREMENTS).unwrap();
    if std::fs::read(&installed).is_ok_and(|present| present == wanted) {
        return Ok(program);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir))?;
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]);
    run(pip.args(PIP_PATIENCE).args(["--require-hashes", "--requirement", REQUIREMENTS]))?;
    // Last, so that it stands only where all is complete.
    std::fs::write(installed, wanted).unwrap();
    Ok(program)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let last = complaints.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    if output.status.success() { Ok(()) } else { Err(last.to_owned()) }
}
