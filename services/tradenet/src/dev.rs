//! `tradenet dev`: the whole exchange on this machine, each part a process of its own.
//!
//! The problem: a newcomer wants one command, and whoever wants to see what the exchange survives wants to kill its parts
//! one by one, for real, and to bring them back. So the parts are child processes with ordinary command lines, which are
//! published in `DATA_DIR/dev.json`; a child that dies stays dead, and its command, run by hand, brings it back.
//!
//! The rules: everything that can be refused is refused before anything is started (directory, ports, broker); nothing is
//! left running when this ends, however it ends; and it never decides anything about trading: what it tells about leaders
//! and replicas it has read from a frontend, as anybody can.

mod children;
mod home;
mod stand_ins;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use clap::value_parser;
use tradenet_runtime::broker::{self, BrokerCommand, Found, Lookup};
use tradenet_runtime::disk::segments::LogError;
use tradenet_runtime::outlet::Wanted;
use tradenet_runtime::ports;
use tradenet_runtime::shutdown::Shutdown;
use tradenet_runtime::telemetry;
use tradenet_schemas::subjects::Prefix;

use children::{Children, Kind};
use home::Home;

/// The port of a broker that could not start is chosen anew this often; see `tradenet_runtime::ports`.
const BROKER_ATTEMPTS_MAX: usize = 3;

/// Options of `tradenet dev`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where everything is kept: the broker's files, each replica's and each catalog's, and dev.json.
    #[arg(long, env = "TRADENET_DATA_DIR", value_name = "DIR", default_value = "data")]
    data_dir: PathBuf,
    /// frontend-1 listens on this port, frontend-2 on the next, …; 0 for free ones.
    #[arg(long, env = "TRADENET_PORT", default_value_t = 8080)]
    port: u16,
    /// How many order replicas.
    #[arg(long, env = "TRADENET_REPLICAS", default_value_t = 3, value_parser = value_parser!(u8).range(1..=9))]
    replicas: u8,
    /// How many catalogs; all but one stand by.
    #[arg(long, env = "TRADENET_CATALOGS", default_value_t = 1, value_parser = value_parser!(u8).range(1..=9))]
    catalogs: u8,
    /// How many frontends.
    #[arg(long, env = "TRADENET_FRONTENDS", default_value_t = 1, value_parser = value_parser!(u8).range(1..=32))]
    frontends: u8,
    /// How many stocks each frontend keeps; 0 turns its cache off.
    #[arg(long, env = "TRADENET_CACHE_SIZE", default_value_t = 5)]
    cache_size: usize,
    /// Requests a second that each frontend takes of one client address; more are answered 429 [default: no limit]
    #[arg(long, env = "TRADENET_RATE_LIMIT", value_name = "N")]
    rate_limit: Option<NonZeroU32>,
    /// What is listed at first: a CSV file `name,price,quantity` [default: a built-in list, put into DATA_DIR/stocks.csv]
    #[arg(long, env = "TRADENET_STOCKS", value_name = "FILE")]
    stocks: Option<PathBuf>,
    /// Also hand out every entry of the log to this stream of JetStream, for others to read: message N is entry N; docs/nats.md
    #[arg(long, env = "TRADENET_FEED_STREAM", default_value = "", hide_default_value = true, value_name = "NAME")]
    feed_stream: Wanted,
    /// Move old segments of the replicas' journals below this directory, which must be there, and read them from there.
    /// [default: they stay]
    #[arg(long, env = "TRADENET_ARCHIVE_DIR", value_name = "DIR")]
    archive_dir: Option<PathBuf>,
    /// Use this nats-server and start none. Credentials belong into NATS_USER and NATS_PASSWORD.
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// Names the exchange on its broker; two exchanges that share a broker need two names.
    #[arg(long, env = "TRADENET_PREFIX", default_value = "tradenet", value_parser = Prefix::new)]
    prefix: Prefix,
}

/// What has been checked before anything is started.
struct Plan {
    program: PathBuf,
    home: Home,
    stocks: PathBuf,
    archive: Option<String>,
    /// Held until the frontends start, so that nobody else takes them.
    listeners: Vec<TcpListener>,
    frontends: Vec<SocketAddr>,
    /// Where replicas and catalogs show how they stand, in this order.
    metrics: Vec<SocketAddr>,
    members: String,
}

/// Runs the exchange until SIGINT or SIGTERM, then stops every part of it.
///
/// # Errors
/// Whatever keeps it from starting, before or after parts of it have been started; those are stopped again.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    telemetry::init("dev")?;
    let shutdown = Shutdown::on_signals()?;
    let mut plan = Plan::make(&args)?;
    let found = tokio::select! {
        found = find_broker(&args) => found?,
        _ = shutdown.requested() => return Ok(()),
    };
    let mut children = Children::new();
    let outcome = tokio::select! {
        outcome = keep(&args, &mut plan, &found, &mut children) => outcome,
        reason = shutdown.requested() => {
            watch::say(&format!("stopping ({reason})"));
            Ok(())
        }
    };
    children.stop_all().await;
    // Not before: until they have left, the next one has to know whom to wait for.
    let unpublished = plan.home.unpublish().context("cannot remove dev.json");
    outcome.and(unpublished)
}

impl Plan {
    fn make(args: &Args) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find my own program file")?;
        let home = Home::open(&args.data_dir)?;
        let stocks = home.stocks(args.stocks.as_deref())?;
        let archive = args.archive_dir.as_deref().map(archive).transpose()?;
        let mut listeners = hold_ports(args.port, u16::from(args.frontends))?;
        let frontends = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let others = ports::hold_free(u16::from(args.replicas + args.catalogs)).context("no free ports found")?;
        let metrics = others.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        listeners.extend(others);
        let members = (1..=args.replicas).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        Ok(Self { program, home, stocks, archive, listeners, frontends, metrics, members })
    }
}

/// The archive's path from everywhere.
fn archive(dir: &Path) -> anyhow::Result<String> {
    if !dir.is_dir() {
        return Err(LogError::NoArchive { dir: dir.to_owned() }.into());
    }
    let dir = std::path::absolute(dir).with_context(|| dir.display().to_string())?;
    let text = dir.into_os_string().into_string();
    text.map_err(|dir| anyhow::anyhow!("--archive-dir {} is not UTF-8; name another", dir.display()))
}

fn hold_ports(first: u16, count: u16) -> anyhow::Result<Vec<TcpListener>> {
    if first == 0 {
        return ports::hold_free(count).context("no free ports found");
    }
    if first.checked_add(count - 1).is_none() {
        bail!("--port {first} leaves no room for {count} frontends below 65536; choose a lower one");
    }
    ports::hold_row(first, count).map_err(|(port, error)| {
        let frontend = port - first + 1;
        anyhow::anyhow!("port {port}, for frontend-{frontend}, cannot be had ({error}); choose another with --port")
    })
}

async fn find_broker(args: &Args) -> anyhow::Result<Found> {
    let nats_url = args.nats_url.clone().filter(|url| !url.is_empty());
    Ok(broker::find(&Lookup { nats_url, ..Lookup::from_env() }).await?)
}

/// Starts everything, tells when it is ready, and from then on what happens. Returns only when it cannot go on.
async fn keep(args: &Args, plan: &mut Plan, found: &Found, children: &mut Children) -> anyhow::Result<()> {
    let nats_url = match found {
        Found::Running { url } => url.clone(),
        Found::Program(program) => start_broker(program, &plan.home.path().join("nats"), children).await?,
    };
    start_services(args, plan, &nats_url, children)?;
    watch::until_ready(&plan.frontends, children).await?;
    plan.home.publish(&nats_url, &plan.frontends, children.list())?;
    watch::say(&table(&nats_url, children));
    watch::events(&plan.frontends, children, |list| plan.home.publish(&nats_url, &plan.frontends, list)).await
}

/// Starts a broker of our own and waits until it accepts connections; returns its address.
async fn start_broker(program: &Path, dir: &Path, children: &mut Children) -> anyhow::Result<String> {
    let mut attempt = 1;
    loop {
        let mut command = BrokerCommand::prepare(program, dir, None).await?;
        let child = command.spawn(Stdio::piped())?;
        let pid = children.adopt("nats", Kind::Broker, command.argv(), Some(command.url()), child);
        let died = tokio::select! {
            ready = command.ready(pid) => {
                ready?;
                return Ok(command.url());
            }
            died = children.died() => died,
        };
        if attempt == BROKER_ATTEMPTS_MAX {
            bail!("the broker ended while starting ({}); its log above says why", died.how);
        }
        children.forget(&died.name);
        attempt += 1;
    }
}

/// Starts all services at once: each waits for those that it needs.
fn start_services(args: &Args, plan: &mut Plan, nats_url: &str, children: &mut Children) -> anyhow::Result<()> {
    let (data_dir, prefix) = (plan.home.text(), args.prefix.as_str());
    let common = |name: &str| {
        let pairs = [("--name", name), ("--members", &plan.members), ("--nats-url", nats_url), ("--prefix", prefix)];
        pairs.into_iter().flat_map(|(option, value)| [option.to_owned(), value.to_owned()]).collect::<Vec<_>>()
    };
    plan.listeners.clear();
    let mut metrics = plan.metrics.iter().map(SocketAddr::to_string);
    let mut metrics = || ["--metrics".to_owned(), metrics.next().unwrap_or_default()];
    for id in 1..=args.replicas {
        let name = format!("order-{id}");
        let own = ["order", "--id", &id.to_string(), "--data-dir", data_dir].map(str::to_owned);
        let feed = args.feed_stream.0.as_ref().map(|stream| ["--feed-stream".to_owned(), stream.to_string()]);
        let archive = plan.archive.as_ref().map(|dir| ["--archive-dir".to_owned(), dir.clone()]);
        let optional = [feed, archive].into_iter().flatten().flatten().collect::<Vec<_>>();
        let argv = [&own[..], &optional, &common(&name), &metrics()].concat();
        children.start(&name, Kind::Order, &plan.program, argv, None)?;
    }
    for number in 1..=args.catalogs {
        let name = format!("catalog-{number}");
        let stocks = plan.stocks.display().to_string();
        let own = ["catalog", "--stocks", &stocks, "--data-dir", data_dir].map(str::to_owned);
        children.start(&name, Kind::Catalog, &plan.program, [&own[..], &common(&name), &metrics()].concat(), None)?;
    }
    for (number, address) in (1..).zip(&plan.frontends) {
        let name = format!("frontend-{number}");
        let (listen, cache_size) = (address.to_string(), args.cache_size.to_string());
        let own = ["frontend", "--listen", &listen, "--cache-size", &cache_size].map(str::to_owned);
        let rate = args.rate_limit.map(|rate| ["--rate-limit".to_owned(), rate.to_string()]);
        let shown = Some(format!("http://{address}"));
        let argv = [&own[..], rate.as_ref().map_or(&[], |rate| &rate[..]), &common(&name)].concat();
        children.start(&name, Kind::Frontend, &plan.program, argv, shown)?;
    }
    Ok(())
}

/// The one table: what runs, and where to find it.
fn table(nats_url: &str, children: &Children) -> String {
    let mut lines = vec![format!("{:<12} {:>8}  {}", "service", "pid", "address")];
    if !children.list().iter().any(|child| child.kind == Kind::Broker) {
        lines.push(format!("{:<12} {:>8}  {}", "nats", "-", broker::without_credentials(nats_url)));
    }
    for child in children.list() {
        let address = child.address.as_deref().unwrap_or("by way of nats");
        lines.push(format!("{:<12} {:>8}  {address}", child.name, child.pid));
    }
    lines.push("ready; Ctrl-C stops everything".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use clap::Parser;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tradenet_runtime::process::{Signal, send_signal};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(home: &TempDir, more: &[&str]) -> Args {
        let fixed = ["dev", "--port", "0", "--data-dir", home.path().to_str().unwrap()];
        Line::parse_from(fixed.iter().chain(more)).args
    }

    /// Stands in for every service: notes that it was started, and does `body`. Written by another process, see the tests
    /// of the broker.
    fn stand_in(home: &TempDir, body: &str) -> PathBuf {
        let program = home.path().join("stand-in");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod +x \"$2\"";
        let written = Command::new("sh").args(["-c", write, "sh", body]).arg(&program).status().unwrap();
        assert!(written.success());
        program
    }

    /// Stands in for a frontend's port: ready after a moment, and led by order-2.
    async fn serve(address: SocketAddr) {
        let cluster = r#"{"data":{"epoch":4,"leader":2,"in_sync":[1,2],"ready":true,"trouble":null,"replicas":[],
            "catalog":null,"frontend":{"boot":"b","lease":true,"cache":{"capacity":5,"entries":0,"hits":0,"misses":0,
            "evictions":0,"invalidations":0,"flushes":0,"stale_fills":0}}}}"#;
        // Taken over from the supervisor, which lets go of it when it starts the frontend.
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let mut looks = 0;
        loop {
            looks += 1;
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            let body = match &request[..length] {
                request if request.starts_with(b"GET /cluster") => cluster,
                _ => r#"{"data":{}}"#,
            };
            let status = if looks < 3 { "503 Service Unavailable" } else { "200 OK" };
            let answer = format!("HTTP/1.0 {status}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    async fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "not within 20 s: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_exchange_is_started_published_watched_and_stopped_without_a_trace() {
        let home = TempDir::new().unwrap();
        let args = args(
            &home,
            &[
                ["--frontends", "2", "--catalogs", "2", "--cache-size", "0", "--rate-limit", "500"].as_slice(),
                &["--feed-stream", "S", "--archive-dir", home.path().to_str().unwrap()],
            ]
            .concat(),
        );
        let mut plan = Plan::make(&args).unwrap();
        // Ends with its supervisor, as a service does; notes its arguments, and that it was told of the pipe.
        plan.program = stand_in(&home, "echo \"$TRADENET_PARENT_PIPE $*\" >>\"${0}.log\"; exec cat");
        let broker = find_broker(&args).await.unwrap();
        let (state, frontends) = (plan.home.path().join("dev.json"), plan.frontends.clone());
        let program = plan.program.display().to_string();
        let mut children = Children::new();

        tokio::select! {
            outcome = keep(&args, &mut plan, &broker, &mut children) => panic!("it ended: {outcome:?}"),
            () = serve(frontends[0]) => {}
            () = serve(frontends[1]) => {}
            () = until("dev.json", || state.exists()) => {}
        }
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
        assert_eq!(json["frontends"][1], format!("http://{}", frontends[1]));
        let processes = json["processes"].as_array().unwrap();
        let names: Vec<&str> = processes.iter().map(|process| process["name"].as_str().unwrap()).collect();
        let services = ["order-1", "order-2", "order-3", "catalog-1", "catalog-2", "frontend-1", "frontend-2"];
        assert_eq!(names.iter().rev().take(7).rev().copied().collect::<Vec<_>>(), services);
        let argv: Vec<&str> =
            processes[names.len() - 5]["argv"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        let url = json["nats_url"].as_str().unwrap();
        let expected = [
            &program,
            "order",
            "--id",
            "3",
            "--data-dir",
            plan.home.text(),
            "--feed-stream",
            "S",
            "--archive-dir",
            home.path().to_str().unwrap(),
            "--name",
            "order-3",
            "--members",
            "1,2,3",
            "--nats-url",
            url,
            "--prefix",
            "tradenet",
            "--metrics",
            &plan.metrics[2].to_string(),
        ];
        assert_eq!(argv, expected);
        assert_eq!(processes[names.len() - 5]["metrics"], format!("http://{}/metrics", plan.metrics[2]));
        assert_eq!(processes[names.len() - 1]["metrics"], format!("http://{}/metrics", frontends[1]));
        let frontend = processes[names.len() - 1]["argv"].as_array().unwrap();
        assert!(frontend.windows(2).any(|pair| pair == ["--rate-limit", "500"]), "{frontend:?}");
        assert!(std::fs::read_to_string(format!("{program}.log")).unwrap().lines().all(|line| line.starts_with("1 ")));

        // One that is killed stays dead, and stays listed.
        let victim = children.list().iter().find(|child| child.name == "order-2").unwrap().pid;
        send_signal(victim, Signal::Kill).unwrap();
        assert_eq!(children.died().await.name, "order-2");
        // One that is paused still leaves.
        let paused = children.list().iter().find(|child| child.name == "catalog-1").unwrap().pid;
        send_signal(paused, Signal::Pause).unwrap();
        let started = Instant::now();
        children.stop_all().await;
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        for child in children.list() {
            assert!(send_signal(child.pid, Signal::Resume).is_err(), "{} is still there", child.name);
        }
    }

    #[tokio::test]
    async fn an_exchange_that_cannot_get_ready_says_so_and_leaves_nothing() {
        async fn check(body: &str, expected: &str) {
            let home = TempDir::new().unwrap();
            let args = args(&home, &[]);
            let mut plan = Plan::make(&args).unwrap();
            plan.program = stand_in(&home, body);
            let nowhere = Found::Running { url: "nats://127.0.0.1:1".to_owned() };
            let mut children = Children::new();
            let text = keep(&args, &mut plan, &nowhere, &mut children).await.unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
            children.stop_all().await;
            assert!(!plan.home.path().join("dev.json").exists());
        }
        check("[ $1 = frontend ] && exit 3; exec cat", "frontend-1 ended before it was ready (exit status: 3)").await;
        check("[ $1 = order ] && exit 1; exec cat", "every order replica ended").await;
    }

    #[test]
    fn options_out_of_bounds_are_refused() {
        fn check(more: &[&str], fits: bool) {
            let line = ["dev"].iter().chain(more);
            assert_eq!(Line::try_parse_from(line).is_ok(), fits, "{more:?}");
        }
        check(&[], true);
        check(&["--replicas", "1", "--catalogs", "9", "--frontends", "32"], true);
        check(&["--rate-limit", "0"], false);
        check(&["--feed-stream", "a.b"], false);
        check(&["--replicas", "0"], false);
        check(&["--replicas", "10"], false);
        check(&["--frontends", "0"], false);
        check(&["--port", "65536"], false);
        check(&["--cache-size", "-1"], false);
    }
}
