//! A replica's directory, and the threads that work in it.
//!
//! The problem: "on disk" must be true, and a runtime that also answers heartbeats must not wait for it. The idea: one
//! thread carries out requests in order; appends that wait together share one write and one fdatasync (group commit). What is
//! only read is read beside it ([`reader`]), and snapshots are made beside it ([`snapshots`]).
//! The rules: an answer follows the sync; a failed sync is never retried, because the kernel has dropped the pages and
//! would call the next one a success; a directory belongs to one process at a time; what was renamed or created is
//! synced in its directory too; a file that is not what was written is refused, by name.
//!
//! ```text
//! DATA_DIR/order-3/lock                held by the running process, whose id is in it
//!                  store.json          who the directory is; written once
//!                  configuration.json  the newest configuration that was adopted
//!                  orders.jsonl        the journal's newest segment
//!                  orders-<byte>.jsonl the segments before it, by their first byte in the log
//!                  snapshot-<seq>      what the journal comes to up to that entry; the newest two
//!                  reserve             room for one more configuration when the disk is full
//!                  *.damaged           what was not as it was written, for people
//! ```

mod reader;
pub mod segments;
pub mod snapshots;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tradenet_core::metrics::{DURATION_BOUNDS_US, Readings};
use tradenet_core::{DiskAnswer, DiskRequest, DiskTicket};
use tradenet_schemas::ids::{Chain, Member, ReplicaId, StoreId};
use tradenet_schemas::message::Configuration;
use xxhash_rust::xxh3::xxh3_64;

use crate::metrics::{self, Shared};
use reader::Lane;
pub use segments::JOURNAL;
use segments::{Behind, Files, Journal, LogError, SEGMENT_BYTES, Segments};
use snapshots::Maker;

/// How many requests wait for the disk; then the driver waits too.
const REQUESTS_MAX: usize = 4_096;
/// How many bytes of appends are written at once at most, so that the first of them need not wait for all of a long queue.
const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often it is looked at whether the thread has ended.
const CLOSE_CHECK_EVERY: Duration = Duration::from_millis(2);
/// How much of a journal is copied at once, in bytes.
const COPIED_BYTES: usize = 1 << 20;
/// The size of the reserve. A configuration of 63 replicas takes about 6 kB.
const RESERVE_BYTES: usize = 64 * 1024;
/// Largest file that is read as a record.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;

const STORE: &str = "store.json";
const CONFIGURATION: &str = "configuration.json";
const LOCK: &str = "lock";
const RESERVE: &str = "reserve";

/// Why a directory cannot be used. Every text is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process works in it.
    #[error("{} is in use by process {holder}; stop that one first, or choose another --data-dir", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other process's id, as it wrote it.
        holder: String,
    },
    /// The operating system refuses something.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error(
        "{} is damaged ({why}); move the directory away, so that the replica starts empty and is filled by the others",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// A file that must be there is not.
    #[error(
        "{} is there, but {missing} is missing beside it: put that back, or move the directory away, so that the replica \
         starts empty and is filled by the others",
        path.display()
    )]
    Missing {
        /// What is there.
        path: PathBuf,
        /// What is not.
        missing: &'static str,
    },
    /// The archive holds the log of a directory that is not this one.
    #[error(
        "{} holds a log, but {} is new: bring back the directory that it belongs to, or move that archive away, so that the \
             replica starts empty and is filled by the others",
        archive.display(),
        dir.display()
    )]
    OthersArchive {
        /// The replica's directory in the archive.
        archive: PathBuf,
        /// The replica's directory.
        dir: PathBuf,
    },
    /// The journal's files can't be used.
    #[error(transparent)]
    Log(#[from] LogError),
}

trait At<T> {
    /// Names the path that an error is about.
    fn at(self, path: &Path) -> Result<T, DirectoryError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, DirectoryError> {
        self.map_err(|source| DirectoryError::Io { path: path.to_owned(), source })
    }
}

/// A directory that no other process works in, as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory if it is missing, and takes it.
    ///
    /// # Errors
    /// Another process has it, or the system refuses.
    pub fn take(dir: &Path) -> Result<Self, DirectoryError> {
        create_dir_synced(dir)?;
        let path = dir.join(LOCK);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.take(32).read_to_string(&mut holder);
                return Err(DirectoryError::InUse { dir: dir.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(error) => return Err(error.into()).at(&path),
        }
        // For people only, so a full disk is no reason to stop here.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Makes a directory and those above it, so that a power cut does not take it back.
fn create_dir_synced(dir: &Path) -> Result<(), DirectoryError> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    fs::create_dir_all(dir).at(dir)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent).at(parent)?;
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A small file: a value, and the checksum of its text as it stands there.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    checksum: Chain,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The value in a record's file; none if there is no such file.
fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DirectoryError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.at(path)?,
    };
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes).at(path)?;
    let damaged = |why: String| DirectoryError::Damaged { path: path.to_owned(), why };
    let record: Record<'_> = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let found = Chain(xxh3_64(record.value.get().as_bytes()));
    if found != record.checksum {
        return Err(damaged(format!("its checksum is {}, its content's {found}", record.checksum)));
    }
    serde_json::from_str(record.value.get()).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Replaces a record's file: whole and on disk when this returns, the old one until then.
fn write_record<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let value = serde_json::value::to_raw_value(value)?;
    let record = Record { checksum: Chain(xxh3_64(value.get().as_bytes())), value: &value };
    let mut text = serde_json::to_vec(&record)?;
    text.push(b'\n');
    let aside = dir.join(format!("{name}.new"));
    let mut file = File::create(&aside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&aside, dir.join(name))?;
    sync_dir(dir)
}

#[derive(Serialize, Deserialize)]
struct Store {
    store: StoreId,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// See [`SEGMENT_BYTES`]; less only for tests.
    pub segment_bytes: NonZeroU64,
    /// Below which directory old segments are moved, if anywhere.
    pub archive_dir: Option<PathBuf>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, archive_dir: None }
    }
}

/// The directory of one replica, open and locked.
#[derive(Debug)]
pub struct Directory {
    dir: PathBuf,
    files: Files,
    journal: Journal,
    _lock: Lock,
}

/// What a directory holds when it is opened.
#[derive(Debug)]
pub struct Opened {
    /// Who it is.
    pub store: StoreId,
    /// The newest configuration that was adopted in it.
    pub configuration: Option<Configuration>,
    /// The journal's size, in bytes.
    pub journal_bytes: u64,
    /// For the thread that works in it.
    pub directory: Directory,
}

impl Directory {
    /// Opens `DATA_DIR/order-ID`, which is made if it is missing; a new one gets a new [`StoreId`].
    ///
    /// # Errors
    /// Another process has it, a file is damaged or missing, or the system refuses.
    pub fn open(data_dir: &Path, id: ReplicaId, options: &LogOptions) -> Result<Opened, DirectoryError> {
        let name = format!("order-{id}");
        let dir = data_dir.join(&name);
        let lock = Lock::take(&dir)?;
        if let Some(archive) = options.archive_dir.as_ref().filter(|archive| !archive.is_dir()) {
            return Err(LogError::NoArchive { dir: archive.clone() }.into());
        }
        let archive = options.archive_dir.as_ref().map(|archive| archive.join(&name));
        let files = Files::new(dir.clone(), archive.clone());
        let journal_path = dir.join(JOURNAL);
        let store = match read_record::<Store>(&dir.join(STORE))? {
            Some(Store { store }) => store,
            None => {
                // Whoever lost its name must not get another one together with its old log: rule R3.
                let configuration = dir.join(CONFIGURATION);
                for (path, exists) in [(&journal_path, files.exist()), (&configuration, configuration.exists())] {
                    if exists {
                        return Err(DirectoryError::Missing { path: path.clone(), missing: STORE });
                    }
                }
                if let Some(archive) = archive.filter(|archive| Files::new(archive.clone(), None).exist()) {
                    return Err(DirectoryError::OthersArchive { archive, dir });
                }
                let store = StoreId(rand::random());
                write_record(&dir, STORE, &Store { store }).at(&dir)?;
                store
            }
        };
        let (store, configuration) = match read_record(&dir.join(CONFIGURATION)) {
            Err(DirectoryError::Damaged { why, .. }) => (begin_anew(&files, &why)?, None),
            read => (store, read?),
        };
        segments::tidy(&files)?;
        let journal = Journal::open(&files, options.segment_bytes)?;
        let journal_bytes = journal.bytes();
        if configuration.is_none() && journal_bytes > 0 {
            // Every entry was acknowledged in an epoch that was written first: rule R4.
            return Err(DirectoryError::Missing { path: journal_path, missing: CONFIGURATION });
        }
        make_reserve(&dir);
        snapshots::clean(&dir).at(&dir)?;
        sync_dir(&dir).at(&dir)?;
        let directory = Self { dir, files, journal, _lock: lock };
        Ok(Opened { store, configuration, journal_bytes, directory })
    }

    /// Makes the directory of a replica that was in sync with all others, with a copy of that journal. It is there as a whole or not
    /// at all; what an attempt left that was cut short is made again.
    ///
    /// # Errors
    /// There is one already, or the system refuses.
    pub fn restore(
        data_dir: &Path,
        member: Member,
        configuration: &Configuration,
        journal: &Files,
    ) -> Result<(), DirectoryError> {
        let dir = data_dir.join(format!("order-{}", member.id));
        let aside = data_dir.join(format!("order-{}.new", member.id));
        if aside.exists() {
            fs::remove_dir_all(&aside).at(&aside)?;
        }
        create_dir_synced(&aside)?;
        copy_log(journal, u64::MAX, &aside)?;
        write_record(&aside, STORE, &Store { store: member.store }).at(&aside)?;
        write_record(&aside, CONFIGURATION, configuration).at(&aside)?;
        // Onto a directory that holds something it fails.
        fs::rename(&aside, &dir).at(&dir)?;
        sync_dir(data_dir).at(data_dir)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The journal's files.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }
}

/// Copies the first bytes of a log into a directory that has none; they are on disk then.
///
/// # Errors
/// The log can't be read, or the directory not be written.
pub fn copy_log(from: &Files, bytes: u64, to: &Path) -> Result<(), LogError> {
    let failed = |source| LogError::Io { path: to.to_owned(), source };
    let mut source = Segments::open(from)?;
    let mut copy = Journal::open(&Files::new(to.to_owned(), None), SEGMENT_BYTES)?;
    while copy.bytes() < bytes {
        let most = usize::try_from(bytes - copy.bytes()).unwrap_or(usize::MAX).min(COPIED_BYTES);
        let read = source.read(copy.bytes(), most).map_err(failed)?;
        if read.is_empty() {
            break;
        }
        copy.append(&read).map_err(failed)?;
    }
    Ok(())
}

/// Which epochs this directory has promised not to go below is not known any more (rule R4). So it is not the one that any
/// record names: what it holds is set aside, and under another name it begins empty. In this order, so that it is done
/// again where it was cut short.
fn begin_anew(files: &Files, why: &str) -> Result<StoreId, DirectoryError> {
    let dir = files.dir();
    segments::set_aside(files)?;
    snapshots::drop_behind(dir, 0).at(dir)?;
    let store = StoreId(rand::random());
    write_record(dir, STORE, &Store { store }).at(dir)?;
    fs::rename(dir.join(CONFIGURATION), dir.join(format!("{CONFIGURATION}.damaged"))).at(dir)?;
    sync_dir(dir).at(dir)?;
    tracing::warn!(
        "{} was damaged ({why}): set aside with the journal; beginning empty, to be filled by the others",
        dir.join(CONFIGURATION).display()
    );
    Ok(store)
}

/// Keeps room for one more configuration. Without it there is only less to fall back on, so failing is fine.
fn make_reserve(dir: &Path) {
    let path = dir.join(RESERVE);
    if fs::metadata(&path).is_ok_and(|file| file.len() == RESERVE_BYTES as u64) {
        return;
    }
    // Not zeros, for which some file systems keep no blocks.
    let made =
        File::create(&path).and_then(|mut file| file.write_all(&[b'.'; RESERVE_BYTES]).and_then(|()| file.sync_all()));
    if made.is_err() {
        let _ = fs::remove_file(&path);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// The thread that works in a directory. Dropping it lets the thread finish what it was asked for.
#[derive(Debug)]
pub struct Disk {
    requests: mpsc::Sender<DiskRequest>,
    /// Counted by the thread, read by the driver.
    syncs: Arc<Shared>,
    answers: Arc<Answers>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(directory: Directory) -> io::Result<Self> {
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let answers = Arc::new(Answers::default());
        let syncs = Arc::new(Shared::new(DURATION_BOUNDS_US));
        let answer = Answering(Arc::clone(&answers));
        let beside = || directory.journal.beside();
        let maker = Maker::new(directory.files.clone(), beside(), Arc::clone(&answers));
        let near = Lane::near(beside(), Arc::clone(&answers))?;
        let far = directory.files.has_archive().then(|| Lane::far(beside(), Arc::clone(&answers))).transpose()?;
        let syncs_too = Arc::clone(&syncs);
        let worker = Worker { maker, near, far, directory, answer, syncs: syncs_too, full: false, broken: None };
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || worker.run(asked))?;
        Ok(Self { requests, syncs, answers, thread })
    }

    /// Shows how long syncs take, and how many requests wait.
    pub(crate) fn observe(&self, readings: &mut Readings) {
        readings.spread(&metrics::SYNC, &[], &self.syncs.read());
        let limit = self.requests.max_capacity();
        readings.queue("disk_requests", limit - self.requests.capacity(), limit);
    }

    /// Asks for something. Waits while many requests wait already.
    ///
    /// # Errors
    /// The thread has ended, which it does not do by itself.
    pub async fn ask(&self, request: DiskRequest) -> Result<(), DiskGone> {
        self.requests.send(request).await.map_err(|_| DiskGone)
    }

    /// The next answer; none when the thread has ended.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<DiskAnswer>> {
        let mut given = self.answers.lock();
        if let Some(answer) = given.waiting.pop_front() {
            return Poll::Ready(Some(answer));
        }
        if given.over {
            return Poll::Ready(None);
        }
        if given.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            given.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The next answer; none when the thread has ended.
    pub async fn answer(&mut self) -> Option<DiskAnswer> {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    /// Puts the calling thread to sleep until there is an answer, for at most `limit`.
    pub(crate) fn sleep_until_answer(&self, limit: Duration) {
        let mut given = self.answers.lock();
        given.sleeping = true;
        let nothing = |given: &mut Given| given.waiting.is_empty() && !given.over;
        let woken = self.answers.news.wait_timeout_while(given, limit, nothing);
        given = woken.unwrap_or_else(PoisonError::into_inner).0;
        given.sleeping = false;
    }

    /// Waits until everything that was asked for is done and the directory is free, for at most `limit`: a disk that hangs
    /// must not keep the process from ending.
    pub async fn close(self, limit: Duration) {
        let Self { requests, answers, thread, .. } = self;
        drop((requests, answers));
        let until = Instant::now() + limit;
        while !thread.is_finished() && Instant::now() < until {
            tokio::time::sleep(CLOSE_CHECK_EVERY).await;
        }
    }
}

/// Answers on their way to the driver, which waits for them awake or asleep; no channel can be waited for in both ways.
///
/// Unbounded, so that the thread never waits for the driver, which may wait for the thread. There is one answer for
/// each request, and the driver takes all of them before it asks for more.
#[derive(Debug, Default)]
struct Answers {
    given: Mutex<Given>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Given {
    waiting: VecDeque<DiskAnswer>,
    /// The driver's task, while it is awake and there was nothing.
    waker: Option<Waker>,
    /// The driver's whole thread waits: its task need not be woken, which costs a system call.
    sleeping: bool,
    /// Nothing comes any more.
    over: bool,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, answer: DiskAnswer) {
        self.change(|given| given.waiting.push_back(answer));
    }

    fn change(&self, change: impl FnOnce(&mut Given)) {
        let mut given = self.lock();
        change(&mut given);
        if given.sleeping {
            self.news.notify_one();
        } else if let Some(waker) = given.waker.take() {
            drop(given);
            waker.wake();
        }
    }
}

/// The thread's end of [`Answers`].
struct Answering(Arc<Answers>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.change(|given| given.over = true);
    }
}

/// The disk's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk's thread has ended")]
pub struct DiskGone;

struct Worker {
    /// Ends before the directory is free.
    maker: Maker,
    /// Reads what is in the directory. Ends before that is free, too.
    near: Lane,
    /// Reads and mends what is in the archive. If it hangs nobody waits for it.
    far: Option<Lane>,
    directory: Directory,
    answer: Answering,
    syncs: Arc<Shared>,
    /// An append found no room: those behind it must not be written either, or the journal would have a hole.
    full: bool,
    /// What has made the disk untrustworthy.
    broken: Option<String>,
}

impl Worker {
    fn run(mut self, mut asked: mpsc::Receiver<DiskRequest>) {
        let mut waiting = Vec::new();
        while let Some(request) = asked.blocking_recv() {
            waiting.push(request);
            while waiting.len() < REQUESTS_MAX
                && let Ok(request) = asked.try_recv()
            {
                waiting.push(request);
            }
            self.work(&mut waiting);
        }
        self.near.finish();
    }

    /// Carries out requests in order; appends next to each other at once.
    fn work(&mut self, waiting: &mut Vec<DiskRequest>) {
        let mut appends: Vec<(DiskTicket, Bytes)> = Vec::new();
        let mut bytes = 0;
        for request in waiting.drain(..) {
            match request {
                DiskRequest::Append { ticket, lines } => {
                    bytes += lines.len();
                    appends.push((ticket, lines));
                    if bytes >= WRITE_BYTES_MAX {
                        self.append(&mut appends);
                        bytes = 0;
                    }
                }
                other => {
                    self.append(&mut appends);
                    bytes = 0;
                    self.other(other);
                }
            }
        }
        self.append(&mut appends);
    }

    fn append(&mut self, appends: &mut Vec<(DiskTicket, Bytes)>) {
        if appends.is_empty() {
            return;
        }
        let began = Instant::now();
        let written = if self.broken.is_some() || self.full { Ok(()) } else { self.write(appends) };
        let took = began.elapsed();
        if let Err(error) = written {
            self.broken = Some(format!("{}: {error}", self.directory.dir.join(JOURNAL).display()));
        }
        for (ticket, _) in appends.drain(..) {
            self.tell(match &self.broken {
                Some(why) => DiskAnswer::Broken { ticket, why: why.clone() },
                None if self.full => DiskAnswer::Full { ticket },
                None => DiskAnswer::Done { ticket, took },
            });
        }
    }

    /// Writes behind the journal's end and syncs. Without room the journal is as before, and [`Worker::full`] is set.
    fn write(&mut self, appends: &[(DiskTicket, Bytes)]) -> io::Result<()> {
        let began = Instant::now();
        let journal = &mut self.directory.journal;
        let before = journal.bytes();
        let written = match appends {
            [(_, lines)] => journal.append(lines),
            several => journal.append(&several.iter().map(|(_, lines)| &lines[..]).collect::<Vec<_>>().concat()),
        };
        match written {
            Ok(()) => {
                self.syncs.record(began.elapsed());
                // By this an operator sees how many orders one sync carries.
                tracing::debug!("synced {} bytes of {} appends at once", journal.bytes() - before, appends.len());
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // The replica says it for people.
                tracing::debug!("no room for the journal: {error}");
                self.full = true;
                journal.cut(before, Behind::Remove)
            }
            Err(error) => Err(error),
        }
    }

    fn other(&mut self, request: DiskRequest) {
        let began = Instant::now();
        let (ticket, done) = match request {
            DiskRequest::Append { .. } => return,
            DiskRequest::Cut { ticket, bytes } => {
                (ticket, self.unless_broken(|worker| worker.cut(bytes, Behind::Remove)))
            }
            DiskRequest::GiveUp { ticket, store, bytes } => {
                (ticket, self.unless_broken(|worker| worker.give_up(store, bytes)))
            }
            DiskRequest::Rewrite { ticket, offset, lines } => {
                let away = self.directory.journal.away_until(offset, lines.len());
                let here = usize::try_from(away - offset).unwrap_or(usize::MAX);
                match self.unless_broken(|worker| worker.directory.journal.rewrite(&lines[here..], away)) {
                    Ok(()) if here > 0 => {
                        return self.beside(reader::Job::Rewrite { ticket, offset, lines: lines.slice(..here) }, true);
                    }
                    done => (ticket, done),
                }
            }
            DiskRequest::Persist { ticket, configuration } => {
                (ticket, self.unless_broken(|worker| worker.persist(&configuration)))
            }
            DiskRequest::MakeSnapshot { ticket, until } => {
                return self.maker.ask(snapshots::Job::Make { ticket, until });
            }
            DiskRequest::DropSnapshots { ticket, bytes } => {
                return self.maker.ask(snapshots::Job::Drop { ticket, bytes });
            }
            // A disk that cannot be written may still be read: a peer may need it.
            DiskRequest::LoadSnapshot { ticket, skip } => {
                return self.beside(reader::Job::Load { ticket, skip }, false);
            }
            DiskRequest::SaveSnapshot { ticket, seq, file } => {
                return self.maker.ask(snapshots::Job::Save { ticket, seq, file });
            }
            DiskRequest::ReadSnapshot { ticket, seq, offset, bytes_max } => {
                return self.beside(reader::Job::Part { ticket, seq, offset, bytes_max }, false);
            }
            DiskRequest::Read { ticket, offset, bytes_max } => {
                let journal = &self.directory.journal;
                let left = usize::try_from(journal.bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
                let bytes_max = bytes_max.min(left);
                let is_away = journal.away_until(offset, bytes_max) > offset;
                return self.beside(reader::Job::Read { ticket, offset, bytes_max }, is_away);
            }
        };
        let took = began.elapsed();
        self.tell(match done {
            Ok(()) => DiskAnswer::Done { ticket, took },
            Err(why) => DiskAnswer::Broken { ticket, why },
        });
    }

    /// Has something done beside, in the archive's lane or in the other one.
    fn beside(&self, job: reader::Job, is_away: bool) {
        let lane = self.far.as_ref().filter(|_| is_away).unwrap_or(&self.near);
        if let Err(failed) = lane.ask(job) {
            self.tell(failed);
        }
    }

    /// Does something after which the disk is broken if it fails.
    fn unless_broken(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), String> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        act(self).map_err(|error| {
            let why = format!("{}: {error}", self.directory.dir.display());
            self.broken = Some(why.clone());
            why
        })
    }

    fn cut(&mut self, to: u64, behind: Behind) -> io::Result<()> {
        let journal = &mut self.directory.journal;
        let bytes = journal.bytes();
        // What found no room is not there to be cut; whoever asked may not have heard of that yet.
        let to = if self.full { to.min(bytes) } else { to };
        if to > bytes {
            return Err(io::Error::other(format!("cannot cut the journal's {bytes} bytes to {to}")));
        }
        journal.cut(to, behind)?;
        self.full = false;
        Ok(())
    }

    /// Another name before the cut: from then on nobody counts on what is cut.
    fn give_up(&mut self, store: StoreId, bytes: u64) -> io::Result<()> {
        let Directory { dir, journal, .. } = &self.directory;
        if let Err(error) = journal.keep_copy(bytes) {
            tracing::warn!("no copy of the damaged journal was kept: {error}");
        }
        write_record(dir, STORE, &Store { store })?;
        snapshots::drop_behind(dir, bytes)?;
        self.cut(bytes, Behind::SetAside)
    }

    /// On a full disk the reserve makes room: a replica without room for orders must still be able to follow an epoch.
    fn persist(&mut self, configuration: &Configuration) -> io::Result<()> {
        let dir = &self.directory.dir;
        match write_record(dir, CONFIGURATION, configuration) {
            Err(error) if is_full(&error) && fs::remove_file(dir.join(RESERVE)).is_ok() => {
                write_record(dir, CONFIGURATION, configuration)?;
            }
            written => return written,
        }
        make_reserve(dir);
        Ok(())
    }

    fn tell(&self, answer: DiskAnswer) {
        self.answer.0.give(answer);
    }
}
