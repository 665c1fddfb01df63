//! The files of snapshots, and the threads that make them.
//!
//! The problem: a snapshot takes seconds of a processor's time, and orders must not wait for it. The idea: each is
//! made by a thread of its own with the lowest claim to a processor, one after the other, which answers when it is on disk. What is in one is decided by
//! [`tradenet_core::replica::snapshot`]. The rules: a snapshot's file is whole or not there; the newest [`SNAPSHOTS_MAX`] are kept; one
//! that can't be used is removed when the next is made.
//!
//! Behind each, segments of the journal that no start from a snapshot needs are moved to the archive, by another thread: one that hangs
//! must not keep the next snapshot from being made.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use tradenet_core::replica::snapshot::{Header, MakeError, Making, SNAPSHOTS_MAX, Snapshot, SnapshotPart};
use tradenet_core::{DiskAnswer, DiskTicket};
use tradenet_schemas::ids::SeqNum;

use super::segments::{Beside, Files, archive};
use super::{Answers, sync_dir};

/// What the names of snapshots begin with; the number of their last entry follows.
const PREFIX: &str = "snapshot-";
/// Where one is written until it is whole.
const ASIDE: &str = "snapshot.new";
/// How willingly the thread leaves the processor to others (nice, from -20 to 19).
const NICENESS: i32 = 19;
/// How much of a file is read to see its header, in bytes.
const HEADER_BYTES: usize = 512;

/// The snapshots in a replica's directory, newest first, by the numbers of their last entries.
///
/// # Errors
/// The directory can't be read.
pub fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(seq) = name.and_then(|name| name.strip_prefix(PREFIX)?.parse().ok()) {
            found.push((seq, path));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The newest but `skip`. One that can't be read comes without content, so that it is passed over by its name.
pub(super) fn load(dir: &Path, skip: usize) -> io::Result<Option<(String, Bytes)>> {
    let Some((seq, path)) = files(dir)?.into_iter().nth(skip) else { return Ok(None) };
    let content = fs::read(&path).unwrap_or_else(|error| {
        tracing::warn!("{} can't be read: {error}", path.display());
        Vec::new()
    });
    Ok(Some((format!("{PREFIX}{seq}"), content.into())))
}

/// A part of one's file, of the newest or of the one with that last entry; nothing if it is not there, or no snapshot.
pub(super) fn part(dir: &Path, seq: Option<SeqNum>, offset: u64, bytes_max: usize) -> io::Result<Option<SnapshotPart>> {
    let path = match seq {
        Some(seq) => dir.join(format!("{PREFIX}{seq}")),
        None => match files(dir)?.into_iter().next() {
            Some((_, newest)) => newest,
            None => return Ok(None),
        },
    };
    let file = match File::open(&path) {
        // A newer one has taken its place.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let Some(header) = Header::read(&read(&file, 0, HEADER_BYTES)?) else { return Ok(None) };
    let (size_bytes, bytes) = (file.metadata()?.len(), read(&file, offset, bytes_max)?.into());
    Ok(Some(SnapshotPart { header, size_bytes, bytes }))
}

/// So many bytes of a file, or as many as there are.
fn read(mut file: &File, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(bytes_max as u64).read_to_end(&mut bytes).map(|_| bytes)
}

/// Removes those of more than `bytes` bytes of the journal, and those that don't say.
pub(super) fn drop_behind(dir: &Path, bytes: u64) -> io::Result<()> {
    for (_, path) in files(dir)? {
        if covers(&path).is_none_or(|covers| covers > bytes) {
            fs::remove_file(&path)?;
        }
    }
    sync_dir(dir)
}

/// Up to which byte of the journal a snapshot is, if it says so.
fn covers(path: &Path) -> Option<u64> {
    let head = read(&File::open(path).ok()?, 0, HEADER_BYTES).ok()?;
    Header::read(&head).map(|header| header.bytes)
}

/// What a process left that was killed while it wrote one.
pub(super) fn clean(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(ASIDE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(dir: &Path, seq: SeqNum, content: &[u8]) -> io::Result<()> {
    let aside = dir.join(ASIDE);
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    if let Err(error) = written {
        // It takes room that the journal may need.
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    fs::rename(&aside, dir.join(format!("{PREFIX}{seq}")))?;
    sync_dir(dir)?;
    for (_, path) in files(dir)?.into_iter().skip(SNAPSHOTS_MAX) {
        fs::remove_file(path)?;
    }
    sync_dir(dir)
}

/// What a thread is asked for.
#[derive(Clone)]
pub(super) enum Job {
    Make { ticket: DiskTicket, until: u64 },
    Save { ticket: DiskTicket, seq: SeqNum, file: Bytes },
    Drop { ticket: DiskTicket, bytes: u64 },
}

/// Has a thread do each job, one after the other. What is in hand when this is dropped ends soon.
///
/// A thread lives no longer than its job: one with so low a claim to a processor takes long to go when its process is killed, and
/// until then nobody else can have the directory.
#[derive(Debug)]
pub(super) struct Maker {
    worker: Arc<Worker>,
    last: Option<JoinHandle<()>>,
}

impl Maker {
    pub(super) fn new(files: Files, journal: Beside, answers: Arc<Answers>) -> Self {
        let (journal, ends, moving) = (Mutex::new(journal), AtomicBool::new(false), Mutex::default());
        Self { worker: Arc::new(Worker { files, journal, answers, ends, moving }), last: None }
    }

    pub(super) fn ask(&mut self, job: Job) {
        let (worker, before, late) = (Arc::clone(&self.worker), self.last.take(), job.clone());
        let thread = std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
            if let Some(before) = before {
                let _ = before.join();
            }
            give_way();
            Worker::work(&worker, job);
        });
        match thread {
            Ok(thread) => self.last = Some(thread),
            // Rather late than never.
            Err(error) => {
                tracing::warn!("no thread for a snapshot: {error}");
                Worker::work(&self.worker, late);
            }
        }
    }
}

/// Leaves the processor to other threads.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!("snapshots are made with the claim to the processor that all have: {error}");
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.worker.ends.store(true, Ordering::Relaxed);
        if let Some(last) = self.last.take() {
            let _ = last.join();
        }
        let mover = self.worker.moving.lock().unwrap_or_else(PoisonError::into_inner).thread.take();
        if let Some(mover) = mover {
            let _ = mover.join();
        }
    }
}

/// Who moves segments, and whether that is to be done (again).
#[derive(Default, Debug)]
struct Moving {
    wanted: bool,
    runs: bool,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Worker {
    files: Files,
    /// One job at a time reads it.
    journal: Mutex<Beside>,
    answers: Arc<Answers>,
    ends: AtomicBool,
    moving: Mutex<Moving>,
}

impl Worker {
    fn work(worker: &Arc<Self>, job: Job) {
        let began = Instant::now();
        let answer = match job {
            Job::Make { ticket, until } => match worker.make(until) {
                Ok((seq, size_bytes)) => DiskAnswer::SnapshotMade { ticket, seq, size_bytes, took: began.elapsed() },
                Err(error) => DiskAnswer::NoSnapshot { ticket, error },
            },
            Job::Save { ticket, .. } if worker.ends.load(Ordering::Relaxed) => {
                DiskAnswer::NoSnapshot { ticket, error: MakeError::Given }
            }
            Job::Save { ticket, seq, file } => match write(worker.files.dir(), seq, &file) {
                Ok(()) => DiskAnswer::Done { ticket, took: began.elapsed() },
                Err(error) => DiskAnswer::NoSnapshot { ticket, error: io_error(error) },
            },
            Job::Drop { ticket, bytes } => match drop_behind(worker.files.dir(), bytes) {
                Ok(()) => DiskAnswer::Done { ticket, took: began.elapsed() },
                Err(error) => {
                    let why = format!("removing snapshots in {}: {error}", worker.files.dir().display());
                    DiskAnswer::Broken { ticket, why }
                }
            },
        };
        let made = matches!(answer, DiskAnswer::SnapshotMade { .. });
        worker.answers.give(answer);
        if made {
            Self::archive_soon(worker);
        }
    }

    /// Has segments moved, by a thread that is begun for it, or by the one that is at it and looks again.
    fn archive_soon(worker: &Arc<Self>) {
        if !worker.files.has_archive() {
            return;
        }
        let mut moving = worker.moving.lock().unwrap_or_else(PoisonError::into_inner);
        moving.wanted = true;
        if moving.runs {
            return;
        }
        let mover = Arc::clone(worker);
        let thread = std::thread::Builder::new().name("mover".to_owned()).spawn(move || {
            give_way();
            while mover.is_to_move() {
                mover.archive();
            }
        });
        match thread {
            Ok(thread) => (moving.runs, moving.thread) = (true, Some(thread)),
            Err(error) => {
                tracing::warn!("no thread to move old segments: {error}. It is tried again after the next snapshot");
            }
        }
    }

    fn is_to_move(&self) -> bool {
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        moving.runs = std::mem::take(&mut moving.wanted);
        moving.runs
    }

    /// Moves what is before the older of the kept snapshots: with both, no start reads it.
    fn archive(&self) {
        let kept = files(self.files.dir()).unwrap_or_default();
        let Some(before) = kept.get(SNAPSHOTS_MAX - 1).and_then(|(_, path)| covers(path)) else { return };
        match archive(&self.files, before, &|| self.ends.load(Ordering::Relaxed)) {
            Ok(0) => {}
            Ok(moved) => tracing::info!("moved {moved} segments of the journal to the archive"),
            Err(error) => tracing::warn!(
                "old segments of the journal were not moved to the archive: {error}. They stay where they are; it is tried \
                 again after the next snapshot"
            ),
        }
    }

    fn make(&self, until: u64) -> Result<(SeqNum, u64), MakeError> {
        let dir = self.files.dir();
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.newest_before(until, &mut journal).map_err(io_error)?;
        let made = Making::new(before, until).run(&mut |offset, bytes_max| {
            if self.ends.load(Ordering::Relaxed) {
                return Err(MakeError::Given);
            }
            journal.read(offset, bytes_max).map_err(io_error)
        })?;
        let (seq, content) = (made.position().seq, made.encode());
        drop(made);
        write(dir, seq, &content).map_err(io_error)?;
        Ok((seq, content.len() as u64))
    }

    /// Removes those on the way to it that can't be used.
    fn newest_before(&self, until: u64, journal: &mut Beside) -> io::Result<Option<Snapshot>> {
        for (_, path) in files(self.files.dir())? {
            match Snapshot::decode(&fs::read(&path)?) {
                Ok(snapshot) if is_of_journal(&snapshot, journal) => {
                    if snapshot.bytes() < until {
                        return Ok(Some(snapshot));
                    }
                }
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(None)
    }
}

fn is_of_journal(snapshot: &Snapshot, journal: &mut Beside) -> bool {
    let (offset, length) = snapshot.last_line();
    journal.read(offset, length).is_ok_and(|line| snapshot.is_of(&line))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn io_error(error: io::Error) -> MakeError {
    MakeError::Io(error.to_string())
}
