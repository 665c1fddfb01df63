//! Order files, read while their replica may be at work on them.
//!
//! Problem: `log` and `export` read what a replica writes at the same moment, and a replica may also cut its end off: a torn
//! line after a crash, or entries that no other had when a new leader began. Idea: read as the replica itself does at its
//! start, line by line along the chain, and remember the last positions; where the chain does not go on, read again from the
//! beginning and find the place up to which the file is as it was. Rules kept: files are opened for reading only and never
//! locked; only whole, checked lines are entries.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tradenet_core::journal::{Scanned, scan};
use tradenet_runtime::disk::segments::{Files, JOURNAL, LogError, Segments};
use tradenet_schemas::ids::{Position, ReplicaId, SeqNum};

use crate::exit::Unmet;

/// How much of a file is read at once.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// A line that is longer than this is not a line.
pub(crate) const LINE_BYTES_MAX: usize = 4 << 20;
/// How many of the last positions are remembered: far more than a leader has under way, and only those are ever cut.
const POSITIONS_MAX: usize = 65_536;

/// Which file.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct FileArgs {
    /// A replica's directory (`order-1`), or a data directory that holds some.
    #[arg(long, env = "TRADENET_DATA_DIR", value_name = "DIR", default_value = "data", hide_env_values = true)]
    pub(crate) data_dir: PathBuf,
    /// Which replica's, where the directory holds several. [default: the one that is farthest]
    #[arg(long, value_name = "N")]
    pub(crate) replica: Option<ReplicaId>,
    #[command(flatten)]
    pub(crate) archive: ArchiveArgs,
}

/// Where the rest of it may be.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ArchiveArgs {
    /// Where replicas have moved old segments to, if they have: it holds `order-1` and so on.
    #[arg(long, env = "TRADENET_ARCHIVE_DIR", value_name = "DIR", hide_env_values = true)]
    pub(crate) archive_dir: Option<PathBuf>,
}

/// A replica's journal that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// `order-1`, or whatever its directory is called.
    pub(crate) name: String,
    pub(crate) files: Files,
}

impl Found {
    /// The replica's number, where its directory says so.
    pub(crate) fn id(&self) -> Option<u8> {
        self.name.strip_prefix("order-")?.parse().ok()
    }
}

impl FileArgs {
    /// All files that are meant.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<Found>> {
        let mut found = below(&self.data_dir, &self.archive)?;
        if let Some(id) = self.replica {
            found.retain(|found| found.id() == Some(id.get()));
            if found.is_empty() {
                bail!("{} holds no order-{id}; --replica names one that is there", self.data_dir.display());
            }
        }
        Ok(found)
    }
}

/// The journals that a directory is or holds, by name.
///
/// # Errors
/// There is none, or the directory can't be read.
pub(crate) fn below(dir: &Path, archive: &ArchiveArgs) -> anyhow::Result<Vec<Found>> {
    let found = |dir: PathBuf| {
        let real = std::fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
        let name = real.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        let archive = archive.archive_dir.as_ref().map(|archive| archive.join(&name));
        let files = Files::new(dir, archive);
        files.exist().then_some(Found { name, files })
    };
    if let Some(own) = found(dir.to_owned()) {
        return Ok(vec![own]);
    }
    let help = "name the directory of a replica (order-1), or a data directory that holds some";
    let entries = std::fs::read_dir(dir).with_context(|| format!("{} can't be read; {help}", dir.display()))?;
    let mut below: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("order-")))
        .filter(|path| path.is_dir())
        .collect();
    below.sort();
    let below: Vec<_> = below.into_iter().filter_map(found).collect();
    if below.is_empty() {
        bail!("{} holds no {JOURNAL}; {help}", dir.display());
    }
    Ok(below)
}

/// The file that is farthest by its last whole line; of equals the last.
///
/// # Errors
/// There is none at all.
pub(crate) fn farthest(found: Vec<Found>) -> anyhow::Result<Found> {
    #[derive(Deserialize)]
    struct Head {
        epoch: u64,
        seq: u64,
    }
    let end = |found: &Found| -> Option<(u64, u64)> {
        let mut log = Segments::open(&found.files).ok()?;
        let start = log.bytes().ok()?.saturating_sub(LINE_BYTES_MAX as u64);
        let bytes = log.read(start, 2 * LINE_BYTES_MAX).ok()?;
        let mut lines = bytes.split(|&byte| byte == b'\n').rev();
        lines.next();
        let head: Head = serde_json::from_slice(lines.next()?).ok()?;
        Some((head.epoch, head.seq))
    };
    found.into_iter().max_by_key(end).context("no order file")
}

/// Why a file can't be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    BadLine(String),
}

/// What [`Reader::read`] found at the end of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// Every entry was handed over.
    There,
    /// The file was cut, back to this entry, since it was last read; what has come since has been handed over.
    CutBackTo(SeqNum),
}

/// One journal, read on and on.
#[derive(Debug)]
pub(crate) struct Reader {
    files: Files,
    log: Segments,
    /// Bytes of whole lines so far.
    offset: u64,
    /// What was read behind them: the beginning of a line.
    rest: Vec<u8>,
    position: Position,
    /// The last ones, the newest at the end.
    recent: VecDeque<Position>,
}

impl Reader {
    /// At its beginning.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn open(files: &Files) -> Result<Self, LogError> {
        Ok(Self {
            files: files.clone(),
            log: Segments::open(files)?,
            offset: 0,
            rest: Vec::new(),
            position: Position::default(),
            recent: VecDeque::new(),
        })
    }

    /// Hands over all entries behind those that were handed over before; those of a file that was cut and written anew,
    /// from where it differs.
    ///
    /// # Errors
    /// It can't be read, a line is bad, or `each` fails.
    pub(crate) fn read(&mut self, each: &mut dyn FnMut(&Scanned) -> anyhow::Result<()>) -> anyhow::Result<Ended> {
        let whole = self.log.bytes().map_err(ReadError::from)? >= self.offset + self.rest.len() as u64;
        if whole {
            match self.read_on(each) {
                // Cut and written anew between two looks, or damaged; from the beginning it is seen which.
                Err(error) if error.downcast_ref().is_some_and(|e| matches!(e, ReadError::BadLine(_))) => {
                    self.rest.clear();
                }
                done => return done.map(|()| Ended::There),
            }
        }
        self.read_again(each)
    }

    fn read_on(&mut self, each: &mut dyn FnMut(&Scanned) -> anyhow::Result<()>) -> anyhow::Result<()> {
        loop {
            let read = self.log.read(self.offset + self.rest.len() as u64, READ_BYTES).map_err(ReadError::from)?;
            if read.is_empty() {
                return Ok(());
            }
            self.rest.extend_from_slice(&read);
            let mut used = 0;
            let rest = std::mem::take(&mut self.rest);
            for scanned in scan(&rest, self.position) {
                let good = scanned.map_err(|bad| self.bad_line(&bad))?;
                each(&good)?;
                used += good.bytes;
                self.offset += good.bytes as u64;
                self.position = good.position;
                if self.recent.len() == POSITIONS_MAX {
                    self.recent.pop_front();
                }
                self.recent.push_back(good.position);
            }
            self.rest = rest[used..].to_vec();
            if self.rest.len() > LINE_BYTES_MAX {
                return Err(self.bad_line("no end of line").into());
            }
        }
    }

    fn read_again(&mut self, each: &mut dyn FnMut(&Scanned) -> anyhow::Result<()>) -> anyhow::Result<Ended> {
        let mut again = Self::open(&self.files).map_err(ReadError::from)?;
        let (first, tail) = (self.recent.front().map_or(1, |first| first.seq.0), self.position.seq);
        let mut same = SeqNum(first.saturating_sub(1));
        let mut differs = false;
        again.read_on(&mut |scanned| {
            let index = usize::try_from(scanned.position.seq.0.wrapping_sub(first)).unwrap_or(usize::MAX);
            let known = scanned.position.seq.0 < first || self.recent.get(index) == Some(&scanned.position);
            if known && !differs {
                same = same.max(scanned.position.seq);
                return Ok(());
            }
            differs = true;
            each(scanned)
        })?;
        let same = same.min(again.position.seq);
        *self = again;
        // Where only the beginning of a line was cut, no entry was.
        Ok(if same < tail { Ended::CutBackTo(same) } else { Ended::There })
    }

    fn bad_line(&self, why: impl std::fmt::Display) -> ReadError {
        let (line, byte) = (self.position.seq.0 + 1, self.offset);
        let (path, _) = self.log.place(byte);
        ReadError::BadLine(format!("{}: line {line}, byte {byte}{}: {why}", path.display(), within(&self.log, byte)))
    }

    /// Where the last entry stands.
    pub(crate) fn position(&self) -> Position {
        self.position
    }
}

/// Of a byte of a log in several files, the file, and which of its bytes that is; else nothing.
pub(crate) fn within(log: &Segments, byte: u64) -> String {
    let (path, at) = log.place(byte);
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    if log.are_several() { format!(" (byte {at} of {name})") } else { String::new() }
}

/// # Errors
/// It is beyond the end of the file.
pub(crate) fn check_from(from: SeqNum, reader: &Reader) -> anyhow::Result<()> {
    let tail = reader.position().seq;
    if from.0 > tail.0 + 1 {
        let text = format!("--from {from} is beyond the end: the last entry is {tail}");
        return Err(Unmet::Usage(text).into());
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tradenet_core::journal;
    use tradenet_runtime::disk::segments::{Behind, Journal};
    use tradenet_schemas::ids::{Chain, Digest, Epoch, Leader};
    use tradenet_schemas::journal::{Entry, Event};

    /// One entry for each of `epochs`.
    pub(crate) fn lines(epochs: &[u64]) -> Vec<u8> {
        let (mut bytes, mut chain) = (Vec::new(), Chain(0));
        for (epoch, seq) in epochs.iter().zip(1..) {
            let leader = Leader { id: ReplicaId::new(1).unwrap(), boot: Default::default() };
            let events = vec![Event::EpochStart { leader, digest: Digest(0) }];
            let entry = Entry { seq: SeqNum(seq), epoch: Epoch(*epoch), at: 0, key: None, events };
            chain = journal::encode(&entry, chain, &mut bytes);
        }
        bytes
    }

    #[test]
    fn a_file_is_followed_through_appends_torn_lines_cuts_and_replacement() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL);
        std::fs::write(&path, b"").unwrap();
        let mut reader = Reader::open(&Files::new(dir.path().to_owned(), None)).unwrap();
        let mut check = |bytes: &[u8], new_file: bool, expected: &[(u64, u64)], ended: Ended| {
            if new_file {
                std::fs::write(dir.path().join("new"), bytes).unwrap();
                std::fs::rename(dir.path().join("new"), &path).unwrap();
            } else {
                std::fs::write(&path, bytes).unwrap();
            }
            let mut seen = Vec::new();
            let got = reader.read(&mut |scanned| {
                seen.push((scanned.position.epoch.0, scanned.position.seq.0));
                Ok(())
            });
            assert_eq!((got.unwrap(), &seen[..]), (ended, expected));
        };
        let three = lines(&[1, 1, 2]);
        check(b"", false, &[], Ended::There);
        check(&lines(&[1]), false, &[(1, 1)], Ended::There);
        check(&three[..three.len() - 9], false, &[(1, 2)], Ended::There);
        check(&three, false, &[(2, 3)], Ended::There);
        // A torn line that is cut is nothing to tell.
        check(&[&three[..], b"{\"chain\":\"00"].concat(), false, &[], Ended::There);
        check(&three, false, &[], Ended::There);
        // Cut, and cut and written anew within one look, shorter and longer.
        check(&lines(&[1, 1]), false, &[], Ended::CutBackTo(SeqNum(2)));
        check(&lines(&[1, 1, 3, 3]), false, &[(3, 3), (3, 4)], Ended::There);
        check(&lines(&[1, 1, 4]), false, &[(4, 3)], Ended::CutBackTo(SeqNum(2)));
        check(&lines(&[1, 1, 5, 5, 5]), false, &[(5, 3), (5, 4), (5, 5)], Ended::CutBackTo(SeqNum(2)));
        check(&lines(&[1, 1, 5, 5, 5, 6]), true, &[(6, 6)], Ended::There);
    }

    #[test]
    fn a_log_in_segments_is_followed_over_their_ends_and_cut_back_over_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned(), None);
        let mut journal = Journal::open(&files, 300.try_into().unwrap()).unwrap();
        let mut reader = Reader::open(&files).unwrap();
        let mut check = |journal: &mut Journal, epochs: &[u64], expected: std::ops::Range<u64>, ended: Ended| {
            let bytes = lines(epochs);
            journal.append(&bytes[usize::try_from(journal.bytes()).unwrap()..]).unwrap();
            let mut seen = Vec::new();
            let got = reader.read(&mut |scanned| {
                seen.push(scanned.position.seq.0);
                Ok(())
            });
            assert_eq!((got.unwrap(), seen), (ended, expected.collect()));
        };
        check(&mut journal, &[1; 10], 1..11, Ended::There);
        check(&mut journal, &[1; 11], 11..12, Ended::There);
        check(&mut journal, &[1; 40], 12..41, Ended::There);
        let kept = lines(&[1; 20]).len() as u64;
        journal.cut(kept, Behind::Remove).unwrap();
        check(&mut journal, &[1; 20], 0..0, Ended::CutBackTo(SeqNum(20)));
        journal.cut(kept, Behind::Remove).unwrap();
        check(&mut journal, &[[1; 20], [2; 20]].concat(), 21..41, Ended::There);
        journal.cut(kept, Behind::Remove).unwrap();
        check(&mut journal, &[&[1; 20][..], &[3; 21]].concat(), 21..42, Ended::CutBackTo(SeqNum(20)));
        assert_eq!(farthest(below(dir.path(), &ArchiveArgs::default()).unwrap()).unwrap().files, files);

        // A bad line is named by the file it is in, too.
        let bad = lines(&[1; 5]).len() as u64;
        journal.rewrite(b"x", bad + 60).unwrap();
        let error = Reader::open(&files).unwrap().read(&mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(&format!("line 6, byte {bad} (byte ")) && error.contains(" of orders-000"), "{error}");
    }

    #[test]
    fn a_bad_line_is_named_by_line_and_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL);
        let mut bytes = lines(&[1, 1, 2]);
        let second = lines(&[1]).len();
        bytes[second + 60] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let files = Files::new(dir.path().to_owned(), None);
        let error = Reader::open(&files).unwrap().read(&mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains(&format!("line 2, byte {second}: the checksum")), "{error}");
    }

    #[test]
    fn of_several_files_the_one_that_is_farthest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for (id, epochs) in [(1, &[1, 1, 1, 1][..]), (2, &[1, 2][..]), (3, &[][..])] {
            std::fs::create_dir(dir.path().join(format!("order-{id}"))).unwrap();
            std::fs::write(dir.path().join(format!("order-{id}")).join(JOURNAL), lines(epochs)).unwrap();
        }
        let found = below(dir.path(), &ArchiveArgs::default()).unwrap();
        assert_eq!(
            found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(),
            ["order-1", "order-2", "order-3"]
        );
        assert_eq!(farthest(found).unwrap().name, "order-2");
    }
}
