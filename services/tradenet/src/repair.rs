//! `tradenet repair`: damaged order files are mended from other replicas' files.
//!
//! Problem: a record went bad on a disk whose replica is stopped, and perhaps another record on another disk; together they
//! still have everything.
//! Idea: the committed part of the log is the same on every replica, byte for byte and so in the same places. Where a line
//! is bad, another file's line in that place is taken, if the chain leads to it.
//! Rules kept: a line is only put back where it is *proven* to be the one that stood there: its checksum is the one that the
//! damaged line still names, or its content is what still stands there, or the file's own next lines follow it. So what a replica has
//! acknowledged is never replaced by what another one had instead. Where no file has the line, or nothing proves it,
//! nothing is written, and it is said which entry that is. A directory at work is refused.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tradenet_core::journal::{BadLine, Scanned, decode, scan};
use tradenet_runtime::disk::Lock;
use tradenet_runtime::disk::segments::{Files, Segments};
use tradenet_schemas::ids::Position;

use crate::exit::HELP;
use crate::journal::{ArchiveArgs, Found, LINE_BYTES_MAX, READ_BYTES, below};
use crate::out;

/// How many bytes of damage in a row are looked at.
const REGION_BYTES_MAX: u64 = 64 << 20;
/// Where a line names its checksum, and where its content begins; see `tradenet_core::journal`.
const CHAIN: std::ops::Range<usize> = 10..26;

/// `tradenet repair`
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directories of stopped replicas (`order-1`), or data directories that hold some: damaged ones and good ones.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// Behind which entry, and at which byte.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Place {
    position: Position,
    byte: u64,
}

/// A replica's journal.
struct Copy {
    name: String,
    files: Files,
    log: RefCell<Segments>,
}

/// How the good part of a file ends.
#[derive(Debug)]
enum Ends {
    /// With the file, or with a part of a line that was never whole, which the replica cuts by itself.
    Whole,
    Damaged(BadLine),
}

/// A line that is put back.
struct Patch {
    byte: u64,
    line: Vec<u8>,
}

/// What can't be mended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a newer release wrote it, at line {line}, byte {byte}: use that release")]
    Newer { line: u64, byte: u64 },
    #[error(
        "line {line}, byte {byte}, is damaged, and no other file here has a good one in its place: entry {line} is lost, and \
         what follows can't be checked"
    )]
    Nowhere { line: u64, byte: u64 },
    #[error(
        "line {line}, byte {byte}, is damaged, and nothing proves that another file's line is the one that stood there: start \
         the replica, which gives up what is behind it and is filled again by the others"
    )]
    Unproven { line: u64, byte: u64 },
}

/// Mends what can be.
///
/// # Errors
/// Something is damaged that can't be mended, or a replica is at work.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut copies = Vec::new();
    for dir in &args.dirs {
        for found in below(dir, &args.archive)? {
            copies.push(Copy::open(found)?);
        }
    }
    let (mut text, mut bad) = (String::new(), 0);
    for (index, own) in copies.iter().enumerate() {
        let others: Vec<_> = copies.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, o)| o).collect();
        let _ = match mended(own, &others) {
            Ok(patches) if patches.is_empty() => writeln!(text, "{:<12} nothing to mend", own.name),
            Ok(patches) => {
                own.put_back(&patches)?;
                let bytes: usize = patches.iter().map(|patch| patch.line.len()).sum();
                let entries = if patches.len() == 1 { "entry" } else { "entries" };
                writeln!(
                    text,
                    "{:<12} {} {entries} put back, {bytes} bytes: every byte as it was",
                    own.name,
                    patches.len()
                )
            }
            Err(lost) => {
                bad += 1;
                writeln!(text, "{:<12} NOT mended, nothing is written: {lost}", own.name)
            }
        };
    }
    if bad == 0 {
        return out::print(&text);
    }
    let _ = out::print(&text);
    bail!("{bad} of {} files can't be mended from the others; name more directories, if there are any", copies.len());
}

/// The lines to put back into `own`.
fn mended(own: &Copy, others: &[&Copy]) -> Result<Vec<Patch>, Lost> {
    let (mut at, mut patches) = (Place::default(), Vec::new());
    loop {
        let (good, ends) = own.good_from(at)?;
        let (line, byte) = (good.position.seq.0 + 1, good.byte);
        match ends {
            Ends::Whole => return Ok(patches),
            Ends::Damaged(bad) if bad.is_newer() => return Err(Lost::Newer { line, byte }),
            Ends::Damaged(_) => {}
        }
        // Lines of others, until the file itself says that they are right.
        at = good;
        loop {
            let candidates = others.iter().filter_map(|other| other.line_at(at).transpose());
            let candidates = candidates.collect::<io::Result<Vec<_>>>()?;
            let Some((theirs, position)) = candidates.into_iter().max_by_key(|(_, position)| position.epoch) else {
                let end = own.log.borrow_mut().bytes()?;
                // Where the file has come to its end all the same, something else than a line of others stood there.
                return Err(if at.byte < end && at == good {
                    Lost::Nowhere { line, byte }
                } else {
                    Lost::Unproven { line, byte }
                });
            };
            let stands = own.read(at.byte, theirs.len())?;
            let proven = stands.get(CHAIN) == theirs.get(CHAIN) || stands.get(CHAIN.end..) == theirs.get(CHAIN.end..);
            at = Place { position, byte: at.byte + theirs.len() as u64 };
            patches.push(Patch { byte: at.byte - theirs.len() as u64, line: theirs });
            if proven || own.line_at(at)?.is_some() {
                break;
            }
            if at.byte - byte > REGION_BYTES_MAX {
                return Err(Lost::Unproven { line, byte });
            }
        }
    }
}

impl Copy {
    fn open(found: Found) -> anyhow::Result<Self> {
        let Found { name, files } = found;
        let log = Segments::open(&files).with_context(|| format!("{} can't be read", files.dir().display()))?;
        Ok(Self { name: out::printable(&name), files, log: RefCell::new(log) })
    }

    /// So many bytes, or as many as there are.
    fn read(&self, byte: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.log.borrow_mut().read(byte, bytes_max)
    }

    /// The end of the good lines behind `at`.
    fn good_from(&self, mut at: Place) -> io::Result<(Place, Ends)> {
        let mut length = READ_BYTES;
        loop {
            let bytes = self.read(at.byte, length)?;
            let before = at;
            let mut lines = scan(&bytes, at.position);
            for line in &mut lines {
                match line {
                    Ok(Scanned { position, bytes, .. }) => at = Place { position, byte: at.byte + bytes as u64 },
                    Err(bad) => return Ok((at, Ends::Damaged(bad))),
                }
            }
            if bytes.len() < length {
                let whole = lines.rest().is_empty() || lines.is_torn();
                return Ok((at, if whole { Ends::Whole } else { Ends::Damaged(BadLine::NotALine) }));
            }
            if at == before {
                if length > LINE_BYTES_MAX {
                    return Ok((at, Ends::Damaged(BadLine::NotALine)));
                }
                length *= 2;
            }
        }
    }

    /// The line behind `at`, if a good one is there.
    fn line_at(&self, at: Place) -> io::Result<Option<(Vec<u8>, Position)>> {
        let mut bytes = self.read(at.byte, 4_096)?;
        if !bytes.contains(&b'\n') {
            bytes = self.read(at.byte, LINE_BYTES_MAX)?;
        }
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
        let read = decode(&bytes[..end], at.position);
        bytes.truncate(end + 1);
        Ok(read.ok().map(|(_, position)| (bytes, position)))
    }

    /// Writes lines to where they stood, and reads all of it again.
    fn put_back(&self, patches: &[Patch]) -> anyhow::Result<()> {
        let dir = self.files.dir();
        let _lock = Lock::take(dir)?;
        let unwritten = || format!("the journal in {} can't be written", dir.display());
        for patch in patches {
            self.log.borrow_mut().rewrite(&patch.line, patch.byte).with_context(unwritten)?;
        }
        match self.good_from(Place::default())? {
            (_, Ends::Whole) => Ok(()),
            (at, Ends::Damaged(bad)) => {
                bail!("the journal in {} is damaged again at byte {}: {bad}. Check the disk", dir.display(), at.byte)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradenet_core::journal::encode;
    use tradenet_runtime::disk::segments::Journal;
    use tradenet_schemas::ids::{Chain, Digest, Epoch, Leader, ReplicaId, SeqNum};
    use tradenet_schemas::journal::{Entry, Event};

    /// One entry for each of `epochs`; where each line begins, and the end.
    fn journal(epochs: &[u64]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins, mut chain) = (Vec::new(), vec![0], Chain(0));
        for (epoch, seq) in epochs.iter().zip(1..) {
            let leader = Leader { id: ReplicaId::new(1).unwrap(), boot: Default::default() };
            let events = vec![Event::EpochStart { leader, digest: Digest(seq) }];
            let entry = Entry { seq: SeqNum(seq), epoch: Epoch(*epoch), at: seq, key: None, events };
            chain = encode(&entry, chain, &mut bytes);
            begins.push(bytes.len());
        }
        (bytes, begins)
    }

    /// What is said of these files, and what becomes of them.
    fn repaired(files: &[&[u8]]) -> (Result<(), String>, Vec<Vec<u8>>) {
        let home = tempfile::tempdir().unwrap();
        let path = |index: usize| home.path().join(format!("order-{}", index + 1)).join("orders.jsonl");
        for (index, file) in files.iter().enumerate() {
            std::fs::create_dir(path(index).parent().unwrap()).unwrap();
            std::fs::write(path(index), file).unwrap();
        }
        let found = below(home.path(), &ArchiveArgs::default()).unwrap();
        let copies: Vec<_> = found.into_iter().map(|found| Copy::open(found).unwrap()).collect();
        let mut said = Ok(());
        for own in 0..copies.len() {
            let others: Vec<_> = (0..copies.len()).filter(|&other| other != own).map(|other| &copies[other]).collect();
            match mended(&copies[own], &others) {
                Ok(patches) => copies[own].put_back(&patches).unwrap(),
                Err(lost) => said = said.and(Err(lost.to_string())),
            }
        }
        (said, (0..files.len()).map(|index| std::fs::read(path(index)).unwrap()).collect())
    }

    #[test]
    fn a_flipped_bit_in_any_byte_is_found_and_mended_from_another_file() {
        let (good, _) = journal(&[1, 1, 2]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let mut lines = scan(&bad, Position::default());
            let found = lines.any(|line| line.is_err()) || !lines.rest().is_empty();
            assert!(found, "byte {at} is flipped and nobody sees it");
            let (said, files) = repaired(&[&bad, &good]);
            assert_eq!(said, Ok(()), "byte {at}");
            assert!(files[0] == good && files[1] == good, "byte {at}");
        }
    }

    #[test]
    fn files_that_are_damaged_in_different_places_mend_each_other() {
        let (good, begins) = journal(&[1; 30]);
        let zeroed = |from: usize, to: usize| {
            let mut bad = good.clone();
            bad[from..to].fill(0);
            bad
        };
        // Whole lines and parts of the next ones: what is behind proves it.
        let (first, second) = (zeroed(begins[4] + 30, begins[9] + 7), zeroed(begins[20], begins[22]));
        let (said, files) = repaired(&[&first, &second]);
        assert_eq!(said, Ok(()));
        assert!(files.iter().all(|file| *file == good));
    }

    #[test]
    fn segments_that_are_missing_rotten_or_in_the_archive_are_mended_from_another_replicas() {
        let (good, begins) = journal(&[1; 30]);
        let home = tempfile::tempdir().unwrap();
        let archive = ArchiveArgs { archive_dir: Some(home.path().join("archive")) };
        let dir = |index: usize| home.path().join(format!("order-{index}"));
        for index in [1, 2] {
            std::fs::create_dir(dir(index)).unwrap();
            Journal::open(&Files::new(dir(index), None), 500.try_into().unwrap()).unwrap().append(&good).unwrap();
        }
        let segments = |index: usize| {
            let mut paths: Vec<_> = std::fs::read_dir(dir(index)).unwrap().map(|file| file.unwrap().path()).collect();
            paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("orders-"));
            paths.sort();
            paths
        };
        // One has lost a file; of the other one the first is in the archive, and has rotted there.
        std::fs::remove_file(&segments(1)[2]).unwrap();
        std::fs::create_dir_all(home.path().join("archive/order-2")).unwrap();
        let first = segments(2).remove(0);
        let moved = home.path().join("archive/order-2").join(first.file_name().unwrap());
        let mut bad = std::fs::read(&first).unwrap();
        bad[begins[1] + 60] ^= 1;
        std::fs::write(&moved, bad).unwrap();
        std::fs::remove_file(&first).unwrap();
        run(&Args { dirs: vec![home.path().to_owned()], archive: archive.clone() }).unwrap();
        for found in below(home.path(), &archive).unwrap() {
            let copy = Copy::open(found).unwrap();
            assert!(copy.read(0, good.len() + 1).unwrap() == good, "{}", copy.name);
        }
        assert!(moved.exists() && !first.exists(), "each stays where it was");
    }

    #[test]
    fn what_no_file_has_or_nothing_proves_is_named_and_nothing_is_written() {
        let (good, begins) = journal(&[1; 10]);
        let flipped = |entry: usize| {
            let mut bad = good.clone();
            bad[begins[entry - 1] + 60] ^= 1;
            bad
        };
        let check = |files: &[&[u8]], says: &str| {
            let (said, after) = repaired(files);
            let said = said.unwrap_err();
            assert!(said.contains(says), "{said}");
            assert!(after.iter().zip(files).all(|(after, before)| after == before), "nothing is written");
        };
        let line = |entry: usize| format!("line {entry}, byte {}", begins[entry - 1]);
        check(&[&flipped(6), &flipped(6)], &format!("{}, is damaged, and no other file here has a good one", line(6)));
        check(&[&flipped(6), &good[..begins[5]]], &format!("{}, is damaged, and no other", line(6)));
        // The last entry, of which nothing is left, may have been another one than the other file has there.
        let mut zeroed = good.clone(); // All but its line feed.
        zeroed[begins[9]..good.len() - 1].fill(b'x');
        check(&[&zeroed, &good], "nothing proves");
        let (other, _) = journal(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
        let mut own = good.clone();
        own[begins[9] + 60] ^= 1;
        check(&[&own, &other], "nothing proves");
    }
}
