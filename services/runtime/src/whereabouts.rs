//! Where a process runs, told in the service API, and the command that ends it, made from what was told.
//!
//! The problem: who looks at an exchange wants to stop a part of it and see what happens, and only the part itself knows which
//! process or container it is. The idea: each service tells the facts (host, process number, container, what a Compose file
//! calls it), and whoever shows them makes the command. The rule: a command is made of a number, or of a word that means
//! nothing to a shell, and never taken over as a text: people will paste it.

use std::collections::BTreeMap;
use std::os::unix::process::parent_id;
use std::path::Path;

const HOST: &str = "host";
const PID: &str = "pid";
const CONTAINER: &str = "container";
const COMPOSE_SERVICE: &str = "compose_service";
/// Engines put one of these into each container.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
/// A word of a command has at most so many characters.
const WORD_MAX: usize = 64;

/// What this process tells of where it runs.
pub(crate) fn told(compose_service: Option<&str>) -> Vec<(&'static str, String)> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    // One that stands for its container is its first process, or that one's child; another would be stopped with all the rest.
    let stands_for_it = std::process::id() == 1 || parent_id() == 1;
    let contained = stands_for_it && CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists());
    let container = contained.then(|| "yes".to_owned());
    // Compose sets what is not wanted to nothing.
    let compose_service = compose_service.filter(|name| !name.is_empty()).map(str::to_owned);
    let all = [(HOST, host), (PID, Some(std::process::id().to_string())), (CONTAINER, container)];
    let all = all.into_iter().chain([(COMPOSE_SERVICE, compose_service)]);
    all.filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Where a process runs, as it has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The machine, or the container.
    pub host: Option<String>,
    /// Its number there.
    pub pid: Option<u32>,
    /// The command that ends it.
    pub stop: Option<String>,
}

impl Whereabouts {
    /// Of this process, which Compose knows by that name, if it does.
    #[must_use]
    pub fn here(compose_service: Option<&str>) -> Self {
        Self::of(&told(compose_service).into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Reads what a service has told.
    #[must_use]
    pub fn of(metadata: &BTreeMap<String, String>) -> Self {
        let word = |key: &str| metadata.get(key).filter(|word| is_plain(word));
        let (host, pid) = (word(HOST), metadata.get(PID).and_then(|pid| pid.parse().ok()));
        let stop = match (word(COMPOSE_SERVICE), host, pid) {
            (Some(service), _, _) => Some(format!("docker compose stop {service}")),
            (None, Some(host), _) if metadata.contains_key(CONTAINER) => Some(format!("docker stop {host}")),
            (None, _, Some(pid)) => Some(format!("kill -9 {pid}")),
            _ => None,
        };
        Self { host: host.cloned(), pid, stop }
    }
}

/// Whether a shell takes it for one word, and a command for no option.
fn is_plain(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=WORD_MAX).contains(&word.len()) && word.bytes().all(plain) && !word.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(told: &[(&str, &str)], stop: Option<&str>) {
        let told = told.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(Whereabouts::of(&told).stop.as_deref(), stop, "{told:?}");
    }

    #[test]
    fn the_command_that_stops_a_service_is_for_where_it_runs() {
        check(&[("pid", "4242"), ("host", "tall-machine")], Some("kill -9 4242"));
        check(&[("pid", "7"), ("host", "3f2a90c1b7de"), ("container", "yes")], Some("docker stop 3f2a90c1b7de"));
        let compose = [("pid", "7"), ("host", "x"), ("container", "yes"), ("compose_service", "order-3")];
        check(&compose, Some("docker compose stop order-3"));
        check(&[("host", "x")], None);
        check(&[], None);
    }

    #[test]
    fn nothing_that_a_shell_would_take_apart_gets_into_a_command() {
        check(&[("pid", "1; rm -rf x")], None);
        check(&[("pid", "-1")], None);
        check(&[("compose_service", "a b"), ("pid", "5")], Some("kill -9 5"));
        check(&[("compose_service", "$(x)"), ("host", "--all"), ("container", "yes"), ("pid", "5")], Some("kill -9 5"));
        check(&[("compose_service", "a\nb")], None);
        check(&[("compose_service", "")], None);
    }

    #[test]
    fn this_process_says_how_it_is_stopped() {
        assert_eq!(Whereabouts::here(None).pid, Some(std::process::id()));
        assert_eq!(Whereabouts::here(Some("order-3")).stop.as_deref(), Some("docker compose stop order-3"));
        assert!(Whereabouts::here(Some("")).stop.is_some());
    }
}
