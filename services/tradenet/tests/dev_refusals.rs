//! What `tradenet dev` refuses, it refuses before anything is started, in one line that says what to do next.

// clippy.toml's leave for tests does not reach the helpers beside them.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// `tradenet dev` in an environment in which nothing is set that would decide for it.
fn dev(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradenet"));
    let ours = |name: &str| name.starts_with("TRADENET_") || name.starts_with("NATS_") || name == "RUST_LOG";
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.env("TRADENET_PORT", "0").args(["dev", "--data-dir"]).arg(data_dir);
    command
}

/// Runs it to its end: a failure, told in one line that holds all of `expected`, with nothing left that says "ready".
fn check(command: &mut Command, expected: &[&str]) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(1), "{err}");
    assert_eq!(out, "");
    assert_eq!(err.lines().count(), 1, "{err}");
    for part in expected {
        assert!(err.contains(part), "{part:?} is not in {err:?}");
    }
}

/// Another process writes it: while this one held it open for writing, a fork in another test's thread would keep it from
/// being executed.
fn script(path: &Path, body: &str) {
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2\" && chmod +x \"$2\"";
    assert!(Command::new("sh").args(["-c", write, "sh", body]).arg(path).status().unwrap().success());
}

#[test]
fn a_port_that_is_taken() {
    let home = TempDir::new().unwrap();
    let taken = tradenet_runtime::ports::hold_free(2).unwrap();
    let first = taken[0].local_addr().unwrap().port();
    let refused = format!("port {first}, for frontend-1, ");
    check(dev(home.path()).env("TRADENET_PORT", "").args(["--port", &first.to_string()]), &[&refused, "--port"]);
    assert!(!home.path().join("nats").exists(), "it has started something");
}

#[test]
fn the_second_of_two_ports_that_is_taken() {
    let home = TempDir::new().unwrap();
    let mut row = tradenet_runtime::ports::hold_free(2).unwrap();
    let (first, second) = (row[0].local_addr().unwrap().port(), row[1].local_addr().unwrap().port());
    drop(row.remove(0));
    let refused = format!("port {second}, for frontend-2, ");
    check(dev(home.path()).args(["--frontends", "2", "--port", &first.to_string()]), &[&refused]);
}

#[test]
fn more_frontends_than_ports() {
    let home = TempDir::new().unwrap();
    check(dev(home.path()).args(["--frontends", "2", "--port", "65535"]), &["no room for 2 frontends", "lower one"]);
}

#[test]
fn a_data_directory_that_is_none_or_cannot_be_written() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    check(&mut dev(&file), &["data directory", "file", "--data-dir"]);
    // Refuses even the superuser, as whom tests may run.
    if Path::new("/proc/self").exists() {
        check(&mut dev(Path::new("/proc/tradenet")), &["data directory", "/proc/tradenet", "--data-dir"]);
        check(&mut dev(Path::new("/proc/self")), &["data directory", "--data-dir"]);
    }
}

#[test]
fn a_data_directory_that_another_one_uses() {
    let home = TempDir::new().unwrap();
    let lock = File::create(home.path().join("dev.lock")).unwrap();
    lock.lock().unwrap();
    check(&mut dev(home.path()), &["another `tradenet dev`", "--data-dir"]);
}

#[test]
fn a_stocks_file_that_cannot_be_read() {
    let home = TempDir::new().unwrap();
    check(dev(home.path()).arg("--stocks").arg(home.path().join("none.csv")), &["none.csv", "--stocks"]);
    check(dev(home.path()).arg("--stocks").arg(home.path()), &["stocks file", "no file"]);
}

#[test]
fn an_archive_that_is_not_there() {
    let home = TempDir::new().unwrap();
    let archive = home.path().join("none");
    check(
        dev(home.path()).arg("--archive-dir").arg(&archive),
        &["none is not there", "mount or make", "--archive-dir"],
    );
}

#[test]
fn a_broker_that_is_too_old_or_not_there() {
    let home = TempDir::new().unwrap();
    let old = home.path().join("old-nats-server");
    script(&old, "echo 'nats-server: v2.10.29'");
    check(dev(home.path()).env("TRADENET_NATS_SERVER", &old), &["2.10", "too old", "2.12 or newer"]);
    check(dev(home.path()).env("TRADENET_NATS_SERVER", "/none"), &["TRADENET_NATS_SERVER=/none", "unset it"]);
    let held = tradenet_runtime::ports::hold_free(1).unwrap();
    let url = format!("nats://user:secret@{}", held[0].local_addr().unwrap());
    drop(held);
    check(dev(home.path()).args(["--nats-url", &url]), &["start it, or leave --nats-url"]);
    check(dev(home.path()).env("NATS_URL", &url), &["nats://127.0.0.1:"]);
}

#[test]
fn a_log_style_that_does_not_exist() {
    let home = TempDir::new().unwrap();
    check(dev(home.path()).env("TRADENET_LOG", "yaml"), &["TRADENET_LOG", "\"json\""]);
    check(dev(home.path()).env("RUST_LOG", "a=b=c"), &["RUST_LOG"]);
}

#[test]
fn the_built_in_list_is_put_there_once_and_then_left_as_it_is() {
    let home = TempDir::new().unwrap();
    let stocks = home.path().join("stocks.csv");
    // The missing broker ends it after the directory has been made ready.
    let start = || {
        check(dev(home.path()).env("TRADENET_NATS_SERVER", "/none"), &["TRADENET_NATS_SERVER"]);
    };
    start();
    assert!(std::fs::read_to_string(&stocks).unwrap().contains("GameStart,15.99,100"));
    std::fs::write(&stocks, "name,price,quantity\nMine,1.00,1\n").unwrap();
    start();
    assert!(std::fs::read_to_string(&stocks).unwrap().contains("Mine"));
}
