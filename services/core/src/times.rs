//! The protocol's periods, and the inequalities that they must satisfy.
//!
//! Failure detection is a chain of waits, each resting on the one before: a lease that outlives its authority serves
//! stale stocks, a suspicion shorter than a few heartbeats deposes healthy leaders. [`Times::check`] refuses such sets at
//! start. All are measured on monotonic clocks.

use std::time::Duration;

/// All periods of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// Between heartbeats of a frontend, keep-alives of a leader, and renewals of leases and authority.
    pub heartbeat: Duration,
    /// A leader silent for so long is suspected.
    pub suspect: Duration,
    /// "Nobody there" twice, so far apart, is believed.
    pub nobody_twice: Duration,
    /// A replica that heard the leader within this time does not agree to replace it.
    pub pre_vote: Duration,
    /// How long a frontend collects answers before it elects.
    pub poll: Duration,
    /// An in-sync follower silent for so long is taken out.
    pub shrink: Duration,
    /// A learner that has kept up for so long is taken in.
    pub readd: Duration,
    /// The longest that a learner which fell out often must keep up.
    pub readd_max: Duration,
    /// A higher id in sync for so long takes over the lead.
    pub handover: Duration,
    /// The longest that a higher id which fell out often must wait for the lead.
    pub handover_max: Duration,
    /// A leader with an entry uncommitted for so long, while others are fit, hands over.
    pub stuck: Duration,
    /// After a reconnect nobody is suspected for so long.
    pub reconnect_grace: Duration,
    /// With no leader since the start of the frontend, all in-sync replicas are waited for so long.
    pub cold_start: Duration,
    /// How long a grant lets a catalog answer, from when it asked.
    pub authority: Duration,
    /// How long a leader counts a grant as alive, from when it gave it: authority and a tenth for drifting clocks.
    pub authority_waited_out: Duration,
    /// How long a lease lets a frontend serve from its cache, from when it asked.
    pub lease: Duration,
    /// How long a catalog counts a lease as alive, from when it gave it.
    pub lease_waited_out: Duration,
    /// After so long without an answer a request is sent again.
    pub retransmit: Duration,
    /// A catch-up peer that is silent for so long is replaced by another.
    pub fetch: Duration,
    /// How long a client's request is worked on.
    pub deadline: Duration,
    /// How long a leader lets a frontend wait for the next public event before it answers that there is none.
    pub watch: Duration,
    /// How long the register has to answer.
    pub register: Duration,
    /// The longest a leaving process finishes what is under way.
    pub leave: Duration,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat: ms(100),
            suspect: ms(400),
            nobody_twice: ms(150),
            pre_vote: ms(300),
            poll: ms(150),
            shrink: ms(500),
            readd: ms(2_000),
            readd_max: ms(30_000),
            handover: ms(5_000),
            handover_max: ms(60_000),
            stuck: ms(1_000),
            reconnect_grace: ms(1_000),
            cold_start: ms(3_000),
            authority: ms(1_000),
            authority_waited_out: ms(1_100),
            lease: ms(500),
            lease_waited_out: ms(550),
            retransmit: ms(50),
            fetch: ms(500),
            deadline: ms(5_000),
            watch: ms(2_000),
            register: ms(1_000),
            leave: ms(4_000),
        }
    }
}

impl Times {
    /// Whether the periods fit together.
    ///
    /// # Errors
    /// The first inequality that does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.lease < self.authority, "the lease must be shorter than the authority"),
            (self.suspect > self.heartbeat * 3, "suspicion must take longer than three heartbeats"),
            (self.pre_vote < self.suspect, "the pre-vote window must be shorter than suspicion"),
            (
                self.shrink + self.suspect < self.deadline / 3,
                "shrink and suspicion must fit three times in the deadline",
            ),
            (
                self.authority_waited_out >= self.authority * 11 / 10,
                "authority must be waited out with a tenth to spare",
            ),
            (self.lease_waited_out >= self.lease * 11 / 10, "leases must be waited out with a tenth to spare"),
            (self.watch < self.deadline / 2, "the wait for an event must be shorter than half the deadline"),
            (self.retransmit < self.suspect, "retransmission must be faster than suspicion"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, rule)| Err(rule))
    }
}
