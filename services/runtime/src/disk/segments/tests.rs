use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use super::steps::killing;
use super::*;

const SIZE: NonZeroU64 = NonZeroU64::new(100).unwrap();

/// Lines of 1 to 60 bytes, seldom of up to 300: several borders in one.
fn lines(random: &mut StdRng, count: usize) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..count {
        let length = if random.random_range(0..20) == 0 { 300 } else { 60 };
        (0..random.random_range(0..length)).for_each(|_| text.push(random.random_range('a'..='z')));
        text.push('\n');
    }
    text.into_bytes()
}

/// Files and what they hold, by the rule alone.
fn ruled(log: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut start, mut end) = (BTreeMap::new(), 0, 0);
    for line in log.split_inclusive(|&byte| byte == b'\n') {
        end += line.len();
        if line.ends_with(b"\n") && end >= (start / 100 + 1) * 100 {
            files.insert(format!("orders-{start:015}.jsonl"), log[start..end].to_vec());
            start = end;
        }
    }
    files.insert(JOURNAL.to_owned(), log[start..].to_vec());
    files
}

/// Files and what they hold.
fn found(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).into_iter().flatten().map(|file| file.unwrap().path());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn place() -> (TempDir, Files) {
    let home = TempDir::new().unwrap();
    let (dir, archive) = (home.path().join("order-1"), home.path().join("archive"));
    fs::create_dir(&dir).unwrap();
    (home, Files::new(dir, Some(archive)))
}

fn open(files: &Files) -> Journal {
    Journal::open(files, SIZE).unwrap()
}

fn all(files: &Files) -> Vec<u8> {
    let mut log = match Segments::open(files) {
        // All of it was cut, and the newest is not there yet.
        Err(LogError::Nothing { .. }) => return Vec::new(),
        log => log.unwrap(),
    };
    let bytes = log.bytes().unwrap();
    log.read(0, usize::try_from(bytes).unwrap() + 9).unwrap()
}

fn write(files: &Files, log: &[u8]) -> Journal {
    let mut journal = open(files);
    journal.append(log).unwrap();
    journal
}

fn moved(files: &Files, before: u64) -> io::Result<usize> {
    archive(files, before, &|| false).map_err(Into::into)
}

#[test]
fn whatever_is_done_the_files_are_what_the_rule_makes_of_the_log() {
    for seed in 0..10 {
        let random = &mut StdRng::seed_from_u64(seed);
        let (_home, files) = place();
        let (mut journal, mut model) = (open(&files), Vec::new());
        // It has been open since the first line.
        let mut reader = Segments::open(&files).unwrap();
        let mut beside = journal.beside();
        for step in 0..80 {
            let at = random.random_range(0..=model.len());
            match random.random_range(0..10) {
                0..=4 => {
                    let count = random.random_range(0..12);
                    let lines = lines(random, count);
                    journal.append(&lines).unwrap();
                    model.extend(lines);
                }
                // Most cuts are of what has just come; some go back over many borders.
                5 | 6 => {
                    let back = if random.random_range(0..4) == 0 { model.len() } else { 150 };
                    let kept = model.len() - random.random_range(0..=back.min(model.len()));
                    let kept = model[..kept].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                    journal.cut(kept as u64, Behind::Remove).unwrap();
                    model.truncate(kept);
                }
                7 => {
                    let end = random.random_range(at..=model.len());
                    for byte in model[at..end].iter_mut().filter(|byte| **byte != b'\n') {
                        *byte = byte.to_ascii_uppercase();
                    }
                    journal.rewrite(&model[at..end], at as u64).unwrap();
                }
                8 => {
                    journal = open(&files);
                    beside = journal.beside();
                }
                _ => drop(moved(&files, at as u64).unwrap()),
            }
            let context = format!("seed {seed}, step {step}");
            let mut both = found(&files.dir);
            both.extend(found(files.archive.as_ref().unwrap()));
            assert!(both == ruled(&model), "{context}");
            assert_eq!(journal.bytes(), model.len() as u64, "{context}");
            assert_eq!(reader.bytes().unwrap(), model.len() as u64, "{context}");
            let at = random.random_range(0..=model.len());
            let most = random.random_range(0..=400);
            let wanted = &model[at..model.len().min(at + most)];
            assert!(beside.read(at as u64, most).unwrap() == wanted, "{context}");
            assert!(reader.read(at as u64, most).unwrap() == wanted, "{context}");
            assert!(all(&files) == model, "{context}");
        }
    }
}

/// Kills `act` behind each of its steps, once as a process and once as a machine that loses power. What is there then must be `good`, for those who only read and for the next start, which makes
/// the files what the rule wants.
fn check_killed<T>(
    prepare: impl Fn(&Files) -> T,
    act: impl Fn(T, &Files) -> io::Result<()>,
    good: impl Fn(&[u8]) -> bool,
) {
    for (steps, power) in (0..).flat_map(|steps| [(steps, false), (steps, true)]) {
        let (_home, files) = place();
        let prepared = prepare(&files);
        killing::after(steps);
        let done = act(prepared, &files);
        let killed = killing::over(power);
        assert_eq!(done.is_err(), killed, "{done:?}");
        let context = format!("killed behind {steps} steps, power: {power}: {:?}", found(&files.dir).keys());
        assert!(good(&all(&files)), "{context}");
        tidy(&files).unwrap();
        let journal = open(&files);
        let log = all(&files);
        assert!(good(&log), "{context}");
        assert_eq!(journal.bytes(), log.len() as u64);
        let mut both = found(files.archive.as_ref().unwrap());
        both.extend(found(&files.dir));
        both.retain(|name, _| !name.ends_with(".damaged"));
        assert!(both == ruled(&log), "{context}, then {:?}", both.keys());
        if !killed {
            assert!(steps > 3, "it has steps");
            return;
        }
    }
}

fn some(count: usize) -> Vec<u8> {
    lines(&mut StdRng::seed_from_u64(7), count)
}

#[test]
fn a_process_that_is_killed_while_segments_end_has_lost_nothing_that_was_synced() {
    let (old, new) = (some(5), some(20));
    let whole = [&old[..], &new].concat();
    let synced = Cell::new(0);
    check_killed(
        |files| {
            synced.set(old.len());
            write(files, &old)
        },
        |mut journal, _| {
            new.chunks(250).try_for_each(|lines| {
                journal.append(lines)?;
                synced.set(synced.get() + lines.len());
                Ok(())
            })
        },
        |log| whole.starts_with(log) && log.len() >= synced.get(),
    );
}

#[test]
fn a_process_that_is_killed_while_it_cuts_has_cut_from_the_end() {
    let log = some(30);
    let border = ruled(&log).values().next().unwrap().len();
    for behind in [Behind::Remove, Behind::SetAside] {
        for to in [0, 1, border, border + 1, border - 1] {
            for archived in [0, border, log.len()] {
                check_killed(
                    |files| {
                        let journal = write(files, &log);
                        moved(files, archived as u64).unwrap();
                        journal
                    },
                    |mut journal, files| {
                        journal.cut(to as u64, behind)?;
                        assert!(all(files) == log[..to]);
                        let kept = found(&files.dir).into_keys().filter(|name| name.ends_with(".damaged"));
                        let kept: Vec<_> = kept.map(|name| files.dir.join(name)).collect();
                        assert!(kept.is_empty() == (behind == Behind::Remove));
                        kept.into_iter().try_for_each(fs::remove_file)?;
                        let away = found(files.archive.as_ref().unwrap()).into_keys();
                        let away = away.filter(|name| name.ends_with(".damaged"));
                        away.map(|name| files.archive.as_ref().unwrap().join(name)).try_for_each(fs::remove_file)
                    },
                    |rest| log.starts_with(rest) && rest.len() >= to,
                );
            }
        }
    }
}

#[test]
fn one_file_of_an_earlier_release_is_split_and_a_killed_split_goes_on() {
    // With a line that was torn, and one without an end within a segment.
    for end in [&b""[..], b"torn", &[b'x'; 250]] {
        let log = [&some(40)[..], end].concat();
        check_killed(
            |files| fs::write(files.newest(), &log).unwrap(),
            |(), files| Journal::open(files, SIZE).map(drop).map_err(Into::into),
            |there| there == log,
        );
    }
    // In one that was written in larger segments.
    let log = some(40);
    check_killed(
        |files| {
            let larger = NonZeroU64::new(350).unwrap();
            Journal::open(files, larger).unwrap().append(&log).unwrap();
        },
        |(), files| Journal::open(files, SIZE).map(drop).map_err(Into::into),
        |there| there == log,
    );
}

#[test]
fn a_process_that_is_killed_while_it_archives_has_at_least_one_whole_copy() {
    let log = some(20);
    check_killed(
        |files| drop(write(files, &log)),
        |(), files| {
            assert!(moved(files, log.len() as u64)? > 2);
            Ok(())
        },
        |there| there == log,
    );
    // What was begun is ended by the next.
    for steps in 0..7 {
        let (_home, files) = place();
        drop(write(&files, &log));
        killing::after(steps);
        moved(&files, log.len() as u64).unwrap_err();
        assert!(killing::over(false));
        moved(&files, log.len() as u64).unwrap();
        assert_eq!(found(&files.dir).into_keys().collect::<Vec<_>>(), [JOURNAL]);
        assert!(all(&files) == log);
    }
}

#[test]
fn a_segment_that_another_exchange_has_archived_is_not_written_over() {
    let (_home, files) = place();
    drop(write(&files, &some(20)));
    let archive = files.archive.as_ref().unwrap();
    fs::create_dir(archive).unwrap();
    let there = archive.join(name(0));
    fs::write(&there, "other\n").unwrap();
    let before = found(&files.dir);
    let text = moved(&files, 1_000).unwrap_err().to_string();
    assert!(text.contains("an archive is for one exchange"), "{text}");
    assert!(found(&files.dir) == before && fs::read(there).unwrap() == b"other\n");
}

#[test]
fn what_is_missing_of_a_segment_is_damage_and_nothing_behind_it_moves() {
    let log = some(30);
    let names: Vec<_> = ruled(&log).into_keys().filter(|name| name != JOURNAL).collect();
    let check = |harm: &dyn Fn(&Path), lost: std::ops::Range<usize>| {
        let (_home, files) = place();
        drop(write(&files, &log));
        harm(&files.dir);
        let mut wanted = log.clone();
        wanted[lost.clone()].fill(0);
        assert!(all(&files) == wanted, "{lost:?}");
        let mut journal = open(&files);
        assert!(all(&files) == wanted, "{lost:?}");
        let mut beside = journal.beside();
        assert!(beside.read(0, log.len()).unwrap() == wanted);
        journal.rewrite(&log[lost.clone()], lost.start as u64).unwrap();
        assert!(beside.read(0, log.len()).unwrap() == log);
        assert!(all(&files) == log);
        journal.append(b"more\n").unwrap();
        let both = [&log[..], b"more\n"].concat();
        (found(&files.dir), ruled(&both))
    };
    let starts: Vec<usize> = names.iter().map(|name| name[7..22].parse().unwrap()).collect();
    for at in 1..names.len() - 1 {
        let (start, end) = (starts[at], starts[at + 1]);
        let (there, wanted) = check(&|dir| fs::remove_file(dir.join(&names[at])).unwrap(), start..end);
        assert!(there == wanted, "{:?}", there.keys());
        for kept in [0, 1, (end - start) / 2, end - start - 1] {
            let cut = |dir: &Path| {
                File::options().write(true).open(dir.join(&names[at])).unwrap().set_len(kept as u64).unwrap();
            };
            let (there, wanted) = check(&cut, start + kept..end);
            assert!(there == wanted, "{:?}", there.keys());
        }
        let more = |dir: &Path| {
            let path = dir.join(&names[at]);
            fs::write(&path, [&fs::read(&path).unwrap()[..], b"what is this\n"].concat()).unwrap();
        };
        let (there, mut wanted) = check(&more, start..start);
        wanted.get_mut(&names[at]).unwrap().extend(b"what is this\n");
        assert!(there == wanted, "what is not of the log is left alone");
    }
}

#[test]
fn what_cannot_be_read_as_a_log_is_refused_with_what_to_do() {
    let log = some(20);
    let check = |harm: &dyn Fn(&Files), says: &str| {
        let (_home, files) = place();
        drop(write(&files, &log));
        moved(&files, 250).unwrap();
        harm(&files);
        let text = Journal::open(&files, SIZE).unwrap_err().to_string();
        assert!(text.contains(says) && !text.contains('\n'), "{text}");
    };
    check(&|files| fs::write(files.dir.join("orders-12.jsonl"), "").unwrap(), "has the name of no segment");
    check(&|files| fs::remove_file(files.archived(0).unwrap()).unwrap(), "bytes are not in");
    check(&|files| fs::remove_dir_all(files.archive.as_ref().unwrap()).unwrap(), "--archive-dir");
    let last = |files: &Files| files.starts().unwrap().1.pop_last().unwrap();
    check(&|files| fs::write(files.archived(last(files) + 1).unwrap(), "").unwrap(), "is not of this log");
    let (_home, files) = place();
    assert!(Segments::open(&files).unwrap_err().to_string().contains("holds no orders.jsonl"));
}

#[test]
fn what_is_behind_a_last_segment_that_has_lost_its_end_is_at_another_place_and_nothing_is_made_up() {
    let log = some(30);
    let (_home, files) = place();
    drop(write(&files, &log));
    let last = files.starts().unwrap().1.pop_last().unwrap();
    let path = files.local(last);
    let length = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(length - 5).unwrap();
    let end = usize::try_from(last + length).unwrap();
    assert!(end < log.len(), "something is behind it");
    drop(open(&files));
    assert!(all(&files) == [&log[..end - 5], &log[end..]].concat());
}

#[test]
fn who_reads_while_segments_end_and_move_reads_every_byte_once() {
    let (_home, files) = place();
    let (mut journal, log) = (open(&files), some(2_000));
    let mut reader = Segments::open(&files).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for lines in log.chunks(37) {
                journal.append(lines).unwrap();
                moved(&files, journal.bytes().saturating_sub(500)).unwrap();
            }
        });
        let mut read = Vec::new();
        while read.len() < log.len() {
            read.extend(reader.read(read.len() as u64, 300).unwrap());
            read.extend(Segments::open(&files).unwrap().read(read.len() as u64, 300).unwrap());
            assert!(log.starts_with(&read), "byte {}", read.len());
        }
    });
}

#[test]
fn what_is_read_beside_a_writer_that_cuts_was_there_at_one_moment() {
    let (_home, files) = place();
    let (mut journal, random) = (open(&files), &mut StdRng::seed_from_u64(3));
    let mut beside = journal.beside();
    // What the log was, and from the last one on is about to be.
    let states = Mutex::new(vec![Vec::new()]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (states, over) = (&states, &over);
        scope.spawn(move || {
            let mut model = Vec::new();
            for step in 0..400 {
                if step % 3 == 2 {
                    let back = if step % 20 == 2 { 400 } else { 60 };
                    let kept = model[..model.len().saturating_sub(back)].iter().rposition(|&byte| byte == b'\n');
                    model.truncate(kept.map_or(0, |at| at + 1));
                    states.lock().unwrap().push(model.clone());
                    journal.cut(model.len() as u64, Behind::Remove).unwrap();
                } else {
                    let more = lines(random, 3);
                    model.extend(&more);
                    states.lock().unwrap().push(model.clone());
                    journal.append(&more).unwrap();
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut several = 0;
        while !over.load(Ordering::Relaxed) {
            let (first, at) = {
                let states = states.lock().unwrap();
                (states.len().saturating_sub(2), states[states.len() - 1].len().saturating_sub(350))
            };
            let read = beside.read(at as u64, 400).unwrap();
            let states = states.lock().unwrap();
            let rests = states[first..].iter().map(|state| state.get(at..).unwrap_or_default());
            several += usize::from(rests.len() > 2);
            assert!(rests.clone().any(|rest| rest.starts_with(&read)), "byte {at}");
            assert!(rests.map(|rest| rest.len().min(400)).min().unwrap() <= read.len(), "byte {at}");
        }
        assert!(several > 10, "it was changed while it was read");
    });
}

#[test]
fn a_segment_that_has_gone_with_its_archive_is_not_damaged_but_not_to_be_read() {
    let (_home, files) = place();
    let log = some(40);
    let journal = write(&files, &log);
    assert!(moved(&files, 250).unwrap() > 1);
    let (archive, mut beside) = (files.archive.clone().unwrap(), journal.beside());
    let (away, border) = (archive.with_file_name("away"), journal.away_until(0, log.len()));
    fs::rename(&archive, &away).unwrap();
    for done in [beside.read(0, 10).map(drop), beside.rewrite(&log[..10], 0)] {
        assert!(done.unwrap_err().to_string().contains("is not there"));
    }
    let here = usize::try_from(border).unwrap();
    assert!(beside.read(border, log.len()).unwrap() == log[here..], "what is here is read as before");
    assert_eq!(found(&files.dir).into_keys().filter(|file| *file == name(0)).count(), 0, "and nothing is made up");
    fs::rename(&away, &archive).unwrap();
    assert!(beside.read(0, log.len()).unwrap() == log);
    // A file that could not be read is not held on to.
    let (first, aside) = (archive.join(name(0)), archive.join("aside"));
    fs::rename(&first, &aside).unwrap();
    fs::create_dir(&first).unwrap();
    let mut beside = journal.beside();
    assert_eq!(beside.read(0, 10).unwrap_err().kind(), ErrorKind::IsADirectory);
    fs::rename(&first, archive.join("no-file")).unwrap();
    // One that is lost alone is damaged, wherever it was.
    assert!(beside.read(0, 10).unwrap() == [0; 10]);
    fs::rename(&aside, &first).unwrap();
    assert!(beside.read(0, log.len()).unwrap() == log);
}

#[test]
fn few_files_are_open_however_many_there_are() {
    let (_home, files) = place();
    let log = some(100);
    drop(write(&files, &log));
    let mut reader = Segments::open(&files).unwrap();
    assert!(reader.read(0, log.len()).unwrap() == log);
    assert!(reader.sealed.len() > 2 * OPEN_SEGMENTS_MAX && reader.open.len() == OPEN_SEGMENTS_MAX);
    // Those that were moved away are let go, so that their room is free.
    moved(&files, log.len() as u64).unwrap();
    reader.read(0, 1).unwrap();
    assert_eq!(reader.open.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [0]);
}
