//! The log of the replica that writes it.
//!
//! The problem: a segment ends, a cut goes back over several of them, and a directory of an earlier release holds one file of
//! gigabytes; and the process may be killed at any moment of it. The idea: each of these is a list of [steps](super::steps) behind
//! each of which the files are a log; what was begun is ended at the next start, because the files are not as the rule wants them
//! ([`Journal::next_mending`]). The rule: an append that ends no segment costs one comparison more than a write and a sync.

use std::fs::{self, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::is_full;
use super::beside::{Beside, Live, Said};
use super::steps::{self, Step};
use super::{At as _, Files, LogError, Sealed, Segments, damaged};

/// How much of the end is written again at the start: more than can be under way at once, in bytes.
const REWRITTEN_BYTES_MAX: u64 = 8 << 20;
/// How much is read at once to look for the end of a line, or to compare.
const LOOK_BYTES: usize = 64 * 1024;
/// Where a part of a file is copied to until it is whole.
const ASIDE: &str = "orders.jsonl.new";

/// What becomes of files that are cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// They are removed.
    Remove,
    /// They are kept for people, under other names.
    SetAside,
}

/// A log that is appended to; nobody else changes its files meanwhile, but for those that are moved to the archive.
#[derive(Debug)]
pub struct Journal {
    segments: Segments,
    segment_bytes: NonZeroU64,
    bytes: u64,
    /// The newest segment ends with the line that reaches this byte.
    border: u64,
    /// What those know of it that read beside.
    live: Arc<Live>,
}

impl Journal {
    /// Opens what there is, or begins; what was begun when its process was killed is ended.
    ///
    /// # Errors
    /// The files can't be read as a log, or the system refuses.
    pub fn open(files: &Files, segment_bytes: NonZeroU64) -> Result<Self, LogError> {
        let dir = files.dir.as_path();
        super::existing(fs::remove_file(files.dir.join(ASIDE))).at(dir)?;
        files.check_archive()?;
        let segments = Segments::load(files)?;
        let mut journal = Self { segments, segment_bytes, bytes: 0, border: 0, live: Arc::default() };
        journal.write_tail_again().at(dir)?;
        while let Some(steps) = journal.next_mending().at(dir)? {
            if let Err(error) = steps::take(&steps) {
                // What has become of a copy takes room.
                let _ = fs::remove_file(files.dir.join(ASIDE));
                let full = is_full(&error);
                return if full { Err(LogError::NoRoom { dir: files.dir.clone() }) } else { Err(error).at(dir) };
            }
            journal.segments = Segments::load(files)?;
        }
        journal.settle().at(dir)?;
        journal.live.change(|said| journal.say(said));
        journal.tell_faults().at(dir)?;
        Ok(journal)
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For a thread that reads beside.
    #[must_use]
    pub fn beside(&self) -> Beside {
        Beside::new(self.files().clone(), Arc::clone(&self.live))
    }

    /// Up to where those of its bytes from `offset` on are that are not in the replica's directory: in the archive, if anywhere.
    /// Without an archive they are all sought here.
    #[must_use]
    pub fn away_until(&self, offset: u64, bytes: usize) -> u64 {
        let (files, sealed, end) = (self.files(), &self.segments.sealed, offset.saturating_add(bytes as u64));
        let first = sealed.partition_point(|sealed| sealed.end <= offset);
        let touched = sealed[first..].iter().take_while(|sealed| sealed.start < end);
        let away = touched.filter(|sealed| files.archive.is_some() && !files.local(sealed.start).exists());
        away.last().map_or(offset, |last| last.end.min(end))
    }

    /// Writes behind all that is there, and syncs it.
    ///
    /// # Errors
    /// The system refuses. What is there then is not known; [`Journal::cut`] makes it known.
    pub fn append(&mut self, mut lines: &[u8]) -> io::Result<()> {
        while self.bytes + lines.len() as u64 >= self.border {
            let from = usize::try_from((self.border - 1).saturating_sub(self.bytes)).unwrap_or(usize::MAX);
            let Some(at) = lines[from..].iter().position(|&byte| byte == b'\n') else { break };
            let (last, behind) = lines.split_at(from + at + 1);
            self.write(last)?;
            self.roll()?;
            lines = behind;
        }
        self.write(lines)?;
        self.live.change(|said| said.bytes = self.bytes);
        Ok(())
    }

    /// Tells those who read beside.
    fn say(&self, said: &mut Said) {
        let Segments { sealed, newest, newest_start, .. } = &self.segments;
        *said = Said {
            sealed: sealed.as_slice().into(),
            newest: newest.clone(),
            newest_start: *newest_start,
            bytes: self.bytes,
            changes: said.changes + 1,
            cuts: said.cuts,
        };
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Some(newest) = self.segments.newest.as_ref().filter(|_| !lines.is_empty()) {
            newest.write_all_at(lines, self.bytes - self.segments.newest_start)?;
            newest.sync_data()?;
            self.bytes += lines.len() as u64;
        }
        Ok(())
    }

    /// Writes over what is there, and syncs it.
    ///
    /// # Errors
    /// It is not within the log, or the system refuses.
    pub fn rewrite(&mut self, lines: &[u8], offset: u64) -> io::Result<()> {
        self.segments.rewrite_within(self.bytes, lines, offset)
    }

    /// Makes it so long, and syncs that.
    ///
    /// # Errors
    /// The system refuses.
    pub fn cut(&mut self, to: u64, behind: Behind) -> io::Result<()> {
        let live = Arc::clone(&self.live);
        // Whoever reads meanwhile learns that it has read what was being cut.
        live.change(|said| {
            said.cuts += 1;
            let cut = self.cut_files(to, behind);
            self.say(said);
            cut
        })
    }

    fn cut_files(&mut self, to: u64, behind: Behind) -> io::Result<()> {
        let start = self.segments.newest_start;
        if let Some(newest) = self.segments.newest.as_ref().filter(|_| to >= start) {
            newest.set_len(to - start)?;
            newest.sync_all()?;
            self.bytes = to;
            return Ok(());
        }
        steps::take(&self.cutting(to, behind))?;
        self.segments = Segments::load(&self.segments.files)?;
        self.settle()
    }

    /// Keeps a copy of the file that a byte is in, for people.
    ///
    /// # Errors
    /// The system refuses.
    pub fn keep_copy(&self, offset: u64) -> io::Result<()> {
        let (path, _) = self.segments.place(offset);
        let name = path.file_name().unwrap_or(path.as_os_str());
        fs::copy(&path, damaged(&self.files().dir.join(name))).map(|_| ())
    }

    fn files(&self) -> &Files {
        &self.segments.files
    }

    fn border_behind(&self, start: u64) -> u64 {
        (start / self.segment_bytes + 1) * self.segment_bytes.get()
    }

    /// The newest segment ends here; it is synced.
    fn roll(&mut self) -> io::Result<()> {
        let (start, files) = (self.segments.newest_start, self.files());
        if let Err(error) = steps::take(&self.rolling()) {
            // Where there is no room for another file, this one goes on.
            let (from, to) = (files.local(start), files.newest());
            if from.exists() {
                steps::take(&[Step::Rename { from, to }, Step::SyncDir(files.dir.clone())])?;
            }
            return Err(error);
        }
        self.segments.sealed.push(Sealed { start, end: self.bytes });
        self.settle_newest(self.bytes)?;
        self.live.change(|said| self.say(said));
        Ok(())
    }

    pub(super) fn rolling(&self) -> Vec<Step> {
        let files = self.files();
        let (newest, dir) = (files.newest(), files.dir.clone());
        vec![
            Step::Rename { from: newest.clone(), to: files.local(self.segments.newest_start) },
            Step::Create(newest.clone()),
            Step::Sync(newest),
            Step::SyncDir(dir),
        ]
    }

    /// What is behind a byte of an older segment goes, the last first.
    pub(super) fn cutting(&self, to: u64, behind: Behind) -> Vec<Step> {
        let (files, sealed) = (self.files(), &self.segments.sealed);
        let (newest, mut steps) = (files.newest(), Vec::new());
        let mut go = |path: PathBuf| {
            if path.exists() {
                let dir = path.parent().map(Path::to_owned);
                steps.push(match behind {
                    Behind::Remove => Step::Remove(path),
                    Behind::SetAside => Step::Rename { to: damaged(&path), from: path },
                });
                steps.extend(dir.map(Step::SyncDir));
            }
        };
        go(newest.clone());
        let kept = sealed.partition_point(|sealed| sealed.start < to);
        for sealed in sealed[kept..].iter().rev() {
            files.archived(sealed.start).into_iter().chain([files.local(sealed.start)]).for_each(&mut go);
        }
        match sealed[..kept].last().filter(|last| last.end > to) {
            Some(last) => {
                steps.extend(self.bringing_back(last.start));
                let local = files.local(last.start);
                if steps.contains(&Step::Rename { from: files.dir.join(ASIDE), to: local.clone() }) || local.exists() {
                    steps.push(Step::Rename { from: local, to: newest.clone() });
                } else {
                    steps.push(Step::Create(newest.clone()));
                }
                steps.extend([
                    Step::SyncDir(files.dir.clone()),
                    Step::Resize(newest.clone(), to - last.start),
                    Step::Sync(newest),
                ]);
            }
            None => steps.extend([Step::Create(newest), Step::SyncDir(files.dir.clone())]),
        }
        steps
    }

    /// A segment that is in the archive is in the replica's directory again.
    fn bringing_back(&self, start: u64) -> Vec<Step> {
        let (files, local) = (self.files(), self.files().local(start));
        let Some(archived) = files.archived(start).filter(|archived| archived.exists()) else { return Vec::new() };
        let aside = files.dir.join(ASIDE);
        let mut steps = Vec::new();
        if !local.exists() {
            steps.extend([
                Step::Copy { from: archived.clone(), offset: 0, bytes: u64::MAX, to: aside.clone() },
                Step::Sync(aside.clone()),
                Step::Rename { from: aside, to: local },
                Step::SyncDir(files.dir.clone()),
            ]);
        }
        steps.push(Step::Remove(archived));
        steps.extend(files.archive.clone().map(Step::SyncDir));
        steps
    }

    /// What is to be done next so that segments end where the rule wants them to: one was about to end, a cut or this was begun and
    /// not ended, or it is a directory of an earlier release, which had one file for all.
    pub(super) fn next_mending(&mut self) -> io::Result<Option<Vec<Step>>> {
        let (files, newest_start) = (self.files().clone(), self.segments.newest_start);
        let newest_bytes = self.segments.known_bytes()? - newest_start;
        let (newest, dir) = (files.newest(), files.dir.clone());
        if newest_bytes > 0 && self.line_end(newest_start, newest_start + newest_bytes)?.is_some() {
            let to = files.local(newest_start);
            return Ok(Some(vec![Step::Rename { from: newest, to }, Step::SyncDir(dir)]));
        }
        let sealed = self.segments.sealed.clone();
        for (index, &Sealed { start, end }) in sealed.iter().enumerate() {
            let last = index + 1 == sealed.len() && newest_bytes == 0;
            let path = files.local(start);
            // Two borders are further apart than this.
            if !last && end < self.border_behind(start) + self.segment_bytes.get() || !path.exists() {
                continue;
            }
            let end = end.min(start + fs::metadata(&path)?.len());
            let steps = self.splitting(start, end)?;
            if !steps.is_empty() {
                return Ok(Some(steps));
            }
        }
        for &Sealed { start, end } in &sealed {
            if self.has_copied_more(start, end)? {
                let path = files.local(start);
                return Ok(Some(vec![Step::Resize(path.clone(), end - start), Step::Sync(path)]));
            }
        }
        if newest_bytes == 0 {
            // The last part of what was split.
            if let Some(last) = sealed.last().filter(|last| files.local(last.start).exists())
                && self.line_end(last.start, last.end)?.is_none()
            {
                let from = files.local(last.start);
                return Ok(Some(vec![Step::Rename { from, to: newest }, Step::SyncDir(dir)]));
            }
            if self.segments.newest.is_none() {
                return Ok(Some(vec![Step::Create(newest), Step::SyncDir(dir)]));
            }
        }
        Ok(None)
    }

    /// Makes several segments of one, from its end on: so that the part that is copied is in both files, or in one, and room is
    /// wanted for one segment.
    fn splitting(&mut self, start: u64, end: u64) -> io::Result<Vec<Step>> {
        let mut borders = Vec::new();
        let mut from = start;
        while let Some(border) = self.line_end(from, end)?.filter(|border| *border < end) {
            borders.push(border);
            from = border;
        }
        let files = self.files();
        let (path, aside) = (files.local(start), files.dir.join(ASIDE));
        if !borders.is_empty() {
            tracing::info!("{} becomes {} segments of the log", path.display(), borders.len() + 1);
        }
        let mut steps = Vec::new();
        let mut end = end;
        for &border in borders.iter().rev() {
            steps.extend([
                Step::Copy { from: path.clone(), offset: border - start, bytes: end - border, to: aside.clone() },
                Step::Sync(aside.clone()),
                Step::Rename { from: aside.clone(), to: files.local(border) },
                Step::SyncDir(files.dir.clone()),
                Step::Resize(path.clone(), border - start),
                Step::Sync(path.clone()),
            ]);
            end = border;
        }
        Ok(steps)
    }

    /// The end of the line with which a segment ends that begins at `start`; none if none ends so far within `end`.
    fn line_end(&mut self, start: u64, end: u64) -> io::Result<Option<u64>> {
        let mut offset = self.border_behind(start) - 1;
        while offset < end {
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(LOOK_BYTES);
            let bytes = self.segments.read(offset, most)?;
            if let Some(at) = bytes.iter().position(|&byte| byte == b'\n') {
                return Ok(Some(offset + at as u64 + 1));
            }
            if bytes.is_empty() {
                break;
            }
            offset += bytes.len() as u64;
        }
        Ok(None)
    }

    /// Whether a segment's file goes on with what is in the next ones: a split ended between copying and cutting.
    fn has_copied_more(&mut self, start: u64, end: u64) -> io::Result<bool> {
        let path = self.files().local(start);
        let Some(file) = super::existing(fs::File::open(&path))? else { return Ok(false) };
        let (mut at, length) = (end - start, file.metadata()?.len());
        if at >= length {
            return Ok(false);
        }
        let (mut own, mut next) = (vec![0; LOOK_BYTES], vec![0; LOOK_BYTES]);
        while at < length {
            let read = steps::read_at(&file, &mut own, at)?;
            if read == 0 || self.segments.read_at(&mut next[..read], start + at)? < read || own[..read] != next[..read]
            {
                return Ok(false);
            }
            at += read as u64;
        }
        Ok(true)
    }

    /// Knows the newest segment, and those that are missing among the others.
    fn settle(&mut self) -> io::Result<()> {
        let mut sealed = Vec::new();
        for Sealed { start, end } in std::mem::take(&mut self.segments.sealed) {
            let length = self.files().length(start)?.unwrap_or(0);
            let mut ends = end;
            if start + length < end && end >= self.border_behind(start) + self.segment_bytes.get() {
                // What is missing has another file when it is got back.
                self.segments.sealed = vec![Sealed { start, end }];
                ends = self.line_end(start, start + length)?.unwrap_or(end);
            }
            sealed.push(Sealed { start, end: ends });
            if ends < end {
                sealed.push(Sealed { start: ends, end });
            }
        }
        self.segments.sealed = sealed;
        self.settle_newest(self.segments.newest_start)
    }

    fn settle_newest(&mut self, start: u64) -> io::Result<()> {
        let newest = OpenOptions::new().read(true).write(true).open(self.files().newest())?;
        self.bytes = start + newest.metadata()?.len();
        self.border = self.border_behind(start);
        (self.segments.newest, self.segments.newest_start) = (Some(Arc::new(newest)), start);
        Ok(())
    }

    /// A line for each file that is not as long as it should be. Of the last but one that is known only if it ends within a line.
    fn tell_faults(&mut self) -> io::Result<()> {
        if let Some(last) = self.segments.sealed.last().copied().filter(|last| self.bytes > last.end)
            && self.segments.read(last.end - 1, 1)? != b"\n"
        {
            tracing::warn!(
                "{} does not end with the end of a line: a part of it is lost, and what is behind it counts as damaged",
                self.files().path(last.start).display()
            );
        }
        for &Sealed { start, end } in &self.segments.sealed {
            let (path, wanted) = (self.files().path(start), end - start);
            match self.files().length(start)? {
                None => tracing::warn!(
                    "{} is missing, {wanted} bytes of the log: they count as damaged, and are got back from other replicas",
                    path.display()
                ),
                Some(length) if length < wanted => tracing::warn!(
                    "{} has {length} bytes and should have {wanted}: the rest counts as damaged, and is got back from other \
                     replicas",
                    path.display()
                ),
                Some(length) if length > wanted => tracing::warn!(
                    "{} has {length} bytes and should have {wanted}: what is behind them is not of the log, and is left alone",
                    path.display()
                ),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Writes the newest part of the log again and syncs it. What a killed process left may be in memory only, and pages
    /// whose sync has failed count as clean, so a later sync alone would prove nothing about them.
    fn write_tail_again(&mut self) -> io::Result<()> {
        let bytes = self.segments.known_bytes()?;
        let from = bytes.saturating_sub(REWRITTEN_BYTES_MAX);
        let files = self.files();
        let sealed = self.segments.sealed.iter().filter(|sealed| sealed.end > from);
        let sealed = sealed.map(|sealed| (files.local(sealed.start), sealed.start, sealed.end));
        for (path, start, end) in sealed.chain([(files.newest(), self.segments.newest_start, bytes)]) {
            // In the archive it was synced.
            let Some(file) = super::existing(OpenOptions::new().read(true).write(true).open(&path))? else { continue };
            let end = file.metadata()?.len().min(end - start);
            let at = from.saturating_sub(start).min(end);
            let mut held = vec![0; usize::try_from(end - at).map_err(io::Error::other)?];
            file.read_exact_at(&mut held, at)?;
            file.write_all_at(&held, at)?;
            file.sync_all()?;
        }
        Ok(())
    }
}
