//! The files of an order log: segments of bounded size, read as one.
//!
//! The problem: a single file that only ever grows can't be moved to a cheaper disk, nor copied in parts, and one bad sector makes
//! all of it suspect. The idea: `orders.jsonl` is the newest segment. When a line ends at or behind the next multiple of
//! [`SEGMENT_BYTES`] the segment ends with that line, gets the number of its first byte in the log as its name, and a new
//! `orders.jsonl` begins. Whoever reads still knows one log and a byte in it. The rules: where segments end depends on the log's
//! bytes alone, so the files are the same on every replica; a segment is whole and synced before the next one begins; its place
//! is known from the next one's name, so what is missing of it reads as NUL bytes, which are damage, and nothing behind it moves; the
//! directory says what there is, and nothing else is kept of it ([ADR 11](../../../../docs/adr/0011-segments.md)).
//!
//! ```text
//! DATA_DIR/order-3/orders-000000000000000.jsonl   from the log's first byte on
//!                  orders-000000067108911.jsonl   from that byte on
//!                  orders.jsonl                   the newest, where those before it end
//! ARCHIVE_DIR/order-3/orders-….jsonl              the oldest ones, where they are moved away
//! ```

mod archive;
mod beside;
mod journal;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sync_dir;
pub(super) use archive::{archive, tidy};
pub use beside::Beside;
pub use journal::{Behind, Journal};

/// The newest segment's file name.
pub const JOURNAL: &str = "orders.jsonl";
/// Where the others' names differ: in between is the number of their first byte in the log, in so many digits.
const PREFIX: &str = "orders-";
const SUFFIX: &str = ".jsonl";
const DIGITS: usize = 15;
/// A segment ends with the line that reaches the next multiple of so many bytes of the log.
pub const SEGMENT_BYTES: NonZeroU64 = NonZeroU64::new(64 << 20).expect("not zero");
/// How many segments behind the newest are kept open.
const OPEN_SEGMENTS_MAX: usize = 4;
/// How often it is looked at what files there are, where they change meanwhile.
const LOOKS_MAX: usize = 100;

/// Why the files can't be read as a log. Every text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refuses something.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is none of its files.
    #[error("{} holds no {JOURNAL}", dir.display())]
    Nothing {
        /// Where.
        dir: PathBuf,
    },
    /// A file is called like a segment, but not quite.
    #[error("{} has the name of no segment (orders-, {DIGITS} digits, .jsonl): move it away", path.display())]
    IllNamed {
        /// Which file.
        path: PathBuf,
    },
    /// The archive holds what the replica has not moved there.
    #[error(
        "{} is not of this log, of which there are older segments beside the newest one: move it away, or name the archive \
         of this replica with --archive-dir",
        path.display()
    )]
    Overlaps {
        /// Which file.
        path: PathBuf,
    },
    /// The first segments are nowhere.
    #[error(
        "the log's first {bytes} bytes are not in {}: name the directory to which they were moved with --archive-dir, or put them \
         back; a replica whose directory is moved away starts empty and is filled by the others",
        dir.display()
    )]
    NoBeginning {
        /// Where.
        dir: PathBuf,
        /// How much is missing.
        bytes: u64,
    },
    /// A segment can't be made of a part of a larger file.
    #[error("{} has no room for one more segment of the log: make room, then start it again", dir.display())]
    NoRoom {
        /// Where.
        dir: PathBuf,
    },
    /// The archive is not there.
    #[error("the archive {} is not there: mount or make that directory, or name another with --archive-dir", dir.display())]
    NoArchive {
        /// Where it should be.
        dir: PathBuf,
    },
    /// Others change the files all the time.
    #[error("the files in {} change all the time: try again", dir.display())]
    Restless {
        /// Where.
        dir: PathBuf,
    },
}

trait At<T> {
    /// Names the path that an error is about.
    fn at(self, path: &Path) -> Result<T, LogError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, LogError> {
        self.map_err(|source| LogError::Io { path: path.to_owned(), source })
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Io { source, .. } => source,
            other => Self::other(other),
        }
    }
}

/// Where a log's files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The replica's directory.
    dir: PathBuf,
    /// Its directory in the archive, if there is one.
    archive: Option<PathBuf>,
}

impl Files {
    /// In a replica's directory, and in its directory in the archive.
    #[must_use]
    pub fn new(dir: PathBuf, archive: Option<PathBuf>) -> Self {
        Self { dir, archive }
    }

    /// The replica's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether old segments are moved elsewhere.
    #[must_use]
    pub fn has_archive(&self) -> bool {
        self.archive.is_some()
    }

    /// Whether any is in the replica's directory.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.newest().exists() || starts_in(&self.dir).is_ok_and(|starts| !starts.is_empty())
    }

    fn newest(&self) -> PathBuf {
        self.dir.join(JOURNAL)
    }

    fn local(&self, start: u64) -> PathBuf {
        self.dir.join(name(start))
    }

    fn archived(&self, start: u64) -> Option<PathBuf> {
        self.archive.as_ref().map(|archive| archive.join(name(start)))
    }

    /// Where the segment is; where it is missing, where it should be.
    fn path(&self, start: u64) -> PathBuf {
        let local = self.local(start);
        if local.exists() {
            return local;
        }
        self.archived(start).filter(|archived| archived.exists()).unwrap_or(local)
    }

    /// The segment's file, if it is there.
    fn open(&self, start: u64) -> io::Result<Option<File>> {
        // In this order: one that is being moved to the archive is in one of them.
        let local = existing(File::open(self.local(start)))?;
        match self.archived(start) {
            Some(archived) if local.is_none() => match existing(File::open(archived))? {
                None => self.may_be_missing(start).map(|()| None),
                archived => Ok(archived),
            },
            _ => Ok(local),
        }
    }

    /// A segment is in neither directory. Where the archive has gone with it, that is no damage: nothing is lost.
    fn may_be_missing(&self, start: u64) -> io::Result<()> {
        let Some(archive) = self.archive.as_ref().filter(|archive| !archive.exists()) else { return Ok(()) };
        // The archive holds the oldest. It may not have been made yet.
        if starts_in(&self.dir)?.first().is_some_and(|&first| first < start) {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::NotFound, format!("the archive {} is not there", archive.display())))
    }

    /// The length of the segment's file; none if there is none.
    fn length(&self, start: u64) -> io::Result<Option<u64>> {
        self.open(start)?.map(|file| file.metadata().map(|file| file.len())).transpose()
    }

    /// Whether the archive holds none but the oldest. Not to be asked while segments move: they are not all looked at in one moment.
    fn check_archive(&self) -> Result<(), LogError> {
        let (starts, local) = self.starts()?;
        if let (Some(first), Some(archive)) = (local.first(), &self.archive)
            && let Some(&start) = starts.range(first..).find(|start| !local.contains(start))
        {
            return Err(LogError::Overlaps { path: archive.join(name(start)) });
        }
        Ok(())
    }

    /// First bytes of all but the newest, and the local ones among them.
    fn starts(&self) -> Result<(BTreeSet<u64>, BTreeSet<u64>), LogError> {
        // In this order: one that is being moved to the archive is in one of them.
        let local = match starts_in(&self.dir) {
            Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => BTreeSet::new(),
            starts => starts?,
        };
        let mut starts = local.clone();
        if let Some(archive) = &self.archive {
            match starts_in(archive) {
                Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                archived => starts.append(&mut archived?),
            }
        }
        Ok((starts, local))
    }
}

fn name(start: u64) -> String {
    format!("{PREFIX}{start:0DIGITS$}{SUFFIX}")
}

/// The first byte of the segment that has this name; nothing if it is none, and an error if it only looks like one.
fn start_of(name: &OsStr) -> Option<Result<u64, ()>> {
    let digits = name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let good = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    Some(digits.parse().ok().filter(|_| good).ok_or(()))
}

fn starts_in(dir: &Path) -> Result<BTreeSet<u64>, LogError> {
    let mut starts = BTreeSet::new();
    for entry in fs::read_dir(dir).at(dir)? {
        let path = entry.at(dir)?.path();
        match path.file_name().and_then(start_of) {
            Some(Ok(start)) => drop(starts.insert(start)),
            Some(Err(())) => return Err(LogError::IllNamed { path }),
            None => {}
        }
    }
    Ok(starts)
}

/// A file, if it is there.
fn existing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// A segment that is no longer appended to: which bytes of the log are in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sealed {
    start: u64,
    end: u64,
}

/// A log, read from its files, which may be appended to, cut and moved to the archive by another thread or process meanwhile.
#[derive(Debug)]
pub struct Segments {
    files: Files,
    /// All but the newest, in a row from byte 0.
    sealed: Vec<Sealed>,
    /// None in the moment when the next one is not there yet.
    newest: Option<Arc<File>>,
    /// Where the newest begins.
    newest_start: u64,
    /// The last ones that were read, the last of all at the end.
    open: Vec<(u64, File)>,
}

impl Segments {
    /// Looks what there is.
    ///
    /// # Errors
    /// There is none of its files, or they can't be read as a log.
    pub fn open(files: &Files) -> Result<Self, LogError> {
        let segments = Self::load(files)?;
        if segments.newest.is_none() && segments.sealed.is_empty() {
            return Err(LogError::Nothing { dir: files.dir.clone() });
        }
        Ok(segments)
    }

    fn load(files: &Files) -> Result<Self, LogError> {
        let path = files.newest();
        for _ in 0..LOOKS_MAX {
            let newest = existing(File::open(&path)).at(&path)?;
            let (sealed, newest_start) = list(files)?;
            // When a segment ends, the newest gets another name: then it is looked at once more.
            if is_at(newest.as_ref(), &path).at(&path)? {
                let newest = newest.map(Arc::new);
                return Ok(Self { files: files.clone(), sealed, newest, newest_start, open: Vec::new() });
            }
        }
        Err(LogError::Restless { dir: files.dir.clone() })
    }

    /// How many bytes it has by now.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn bytes(&mut self) -> io::Result<u64> {
        self.look_again()?;
        self.known_bytes()
    }

    fn known_bytes(&self) -> io::Result<u64> {
        let newest = self.newest.as_ref().map_or(Ok(0), |file| file.metadata().map(|file| file.len()))?;
        Ok(self.newest_start + newest)
    }

    /// Reads what begins at a byte of the log; how many bytes that are: fewer than there is room for only where the log ends.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            let read = self.read_some_at(&mut bytes[filled..], offset + filled as u64)?;
            if read == 0 && !self.look_again()? {
                break;
            }
            filled += read;
        }
        Ok(filled)
    }

    /// So many bytes, or as many as there are.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn read(&mut self, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; bytes_max];
        let read = self.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Writes over what is there, and syncs it. What was missing of a segment is there then.
    ///
    /// # Errors
    /// It is not within the log, or can't be written.
    pub fn rewrite(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = self.bytes()?;
        self.rewrite_within(end, bytes, offset)
    }

    fn rewrite_within(&self, end: u64, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|last| last > end) {
            return Err(io::Error::other(format!("{} bytes at {offset} are not within the journal", bytes.len())));
        }
        while !bytes.is_empty() {
            let (path, start, end) = match self.sealed_at(offset) {
                Some(sealed) => (self.files.path(sealed.start), sealed.start, sealed.end),
                None => (self.files.newest(), self.newest_start, u64::MAX),
            };
            if !path.exists() {
                self.files.may_be_missing(start)?;
            }
            let here = usize::try_from(end - offset).unwrap_or(usize::MAX).min(bytes.len());
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.write_all_at(&bytes[..here], offset - start)?;
            file.sync_all()?;
            sync_dir(path.parent().unwrap_or(&self.files.dir))?;
            (bytes, offset) = (&bytes[here..], offset + here as u64);
        }
        Ok(())
    }

    /// In which file a byte of the log is, and which of its bytes that is.
    #[must_use]
    pub fn place(&self, offset: u64) -> (PathBuf, u64) {
        match self.sealed_at(offset) {
            Some(sealed) => (self.files.path(sealed.start), offset - sealed.start),
            None => (self.files.newest(), offset.saturating_sub(self.newest_start)),
        }
    }

    /// Whether there is more than one file.
    #[must_use]
    pub fn are_several(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// The segment that holds a byte; none if it is the newest.
    fn sealed_at(&self, offset: u64) -> Option<Sealed> {
        let count = self.sealed.partition_point(|sealed| sealed.start <= offset);
        self.sealed[..count].last().copied().filter(|sealed| offset < sealed.end)
    }

    /// Some bytes; none only where the log ends.
    fn read_some_at(&mut self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(sealed) = self.sealed_at(offset) else {
            let Some(file) = &self.newest else { return Ok(0) };
            return steps::read_at(file, bytes, offset - self.newest_start);
        };
        let most = usize::try_from(sealed.end - offset).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = &mut bytes[..most];
        let read = match self.file(sealed.start)?.map(|file| steps::read_at(file, bytes, offset - sealed.start)) {
            Some(Err(error)) => {
                // The file may be another one when its disk is there again.
                self.open.pop();
                return Err(error);
            }
            read => read.transpose()?.unwrap_or(0),
        };
        if read == 0 {
            bytes.fill(0);
            return Ok(most);
        }
        Ok(read)
    }

    /// The file of a segment that is not the newest, if it is there.
    fn file(&mut self, start: u64) -> io::Result<Option<&File>> {
        // One that was moved to the archive has no name here any more, and would keep its room for as long as it is open.
        self.open.retain(|(_, file)| file.metadata().is_ok_and(|file| file.nlink() > 0));
        let file = match self.open.iter().position(|(open, _)| *open == start) {
            Some(index) => self.open.remove(index).1,
            None => match self.files.open(start)? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        if self.open.len() == OPEN_SEGMENTS_MAX {
            self.open.remove(0);
        }
        self.open.push((start, file));
        Ok(self.open.last().map(|(_, file)| file))
    }

    /// Whether the newest is another file by now; then all are looked for again.
    fn look_again(&mut self) -> io::Result<bool> {
        if is_at(self.newest.as_deref(), &self.files.newest())? {
            return Ok(false);
        }
        *self = Self::load(&self.files)?;
        Ok(true)
    }
}

/// Whether this is the file that has the name now.
fn is_at(file: Option<&File>, path: &Path) -> io::Result<bool> {
    let id = |file: fs::Metadata| (file.dev(), file.ino());
    let held = file.map(|file| file.metadata().map(id)).transpose()?;
    Ok(existing(fs::metadata(path))?.map(id) == held)
}

/// All segments but the newest, and where that begins.
fn list(files: &Files) -> Result<(Vec<Sealed>, u64), LogError> {
    let (starts, _) = files.starts()?;
    let Some(&last) = starts.last() else { return Ok((Vec::new(), 0)) };
    if let Some(&bytes) = starts.first().filter(|first| **first > 0) {
        return Err(LogError::NoBeginning { dir: files.dir.clone(), bytes });
    }
    let end = last + files.length(last).at(&files.local(last))?.unwrap_or(0);
    let ends = starts.iter().copied().skip(1).chain([end]);
    Ok((starts.iter().zip(ends).map(|(&start, end)| Sealed { start, end }).collect(), end))
}

/// Takes all of it out of the log, for people to look at.
pub(super) fn set_aside(files: &Files) -> Result<(), LogError> {
    let (starts, _) = files.starts()?;
    let paths = starts.iter().flat_map(|&start| [Some(files.local(start)), files.archived(start)]).flatten();
    for path in paths.chain([files.newest()]) {
        existing(fs::rename(&path, damaged(&path))).at(&path)?;
    }
    for dir in [Some(&files.dir), files.archive.as_ref()].into_iter().flatten() {
        existing(sync_dir(dir)).at(dir)?;
    }
    Ok(())
}

/// The name under which a file is kept for people.
fn damaged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    name.into()
}
