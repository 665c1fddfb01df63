//! The register: two records with compare-and-set, as a key-value bucket of the broker keeps them.
//!
//! Problem: the protocol's one source of agreement can lose an answer, lose everything, or go back in time.
//! Idea: each record is its whole history, so that a fault is a cut of it; the revision after a cut is handed out again,
//! as the real one was seen to do.
//! Rule kept: but for those faults a write happens exactly if the revision is the expected one.

use tradenet_core::{RegisterAnswer, RegisterRequest, Revision, Slot};
use tradenet_schemas::message::{Configuration, Floor};

/// One record.
#[derive(Clone, Debug)]
pub struct Record<T> {
    history: Vec<(Revision, T)>,
    /// The bucket is there.
    pub bucket: bool,
    /// The newest value can't be parsed.
    pub unreadable: bool,
}

impl<T: Clone> Record<T> {
    fn new() -> Self {
        Self { history: Vec::new(), bucket: false, unreadable: false }
    }

    /// What it holds.
    pub fn value(&self) -> Option<&T> {
        self.history.last().map(|(_, value)| value)
    }

    /// What a copy shows that is so many writes behind.
    fn slot(&self, behind: usize) -> Slot<T> {
        match self.history.get(self.history.len().wrapping_sub(behind + 1)) {
            _ if behind > 0 && self.history.len() <= behind => Slot::KeyMissing,
            None if self.bucket => Slot::KeyMissing,
            None => Slot::BucketMissing,
            Some((revision, _)) if self.unreadable && behind == 0 => {
                Slot::Unreadable { why: "expected value at line 1 column 1".to_owned(), revision: *revision }
            }
            Some((revision, value)) => Slot::Present { value: value.clone(), revision: *revision },
        }
    }

    fn write(&mut self, value: T, expected: Option<Revision>) -> bool {
        let revision = self.history.last().map(|(revision, _)| *revision);
        if revision != expected {
            return false;
        }
        self.bucket = true;
        self.unreadable = false;
        self.history.push((revision.unwrap_or(0) + 1, value));
        true
    }

    /// Serves the record before the newest again. `false` if there is none before.
    pub fn go_back(&mut self) -> bool {
        if self.history.len() < 2 {
            return false;
        }
        self.history.pop();
        true
    }

    /// Everything is gone; the bucket too, or not.
    pub fn wipe(&mut self, bucket_stays: bool) {
        self.history.clear();
        self.bucket = bucket_stays;
        self.unreadable = false;
    }
}

/// Both records.
#[derive(Clone, Debug)]
pub struct Register {
    /// The configuration.
    pub configuration: Record<Configuration>,
    /// The floor.
    pub floor: Record<Floor>,
    /// The nemesis was at it.
    pub tampered: bool,
}

impl Register {
    /// Nothing was ever written.
    pub fn new() -> Self {
        Self { configuration: Record::new(), floor: Record::new(), tampered: false }
    }

    /// Carries out a request.
    pub fn serve(&mut self, request: RegisterRequest) -> RegisterAnswer {
        self.serve_behind(request, 0)
    }

    /// The same; a read shows what a copy holds that is so many writes behind.
    pub fn serve_behind(&mut self, request: RegisterRequest, behind: usize) -> RegisterAnswer {
        let (ticket, written) = match request {
            RegisterRequest::Read { ticket } => {
                return RegisterAnswer::Read {
                    ticket,
                    configuration: self.configuration.slot(behind),
                    floor: self.floor.slot(behind),
                };
            }
            RegisterRequest::Write { ticket, configuration, expected } => {
                (ticket, self.configuration.write(*configuration, expected))
            }
            RegisterRequest::Floor { ticket, floor, expected } => {
                (ticket, self.floor.write(Floor::Record(floor), expected))
            }
        };
        if written { RegisterAnswer::Written { ticket } } else { RegisterAnswer::Conflict { ticket } }
    }
}

impl Default for Register {
    fn default() -> Self {
        Self::new()
    }
}
