//! `tradenet backup` and `tradenet restore`: the order log of a running exchange in another place, and an exchange made of it.
//!
//! Problem: a copy of a replica's directory, taken while it writes, may end in a part of a line, or in entries that were never
//! committed and that nobody was told of; and a copy that was never read again is not one.
//! Idea: the log is the only truth, so a backup is the committed part of one replica's journal, and where it ends. It is read once
//! along the chain before it is copied, and once more from where it was copied to. To restore is to give each replica that
//! journal under a new name, and a configuration in which all of them are in sync: the register is then written anew by
//! them, as where a broker's volume is lost. Rules kept: nothing that runs is stopped or written to; nothing that is there is
//! written over; what was restored is another exchange, whose messages those of the first one never take for their own.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tradenet_runtime::disk::segments::Files;
use tradenet_runtime::disk::{Directory, copy_log};
use tradenet_runtime::members::Members;
use tradenet_schemas::ids::{Boot, ClusterId, Leader, Member, Node, Nonce, Position, SeqNum, StoreId};
use tradenet_schemas::message::Configuration;

use crate::exit::HELP;
use crate::export::{choose, committed_by};
use crate::http::Origin;
use crate::journal::{FileArgs, Reader};
use crate::out;

/// What says where a backup ends.
const MANIFEST: &str = "backup.json";
/// The form of the manifest.
const FORMAT: u32 = 1;
/// Longest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 4_096;

/// `tradenet backup`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct BackupArgs {
    /// A directory for it, which is made, or is empty.
    to: PathBuf,
    /// Frontends that say what is committed. [default: those of the `tradenet dev` in the data directory]
    #[arg(long = "url", env = "TRADENET_URL", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    urls: Vec<Origin>,
    #[command(flatten)]
    file: FileArgs,
}

/// `tradenet restore`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct RestoreArgs {
    /// The directory of a backup.
    from: PathBuf,
    /// Where the directories of the replicas are made; none of them may be there yet.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The ids of all order replicas of the exchange, separated by commas.
    #[arg(long, env = "TRADENET_MEMBERS", default_value = "1,2,3", value_name = "IDS")]
    members: Members,
}

/// Where a backup ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Manifest {
    backup: u32,
    /// The last entry.
    #[serde(flatten)]
    position: Position,
    /// The length of the journal, in bytes.
    bytes: u64,
    /// When it was taken, in milliseconds since 1970.
    at: u64,
}

/// Copies.
///
/// # Errors
/// The directory is not empty, no replica in sync has its file here, the file is damaged, or the copy is not the same.
pub(crate) async fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let to = &args.to;
    let anything = match fs::read_dir(to) {
        Ok(mut there) => there.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("{} can't be read", to.display())),
    };
    // Among other files, such as those of the exchange itself, it would be taken for one of them.
    if anything {
        bail!("{} is not empty: name a directory for this backup alone", to.display());
    }
    let cluster = committed_by(&args.urls, &args.file.data_dir).await;
    let (found, until) = choose(args.file.all()?, cluster.as_ref())?;
    if until.is_none() {
        out::complain(
            "tradenet: no frontend says what is committed, so that all of the file is taken; name one with --url",
        );
    }
    let (position, bytes) = end_of(&found.files, until.unwrap_or(SeqNum(u64::MAX)))?;
    fs::create_dir_all(to).with_context(|| format!("{} can't be made", to.display()))?;
    copy_log(&found.files, bytes, to).with_context(|| format!("{} can't be written", to.display()))?;
    let read = end_of(&Files::new(to.clone(), None), SeqNum(u64::MAX))?;
    if read != (position, bytes) {
        bail!("{} does not hold what was copied: check the disk, then remove it and try again", to.display());
    }
    let at = now_ms();
    let manifest = serde_json::to_vec(&Manifest { backup: FORMAT, position, bytes, at })?;
    written(&to.join(MANIFEST), &manifest).with_context(|| format!("{MANIFEST} can't be written"))?;
    out::print(&format!(
        "{} entries of {}, {bytes} bytes, chain {}: read back and the same\n",
        position.seq,
        out::printable(&found.name),
        position.chain
    ))
}

/// Makes the directories of an exchange.
///
/// # Errors
/// The backup is not whole, a directory is there already, or can't be written.
pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let manifest = manifest_of(&args.from)?;
    let journal = Files::new(args.from.clone(), None);
    let (position, bytes) = end_of(&journal, SeqNum(u64::MAX))?;
    if (position, bytes) != (manifest.position, manifest.bytes) {
        bail!(
            "the log in {} ends at entry {}, byte {bytes}, and the backup with entry {}, byte {}: it is not whole, take another copy",
            args.from.display(),
            position.seq,
            manifest.position.seq,
            manifest.bytes
        );
    }
    let in_sync: Vec<_> = args.members.ids().iter().map(|&id| Member { id, store: StoreId(rand::random()) }).collect();
    let last = in_sync.iter().max_by_key(|member| member.id).context("an exchange has a replica")?;
    // Nobody is that process: the replicas elect one when they have written the register.
    let leader = Leader { id: last.id, boot: Boot(rand::random()) };
    let configuration = Configuration {
        cluster: ClusterId(rand::random()),
        epoch: position.epoch,
        nonce: Nonce(rand::random()),
        leader,
        in_sync: in_sync.clone(),
        members: args.members.ids().to_vec(),
        follows: Vec::new(),
        by: Node::Tool(Boot(rand::random())),
        why: "tradenet restore".to_owned(),
        at: now_ms(),
    };
    let dirs = || args.members.ids().iter().map(|id| args.data_dir.join(format!("order-{id}")));
    if let Some(there) = dirs().find(|dir| dir.exists()) {
        bail!("{} is there already: name a --data-dir without it", there.display());
    }
    for member in &in_sync {
        Directory::restore(&args.data_dir, *member, &configuration, &journal)?;
    }
    out::print(&format!(
        "{} entries for each of {} replicas in {}: start all of them, with a broker that has no exchange yet\n",
        position.seq,
        in_sync.len(),
        args.data_dir.display()
    ))
}

fn manifest_of(dir: &Path) -> anyhow::Result<Manifest> {
    let path = dir.join(MANIFEST);
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text));
    read.with_context(|| format!("{} can't be read: name the directory of a backup", path.display()))?;
    let manifest: Manifest =
        serde_json::from_str(&text).with_context(|| format!("{} is not that of a backup", path.display()))?;
    if manifest.backup != FORMAT {
        bail!("{} has form {}, and this release reads form {FORMAT}", path.display(), manifest.backup);
    }
    Ok(manifest)
}

/// Reads a journal up to an entry: the last one's position, and where it ends.
fn end_of(files: &Files, until: SeqNum) -> anyhow::Result<(Position, u64)> {
    let mut reader = Reader::open(files).with_context(|| format!("{} can't be read", files.dir().display()))?;
    let mut end = (Position::default(), 0);
    reader.read(&mut |scanned| {
        if scanned.position.seq <= until {
            end = (scanned.position, end.1 + scanned.bytes as u64);
        }
        Ok(())
    })?;
    Ok(end)
}

/// Last, and whole or not at all: without it there is no backup.
fn written(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}
