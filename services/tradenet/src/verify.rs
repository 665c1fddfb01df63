//! `tradenet verify`: are these order files whole, and the same?
//!
//! Problem: an operator wants to know, without starting anything, whether what is on the disks is what was acknowledged.
//! Idea: read each journal line by line as a replica does at its start (chain, order, form), then compare what the replicas
//! hold by position: equal `(epoch, seq, chain)` means equal up to there. A snapshot is made once more of the journal: it has to
//! be the same, byte for byte.
//! Rule kept: nothing is written, and a replica that is merely behind is told apart from one that differs.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};
use tradenet_core::journal as lines;
use tradenet_core::replica::snapshot::{MakeError, Making, Snapshot};
use tradenet_runtime::disk::segments::{LogError, Segments};
use tradenet_runtime::disk::snapshots;
use tradenet_schemas::ids::{Chain, Position};

use crate::exit::HELP;
use crate::journal::{ArchiveArgs, Found, LINE_BYTES_MAX, READ_BYTES, below, within};
use crate::out;

/// `tradenet verify`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directories of replicas (`order-1`), or data directories that hold some.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// What a journal holds.
struct Journal {
    name: String,
    log: Segments,
    chains: Vec<Chain>,
    tail: Position,
    bytes: u64,
    fault: Option<Fault>,
    /// How many snapshots of it are in order.
    snapshots: usize,
    /// What is wrong with others.
    bad_snapshots: Vec<String>,
}

/// Why a journal can't be read to its end.
enum Fault {
    /// These are not the bytes that were written, or not all of them.
    Damaged(String),
    /// They are, but a newer release wrote them.
    Newer(String),
}

/// Checks and compares; the report goes to standard output.
///
/// # Errors
/// A directory has no journal, a journal is damaged, or two journals differ.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut journals = Vec::new();
    for dir in &args.dirs {
        for found in below(dir, &args.archive)? {
            let unread = || format!("{} can't be read", found.files.dir().display());
            let mut journal = read(&found).with_context(unread)?;
            journal.check_snapshots(&found).with_context(unread)?;
            journals.push(journal);
        }
    }
    let (report, faults) = report(&journals);
    // Whether they are in order is known even where nobody reads it.
    if faults == 0 {
        return out::print(&report);
    }
    let _ = out::print(&report);
    bail!(
        "{faults} of {} journals are not in order; to mend one while others are in sync (`tradenet status`): stop it, \
         remove its directory, start it",
        journals.len()
    );
}

fn read(found: &Found) -> Result<Journal, LogError> {
    let mut journal = Journal {
        name: out::printable(&found.name),
        log: Segments::open(&found.files)?,
        chains: Vec::new(),
        tail: Position::default(),
        bytes: 0,
        fault: None,
        snapshots: 0,
        bad_snapshots: Vec::new(),
    };
    let mut rest = Vec::new();
    loop {
        let read = journal.log.read(journal.bytes + rest.len() as u64, READ_BYTES);
        let read = read.map_err(|source| LogError::Io { path: found.files.dir().to_owned(), source })?;
        rest.extend_from_slice(&read);
        let ended = read.is_empty();
        let used = journal.take(&rest, ended);
        if journal.fault.is_some() || ended {
            return Ok(journal);
        }
        rest.drain(..used);
        if rest.len() > LINE_BYTES_MAX {
            journal.fault = Some(Fault::Damaged(journal.bad_line("no end of line")));
            return Ok(journal);
        }
    }
}

impl Journal {
    /// Checks whole lines; how many bytes they had.
    fn take(&mut self, bytes: &[u8], ended: bool) -> usize {
        let mut used = 0;
        let mut scan = lines::scan(bytes, self.tail);
        for scanned in &mut scan {
            match scanned {
                Ok(good) => {
                    used += good.bytes;
                    self.bytes += good.bytes as u64;
                    self.chains.push(good.position.chain);
                    self.tail = good.position;
                }
                Err(error) => {
                    let line = self.bad_line(&error.to_string());
                    self.fault = Some(if error.is_newer() { Fault::Newer(line) } else { Fault::Damaged(line) });
                    return used;
                }
            }
        }
        let left = bytes.len() - used;
        if ended && left > 0 {
            let line = self.bad_line(&format!("{left} bytes without an end of line (a torn write)"));
            self.fault = Some(Fault::Damaged(line));
        }
        used
    }

    /// Each must be what the journal comes to. Of a journal that is not whole this can't be said.
    fn check_snapshots(&mut self, found: &Found) -> io::Result<()> {
        if self.fault.is_some() {
            return Ok(());
        }
        // Oldest first, so that the next goes on from there.
        let mut files = snapshots::files(found.files.dir())?;
        files.reverse();
        let mut before = None;
        for (seq, path) in files {
            let file = match std::fs::read(path) {
                // A running replica has made a newer one meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            match check_snapshot(&file, before.take(), &mut self.log) {
                Ok(snapshot) => {
                    self.snapshots += 1;
                    before = Some(snapshot);
                }
                Err(why) => self.bad_snapshots.push(format!("snapshot-{seq}: {why}")),
            }
        }
        Ok(())
    }

    fn bad_line(&self, why: &str) -> String {
        format!("line {}, byte {}{}: {why}", self.chains.len() + 1, self.bytes, within(&self.log, self.bytes))
    }

    /// The first entry in which two journals differ, if they do.
    fn differs_from(&self, other: &Self) -> Option<usize> {
        self.chains.iter().zip(&other.chains).position(|(own, other)| own != other).map(|index| index + 1)
    }
}

/// Whether a file is what is made of the journal, of which `before` is a snapshot that is.
fn check_snapshot(file: &[u8], before: Option<Snapshot>, log: &mut Segments) -> Result<Snapshot, String> {
    let snapshot = Snapshot::decode(file).map_err(|error| error.to_string())?;
    let made = Making::new(before, snapshot.bytes())
        .run(&mut |offset, bytes_max| log.read(offset, bytes_max).map_err(|error| MakeError::Io(error.to_string())));
    match made {
        Ok(made) if made.encode() == file => Ok(made),
        Ok(_) => Err("it is not what the journal comes to".to_owned()),
        Err(error) => Err(format!("it does not belong to the journal: {error}")),
    }
}

/// The report, and how many journals are not in order.
fn report(journals: &[Journal]) -> (String, usize) {
    let mut text = String::new();
    let mut faults = 0;
    let longest = journals.iter().filter(|journal| journal.fault.is_none()).max_by_key(|journal| journal.chains.len());
    for journal in journals {
        let behind = longest.map_or(0, |longest| longest.chains.len().saturating_sub(journal.chains.len()));
        let differs = longest.and_then(|longest| Some((journal.differs_from(longest)?, longest)));
        let verdict = match (&journal.fault, differs) {
            (Some(fault), _) => {
                faults += 1;
                match fault {
                    Fault::Damaged(line) => format!("DAMAGED at {line}"),
                    Fault::Newer(line) => format!("NEWER than this program at {line}"),
                }
            }
            (None, Some((entry, longest))) => {
                faults += 1;
                format!("DIFFERS from {} at entry {entry}", longest.name)
            }
            (None, None) if behind == 1 => "ok, 1 entry behind".to_owned(),
            (None, None) if behind > 0 => format!("ok, {behind} entries behind"),
            (None, None) => "ok".to_owned(),
        };
        let verdict = match (journal.snapshots, journal.bad_snapshots.is_empty()) {
            (_, false) => {
                faults += usize::from(journal.fault.is_none());
                format!("{verdict}, but {}: remove it, the replica does without", journal.bad_snapshots.join("; "))
            }
            (0, true) => verdict,
            (1, true) => format!("{verdict}, as is its snapshot"),
            (count, true) => format!("{verdict}, as are its {count} snapshots"),
        };
        let (name, entries, bytes) = (&journal.name, journal.chains.len(), journal.bytes);
        let Position { epoch, chain, .. } = journal.tail;
        let _ = writeln!(
            text,
            "{name:<12} {entries:>10} entries {bytes:>12} bytes  epoch {epoch:<5} chain {chain}  {verdict}"
        );
    }
    let whole = faults == 0 && journals.len() > 1;
    let same = journals.windows(2).all(|pair| pair[0].tail == pair[1].tail);
    if whole && same {
        let _ = writeln!(text, "all {} journals are the same, byte for byte", journals.len());
    }
    (text, faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::lines;
    use tradenet_schemas::ids::{Epoch, SeqNum};
    use tradenet_schemas::journal::{Entry, Event};
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    /// A line behind these that only a later release could have written.
    fn newer_line(before: &[u8]) -> Vec<u8> {
        let mut scan = tradenet_core::journal::scan(before, Position::default());
        assert!(scan.by_ref().all(|line| line.is_ok()));
        let json = br#"{"seq":4,"epoch":2,"at":1,"events":[{"split":{}}]}"#;
        let chain = Chain(xxh3_64_with_seed(json, scan.position().chain.0));
        [format!("{{\"chain\":\"{chain}\",").as_bytes(), &json[1..], b"\n"].concat()
    }

    #[test]
    fn a_snapshot_is_compared_with_the_journal_that_it_is_of() {
        let dir = tempfile::tempdir().unwrap();
        let symbol = |name| tradenet_schemas::trade::Symbol::new(name).unwrap();
        let (mut bytes, mut chain) = (Vec::new(), Chain(0));
        for (name, seq) in ["A", "B", "C"].into_iter().zip(1..) {
            let price = tradenet_schemas::trade::Price::from_cents(100).unwrap();
            let quantity = tradenet_schemas::trade::Quantity::new(seq).unwrap();
            let events = vec![Event::Listed { symbol: symbol(name), price, quantity }];
            let entry = Entry { seq: SeqNum(seq), epoch: Epoch(1), at: 0, key: None, events };
            chain = tradenet_core::journal::encode(&entry, chain, &mut bytes);
        }
        std::fs::write(dir.path().join("orders.jsonl"), &bytes).unwrap();
        let second = bytes.len() as u64 / 2;
        let good = Making::new(None, second)
            .run(&mut |offset, _| Ok(bytes[usize::try_from(offset).unwrap()..].to_vec()))
            .unwrap()
            .encode();
        let file = dir.path().join("snapshot-2");
        let check = |content: &[u8], faults: usize, says: &str| {
            std::fs::write(&file, content).unwrap();
            let found = &below(dir.path(), &ArchiveArgs::default()).unwrap()[0];
            let mut journal = read(found).unwrap();
            journal.check_snapshots(found).unwrap();
            let (text, counted) = report(&[journal]);
            assert_eq!(counted, faults, "{text}");
            assert!(text.contains(says), "{text}");
        };
        check(&good, 0, "ok, as is its snapshot");
        let mut flipped = good.clone();
        flipped[100] ^= 1;
        check(&flipped, 1, "ok, but snapshot-2: it is damaged");
        // Whole, but it says that something else was listed.
        let mut other = good[..good.len() - 8].to_vec();
        let name = other.iter().rposition(|&byte| byte == b'B').unwrap();
        other[name] = b'X';
        other.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&other).to_le_bytes());
        check(&other, 1, "it is not what the journal comes to");
    }

    #[test]
    fn whole_torn_damaged_and_differing_journals_are_told_apart() {
        let check = |files: &[Vec<u8>], faults: usize, says: &str| {
            let dir = tempfile::tempdir().unwrap();
            for (file, id) in files.iter().zip(1..) {
                let own = dir.path().join(format!("order-{id}"));
                std::fs::create_dir(&own).unwrap();
                std::fs::write(own.join("orders.jsonl"), file).unwrap();
            }
            let found = below(dir.path(), &ArchiveArgs::default()).unwrap();
            let journals: Vec<_> = found.iter().map(|found| read(found).unwrap()).collect();
            let (text, found) = report(&journals);
            assert_eq!(found, faults, "{text}");
            assert!(text.contains(says), "{text}");
        };
        let good = lines(&[1, 1, 2]);
        check(&[good.clone(), good.clone()], 0, "all 2 journals are the same");
        check(&[good.clone(), lines(&[1, 1])], 0, "ok, 1 entry behind");
        check(&[good.clone(), lines(&[1, 3])], 1, "DIFFERS from order-1 at entry 2");
        check(&[good.clone(), good[..good.len() - 5].to_vec()], 1, "torn write");
        let mut flipped = good.clone();
        flipped[60] ^= 1;
        check(&[flipped, good.clone()], 1, "DAMAGED at line 1, byte 0");
        let newer = [&good[..], &newer_line(&good)].concat();
        check(&[newer], 1, "NEWER than this program at line 4");
    }
}
