//! Handing the log out to a stream that others read.
//!
//! Problem: the rest of a company wants every entry once and in order, long after it was written, and nothing of that may
//! depend on who leads, on how long the stream could not be reached, or on whether an answer of it was lost.
//! Idea: the stream numbers what it holds, and that number is the entry's. An entry is published with the condition that the
//! one before it is the stream's last: so it does not matter who publishes, how often, or how late. What is missing is read
//! from the journal, which is on disk, so there is no bound on how far behind the stream may be.
//! Rule kept: only *released* entries are handed out, which every later leader has in the same place. Before anybody goes on
//! behind an entry that somebody else has published, it is compared with the journal's: a stream of another exchange, or of
//! one whose log was lost, is never continued.
//!
//! One [`Outlet`] runs beside each replica; the one whose replica leads has something to do. It has one request under way at a
//! time, and a request always has an answer: so an answer needs no name.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tradenet_schemas::ids::SeqNum;

use crate::{Level, Mono, Notice};

/// How many entries are under way to the stream at most.
pub const ENTRIES_AT_ONCE_MAX: u64 = 256;
/// After a failure it is tried again so much later.
const AGAIN: Duration = Duration::from_millis(500);
/// A leader that was replaced may not know it yet, and see more in the stream than it has itself. Seen so often in a row, with
/// [`AGAIN`] between, the stream is not this exchange's.
const AHEAD_MAX: u32 = 10;

/// What happens to an outlet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Up to which entry the log may be handed out; none while another replica does that.
    Released(Option<SeqNum>),
    /// There is no stream.
    NoStream,
    /// The stream's last entry, 0 for none; and what it is, unless it is kept no longer.
    Holds {
        /// Its number.
        last: SeqNum,
        /// The entry, as it was published.
        entry: Option<Bytes>,
    },
    /// The stream was made.
    Made,
    /// What was to be read: entries in a row from there on, as many as fit, and at least one.
    Read(Vec<Bytes>),
    /// All that was to be published is in the stream.
    Published,
    /// The request has failed, or nobody knows what became of it.
    Failed(String),
    /// The time that [`Outlet::poll_timeout`] named has come.
    Timer,
}

/// What an outlet wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Find out what the stream holds.
    Look,
    /// Make the stream.
    Make,
    /// Read entries from the journal.
    Read {
        /// The first.
        from: SeqNum,
        /// The last, at most.
        until: SeqNum,
    },
    /// Publish entries in order, each only if the one before it is the stream's last.
    Publish {
        /// The first one's number.
        first: SeqNum,
        /// As they were read; not empty.
        entries: Vec<Bytes>,
    },
    /// Tell people.
    Notice(Notice),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Knows nothing of the stream, and waits until then.
    Resting(Mono),
    /// One request is under way.
    Looking,
    Making,
    /// The stream's last entry is to be compared with what is read, or was published from here.
    Reading {
        last: SeqNum,
        compared: Option<Bytes>,
    },
    Publishing {
        last: SeqNum,
    },
    /// Knows the stream's last entry.
    Knows {
        last: SeqNum,
        compared: Option<Bytes>,
    },
}

/// The state machine. See the module.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// The stream's name, for people.
    stream: String,
    released: Option<SeqNum>,
    state: State,
    /// How often in a row the stream was ahead.
    ahead: u32,
    /// What is wrong, since it was last told.
    trouble: Option<String>,
    /// Whether it was told where it begins since its replica leads.
    told: bool,
    now: Mono,
    outputs: VecDeque<Output>,
    counts: Counts,
}

/// What an outlet has counted, for people.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// The last entry that is known to be in the stream; 0 for none.
    pub last: SeqNum,
    /// Requests that failed.
    pub failures: u64,
}

impl Outlet {
    /// One for the stream of that name.
    pub fn new(stream: String) -> Self {
        Self {
            stream,
            released: None,
            state: State::Resting(Mono(0)),
            ahead: 0,
            trouble: None,
            told: false,
            now: Mono(0),
            outputs: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Mono, input: Input) {
        self.now = now;
        match (input, std::mem::replace(&mut self.state, State::Resting(now))) {
            (Input::Released(released), state) => {
                self.state = state;
                self.released_is(released);
            }
            (Input::Timer, state) => self.state = state,
            (Input::Failed(why), _) => self.failed(why),
            (Input::NoStream, State::Looking) => {
                self.state = State::Making;
                self.outputs.push_back(Output::Make);
            }
            (Input::Made, State::Making) => self.state = State::Knows { last: SeqNum(0), compared: None },
            (Input::Holds { last, entry }, State::Looking) => {
                self.state = State::Knows { last, compared: entry };
            }
            (Input::Read(entries), State::Reading { last, compared }) => self.was_read(last, compared, entries),
            (Input::Published, State::Publishing { last }) => self.published(last),
            (input, state) => panic!("{input:?} is no answer in {state:?}"),
        }
        self.go_on();
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Outlet::handle`] with [`Input::Timer`].
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self.state {
            State::Resting(until) => self.released.map(|_| until),
            _ => None,
        }
    }

    fn released_is(&mut self, released: Option<SeqNum>) {
        self.released = released;
        if released.is_none() {
            (self.told, self.ahead) = (false, 0);
            // Others publish from now on.
            if matches!(self.state, State::Knows { .. }) {
                self.state = State::Resting(self.now);
            }
        }
    }

    fn go_on(&mut self) {
        let Some(released) = self.released else { return };
        match &self.state {
            State::Resting(until) if self.now >= *until => {
                self.state = State::Looking;
                self.outputs.push_back(Output::Look);
            }
            State::Knows { last, .. } if *last > released => self.is_ahead(*last),
            State::Knows { last, compared } if *last < released || compared.is_some() => {
                let from = if compared.is_some() { *last } else { last.next() };
                let until = SeqNum(released.0.min(from.0.saturating_add(ENTRIES_AT_ONCE_MAX - 1)));
                self.state = State::Reading { last: *last, compared: compared.clone() };
                self.outputs.push_back(Output::Read { from, until });
            }
            _ => {}
        }
    }

    fn is_ahead(&mut self, last: SeqNum) {
        self.ahead = self.ahead.saturating_add(1);
        self.state = State::Resting(self.now.after(AGAIN));
        if self.ahead >= AHEAD_MAX {
            self.trouble_is(format!(
                "it holds entry {last}, which this exchange does not have: it is another exchange's, or the log was lost; name another \
                 stream, or remove this one"
            ));
        }
    }

    fn was_read(&mut self, last: SeqNum, compared: Option<Bytes>, mut entries: Vec<Bytes>) {
        assert!(!entries.is_empty(), "what is released can be read");
        if compared.is_some_and(|compared| entries.remove(0) != compared) {
            self.state = State::Resting(self.now.after(AGAIN));
            return self.trouble_is(format!(
                "its entry {last} is not this exchange's: it is another exchange's, or the log was lost; name another stream, or remove \
                 this one"
            ));
        }
        (self.ahead, self.counts.last) = (0, last);
        if !std::mem::replace(&mut self.told, true) {
            self.tell(Level::Info, format_args!("handing out entries behind {last}"));
        }
        if entries.is_empty() {
            return self.published(last);
        }
        let first = last.next();
        self.state = State::Publishing { last: SeqNum(last.0 + entries.len() as u64) };
        self.outputs.push_back(Output::Publish { first, entries });
    }

    fn published(&mut self, last: SeqNum) {
        self.counts.last = last;
        self.state =
            if self.released.is_some() { State::Knows { last, compared: None } } else { State::Resting(self.now) };
        if self.trouble.take().is_some() {
            self.tell(Level::Info, "all is well again");
        }
    }

    fn failed(&mut self, why: String) {
        self.counts.failures += 1;
        self.state = State::Resting(self.now.after(AGAIN));
        self.trouble_is(why);
    }

    /// Told once, not with each attempt.
    fn trouble_is(&mut self, why: String) {
        if self.released.is_some() && self.trouble.as_ref() != Some(&why) {
            self.tell(Level::Warn, format_args!("{why}; trading goes on, and it is tried again"));
            self.trouble = Some(why);
        }
    }

    fn tell(&mut self, level: Level, what: impl fmt::Display) {
        let text = format!("feed stream {}: {what}", self.stream);
        self.outputs.push_back(Output::Notice(Notice { level, text }));
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn entry(seq: u64) -> Bytes {
        format!("entry {seq}").into()
    }

    /// A stream as JetStream keeps it, and outlets that publish into it, with everything that may go wrong between them.
    struct World {
        rng: Rng,
        stream: Option<Vec<Bytes>>,
        /// How many of the oldest are kept no longer.
        expired: usize,
        outlets: Vec<Outlet>,
        /// What was published, and has not arrived: (the last one's number that it demands, the entry).
        late: Vec<(u64, Bytes)>,
        log: u64,
        now: u64,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let outlets = (0..3).map(|_| Outlet::new("S".into())).collect();
            let rng = Rng::with_seed(seed);
            Self { rng, stream: None, expired: 0, outlets, late: Vec::new(), log: 0, now: 0 }
        }

        /// Whether it took the entry.
        fn arrives(&mut self, expected: u64, entry: Bytes) -> bool {
            let Some(stream) = &mut self.stream else { return false };
            let takes = stream.len() as u64 == expected;
            if takes {
                stream.push(entry);
            }
            takes
        }

        fn answer(&mut self, output: Output, faults: bool) -> Option<Input> {
            let lost = faults && self.rng.u8(0..8) == 0;
            let failed = |lost: bool, input: Input| if lost { Input::Failed("no answer".into()) } else { input };
            Some(match output {
                Output::Look => {
                    let found = self.stream.as_ref().map_or(Input::NoStream, |stream| {
                        let entry = stream.last().filter(|_| stream.len() > self.expired).cloned();
                        Input::Holds { last: SeqNum(stream.len() as u64), entry }
                    });
                    failed(lost, found)
                }
                Output::Make => {
                    self.stream.get_or_insert_default();
                    // Somebody else's may be there by now, with entries.
                    failed(lost, Input::Made)
                }
                Output::Read { from, until } => {
                    let most = until.0.min(from.0 + self.rng.u64(0..4));
                    assert!(until.0 <= self.log, "only what is there is read");
                    failed(lost, Input::Read((from.0..=most).map(entry).collect()))
                }
                Output::Publish { first, entries } => {
                    let mut all = true;
                    for (expected, entry) in (first.0 - 1..).zip(entries) {
                        match if faults { self.rng.u8(0..12) } else { 9 } {
                            0 => all = false,
                            1 => {
                                self.late.push((expected, entry));
                                all = false;
                            }
                            2 => {
                                self.late.push((expected, entry.clone()));
                                all &= self.arrives(expected, entry);
                            }
                            _ => all &= self.arrives(expected, entry),
                        }
                    }
                    failed(lost || !all, Input::Published)
                }
                Output::Notice(_) => return None,
            })
        }

        fn step(&mut self, faults: bool) {
            self.now += self.rng.u64(0..200_000);
            self.log += self.rng.u64(0..5);
            if faults && !self.late.is_empty() && self.rng.bool() {
                let at = self.rng.usize(0..self.late.len());
                let (expected, entry) = self.late.swap_remove(at);
                self.arrives(expected, entry);
            }
            if faults && self.rng.u8(0..20) == 0 {
                self.expired = self.stream.as_ref().map_or(0, |stream| self.rng.usize(0..=stream.len()));
            }
            // Several may believe that they lead; who was deposed knows an older end.
            for index in 0..self.outlets.len() {
                let released = match self.rng.u8(0..6) {
                    0 if faults => None,
                    1 if faults => Some(SeqNum(self.log - self.rng.u64(0..=self.log.min(3)))),
                    _ => Some(SeqNum(self.log)),
                };
                if faults && self.rng.u8(0..30) == 0 {
                    self.outlets[index] = Outlet::new("S".into());
                }
                self.tell(index, Input::Released(released), faults);
                if self.outlets[index].poll_timeout().is_some_and(|at| at.0 <= self.now) {
                    self.tell(index, Input::Timer, faults);
                }
            }
        }

        fn tell(&mut self, index: usize, input: Input, faults: bool) {
            self.outlets[index].handle(Mono(self.now), input);
            while let Some(output) = self.outlets[index].poll_output() {
                if let Some(input) = self.answer(output, faults) {
                    self.outlets[index].handle(Mono(self.now), input);
                }
                let stream = self.stream.iter().flatten();
                assert!(stream.zip(1..).all(|(held, seq)| *held == entry(seq)), "in order, each once");
            }
        }
    }

    #[test]
    fn whatever_is_lost_late_or_done_twice_the_stream_is_the_log_and_all_of_it_in_the_end() {
        for seed in 0..300 {
            let mut world = World::new(seed);
            for _ in 0..200 {
                world.step(true);
            }
            for _ in 0..30 {
                world.step(false);
            }
            assert_eq!(world.stream.map(|stream| stream.len() as u64), Some(world.log), "seed {seed}");
        }
    }

    #[test]
    fn a_stream_of_another_exchange_is_named_once_and_never_continued() {
        let check = |held: &[u64], released: u64, expected: &str| {
            let mut world = World::new(1);
            world.stream = Some(held.iter().map(|seq| entry(*seq)).collect());
            world.log = released;
            let mut told = Vec::new();
            for _ in 0..40 {
                world.now += 500_000;
                world.outlets[0].handle(Mono(world.now), Input::Released(Some(SeqNum(released))));
                while let Some(output) = world.outlets[0].poll_output() {
                    match output {
                        Output::Notice(notice) => told.push(notice.text),
                        Output::Publish { .. } => panic!("it goes on behind {held:?}"),
                        output => {
                            let answer = world.answer(output, false).unwrap();
                            world.outlets[0].handle(Mono(world.now), answer);
                        }
                    }
                }
            }
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains(expected), "{told:?}");
        };
        check(&[1, 2, 7], 5, "its entry 3 is not this exchange's");
        check(&[1, 2, 7], 3, "its entry 3 is not this exchange's");
        check(&[1, 2, 3, 4], 3, "it holds entry 4, which this exchange does not have");
    }

    #[test]
    fn failures_are_told_once_and_so_is_that_they_are_over() {
        let mut outlet = Outlet::new("S".into());
        let mut told = Vec::new();
        let mut tell = |outlet: &mut Outlet, now: u64, input: Input| {
            outlet.handle(Mono(now), input);
            let outputs: Vec<_> = std::iter::from_fn(|| outlet.poll_output()).collect();
            let (notices, rest): (Vec<_>, Vec<_>) =
                outputs.into_iter().partition(|output| matches!(output, Output::Notice(_)));
            told.extend(notices);
            rest
        };
        assert_eq!(tell(&mut outlet, 0, Input::Released(Some(SeqNum(1)))), [Output::Look]);
        for at in [0, 600_000, 1_200_000, 1_800_000] {
            assert_eq!(tell(&mut outlet, at, Input::Failed("away".into())), []);
            assert_eq!(outlet.poll_timeout(), Some(Mono(at + 500_000)));
            assert_eq!(tell(&mut outlet, at + 499_999, Input::Timer), []);
            assert_eq!(tell(&mut outlet, at + 500_000, Input::Timer), [Output::Look]);
        }
        assert_eq!(tell(&mut outlet, 9_000_000, Input::NoStream), [Output::Make]);
        assert_eq!(tell(&mut outlet, 9_000_000, Input::Made), [Output::Read { from: SeqNum(1), until: SeqNum(1) }]);
        let published = [Output::Publish { first: SeqNum(1), entries: vec![entry(1)] }];
        assert_eq!(tell(&mut outlet, 9_000_000, Input::Read(vec![entry(1)])), published);
        assert_eq!(tell(&mut outlet, 9_000_000, Input::Published), []);
        assert_eq!(outlet.counts(), Counts { last: SeqNum(1), failures: 4 });
        let texts = told.iter().filter_map(|output| match output {
            Output::Notice(notice) => Some(notice.text.as_str()),
            _ => None,
        });
        let texts: Vec<_> = texts.collect();
        assert_eq!(
            texts,
            [
                "feed stream S: away; trading goes on, and it is tried again",
                "feed stream S: handing out entries behind 0",
                "feed stream S: all is well again",
            ]
        );
    }
}
