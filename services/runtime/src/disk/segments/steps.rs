//! What is done to files, one step after the other.
//!
//! The problem: a process may be killed between any two of them. The idea: what is to be done is a list, made before anything is
//! done, so that a test can stop behind each step and open what is there then. The rule: behind each step the files
//! are a log, and no byte that was in it and stays in it is only in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::super::sync_dir;

/// How much is copied at once, in bytes.
const COPIED_BYTES: usize = 1 << 20;

/// One step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A new file with a part of another one; where that is shorter, as much as there is.
    Copy {
        from: PathBuf,
        offset: u64,
        bytes: u64,
        to: PathBuf,
    },
    /// An empty file, if there is none.
    Create(PathBuf),
    /// Another name, in place of what has it.
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    /// Makes a file so long.
    Resize(PathBuf, u64),
    Sync(PathBuf),
    SyncDir(PathBuf),
}

/// Takes all of them.
pub(super) fn take(steps: &[Step]) -> io::Result<()> {
    take_unless(steps, &|| false)
}

/// Takes all of them, or ends early with [`ErrorKind::Interrupted`], also in the middle of a copy.
pub(super) fn take_unless(steps: &[Step], ends: &dyn Fn() -> bool) -> io::Result<()> {
    steps.iter().try_for_each(|step| step.take(ends))
}

impl Step {
    fn take(&self, ends: &dyn Fn() -> bool) -> io::Result<()> {
        #[cfg(test)]
        killing::count(self)?;
        match self {
            Self::Copy { from, offset, bytes, to } => {
                let (from, to) = (File::open(from)?, File::create(to)?);
                let mut buffer = vec![0; COPIED_BYTES];
                let mut done = 0;
                while done < *bytes {
                    if ends() {
                        return Err(ErrorKind::Interrupted.into());
                    }
                    let most = usize::try_from(bytes - done).unwrap_or(usize::MAX).min(COPIED_BYTES);
                    let read = read_at(&from, &mut buffer[..most], offset + done)?;
                    if read == 0 {
                        break;
                    }
                    to.write_all_at(&buffer[..read], done)?;
                    done += read as u64;
                }
                Ok(())
            }
            Self::Create(path) => OpenOptions::new().write(true).create(true).truncate(false).open(path).map(|_| ()),
            Self::Rename { from, to } => fs::rename(from, to),
            Self::Remove(path) => fs::remove_file(path),
            Self::Resize(path, bytes) => OpenOptions::new().write(true).open(path)?.set_len(*bytes),
            Self::Sync(path) => File::open(path)?.sync_all(),
            Self::SyncDir(path) => sync_dir(path),
        }
    }
}

/// Some bytes; none only at the file's end.
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(bytes, offset) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Has a test's thread take some steps and then no more, as if its process had been killed or its machine had lost power.
#[cfg(test)]
pub(super) mod killing {
    use std::cell::RefCell;
    use std::path::Path;

    use super::{File, Step, fs, io};

    #[derive(Default)]
    struct Life {
        /// None: for ever.
        left: Option<usize>,
        taken: Vec<Step>,
        killed: bool,
    }

    thread_local! {
        static LIFE: RefCell<Life> = RefCell::default();
    }

    /// From now on so many steps are taken.
    pub(in super::super) fn after(steps: usize) {
        LIFE.set(Life { left: Some(steps), ..Life::default() });
    }

    /// From now on all are taken again; whether one was not. With the power what was not synced is lost: half of a copy, and names.
    pub(in super::super) fn over(power: bool) -> bool {
        let life = LIFE.take();
        if life.killed && power {
            lose(&life.taken);
        }
        life.killed
    }

    fn lose(taken: &[Step]) {
        let (mut copies, mut names) = (Vec::new(), Vec::new());
        for step in taken {
            match step {
                Step::Copy { to, .. } => copies.push(to),
                Step::Sync(path) => copies.retain(|copy| *copy != path),
                Step::Rename { from, to } => {
                    copies.iter_mut().filter(|copy| **copy == from).for_each(|copy| *copy = to);
                    names.push((Some(from), to));
                }
                Step::Create(path) => names.push((None, path)),
                Step::SyncDir(dir) => names.retain(|(_, path)| path.parent() != Some(dir)),
                Step::Remove(_) | Step::Resize(..) => {}
            }
        }
        copies.into_iter().for_each(|copy| lose_half(copy));
        for (from, to) in names.into_iter().rev() {
            let _ = from.map_or_else(|| fs::remove_file(to), |from| fs::rename(to, from));
        }
    }

    fn lose_half(path: &Path) {
        // It may have been removed since.
        if let Ok(file) = File::options().write(true).open(path) {
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    }

    pub(super) fn count(step: &Step) -> io::Result<()> {
        LIFE.with_borrow_mut(|life| {
            let Some(left) = &mut life.left else { return Ok(()) };
            if *left == 0 {
                life.killed = true;
                return Err(io::Error::other("killed"));
            }
            *left -= 1;
            life.taken.push(step.clone());
            Ok(())
        })
    }
}
