//! What clients asked and what they got, seen from outside: a black-box history.
//!
//! Problem: a check that knows the log can share a mistake with whoever writes the log.
//! Idea: only what a client can see is kept: when it asked, what it got, and when; no epoch, no sequence number. Attempts
//! under one key are one trade, which lies between the first attempt that may have done it and the first that was told of
//! it. What nobody was told of may have happened at any time since, or never.
//! Rule kept: an attempt that was told "nothing was done" or was refused has done nothing.

use std::collections::BTreeMap;

use tradenet_core::{ClientAnswer, ClientRequest};
use tradenet_schemas::ids::OrderNumber;
use tradenet_schemas::trade::{Command, IdempotencyKey, Outcome, Receipt, Refusal};

use crate::world::Answered;

/// One request of a client.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was asked for.
    pub request: ClientRequest,
    /// When, in microseconds of the world.
    pub called: u64,
    /// What came of it, and when; nothing if the run ended before.
    pub got: Option<(u64, Answered)>,
}

/// All requests of a run, in the order in which they were made.
#[derive(Clone, Default, Debug)]
pub struct History {
    calls: Vec<Call>,
}

/// A command that a client gave, under all attempts that count as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trade {
    /// The key, if the client sent one.
    pub key: Option<IdempotencyKey>,
    /// What was asked for.
    pub command: Command,
    /// When the first attempt was made that may have done it.
    pub called: u64,
    /// The number of the order that it was answered with (0 where it makes none), and when that was known first; none if
    /// nobody was told.
    pub told: Option<(u64, OrderNumber)>,
    /// How many its order traded at once, for an order in a book that somebody was told of.
    pub traded: u64,
}

/// A trade that was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What was asked for.
    pub command: Command,
    /// Why it was refused.
    pub refusal: Refusal,
    /// When it was asked for.
    pub called: u64,
    /// When the client was told.
    pub returned: u64,
}

/// What became of one attempt.
enum Attempt {
    Accepted {
        at: u64,
        number: OrderNumber,
        traded: u64,
    },
    /// It has done nothing, and never will.
    Void,
    /// It may have done something, or still do.
    Untold,
}

impl Call {
    fn attempt(&self) -> Attempt {
        match &self.got {
            Some((at, Answered::With(ClientAnswer::Outcome(Outcome::Accepted { order, .. })))) => {
                Attempt::Accepted { at: *at, number: *order, traded: 0 }
            }
            Some((at, Answered::With(ClientAnswer::Outcome(Outcome::Done { receipt, .. })))) => {
                let (number, traded) = match &**receipt {
                    Receipt::Order(order) => (order.number, order.filled.get()),
                    Receipt::Opened | Receipt::Balance(_) => (OrderNumber(0), 0),
                };
                Attempt::Accepted { at: *at, number, traded }
            }
            Some((_, Answered::Refused))
            | Some((_, Answered::With(ClientAnswer::Unavailable(_) | ClientAnswer::Outcome(Outcome::Refused(_))))) => {
                Attempt::Void
            }
            _ => Attempt::Untold,
        }
    }
}

impl History {
    /// A client asks; the number of the call, from 1.
    pub(crate) fn asked(&mut self, now: u64, request: ClientRequest) -> u64 {
        self.calls.push(Call { request, called: now, got: None });
        self.calls.len() as u64
    }

    /// A call came to an end.
    pub(crate) fn got(&mut self, call: u64, now: u64, answered: &Answered) {
        let index = usize::try_from(call).unwrap_or(0).checked_sub(1);
        if let Some(call) = index.and_then(|index| self.calls.get_mut(index)) {
            call.got = Some((now, answered.clone()));
        }
    }

    /// All calls.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// All commands that happened or may have, by when they were first asked for. Those without any attempt that may have
    /// done something are not among them.
    ///
    /// # Errors
    /// Two attempts under one key were answered with different numbers.
    pub fn trades(&self) -> Result<Vec<Trade>, String> {
        let mut keyed: BTreeMap<&IdempotencyKey, usize> = BTreeMap::new();
        let mut trades: Vec<Trade> = Vec::new();
        for call in &self.calls {
            let ClientRequest::Command(key, command) = &call.request else { continue };
            let (told, traded) = match call.attempt() {
                Attempt::Void => continue,
                Attempt::Untold => (None, 0),
                Attempt::Accepted { at, number, traded } => (Some((at, number)), traded),
            };
            let known = key.as_ref().and_then(|key| keyed.get(key)).map(|&index| &mut trades[index]);
            let Some(trade) = known else {
                if let Some(key) = key {
                    keyed.insert(key, trades.len());
                }
                let (key, command) = (key.clone(), command.clone());
                trades.push(Trade { key, command, called: call.called, told, traded });
                continue;
            };
            trade.traded = trade.traded.max(traded);
            trade.told = match (trade.told, told) {
                (Some((_, before)), Some((_, now))) if before != now => {
                    return Err(format!("{key:?} was answered with order {before} and with order {now}"));
                }
                (Some(before), Some(now)) => Some(before.min(now)),
                (before, now) => before.or(now),
            };
        }
        Ok(trades)
    }

    /// All trades that were refused.
    pub fn refused(&self) -> impl Iterator<Item = Refused> + '_ {
        self.calls.iter().filter_map(|call| match (&call.request, &call.got) {
            (
                ClientRequest::Command(_, command),
                Some((returned, Answered::With(ClientAnswer::Outcome(Outcome::Refused(refusal))))),
            ) => {
                Some(Refused { command: command.clone(), refusal: *refusal, called: call.called, returned: *returned })
            }
            _ => None,
        })
    }

    /// All answers to what was asked, with when it was asked and when it was answered.
    pub fn answers(&self) -> impl Iterator<Item = (&ClientRequest, u64, u64, &ClientAnswer)> {
        self.calls.iter().filter_map(|call| match &call.got {
            Some((returned, Answered::With(answer))) => Some((&call.request, call.called, *returned, answer)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use tradenet_schemas::trade::{Quantity, Side, Symbol};

    use super::*;

    fn buy() -> Command {
        let quantity = Quantity::new(1).unwrap_or_default();
        Command::Trade { symbol: Symbol::new("HOT").unwrap(), side: Side::Buy, quantity }
    }

    fn accepted(number: u64) -> Answered {
        let outcome = Outcome::Accepted { order: OrderNumber(number), replayed: false };
        Answered::With(ClientAnswer::Outcome(outcome))
    }

    fn unknown() -> Answered {
        Answered::With(ClientAnswer::Unknown)
    }

    fn nothing_done() -> Answered {
        Answered::With(ClientAnswer::Unavailable(String::new()))
    }

    /// When a trade was asked for, and when it was answered with which number.
    type Made = (u64, Option<(u64, u64)>);

    /// Attempts `(called, got, at)` under one key, and the trade that they make.
    fn check(attempts: &[(u64, Answered, u64)], expected: Result<Option<Made>, ()>) {
        let mut history = History::default();
        for (called, answered, at) in attempts {
            let call = history.asked(*called, ClientRequest::Command(IdempotencyKey::new("k").ok(), buy()));
            history.got(call, *at, answered);
        }
        let made = history.trades().map_err(|_| ()).map(|trades| {
            assert!(trades.len() <= 1, "one key, one trade: {trades:?}");
            trades.first().map(|trade| (trade.called, trade.told.map(|(at, number)| (at, number.0))))
        });
        assert_eq!(made, expected, "{attempts:?}");
    }

    #[test]
    fn attempts_under_one_key_are_one_trade() {
        check(&[(1, accepted(7), 3)], Ok(Some((1, Some((3, 7))))));
        check(&[(1, unknown(), 3), (4, accepted(7), 6)], Ok(Some((1, Some((6, 7))))));
        check(&[(1, accepted(7), 9), (2, accepted(7), 6)], Ok(Some((1, Some((6, 7))))));
        check(&[(1, unknown(), 3)], Ok(Some((1, None))));
        check(&[(1, Answered::Broken, 3)], Ok(Some((1, None))));
    }

    #[test]
    fn an_attempt_that_did_nothing_does_not_count() {
        check(&[(1, nothing_done(), 3)], Ok(None));
        check(&[(1, Answered::Refused, 3)], Ok(None));
        check(&[(1, nothing_done(), 3), (4, accepted(7), 6)], Ok(Some((4, Some((6, 7))))));
    }

    #[test]
    fn two_numbers_under_one_key_are_an_error() {
        check(&[(1, accepted(7), 3), (4, accepted(8), 6)], Err(()));
    }
}
