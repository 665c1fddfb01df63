//! A drill harms what it is told to, and leaves everything healed. The services are sleeping processes and a `docker`
//! that writes down what it is asked; the exchange beside them goes on serving.

#![allow(clippy::unwrap_used, reason = "this is test code, though not all of it within a #[test]")]

mod stub;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use loadgen::RunOptions;
use loadgen::drill::{Drill, DrillOptions, Journals, Services, drill};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stub::{Behaviour, Stub};

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A `tradenet dev` whose services only sleep.
struct Dev {
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl Dev {
    fn start(names: &[&str], frontend: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let children: Vec<Child> =
            names.iter().map(|_| Command::new(SLEEP[0]).args(&SLEEP[1..]).spawn().unwrap()).collect();
        let process =
            |(name, child): (&&str, &Child)| json!({"name": name, "pid": child.id(), "argv": SLEEP, "kept": 1});
        let processes: Vec<Value> = names.iter().zip(&children).map(process).collect();
        let state = json!({"nats_url": "nats://127.0.0.1:1", "frontends": [frontend], "processes": processes});
        fs::write(directory.path().join("dev.json"), state.to_string()).unwrap();
        Self { directory, children }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("dev.json")
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path()).unwrap()).unwrap()
    }

    fn pids(&self) -> BTreeMap<String, u32> {
        let pid = |process: &Value| {
            let pid = u32::try_from(process["pid"].as_u64().unwrap()).unwrap();
            (process["name"].as_str().unwrap().to_owned(), pid)
        };
        self.state()["processes"].as_array().unwrap().iter().map(pid).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Those that the drill started are in the file only; both are still what was started, or gone.
        for pid in self.pids().into_values().filter(|pid| asleep(*pid).is_some()) {
            let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The state letter of a sleeping process of ours; none where it is gone.
fn asleep(pid: u32) -> Option<char> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    (line == b"sleep\x001000\x00").then(|| status.split(") ").nth(1).and_then(|rest| rest.chars().next()))?
}

fn options(services: Services, faults: &[&str]) -> DrillOptions {
    let mut run = RunOptions::new("http://127.0.0.1:1".parse().unwrap());
    run.urls.clear();
    run.clients = 2;
    run.think = Duration::from_millis(1);
    run.sides = loadgen::Sides::Mix;
    DrillOptions {
        run,
        services,
        faults: faults.iter().map(|fault| fault.parse().unwrap()).collect(),
        random: None,
        quiet: Duration::from_millis(150),
        down: Duration::from_millis(150),
    }
}

async fn drill_dev(names: &[&str], faults: &[&str]) -> (Dev, BTreeMap<String, u32>, anyhow::Result<Drill>) {
    let stub = Stub::start(Behaviour::default()).await;
    let dev = Dev::start(names, &stub.url.to_string());
    let before = dev.pids();
    let result = drill(options(Services::Dev(dev.path()), faults), std::future::pending(), |_| {}).await;
    (dev, before, result)
}

const NAMES: [&str; 5] = ["order-1", "order-2", "order-3", "catalog-1", "frontend-1"];

#[tokio::test]
async fn whatever_is_harmed_is_healed_and_dev_json_stays_true() {
    for (fault, label, restarted) in [
        ("kill:leader", "kill leader (order-2)", 1),
        ("stop:order-3", "stop order-3", 1),
        ("restart:catalog", "restart catalog (catalog-1)", 1),
        ("pause:leader", "pause leader (order-2)", 0),
        ("kill:all", "kill all", 5),
    ] {
        let (dev, before, result) = drill_dev(&NAMES, &[fault]).await;
        let result = result.unwrap();
        assert!(result.ok(), "{result}");
        assert_eq!(result.events[0].label, label);
        let after = dev.pids();
        let changed = before.iter().filter(|(name, pid)| after[*name] != **pid).count();
        assert_eq!(changed, restarted, "{fault}");
        assert_eq!(result.left_running.len(), restarted, "{fault}: {result}");
        for (name, pid) in after {
            assert!(asleep(pid).is_some_and(|state| state != 'T'), "{fault}: {name} does not run");
        }
        assert_eq!(dev.state()["processes"][0]["kept"], 1);
    }
}

#[tokio::test]
async fn a_drill_shows_each_fault_on_its_timeline() {
    let (dev, _, result) = drill_dev(&NAMES, &["kill:leader", "pause:follower"]).await;
    let result = result.unwrap();
    assert_eq!(result.events.len(), 2);
    assert!(result.events.iter().all(|event| event.whole.is_some() && event.healed > event.at), "{result}");
    let files = result.write(&dev.directory.path().join("out")).unwrap();
    assert_eq!(files.len(), 3);
    let plot = result.plot();
    assert!(plot.contains("1 kill leader (order-2)") && plot.contains("2 pause follower") && !plot.contains("NaN"));
    let text = result.to_string();
    assert!(text.contains("<- 1 kill leader (order-2)") && text.contains("<- 2 healed"), "{text}");
    assert!(text.contains("order files not compared"), "{text}");
    // Two faults with a quiet time before each and one at the end, in columns of 100 ms.
    assert!(result.to_csv().lines().count() > 7, "{}", result.to_csv());
}

#[tokio::test]
async fn what_is_not_the_process_that_was_started_is_never_signalled() {
    let stub = Stub::start(Behaviour::default()).await;
    let dev = Dev::start(&NAMES, &stub.url.to_string());
    let text = fs::read_to_string(dev.path()).unwrap().replace("\"1000\"", "\"2000\"");
    fs::write(dev.path(), text).unwrap();
    let result = drill(options(Services::Dev(dev.path()), &["kill:leader"]), std::future::pending(), |_| {}).await;
    let result = result.unwrap();
    assert!(!result.ok());
    assert!(result.events[0].trouble.as_ref().unwrap().contains("does not run"), "{result}");
    assert!(dev.pids().into_values().all(|pid| asleep(pid).is_some()));
}

#[tokio::test]
async fn an_interrupted_drill_heals_before_it_ends() {
    let stub = Stub::start(Behaviour::default()).await;
    let dev = Dev::start(&NAMES, &stub.url.to_string());
    let leader = dev.pids()["order-2"];
    let paused = async {
        // The interrupt comes as soon as the leader hangs.
        while asleep(leader) != Some('T') {
            tokio::task::yield_now().await;
        }
    };
    let mut options = options(Services::Dev(dev.path()), &["pause:leader"]);
    options.down = Duration::from_secs(1_000);
    let result = drill(options, paused, |_| {}).await.unwrap();
    assert_eq!(result.events.len(), 1);
    assert!(asleep(leader).is_some_and(|state| state != 'T'));
}

#[tokio::test]
async fn a_target_that_is_not_there_ends_the_drill_with_its_name() {
    let (_dev, _, result) = drill_dev(&NAMES, &["kill:order-9"]).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("order-9"), "{error}");
}

/// A `docker` that knows two services and writes down what it is asked.
fn fake_docker(directory: &Path) -> String {
    let program = directory.join("docker");
    let script = "#!/bin/sh\necho \"$@\" >> \"$0.log\"\ncase \"$*\" in\n*--services) printf 'order-1\\norder-2\\n';;\n\
                  *--quiet*) echo container;;\n\
                  *verify*) echo \"$6 8 entries ok\";;\ninspect*) printf 'net_a\\nnet_b\\n';;\nesac\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn containers_are_driven_through_docker() {
    for (fault, expected) in [
        ("kill:leader", vec!["compose --file c.yaml kill order-2", "compose --file c.yaml start order-2"]),
        (
            "kill:all",
            vec![
                "compose --file c.yaml kill order-1 order-2",
                "compose --file c.yaml start order-1",
                "compose --file c.yaml start order-2",
            ],
        ),
        ("pause:order-1", vec!["compose --file c.yaml pause order-1", "compose --file c.yaml unpause order-1"]),
        ("restart:order-1", vec!["compose --file c.yaml restart order-1"]),
        (
            "cut:leader",
            vec![
                "compose --file c.yaml ps --quiet order-2",
                "inspect --format {{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}} container",
                "network disconnect net_a container",
                "network disconnect net_b container",
                "network connect --alias order-2 net_a container",
                "network connect --alias order-2 net_b container",
            ],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let stub = Stub::start(Behaviour::default()).await;
        let program = fake_docker(directory.path());
        let log = format!("{program}.log");
        let mut options = options(Services::Compose { file: "c.yaml".into(), program }, &[fault]);
        options.run.urls = vec![stub.url.clone()];
        let result = drill(options, std::future::pending(), |_| {}).await.unwrap();
        assert!(result.ok(), "{result}");
        assert!(matches!(result.journals, Journals::Same(_)), "{result}");
        let asked = fs::read_to_string(log).unwrap();
        let asked = asked.lines().skip(1).filter(|line| !line.contains("tradenet verify"));
        assert_eq!(asked.collect::<Vec<_>>(), expected, "{fault}");
    }
}
