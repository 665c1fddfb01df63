//! Deliberate protocol bugs, for testing the tests.
//!
//! Problem: a simulator that finds nothing may be blind.
//! Idea: each rule of the protocol can be left out, one at a time, and the simulator must notice. With the feature `bugs`
//! the simulator chooses one for its thread; without it [`bug`] is `false` at compile time, and nothing of this is built.
//! Rule kept: no service is built with the feature.

macro_rules! bugs {
    ($(#[doc = $says:literal] $name:ident,)*) => {
        /// A rule left out.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $(#[doc = $says] $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The rule, where there is one, and what is done instead.
            pub fn says(self) -> &'static str {
                match self {
                    $(Self::$name => $says.trim_ascii(),)*
                }
            }
        }
    };
}

bugs! {
    /// R1: any replica that answers is a candidate.
    ElectFromAnyone,
    /// R1: one follower's word is not waited for.
    CommitWithoutTheLastFollower,
    /// R1: the leader's own disk is not waited for.
    CommitWithoutOwnDisk,
    /// R2: a restarted leader goes on in its old epoch.
    RestartedLeaderGoesOn,
    /// R3: an emptied disk is still in sync, by its owner's id.
    ElectAnyStore,
    /// R3: acknowledgements count from whatever disk.
    CountAnyStore,
    /// R4: an epoch is taken on before it is on disk.
    AdoptBeforePersist,
    /// R4: the floor is not taken before serving.
    ServeBelowTheFloor,
    /// R5: what may change is answered without a confirmation round.
    ReadWithoutConfirmation,
    /// R5: a deposed leader may refuse.
    RefuseWithoutConfirmation,
    /// R5: one answer confirms a round, whoever else is asked.
    ConfirmByOne,
    /// R5: a new leader serves before its own first entry is committed.
    ServeBeforeTheFirstEntry,
    /// R6: commits go on without the member before the record says so.
    CommitBeforeShrink,
    /// R6: the learner counts only when the record says so.
    JoinAfterTheRecord,
    /// R6: the record names a learner that lacks committed entries.
    JoinWithGaps,
    /// R7: the floor is not looked at.
    IgnoreTheFloor,
    /// R7: a higher epoch that somebody reports is not looked at.
    IgnoreReportedEpochs,
    /// R8: the register is written anew from whoever answers.
    RebuildFromSome,
    /// R8: of what replicas hold, the oldest record is written anew.
    RebuildFromTheOldest,
    /// R9: a damaged disk keeps its name.
    KeepNameOnDamage,
    /// R9: a candidate's tail is not looked at.
    ElectShortTails,
    /// C1: a change is shown before every cache has dropped it.
    ShowBeforeDropped,
    /// C1: a look-up does not wait for what was told.
    LookUpWithoutWaiting,
    /// C1: only the last entry of a snapshot counts as changed.
    JumpInOneStep,
    /// C2: a fill is kept whatever came meanwhile.
    KeepStaleFills,
    /// C2: a look-up is answered by a fill that was sent before it arrived.
    AnswerFromEarlierFills,
    /// C3: a lease counts from when it arrives.
    LeaseFromArrival,
    /// C3: a catalog's authority counts from when it arrives.
    AuthorityFromArrival,
    /// C3: a new session or a lapse keeps what is cached.
    KeepCacheAcrossSessions,
    /// C3: a lease may outlive the catalog's authority.
    LeaseOutlivesAuthority,
    /// C4: a silent catalog is not waited out.
    DetachAtOnce,
    /// C4: a new leader takes no notice of the attached catalog.
    ForgetTheCatalog,
    /// C4: every catalog that asks is granted authority.
    GrantToAnyCatalog,
    /// C4: authority is granted by a leader that may have been deposed.
    GrantWithoutConfirmation,
    /// An acknowledgement does not wait for the disk.
    AcknowledgeBeforeSync,
    /// Keys of former leaders are not known any more.
    DropKeysAtFailover,
    /// Rounds begin anew with each leadership of a process.
    RestartRounds,
    /// What matched the leader in an earlier epoch still does.
    MatchAcrossEpochs,
    /// A deposed leader gives the answers that it still owes.
    AnswerWhenDeposed,
    /// What was published is taken for delivered.
    TrustPublishes,
    /// A follower takes a batch behind a gap for compared.
    IgnoreGaps,
    /// In a new epoch a follower cuts what it does not know to be committed, and fetches it again.
    CutOnCatchUp,
    /// A peer's snapshot is taken over before the lines are there that it is of.
    TakeOverAtOnce,
    /// A late copy of a refused command is decided anew.
    DecideRefusedAgain,
    /// A late copy of a command that was turned away is taken.
    TakeTurnedAway,
    /// Of orders at one price the newest is met first.
    NewestFirst,
    /// An account trades with itself.
    TradeWithItself,
    /// What a cancelled order reserved stays reserved.
    KeepReserved,
    /// A post-only order may trade.
    PostOnlyTrades,
    /// A statement of an account's orders does not lead to the ones before it.
    ForgetStatements,
    /// An account's order that is not in the state is told not to be there.
    LookOnlyAtTheState,
    /// Accounts and books are shown before what they show is committed.
    ShowMarketBeforeRelease,
    /// Public events are told before their entry is committed.
    TellEventsBeforeRelease,
}

#[cfg(feature = "bugs")]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Leaves that rule out, in this thread.
    pub fn choose(bug: Option<Bug>) {
        CHOSEN.set(bug);
    }

    pub(crate) fn bug(asked: Bug) -> bool {
        CHOSEN.get() == Some(asked)
    }
}

#[cfg(feature = "bugs")]
pub(crate) use chosen::bug;
#[cfg(feature = "bugs")]
pub use chosen::choose;

/// Whether that rule is left out: never.
#[cfg(not(feature = "bugs"))]
#[inline(always)]
pub(crate) const fn bug(_: Bug) -> bool {
    false
}
