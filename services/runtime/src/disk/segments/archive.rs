//! Moving old segments to another disk.
//!
//! The problem: all of the log stays, and the disk that is fast to sync is dear. The idea: a segment that no start needs any more, being
//! wholly before the older snapshot, is moved to a directory of the operator's choosing, and read from there on. The rules: a
//! copy is whole, synced and has its name before the original goes, so that behind each step there is at least one; a file that has lost a part
//! is not moved, and none is written over; whoever reads looks here first and then there, so it finds one of them.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::super::create_dir_synced;
use super::steps::{self, Step};
use super::{At as _, Files, LogError, Sealed, Segments};

/// What the copy's name ends in until it is whole.
const ASIDE: &str = ".new";
/// How much is compared at once, in bytes.
const COMPARED_BYTES: usize = 64 * 1024;

/// Moves what ends at byte `before` or earlier; how many segments that were. Ends early when `ends` says so.
pub(in super::super) fn archive(files: &Files, before: u64, ends: &dyn Fn() -> bool) -> Result<usize, LogError> {
    let Some(archive) = &files.archive else { return Ok(0) };
    let segments = Segments::open(files)?;
    let mut moved = 0;
    for sealed in segments.sealed.iter().filter(|sealed| sealed.end <= before) {
        let steps = moving(files, *sealed).at(archive)?;
        if steps.is_empty() {
            continue;
        }
        if let Err(error) = create_dir_synced(archive) {
            return Err(LogError::Io { path: archive.clone(), source: io::Error::other(error) });
        }
        if let Err(error) = steps::take_unless(&steps, ends) {
            // What has become of the copy takes room.
            let _ = tidy(files);
            return if error.kind() == ErrorKind::Interrupted { Ok(moved) } else { Err(error).at(archive) };
        }
        moved += 1;
    }
    Ok(moved)
}

/// The steps that move one; none if it is there already, or not whole.
fn moving(files: &Files, sealed: Sealed) -> io::Result<Vec<Step>> {
    let (local, bytes) = (files.local(sealed.start), sealed.end - sealed.start);
    let length = super::existing(fs::metadata(&local))?.map(|file| file.len());
    let (Some(archive), Some(to)) = (files.archive.clone(), files.archived(sealed.start)) else {
        return Ok(Vec::new());
    };
    if length.is_none_or(|length| length < bytes) {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    if to.exists() {
        // It was being moved when its process was killed; or another exchange has the same archive.
        if !is_same(&local, &to, bytes)? {
            let name = to.file_name().unwrap_or(to.as_os_str()).display();
            return Err(io::Error::other(format!("{name} is there, and not the same; an archive is for one exchange")));
        }
    } else {
        let mut aside = to.clone().into_os_string();
        aside.push(ASIDE);
        let aside = PathBuf::from(aside);
        steps.extend([
            Step::Copy { from: local.clone(), offset: 0, bytes, to: aside.clone() },
            Step::Sync(aside.clone()),
            Step::Rename { from: aside, to },
        ]);
    }
    steps.extend([Step::SyncDir(archive), Step::Remove(local), Step::SyncDir(files.dir.clone())]);
    Ok(steps)
}

/// Whether two files begin with the same bytes.
fn is_same(one: &Path, other: &Path, bytes: u64) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?.take(bytes), File::open(other)?);
    if other.metadata()?.len() != bytes {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// Removes what a process left that was killed while it copied.
pub(in super::super) fn tidy(files: &Files) -> Result<(), LogError> {
    let Some(archive) = &files.archive else { return Ok(()) };
    let Some(entries) = super::existing(fs::read_dir(archive)).at(archive)? else { return Ok(()) };
    for entry in entries {
        let path = entry.at(archive)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.strip_suffix(ASIDE).is_some_and(|name| matches!(super::start_of(name.as_ref()), Some(Ok(_)))) {
            fs::remove_file(&path).at(&path)?;
        }
    }
    Ok(())
}
