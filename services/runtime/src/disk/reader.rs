//! The threads that read a replica's journal.
//!
//! The problem: an old part of the journal may be on a disk that is slow, fails, or hangs, and whoever may ask for an order can have it
//! read. The idea: reads are carried out beside the thread that appends, in two lanes: one for what is in the replica's own
//! directory, and one for what is in the archive, so that whoever needs the newest part never waits for the oldest. In the archive's
//! lane one thread does the work and one waits for it, for at most [`ARCHIVE_PATIENCE`]: what hangs is said to have failed, and so is what
//! comes behind it, until the work is done after all.
//!
//! The rules. Of order: a read is begun when all that was asked for before it is done, and sees that; it goes on beside what comes
//! later, and what it gives was there at one moment meanwhile ([`segments::Beside`](super::segments::Beside)). Of owners: what is in the replica's
//! directory is written by the thread that appends, what is in the archive by the lane that reads it and by the thread that moves
//! segments there; so the thread that appends waits for no archive, but where it cuts the log back over a segment's end, which looks at
//! what files there are. Of failure: it is an answer to the one read; the disk is as good as it was for everything else.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tradenet_core::{DiskAnswer, DiskTicket};
use tradenet_schemas::ids::SeqNum;

use super::segments::Beside;
use super::{Answers, snapshots};

/// How many reads wait in a lane, three times what core has under way. One that finds no room has failed.
const WAITING_MAX: usize = 32;
/// How long an archive may take for a read or a write before that is said to have failed.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(1);

/// What a lane is asked for.
#[derive(Debug)]
pub(super) enum Job {
    Read { ticket: DiskTicket, offset: u64, bytes_max: usize },
    Load { ticket: DiskTicket, skip: usize },
    Part { ticket: DiskTicket, seq: Option<SeqNum>, offset: u64, bytes_max: usize },
    Rewrite { ticket: DiskTicket, offset: u64, lines: Bytes },
}

impl Job {
    fn ticket(&self) -> DiskTicket {
        match self {
            Self::Read { ticket, .. }
            | Self::Load { ticket, .. }
            | Self::Part { ticket, .. }
            | Self::Rewrite { ticket, .. } => *ticket,
        }
    }

    fn carry_out(self, log: &mut Beside) -> DiskAnswer {
        let (began, ticket) = (Instant::now(), self.ticket());
        let done = match self {
            Self::Read { offset, bytes_max, .. } => {
                log.read(offset, bytes_max).map(|bytes| DiskAnswer::Read { ticket, bytes: bytes.into() })
            }
            Self::Load { skip, .. } => snapshots::load(log.dir(), skip).map(|file| DiskAnswer::Loaded { ticket, file }),
            Self::Part { seq, offset, bytes_max, .. } => {
                snapshots::part(log.dir(), seq, offset, bytes_max).map(|part| DiskAnswer::SnapshotRead { ticket, part })
            }
            Self::Rewrite { offset, lines, .. } => {
                log.rewrite(&lines, offset).map(|()| DiskAnswer::Done { ticket, took: began.elapsed() })
            }
        };
        done.unwrap_or_else(|error| DiskAnswer::Failed { ticket, why: error.to_string() })
    }
}

/// One lane. Dropping it ends its threads when they have done what they were asked for.
#[derive(Debug)]
pub(super) struct Lane {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl Lane {
    /// For what is in the replica's directory.
    pub(super) fn near(mut log: Beside, answers: Arc<Answers>) -> io::Result<Self> {
        let (jobs, asked) = mpsc::sync_channel::<Job>(WAITING_MAX);
        let thread = spawn("reader", move || asked.iter().for_each(|job| answers.give(job.carry_out(&mut log))))?;
        Ok(Self { jobs, thread })
    }

    /// For what is in the archive.
    pub(super) fn far(mut log: Beside, answers: Arc<Answers>) -> io::Result<Self> {
        let (jobs, asked) = mpsc::sync_channel::<Job>(WAITING_MAX);
        let (work, to_do) = mpsc::sync_channel::<Job>(1);
        let (give, done) = mpsc::sync_channel(1);
        // Its last answer may have nobody who waits for it.
        spawn("archive", move || to_do.iter().for_each(|job| drop(give.send(job.carry_out(&mut log)))))?;
        let thread = spawn("archive-wait", move || wait(&asked, &work, &done, &answers))?;
        Ok(Self { jobs, thread })
    }

    /// Has a job done; without room it has failed.
    pub(super) fn ask(&self, job: Job) -> Result<(), DiskAnswer> {
        let failed = |job: Job, why: &str| DiskAnswer::Failed { ticket: job.ticket(), why: why.to_owned() };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) => failed(job, "too many reads wait"),
            TrySendError::Disconnected(job) => failed(job, "the thread that reads has ended"),
        })
    }

    /// Waits until all that was asked for is done.
    pub(super) fn finish(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Has one job after the other done, and waits for each no longer than patience goes.
fn wait(asked: &Receiver<Job>, work: &SyncSender<Job>, done: &Receiver<DiskAnswer>, answers: &Answers) {
    // It still works on a job that is said to have failed.
    let mut hangs = false;
    for job in asked {
        let ticket = job.ticket();
        if hangs {
            hangs = matches!(done.try_recv(), Err(TryRecvError::Empty));
        }
        let begun = !hangs && work.send(job).is_ok();
        let answer = begun.then(|| done.recv_timeout(ARCHIVE_PATIENCE).ok()).flatten();
        hangs = answer.is_none();
        answers.give(answer.unwrap_or_else(|| DiskAnswer::Failed {
            ticket,
            why: format!("the archive does not answer within {} ms", ARCHIVE_PATIENCE.as_millis()),
        }));
    }
}
