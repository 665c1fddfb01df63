//! A broker with users, permissions and TLS, as it is run for others: the services work with what `nats/users.conf` gives
//! them, and say what is missing where it gives less.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tempfile::TempDir;
use tradenet_runtime::broker::{Found, Lookup, find};
use tradenet_runtime::ports;

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const SERVICES: [(&str, &str, &[&str]); 5] = [
    ("order-1", "order", &["order", "--feed-stream", "tradenet-entries", "--id", "1"]),
    ("order-2", "order", &["order", "--feed-stream", "tradenet-entries", "--id", "2"]),
    ("order-3", "order", &["order", "--feed-stream", "tradenet-entries", "--id", "3"]),
    ("catalog-1", "catalog", &["catalog", "--stocks"]),
    ("frontend-1", "frontend", &["frontend", "--listen"]),
];

/// A process that does not outlive its test, with its output in a file.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(POLL);
    }
}

/// A broker with the project's users, and with TLS by a made-up authority if asked for.
struct Secured {
    home: TempDir,
    port: u16,
    tls: bool,
    _broker: Running,
}

impl Secured {
    /// `users` changes the text of `nats/users.conf`.
    fn start(tls: bool, users: impl Fn(String) -> String) -> Self {
        let home = TempDir::new().unwrap();
        let nats = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nats");
        let text = std::fs::read_to_string(nats.join("users.conf")).unwrap();
        std::fs::write(home.path().join("users.conf"), users(text)).unwrap();
        std::fs::copy(nats.join("limits.conf"), home.path().join("limits.conf")).unwrap();
        let store = home.path().join("store");
        let mut config = format!(
            "include ./limits.conf\ninclude ./users.conf\njetstream {{ store_dir: \"{}\" }}\n",
            store.display()
        );
        if tls {
            certificates(home.path());
            let file = |name: &str| home.path().join(name).display().to_string();
            config +=
                &format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n", file("server.pem"), file("server-key.pem"));
        }
        std::fs::write(home.path().join("nats.conf"), config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(find(&Lookup { nats_url: None, ..Lookup::from_env() })).unwrap();
        let Found::Program(program) = found else { panic!("a running broker was not asked for") };
        let mut command = Command::new(program);
        command.arg("--config").arg(home.path().join("nats.conf")).args(["--addr", "127.0.0.1"]);
        for user in ["order", "catalog", "frontend", "operator", "load", "feed", "ledger"] {
            command.env(format!("NATS_{}_PASSWORD", user.to_uppercase()), password(user));
            // A line feed at the end, as editors leave it.
            std::fs::write(home.path().join(user), password(user) + "\n").unwrap();
        }
        let held = ports::hold_free(1).unwrap();
        let port = held[0].local_addr().unwrap().port();
        command.args(["--port", &port.to_string()]);
        drop(held);
        let broker = Running::start(&mut command, home.path().join("nats.log"));
        until("the broker listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { home, port, tls, _broker: broker }
    }

    fn tradenet(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradenet"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRADENET_") || name.starts_with("NATS_"))
        {
            command.env_remove(name);
        }
        command.env("RUST_LOG", "info").env("TRADENET_DATA_DIR", self.home.path().join("data"));
        command.env("NATS_URL", format!("nats://127.0.0.1:{}", self.port)).env("NATS_USER", user);
        command.env("NATS_PASSWORD_FILE", self.home.path().join(user)).args(arguments);
        if self.tls {
            command.env("NATS_CA", self.home.path().join("ca.pem"));
        }
        command
    }
}

fn password(user: &str) -> String {
    format!("{user}-made-up")
}

/// An authority, and a certificate of it for a broker on this machine.
fn certificates(dir: &Path) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = parameters.signed_by(&key, &issuer).unwrap();
    let files = [("ca.pem", authority.pem()), ("server.pem", server.pem()), ("server-key.pem", key.serialize_pem())];
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

/// A request to a frontend; the whole answer, or nothing.
fn ask(port: u16, method: &str, path: &str, body: &str) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        // Whatever goes wrong, nothing was answered.
        let _ = stream.write_all((head + body).as_bytes()).and_then(|()| stream.read_to_string(&mut text));
    }
    text
}

/// Whether the events that a frontend tells from the beginning come to a line with `wanted`.
fn tells(port: u16, wanted: &str) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /events?last_event_id=0 HTTP/1.0\r\n\r\n").unwrap();
    BufReader::new(stream).lines().map_while(Result::ok).any(|line| line.contains(wanted))
}

#[test]
fn an_exchange_trades_with_users_permissions_and_tls() {
    let secured = Secured::start(true, |users| users);
    let held = ports::hold_free(1).unwrap();
    let port = held[0].local_addr().unwrap().port();
    drop(held);
    let stocks = concat!(env!("CARGO_MANIFEST_DIR"), "/stocks.csv");
    let listen = format!("127.0.0.1:{port}");
    let services = SERVICES.map(|(name, user, arguments)| {
        let last = match user {
            "catalog" => Some(stocks),
            "frontend" => Some(listen.as_str()),
            _ => None,
        };
        let arguments: Vec<_> = arguments.iter().copied().chain(last).collect();
        let mut command = secured.tradenet(user, &arguments);
        command.env("TRADENET_NAME", name);
        Running::start(&mut command, secured.home.path().join(format!("{name}.log")))
    });
    until("trades can be served", || ask(port, "GET", "/readyz", "").contains("200 OK"));
    // Trades can be served a moment before the catalog of a new exchange has listed the first stock.
    until("the stocks are listed", || ask(port, "GET", "/stocks/GameStart", "").contains("200 OK"));
    let bought = ask(port, "POST", "/orders", r#"{"name": "GameStart", "quantity": 1, "type": "buy"}"#);
    assert!(bought.contains("\"transaction_number\":1"), "{bought}");
    assert!(tells(port, r#""name":"GameStart","price":15.99,"quantity":99,"volume":1}"#));
    // Look-ups go by way of the catalog, and each health check over a connection of its own.
    until("a cached look-up", || ask(port, "GET", "/stocks/GameStart", "").contains("x-cache: hit"));
    let healthy = |user: &str, arguments: &[&str]| {
        let mut command = secured.tradenet(user, &[&["healthcheck"], arguments].concat());
        command.env("TRADENET_NAME", "catalog-1").stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(healthy("order", &["order", "--id", "2"]));
    assert!(!healthy("order", &["order", "--id", "4"]), "there is no such replica");
    assert!(healthy("catalog", &["catalog"]));
    assert!(healthy("frontend", &["frontend", "--listen", &listen]));
    let status = secured.tradenet("operator", &["status"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    for service in &services {
        let log = service.log();
        assert!(!log.to_lowercase().contains("permissions violation"), "{log}");
        assert!(!log.contains("made-up"), "no password in the log: {log}");
    }
    follows_and_can_do_nothing_else(&secured, port);
    reads_the_log(&secured);
    // Another authority, or none: nothing is said to a broker that nobody vouches for.
    certificates(secured.home.path());
    let stranger = secured.tradenet("operator", &["status"]).output().unwrap();
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("no broker answers"), "{stranger:?}");
}

/// With the credentials for the feed one hears public events, and nothing else; and can't say a thing.
fn follows_and_can_do_nothing_else(secured: &Secured, frontend: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (told, mut refusals) = tokio::sync::mpsc::unbounded_channel();
        let options = async_nats::ConnectOptions::with_user_and_password("feed".to_owned(), password("feed"))
            .add_root_certificates(secured.home.path().join("ca.pem"))
            .require_tls(true)
            .event_callback(move |event| {
                let told = told.clone();
                async move {
                    // Once the test is over nobody listens any more.
                    let _ = told.send(event.to_string());
                }
            });
        let feed = options.connect(format!("nats://127.0.0.1:{}", secured.port)).await.unwrap();
        let mut events = feed.subscribe("tradenet.feed.events.all").await.unwrap();
        let next = async |events: &mut async_nats::Subscriber| {
            let message = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
            serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap()["body"]["events"].clone()
        };
        // The leader looks once a second whether somebody listens.
        let beat = next(&mut events).await;
        let bought = ask(frontend, "POST", "/orders", r#"{"name": "GameStart", "quantity": 1, "type": "buy"}"#);
        assert!(bought.contains("transaction_number"), "{bought}");
        let mut told = next(&mut events).await;
        while told["events"] == serde_json::json!([]) {
            told = next(&mut events).await;
        }
        assert_eq!(told["events"][0]["fact"]["stock_changed"]["symbol"], "GameStart", "{beat} {told}");
        for subject in
            ["tradenet.>", "tradenet.order.replicate.all", "tradenet.feed.>", "_INBOX.order.>", "$SRV.>", "$KV.>"]
        {
            feed.subscribe(subject).await.unwrap();
            until_told(&mut refusals, &format!("Subscription to \"{subject}\"")).await;
        }
        for subject in
            ["tradenet.feed.events.all", "tradenet.order.submit.3", "$SRV.PING", "$KV.tradenet-floor.current", "x"]
        {
            feed.publish(subject, "{}".into()).await.unwrap();
            until_told(&mut refusals, &format!("Publish to \"{subject}\"")).await;
        }
    });
}

/// With the ledger's credentials one reads the stream that the leader fills: the example does.
fn reads_the_log(secured: &Secured) {
    let example = Path::new(env!("CARGO_BIN_EXE_tradenet")).with_file_name("examples").join("volume");
    assert!(example.is_file(), "no {}: cargo build --workspace --examples", example.display());
    until("both trades are in the stream", || {
        let mut command = Command::new(&example);
        command.arg("--once").env("NATS_URL", format!("nats://127.0.0.1:{}", secured.port));
        command.env("NATS_USER", "ledger").env("NATS_PASSWORD", password("ledger"));
        let output = command.env("NATS_CA", secured.home.path().join("ca.pem")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let trades = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        trades.sum::<u64>() == 2
    });
}

/// Waits until the broker refuses that.
async fn until_told(refusals: &mut tokio::sync::mpsc::UnboundedReceiver<String>, what: &str) {
    let told = async {
        while let Some(refusal) = refusals.recv().await {
            if refusal.contains(what) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("not refused: {what}"));
}

#[test]
fn a_service_names_the_permission_that_it_lacks() {
    #[track_caller]
    fn check(user: &str, arguments: &[&str], without: &str, named: &str) {
        let lacking = Secured::start(false, |users| {
            let (before, own) = users.split_once(&format!("user: {user},")).unwrap();
            assert!(own.contains(without), "{user} has {without}");
            format!("{before}user: {user},{}", own.replacen(without, "\"nothing\"", 1))
        });
        let ended = lacking.tradenet(user, arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success());
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains(named) && last.contains("nats/users.conf"), "{without}: {said}");
    }
    let order = ["order", "--id", "1"];
    check("order", &order, "\"tradenet.order.replicate.*\"", "Publish to \"tradenet.order.replicate.probe\"");
    check("order", &order, "\"$KV.tradenet-floor.current\"", "Publish to \"$KV.tradenet-floor.current\"");
    check("order", &order, "\"tradenet.order.propose.*\"", "Subscription to \"tradenet.order.propose.1\"");
    let stocks = concat!(env!("CARGO_MANIFEST_DIR"), "/stocks.csv");
    let catalog = ["catalog", "--stocks", stocks];
    check(
        "catalog",
        &catalog,
        "\"tradenet.frontend.invalidate.*\"",
        "Publish to \"tradenet.frontend.invalidate.probe\"",
    );
    let frontend = ["frontend", "--listen", "127.0.0.1:0"];
    check("frontend", &frontend, "\"tradenet.order.propose.*\"", "Publish to \"tradenet.order.propose.probe\"");
    check("frontend", &frontend, "\"_INBOX.frontend.>\"", "Subscription to \"_INBOX.frontend.");
}
