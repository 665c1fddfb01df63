//! The life of `tradenet dev`: nothing of it stays behind, however it ends.

use tradenet_runtime::process::Signal;

use crate::harness::{Exchange, gone, until, verify};

fn pids(exchange: &Exchange) -> Vec<(String, u32)> {
    exchange.names().into_iter().map(|name| (name.clone(), exchange.pid(&name))).collect()
}

#[test]
fn sigterm_stops_every_child_and_two_exchanges_do_not_disturb_each_other() {
    let (mut one, two) = Exchange::start_two();
    let (ones, twos) = (pids(&one), pids(&two));
    one.stop_all();
    for (name, pid) in ones {
        assert!(gone(pid), "{name} ({pid}) is still there");
    }
    for (name, pid) in &twos {
        assert!(!gone(*pid), "{name} ({pid}) of the other exchange is gone");
    }
    assert!(!one.data().join("dev.json").exists());
    two.until_whole();
}

#[test]
fn when_it_is_killed_its_services_leave_and_the_next_one_starts_on_the_same_directory() {
    let mut exchange = Exchange::start(&[]);
    let first = pids(&exchange);
    assert_eq!(exchange.stop_dev(Signal::Kill), None);
    exchange.start_again();
    for (name, pid) in first {
        assert!(gone(pid), "{name} ({pid}) is still there");
    }
    exchange.until_whole();
    exchange.stop_and_verify();
}

#[test]
fn who_was_started_by_hand_is_published_and_stopped_with_the_rest() {
    let mut exchange = Exchange::start(&[]);
    for name in ["order-2", "frontend-1"] {
        exchange.kill(name);
        exchange.restart(name);
        let pid = exchange.pid(name);
        until(&format!("{name} in dev.json"), || exchange.published(name) == u64::from(pid));
    }
    exchange.until_whole();
    assert_eq!(exchange.stop_dev(Signal::Terminate), Some(0));
    for name in ["order-2", "frontend-1"] {
        assert_eq!(exchange.await_end(name), Some(0));
    }
    let (ok, text) = verify(&exchange.data());
    assert!(ok, "{text}");
}
