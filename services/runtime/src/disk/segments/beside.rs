//! Reading a log beside the thread that writes it.
//!
//! The problem: an old part of the log may be on a disk that is slow, or that hangs, and what is read there must not make an append
//! wait; but files that are looked up while they change may be read as what never was. The idea: the writer says which files
//! there are and how much of them is written and synced, and who reads goes by that, and looks for none itself. The rule: what a read
//! gives was in the log at one moment between its beginning and its end. So nothing is read behind what is said to be
//! there; and where the log was cut meanwhile it is read again, because what was cut and what has come since may be mixed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Files, Sealed, Segments};

/// What the writer says.
#[derive(Clone, Default, Debug)]
pub(super) struct Said {
    /// How often there were other files.
    pub(super) changes: u64,
    pub(super) sealed: Arc<[Sealed]>,
    pub(super) newest: Option<Arc<File>>,
    pub(super) newest_start: u64,
    /// Up to there all is written and synced.
    pub(super) bytes: u64,
    /// How often it was cut.
    pub(super) cuts: u64,
}

/// Where it says so. It is locked while files are cut, and never while they are read or appended to.
#[derive(Default, Debug)]
pub(super) struct Live {
    said: Mutex<Said>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Said) -> T) -> T {
        change(&mut self.lock())
    }
}

/// A log that another thread of this process writes.
#[derive(Debug)]
pub struct Beside {
    live: Arc<Live>,
    /// As the writer said when there were other files for so many times.
    segments: Segments,
    changes: u64,
}

impl Beside {
    pub(super) fn new(files: Files, live: Arc<Live>) -> Self {
        let segments = Segments { files, sealed: Vec::new(), newest: None, newest_start: 0, open: Vec::new() };
        Self { live, segments, changes: 0 }
    }

    /// The replica's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.segments.files.dir()
    }

    /// So many bytes, or as many as there are.
    ///
    /// # Errors
    /// The files can't be read, or have become shorter.
    pub fn read(&mut self, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        loop {
            let Said { bytes, cuts, .. } = self.look();
            let left = usize::try_from(bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
            let read = self.read_exact(offset, bytes_max.min(left));
            if self.live.lock().cuts == cuts {
                return read;
            }
        }
    }

    fn read_exact(&mut self, offset: u64, wanted: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; wanted];
        let mut filled = 0;
        while filled < wanted {
            match self.segments.read_some_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(bytes)
    }

    /// Writes over what is there, and syncs it. Only for what nobody cuts or appends to any more.
    ///
    /// # Errors
    /// It is not within the log, or can't be written.
    pub fn rewrite(&mut self, lines: &[u8], offset: u64) -> io::Result<()> {
        let bytes = self.look().bytes;
        self.segments.rewrite_within(bytes, lines, offset)
    }

    /// What the writer says now.
    fn look(&mut self) -> Said {
        let said = self.live.lock().clone();
        if self.changes != said.changes {
            self.changes = said.changes;
            self.segments.sealed = said.sealed.to_vec();
            self.segments.newest.clone_from(&said.newest);
            self.segments.newest_start = said.newest_start;
            // What has a segment's name may be another file now.
            self.segments.open.clear();
        }
        said
    }
}
