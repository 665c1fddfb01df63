//! May this record be written? What frontends propose, and what replicas check before they write it.
//!
//! Problem: frontends elect, but they face the outside: whoever has taken one over must not be able to change the
//! configuration.
//! Idea: a frontend only *proposes* a record, to the replica that would lead by it. That replica looks for itself, at the
//! register, at its own state, and for a rebuild at every other replica, and writes the record only if it could have
//! decided so too. Both sides use the same functions, so that they agree on what is allowed.
//! Rules kept: R1 and R3, the leader and `in_sync` come from the old `in_sync`, with the same disks; R7, nothing is
//! elected by a register that is older than anything known; R8, a register is rebuilt only from *all* replicas; R9, who
//! leads has everything that anyone was told of. And a leader that is heard is not replaced (the pre-vote).

use tradenet_schemas::ids::{Epoch, Leader, Member, Node, Nonce, ReplicaId, SeqNum};
use tradenet_schemas::message::{Configuration, Role, Status};

use crate::bugs::{Bug, bug};
use crate::{Slot, highest};

/// A frontend may know of so many more lost epochs than the replicas do.
const LOST_EPOCHS_MAX: u64 = 16;

/// What is said where replicas lost their disks.
pub(crate) const EMPTIED: &str =
    "the replicas are empty, but the register is not: if their data is really gone, tradenet recover";

/// Whether a record of the register can be built on: it is not older than its floor, nor than anything that the replicas
/// of `statuses` hold (R7).
///
/// Two records of one epoch mean that the register went back and gave the number again. Whether somebody served in the
/// lost one the floor tells: below the epoch, nobody did; else both have to be counted with. A replica that was elected by
/// one of them may have found the epoch contested.
pub(crate) fn stands<'a>(
    record: &Configuration,
    floor: &Slot<Epoch>,
    statuses: impl IntoIterator<Item = &'a Status>,
) -> bool {
    let floor_stands = floor.value().is_some_and(|floor| *floor <= record.epoch)
        || floor.is_missing() && record.epoch == Epoch(1)
        || bug(Bug::IgnoreTheFloor);
    let served = floor.value().is_some_and(|floor| *floor >= record.epoch);
    let outdated = |held: &Configuration| {
        held.epoch > record.epoch && !bug(Bug::IgnoreReportedEpochs)
            || held.epoch == record.epoch && held.nonce != record.nonce && served
    };
    let against = |status: &Status| {
        status
            .configuration
            .as_ref()
            .is_some_and(|held| outdated(held) || status.contested && held.epoch == record.epoch)
    };
    floor_stands && !statuses.into_iter().any(against)
}

/// Whether that record is the newest on the replica's disk.
pub(crate) fn holds(status: &Status, nonce: Nonce) -> bool {
    status.configuration.as_ref().is_some_and(|held| held.nonce == nonce)
}

/// Whether the replica, with the disk that it has, is in sync by that record.
fn is_named(status: &Status, held: &Configuration) -> bool {
    held.is_in_sync(status.id, status.store)
}

/// Whether that very process says so.
fn is_run_of(status: &Status, leader: Leader) -> bool {
    Leader { id: status.id, boot: status.boot } == leader
}

/// Whether the record is the newest on the disk of its own leader, which is alive.
fn leads(status: &Status, held: &Configuration) -> bool {
    is_run_of(status, held.leader) && holds(status, held.nonce)
}

/// What is known where a register that does not stand is to be written anew.
pub(crate) struct Evidence<'a> {
    /// What the register holds.
    pub(crate) configuration: &'a Slot<Configuration>,
    /// And its floor.
    pub(crate) floor: &'a Slot<Epoch>,
    /// What **all** replicas say of themselves, each behind the start.
    pub(crate) statuses: &'a [Status],
    /// The newest entry that anybody was told of, as far as the asker knows.
    pub(crate) seen: SeqNum,
}

/// Why nothing may be written in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unrepaired {
    /// Only the operator can go on; the text says why and how.
    Operator(String),
    /// It shows soon who goes on.
    NotYet(String),
}

/// What may be written in place of a register that does not stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rebuild {
    /// The record to go on from; none at the first start of all.
    pub(crate) newest: Option<Configuration>,
    /// The epoch of the new record.
    pub(crate) epoch: Epoch,
    /// The floor to write before it, and then to look at everything again: where there is none, and where it is the only proof
    /// that nobody serves by some record: whoever would begin finds it raised, and gives that up.
    pub(crate) floor: Option<Epoch>,
    /// No other record than the newest has its epoch: nobody can have raised a floor to it but by this one.
    pub(crate) sole: bool,
    /// The leader that serves in the newest record: it stays, with those who are in sync with it.
    pub(crate) serving: Option<Leader>,
    /// Who has every order, by id: any of them may lead, together with any others of them.
    pub(crate) fit: Vec<Status>,
}

impl Rebuild {
    /// Leader and in-sync set of the record to write: as they are where a leader serves, else all who are fit, and the
    /// highest id.
    pub(crate) fn choice(&self) -> Option<(Leader, Vec<Member>)> {
        if let (Some(leader), Some(newest)) = (self.serving, &self.newest) {
            return Some((leader, newest.in_sync.clone()));
        }
        let best = self.fit.iter().max_by_key(|status| status.id)?;
        let in_sync = self.fit.iter().map(|status| Member { id: status.id, store: status.store }).collect();
        Some((Leader { id: best.id, boot: best.boot }, in_sync))
    }

    fn allows(&self, target: &Configuration) -> bool {
        match (self.serving, &self.newest) {
            (Some(leader), Some(newest)) => target.leader == leader && target.in_sync == newest.in_sync,
            _ => target
                .in_sync
                .iter()
                .all(|member| self.fit.iter().any(|status| (status.id, status.store) == (member.id, member.store))),
        }
    }
}

/// Rules R7 and R8: what may be written where the register is missing, unreadable or older than what is known, and only
/// where nothing acknowledged can be missing.
///
/// # Errors
/// Something acknowledged may be missing, as far as can be told at present.
pub(crate) fn rebuild(evidence: &Evidence<'_>) -> Result<Rebuild, Unrepaired> {
    let Evidence { configuration: slot, floor, statuses, .. } = *evidence;
    let state = state(slot);
    // What the register still holds counts too: a leader that ended before it raised the floor for the first time leaves a
    // good record without any floor. A record that is on no disk was served by nobody.
    let held = || statuses.iter().filter_map(|status| status.configuration.as_ref());
    let all: Vec<_> = held().chain(slot.value()).collect();
    let newest = match bug(Bug::RebuildFromTheOldest) {
        true => all.iter().min_by_key(|held| held.epoch),
        false => all.iter().max_by_key(|held| held.epoch),
    };
    let Some(newest) = newest.copied() else {
        return first_start(evidence);
    };
    let twins: Vec<_> = all.iter().copied().filter(|other| other.epoch == newest.epoch).collect();
    let disks = |member: &Member| statuses.iter().any(|s| (s.id, s.store) == (member.id, member.store));
    let whole = twins.iter().flat_map(|held| &held.in_sync).all(disks);
    let floor_value = floor.value().copied().unwrap_or_default();
    if !whole || floor_value > newest.epoch {
        return Err(Unrepaired::Operator(format!(
            "the register {state}, and a disk that may hold acknowledged orders is gone. To go on with what the \
             replicas have: tradenet recover"
        )));
    }
    let seen = highest(statuses.iter().map(|status| status.committed).chain([evidence.seen]));
    let stand = standing(&twins, statuses);
    let unserved = is_unserved(&twins, floor, statuses);
    let newest = stand.first().copied().unwrap_or(newest);
    let sole = twins.iter().all(|held| held.nonce == newest.nonce);
    // Whichever of them was served in, who is in sync by each has every order. Where none was, all orders are older than
    // they are, and each of them names only who had every order then. But the register may have gone back by more than one
    // record, so that they follow two different ones: in which of those was served, the epoch of the last entry shows.
    let by_any = |status: &&Status| twins.iter().any(|held| is_named(status, held));
    let farthest = statuses.iter().filter(by_any).map(|status| status.tail.epoch).max().unwrap_or_default();
    let begun = twins.iter().any(|held| is_begun(held, statuses));
    let has_every_order = |status: &Status| {
        let by_those = if unserved { by_any(&status) } else { stand.iter().all(|held| is_named(status, held)) };
        by_those && (begun || twins.iter().all(|held| is_named(status, held)) || status.tail.epoch == farthest)
    };
    let older: Vec<_> = all.iter().copied().filter(|held| held.epoch < newest.epoch).collect();
    let unproven = !begun && (twins.iter().all(|held| !goes_on(held)) || floor_value < newest.epoch);
    let served = |held: &Configuration| unproven && may_have_served(held, floor, statuses);
    let follows = |status: &Status| {
        let has_what_was_served = |held: &Configuration| {
            is_behind(status, held, &all) || has_ended(held, statuses) && has_log_by(status, held, statuses)
        };
        older.iter().all(|held| !served(held) || has_what_was_served(held))
    };
    let fit =
        |status: &&Status| has_every_order(status) && follows(status) && status.tail.seq >= seen && !status.leaving;
    let fit: Vec<_> = statuses.iter().filter(fit).cloned().collect();
    // While a leader serves in that record, orders go on, and what was heard of the others is always a little old.
    let serves = |status: &Status| leads(status, newest) && status.role == Role::Leader && !status.contested;
    let alone = stand.iter().all(|held| held.nonce == newest.nonce);
    let serving = (alone && statuses.iter().any(serves)).then_some(newest.leader);
    if serving.is_none() && fit.is_empty() {
        return Err(match all.iter().find(|held| is_about_to_begin(held, statuses)) {
            Some(held) => Unrepaired::NotYet(format!(
                "the register {state}, and order-{} is about to begin in epoch {}, or to give that up",
                held.leader.id, held.epoch
            )),
            None => {
                Unrepaired::Operator(format!("the register {state}, and no replica has every order: tradenet recover"))
            }
        });
    }
    // Whoever served had its epoch on disk. A record that no replica has adopted may be lost again, and must not leave a
    // floor behind that nobody can explain.
    let adopted = held().map(|held| held.epoch).max().unwrap_or_default();
    // Of two records of one epoch, or of an older one that not everybody here follows.
    let may_begin = |held: &Configuration| {
        floor_value < held.epoch && !is_over(held, floor, statuses) && !has_ended(held, statuses)
    };
    let two = !sole && unserved && twins.iter().any(|held| may_begin(held));
    let astray = older.iter().any(|held| may_begin(held) && !fit.iter().all(|status| is_behind(status, held, &all)));
    let floor = match floor.value() {
        None => Some(adopted),
        Some(_) => (serving.is_none() && (two || astray)).then_some(newest.epoch),
    };
    Ok(Rebuild { newest: Some(newest.clone()), epoch: newest.epoch.next(), floor, sole, serving, fit })
}

/// Whether a replica has written the first entry of that epoch, as leader or from one.
fn is_begun(held: &Configuration, statuses: &[Status]) -> bool {
    statuses.iter().any(|status| holds(status, held.nonce) && status.tail.epoch == held.epoch)
}

/// Whether nobody has served by any of these records of one epoch: the floor, which a leader raises first, is below it, or
/// the leader has ended or given it up.
fn is_unserved(twins: &[&Configuration], floor: &Slot<Epoch>, statuses: &[Status]) -> bool {
    let below = |held: &Configuration| floor.value().is_some_and(|floor| *floor < held.epoch);
    twins.iter().all(|held| !is_begun(held, statuses) && (below(held) || is_void(held, statuses)))
        || twins.iter().all(|held| is_over(held, floor, statuses))
}

/// Whether nobody has served by that record, nor will: its leader has ended before its first entry, has given it up, or has not
/// taken it up, and will find the floor raised by another.
fn is_over(held: &Configuration, floor: &Slot<Epoch>, statuses: &[Status]) -> bool {
    let given_up = |status: &Status| leads(status, held) && status.contested;
    let raised = floor.value() == Some(&held.epoch);
    let too_late = |status: &Status| raised && is_run_of(status, held.leader) && is_before(status, held);
    let over = |status: &Status| given_up(status) || too_late(status);
    !is_begun(held, statuses) && (is_void(held, statuses) || statuses.iter().any(over))
}

/// Whether somebody may have served by an older record than the newest: the register may have gone back by several records before
/// anybody served in them, and then given the lower one of their epochs to others.
fn may_have_served(held: &Configuration, floor: &Slot<Epoch>, statuses: &[Status]) -> bool {
    let reached = floor.value().is_none_or(|floor| *floor >= held.epoch);
    let begun = statuses.iter().any(|status| status.tail.epoch == held.epoch);
    reached && (begun || goes_on(held) && !is_over(held, floor, statuses))
}

/// Whether the leader of that record is alive and has neither begun by it nor given it up.
fn is_about_to_begin(held: &Configuration, statuses: &[Status]) -> bool {
    statuses.iter().any(|status| leads(status, held) && status.role == Role::Activating && !status.contested)
}

/// Whether a replica has what was committed by an older record: it is named there, or was added later by the same leader, or
/// by one who had begun by then.
fn is_behind(status: &Status, held: &Configuration, all: &[&Configuration]) -> bool {
    let later = |other: &&&Configuration| other.epoch > held.epoch && other.leader == held.leader && goes_on(other);
    is_named(status, held)
        || status.tail.epoch >= held.epoch
        || all.iter().filter(later).any(|other| is_named(status, other))
}

/// Whether a replica has the very log of one who is in sync by that record, and so all that was committed by it so far.
fn has_log_by(status: &Status, held: &Configuration, statuses: &[Status]) -> bool {
    statuses.iter().any(|other| other.tail == status.tail && is_named(other, held))
}

/// Whoever is newly elected commits nothing before its first entry; a leader who goes on may have, without a new one.
fn goes_on(held: &Configuration) -> bool {
    held.by == Node::Order(held.leader.id, held.leader.boot)
}

/// Whether a later run than the leader of that record has its disk: with the record, or with an older one, which the leader never
/// wrote over with this.
fn has_ended(held: &Configuration, statuses: &[Status]) -> bool {
    later_run(held, statuses).any(|status| holds(status, held.nonce) || is_before(status, held))
}

/// Whether a leader has ended without having served by that record: its own disk, in the hands of a later run, does not have it, which
/// it would have before anything else (R4); or it was newly elected, and its first entry is not there. What others say may be older
/// than what it did.
fn is_void(held: &Configuration, statuses: &[Status]) -> bool {
    let without = |status: &Status| !goes_on(held) && holds(status, held.nonce) && status.tail.epoch < held.epoch;
    later_run(held, statuses).any(|status| without(status) || is_before(status, held))
}

/// Whether the newest record on the replica's disk is of an epoch before that one's.
fn is_before(status: &Status, held: &Configuration) -> bool {
    status.configuration.as_ref().is_none_or(|own| own.epoch < held.epoch)
}

/// Another run than the leader of that record, on its disk.
fn later_run<'a>(held: &Configuration, statuses: &'a [Status]) -> impl Iterator<Item = &'a Status> {
    let Leader { id, boot } = held.leader;
    let store = held.in_sync_member(id).map(|member| member.store);
    statuses.iter().filter(move |status| status.id == id && Some(status.store) == store && status.boot != boot)
}

/// The register went back and gave an epoch's number twice: those of the records by which somebody may have served. The
/// floor lets only one of them begin, and all replicas have answered.
fn standing<'a>(twins: &[&'a Configuration], statuses: &[Status]) -> Vec<&'a Configuration> {
    let begun = |held: &Configuration| is_begun(held, statuses);
    let contested = |held: &Configuration| statuses.iter().any(|s| s.contested && holds(s, held.nonce));
    let those = |which: &dyn Fn(&Configuration) -> bool| -> Option<Vec<&'a Configuration>> {
        let found: Vec<_> = twins.iter().filter(|held| which(held)).copied().collect();
        (!found.is_empty()).then_some(found)
    };
    let goes_on = |held: &Configuration| goes_on(held) && !contested(held);
    // Where another leader may still begin, both have to be counted with.
    let decided = twins.iter().all(|held| goes_on(held) || contested(held) || is_void(held, statuses));
    those(&begun)
        .or_else(|| those(&goes_on).filter(|_| decided))
        .or_else(|| those(&|held| !contested(held) && !is_void(held, statuses)))
        .or_else(|| those(&|held| !contested(held)))
        .unwrap_or_else(|| twins.to_vec())
}

/// The very first start: every replica is empty, and so is the register.
fn first_start(evidence: &Evidence<'_>) -> Result<Rebuild, Unrepaired> {
    let fresh = evidence.statuses.iter().all(|status| status.tail.seq == SeqNum(0));
    if !evidence.configuration.is_missing() || !evidence.floor.is_missing() || !fresh {
        return Err(Unrepaired::Operator(EMPTIED.to_owned()));
    }
    Ok(Rebuild {
        newest: None,
        epoch: Epoch(1),
        floor: None,
        sole: true,
        serving: None,
        fit: evidence.statuses.to_vec(),
    })
}

/// What is wrong with a register that does not stand, for people.
pub(crate) fn state(slot: &Slot<Configuration>) -> &'static str {
    match slot {
        Slot::BucketMissing | Slot::KeyMissing => "is empty",
        Slot::Unreadable { .. } => "can't be read",
        Slot::Present { .. } => "or its floor is older than what the replicas know",
    }
}

/// Why a replica does not write what a frontend proposes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Only who would lead writes it.
    #[error("it names another process as leader")]
    NotMine,
    /// This replica is starting, leaving, or misses what it was told of.
    #[error("this replica is not fit to lead")]
    Unfit,
    /// Another exchange's record, or one with other replicas.
    #[error("it is of another exchange")]
    Foreign,
    /// Each record's epoch is the one before plus one.
    #[error("its epoch does not follow")]
    Epoch,
    /// Leader or in-sync set are not of the old in-sync set with its disks (R1, R3).
    #[error("it names a disk that may lack orders")]
    NotInSync,
    /// The leader is heard, so it stays (pre-vote).
    #[error("the present leader is heard")]
    LeaderHeard,
    /// The register is to be written anew, and what all replicas say does not show that it may be.
    #[error("the replicas' state does not allow to write the register anew")]
    NoRebuild,
}

/// What the replica that would lead knows of itself.
pub(crate) struct Heir<'a> {
    /// How it is.
    pub(crate) status: &'a Status,
    /// All replicas of the exchange, by id.
    pub(crate) members: &'a [ReplicaId],
    /// The leader that it has lately agreed to replace.
    pub(crate) agreed: Option<Leader>,
}

impl Heir<'_> {
    /// What holds for every record that it may write.
    ///
    /// # Errors
    /// What does not hold.
    pub(crate) fn may_lead(&self, target: &Configuration) -> Result<(), Refusal> {
        let Status { id, boot, store, .. } = *self.status;
        let ordered = target.in_sync.is_sorted_by(|one, other| one.id < other.id);
        let unfit = self.status.role == Role::Starting
            || self.status.leaving
            || self.status.tail.seq < self.status.committed && !bug(Bug::ElectShortTails);
        if (target.leader.id, target.leader.boot) != (id, boot) {
            return Err(Refusal::NotMine);
        }
        if unfit {
            return Err(Refusal::Unfit);
        }
        if target.members != self.members {
            return Err(Refusal::Foreign);
        }
        if !ordered || !target.is_in_sync(id, store) {
            return Err(Refusal::NotInSync);
        }
        Ok(())
    }

    /// Whether `target` may replace `held`, a record that stands: an election.
    ///
    /// # Errors
    /// Which rule is against it.
    pub(crate) fn may_follow(&self, held: &Configuration, target: &Configuration) -> Result<(), Refusal> {
        self.may_lead(target)?;
        if target.cluster != held.cluster {
            return Err(Refusal::Foreign);
        }
        if target.epoch != held.epoch.next() {
            return Err(Refusal::Epoch);
        }
        let from_old = |member: &Member| {
            held.is_in_sync(member.id, member.store)
                || bug(Bug::ElectFromAnyone)
                || bug(Bug::ElectAnyStore) && held.in_sync_member(member.id).is_some()
        };
        if !target.in_sync.iter().all(from_old) {
            return Err(Refusal::NotInSync);
        }
        // One that was elected and never heard of it may be elected again.
        let never_took_it_up = held.leader == target.leader
            && self.status.configuration.as_ref().is_none_or(|own| own.nonce != held.nonce);
        if self.agreed != Some(held.leader) && !never_took_it_up {
            return Err(Refusal::LeaderHeard);
        }
        Ok(())
    }

    /// Whether `target` may be written where the register does not stand.
    ///
    /// # Errors
    /// Which rule is against it.
    pub(crate) fn may_rebuild(&self, rebuild: &Rebuild, target: &Configuration) -> Result<(), Refusal> {
        self.may_lead(target)?;
        if rebuild.newest.as_ref().is_some_and(|newest| newest.cluster != target.cluster) {
            return Err(Refusal::Foreign);
        }
        let ahead = target.epoch.0.checked_sub(rebuild.epoch.0);
        let ahead_max = if rebuild.newest.is_some() { LOST_EPOCHS_MAX } else { 0 };
        if ahead.is_none_or(|ahead| ahead > ahead_max) {
            return Err(Refusal::Epoch);
        }
        if rebuild.allows(target) { Ok(()) } else { Err(Refusal::NoRebuild) }
    }
}

#[cfg(test)]
mod tests {
    use tradenet_schemas::ids::{Boot, Chain, ClusterId, Position, StoreId};

    use super::*;

    fn id(id: u8) -> ReplicaId {
        ReplicaId::new(id).unwrap_or_else(|| panic!("{id} is no id"))
    }

    fn member(number: u8) -> Member {
        Member { id: id(number), store: StoreId(u64::from(number)) }
    }

    /// The run of that replica that is alive.
    fn leader(number: u8) -> Leader {
        Leader { id: id(number), boot: Boot(100 + u64::from(number)) }
    }

    fn record(epoch: u64, leads: u8, in_sync: &[u8]) -> Configuration {
        Configuration {
            cluster: ClusterId(1),
            epoch: Epoch(epoch),
            nonce: Nonce(epoch),
            leader: leader(leads),
            in_sync: in_sync.iter().map(|&number| member(number)).collect(),
            members: vec![id(1), id(2), id(3)],
            by: Node::Frontend(Boot(9)),
            why: String::new(),
            at: 0,
        }
    }

    fn status(number: u8, held: Option<Configuration>, tail: u64) -> Status {
        let Leader { id, boot } = leader(number);
        Status {
            id,
            boot,
            store: member(number).store,
            role: Role::Follower,
            configuration: held,
            tail: Position { seq: SeqNum(tail), ..Position::default() },
            durable: SeqNum(tail),
            committed: SeqNum(0),
            applied: SeqNum(0),
            released: SeqNum(0),
            catalog: None,
            contested: false,
            unlisted: false,
            leaving: false,
            trouble: None,
        }
    }

    fn present<T>(value: T) -> Slot<T> {
        Slot::Present { value, revision: 7 }
    }

    #[test]
    fn a_record_stands_unless_its_floor_or_a_replica_knows_better() {
        #[track_caller]
        fn check(epoch: u64, floor: Option<u64>, held: Option<Configuration>, expected: bool) {
            let floor = floor.map_or(Slot::KeyMissing, |floor| present(Epoch(floor)));
            assert_eq!(stands(&record(epoch, 3, &[3]), &floor, &[status(1, held, 0)]), expected);
        }
        let twin = Configuration { nonce: Nonce(99), ..record(5, 2, &[2]) };
        check(5, Some(5), None, true);
        check(5, Some(4), Some(record(4, 3, &[3])), true);
        check(5, Some(6), None, false);
        check(5, None, None, false);
        check(1, None, None, true);
        check(5, Some(4), Some(record(6, 3, &[3])), false);
        check(5, Some(5), Some(twin.clone()), false);
        check(5, Some(4), Some(twin), true);
    }

    #[test]
    fn the_heir_writes_only_what_may_follow() {
        /// order-3 led epoch 5, and order-2 is asked to write `target`.
        #[track_caller]
        fn check(
            change: impl FnOnce(&mut Configuration, &mut Status, &mut Option<Leader>),
            expected: Result<(), Refusal>,
        ) {
            let held = record(5, 3, &[1, 2, 3]);
            let (mut target, mut own) = (record(6, 2, &[1, 2]), status(2, Some(held.clone()), 9));
            let mut agreed = Some(held.leader);
            change(&mut target, &mut own, &mut agreed);
            let heir = Heir { status: &own, members: &held.members, agreed };
            assert_eq!(heir.may_follow(&held, &target), expected);
        }
        check(|_, _, _| {}, Ok(()));
        check(|target, _, _| target.in_sync = vec![member(2)], Ok(()));
        check(|_, _, agreed| *agreed = None, Err(Refusal::LeaderHeard));
        check(|_, _, agreed| *agreed = Some(leader(1)), Err(Refusal::LeaderHeard));
        check(|target, _, _| target.leader = leader(1), Err(Refusal::NotMine));
        check(|target, _, _| target.leader.boot = Boot(1), Err(Refusal::NotMine));
        check(|_, own, _| own.role = Role::Starting, Err(Refusal::Unfit));
        check(|_, own, _| own.leaving = true, Err(Refusal::Unfit));
        check(|_, own, _| own.committed = SeqNum(10), Err(Refusal::Unfit));
        check(|_, own, _| own.store = StoreId(77), Err(Refusal::NotInSync));
        check(|target, _, _| target.in_sync[0].store = StoreId(77), Err(Refusal::NotInSync));
        check(|target, _, _| target.in_sync = vec![member(1)], Err(Refusal::NotInSync));
        check(|target, _, _| target.in_sync.reverse(), Err(Refusal::NotInSync));
        check(|target, _, _| target.epoch = Epoch(7), Err(Refusal::Epoch));
        check(|target, _, _| target.epoch = Epoch(5), Err(Refusal::Epoch));
        check(|target, _, _| target.cluster = ClusterId(2), Err(Refusal::Foreign));
        check(|target, _, _| target.members = vec![id(2)], Err(Refusal::Foreign));
    }

    #[test]
    fn a_register_is_written_anew_only_from_what_all_replicas_hold() {
        /// The register is empty, and order-2 is asked to write `target`; what the replicas hold.
        #[track_caller]
        fn check(held: [Option<Configuration>; 3], target: &Configuration, expected: Result<(), Refusal>) {
            let numbered = (1..).zip(held);
            let statuses: Vec<_> = numbered.map(|(number, held)| status(number, held, u64::from(number))).collect();
            let (configuration, floor) = (Slot::BucketMissing, Slot::BucketMissing);
            let seen = SeqNum(0);
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let members = [id(1), id(2), id(3)];
            let heir = Heir { status: &statuses[1], members: &members, agreed: None };
            let allowed = rebuild(&evidence).map_err(|_| Refusal::NoRebuild);
            assert_eq!(allowed.and_then(|rebuild| heir.may_rebuild(&rebuild, target)), expected);
        }
        let (old, new) = (record(4, 1, &[1, 2, 3]), record(5, 3, &[2, 3]));
        let held = || [Some(old.clone()), Some(new.clone()), Some(new.clone())];
        check(held(), &record(6, 2, &[2, 3]), Ok(()));
        check(held(), &record(6, 2, &[2]), Ok(()));
        check(held(), &record(6 + LOST_EPOCHS_MAX, 2, &[2]), Ok(()));
        check(held(), &record(7 + LOST_EPOCHS_MAX, 2, &[2]), Err(Refusal::Epoch));
        check(held(), &record(5, 2, &[2]), Err(Refusal::Epoch));
        check(held(), &record(6, 2, &[1, 2]), Err(Refusal::NoRebuild));
        check(held(), &record(6, 3, &[2, 3]), Err(Refusal::NotMine));
        // order-3's disk is another one than the record names.
        let gone =
            Configuration { in_sync: vec![member(2), Member { store: StoreId(77), ..member(3) }], ..new.clone() };
        check([None, Some(gone), None], &record(6, 2, &[2]), Err(Refusal::NoRebuild));
        // Nobody holds anything, and order-1 has entries: this is no first start.
        check([None, None, None], &record(1, 2, &[1, 2, 3]), Err(Refusal::NoRebuild));
    }

    #[test]
    fn of_an_epoch_that_was_given_twice_who_is_named_by_one_record_may_lead_if_the_floor_is_below_both() {
        /// The register went back to epoch 4, which order-3 led with all in sync, and gave 5 to order-1 and to order-2, each
        /// in sync alone; the floor, whether order-2 has begun, and who may lead.
        #[track_caller]
        fn check(floor: Option<u64>, begun: bool, expected: &[u8]) {
            check_ended(floor, begun, &[], expected);
        }

        /// The same, where those leaders have ended, and others run on their disks.
        #[track_caller]
        fn check_ended(floor: Option<u64>, begun: bool, ended: &[usize], expected: &[u8]) {
            let (one, two) = (record(5, 1, &[1]), Configuration { nonce: Nonce(99), ..record(5, 2, &[2]) });
            let mut statuses = [status(1, Some(one.clone()), 9), status(2, Some(two), 9), status(3, Some(one), 9)];
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            statuses[1].tail.epoch = Epoch(if begun { 5 } else { 4 });
            for number in ended {
                statuses[number - 1].boot = Boot(99);
            }
            let (configuration, seen) = (present(record(4, 3, &[1, 2, 3])), SeqNum(9));
            let floor = floor.map_or(Slot::KeyMissing, |floor| present(Epoch(floor)));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let fit = rebuild(&evidence).map_or_else(|_| Vec::new(), |rebuild| rebuild.fit);
            assert_eq!(fit.iter().map(|status| status.id.get()).collect::<Vec<_>>(), expected);
        }
        check(Some(4), false, &[1, 2]);
        check(Some(5), false, &[]);
        check(None, false, &[]);
        check(Some(5), true, &[2]);
        check(Some(4), true, &[2]);
        // Who ended before its first entry has served nobody; who still runs may begin at any moment.
        check_ended(Some(5), false, &[1], &[2]);
        check_ended(Some(5), false, &[2], &[1]);
        check_ended(Some(5), false, &[1, 2], &[1, 2]);
        check_ended(None, false, &[1, 2], &[1, 2]);
        check_ended(Some(5), true, &[1, 2], &[2]);
    }

    #[test]
    fn of_an_epoch_that_was_given_twice_after_two_others_only_who_has_entries_of_the_last_one_may_lead() {
        /// The register went back to epoch 4 and gave 5 and 6 to order-1 and to order-2, whose logs end in `tails`; of
        /// the leaders of 6 those have ended before its first entry, and order-1 serves nobody if it is contested.
        #[track_caller]
        fn check(tails: [u64; 2], floor: u64, ended: &[usize], contested: bool, expected: &[u8]) {
            let (one, two) = (record(6, 1, &[1]), Configuration { nonce: Nonce(99), ..record(6, 2, &[2]) });
            let mut statuses = [status(1, Some(one), 9), status(2, Some(two), 9), status(3, None, 9)];
            statuses.iter_mut().zip(tails).for_each(|(status, epoch)| status.tail.epoch = Epoch(epoch));
            ended.iter().for_each(|number| statuses[number - 1].boot = Boot(99));
            statuses[0].contested = contested;
            let (configuration, floor, seen) = (present(record(4, 3, &[1, 2, 3])), present(Epoch(floor)), SeqNum(9));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let fit = rebuild(&evidence).map_or_else(|_| Vec::new(), |rebuild| rebuild.fit);
            assert_eq!(fit.iter().map(|status| status.id.get()).collect::<Vec<_>>(), expected);
        }
        check([4, 4], 6, &[1, 2], false, &[1, 2]);
        check([4, 5], 6, &[1, 2], false, &[2]);
        check([5, 4], 6, &[1, 2], false, &[1]);
        check([4, 5], 5, &[], false, &[2]);
        // order-1 may still begin by its record, and lacks what order-2 has.
        check([4, 5], 6, &[2], false, &[]);
        check([4, 4], 6, &[2], false, &[1]);
        // It says that it will not.
        check([4, 4], 6, &[2], true, &[1, 2]);
        check([5, 4], 6, &[2], true, &[1]);
    }

    #[test]
    fn that_nobody_begins_by_an_epoch_that_was_given_twice_is_made_sure_of_before_anybody_else_is_elected() {
        /// The register went back to epoch 4 and gave 5 to order-1 and to order-2, each in sync alone. Which floor is written
        /// first, and who may lead.
        #[track_caller]
        fn check(floor: u64, change: impl FnOnce(&mut [Status; 3]), expected: (Option<u64>, &[u8])) {
            let (one, two) = (record(5, 1, &[1]), Configuration { nonce: Nonce(99), ..record(5, 2, &[2]) });
            let mut statuses = [status(1, Some(one.clone()), 9), status(2, Some(two), 9), status(3, Some(one), 9)];
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            change(&mut statuses);
            let (configuration, floor, seen) = (present(record(4, 3, &[1, 2, 3])), present(Epoch(floor)), SeqNum(9));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let (floor, fit) = rebuild(&evidence).map_or((None, Vec::new()), |rebuild| (rebuild.floor, rebuild.fit));
            let fit: Vec<_> = fit.iter().map(|status| status.id.get()).collect();
            assert_eq!((floor, &fit[..]), (expected.0.map(Epoch), expected.1));
        }
        let end = |statuses: &mut [Status; 3], number: usize| statuses[number - 1].boot = Boot(99);
        let give_up = |statuses: &mut [Status; 3], number: usize| statuses[number - 1].contested = true;
        check(4, |_| {}, (Some(5), &[1, 2]));
        check(4, |statuses| end(statuses, 1), (Some(5), &[1, 2]));
        // Raised, by the clerk or by one of the two leaders, who may have begun and not yet have an entry.
        check(5, |_| {}, (None, &[]));
        check(5, |statuses| give_up(statuses, 1), (None, &[2]));
        check(5, |statuses| [1, 2].iter().for_each(|number| give_up(statuses, *number)), (None, &[1, 2]));
        check(5, |statuses| (end(statuses, 1), give_up(statuses, 2)).0, (None, &[1, 2]));
        // Its leader does not know of it yet.
        let not_taken_up = |statuses: &mut [Status; 3]| {
            statuses[0].configuration = Some(record(4, 3, &[1, 2, 3]));
            give_up(statuses, 2);
        };
        check(5, not_taken_up, (None, &[1, 2]));
        // It has begun in between.
        check(5, |statuses| statuses[0].tail.epoch = Epoch(5), (None, &[1]));
        // Nobody is left who could begin.
        check(4, |statuses| [1, 2].iter().for_each(|number| end(statuses, *number)), (None, &[1, 2]));
    }

    #[test]
    fn who_leads_by_a_record_that_nobody_served_in_has_what_was_served_by_an_older_one_that_it_may_not_follow() {
        /// order-2 was elected in 5 and then in 6, and the register lost both; then order-1 got 5. The floor, where the logs of the
        /// two end, who is in sync by the 5 of order-1, and who may lead.
        #[track_caller]
        fn check(floor: Option<u64>, tails: [u64; 2], in_sync: &[u8], goes_on: bool, expected: &[u8]) {
            let (mut five, six) = (record(5, 1, in_sync), record(6, 2, &[2]));
            if goes_on {
                five.by = Node::Order(five.leader.id, five.leader.boot);
            }
            let mut statuses = [status(1, Some(five), 9), status(2, Some(six), 9), status(3, None, 9)];
            statuses.iter_mut().zip(tails).for_each(|(status, epoch)| status.tail.epoch = Epoch(epoch));
            let (configuration, seen) = (present(record(4, 3, &[1, 2, 3])), SeqNum(9));
            let floor = floor.map_or(Slot::KeyMissing, |floor| present(Epoch(floor)));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let fit = rebuild(&evidence).map_or_else(|_| Vec::new(), |rebuild| rebuild.fit);
            assert_eq!(fit.iter().map(|status| status.id.get()).collect::<Vec<_>>(), expected);
        }
        check(Some(5), [5, 4], &[1], false, &[]);
        check(None, [5, 4], &[1], false, &[]);
        check(Some(5), [4, 4], &[1], true, &[]);
        // The floor: nobody has served in 5 either.
        check(Some(4), [5, 4], &[1], false, &[2]);
        // 6 was begun, so that nobody can have served in 5 behind it.
        check(Some(6), [5, 6], &[1], false, &[2]);
        // It is in sync by 5, too, so that nothing was committed in it without it.
        check(Some(5), [5, 4], &[1, 2], false, &[2]);
        check(Some(5), [5, 5], &[1], false, &[2]);
        check(Some(5), [4, 4], &[1], false, &[2]);
    }

    #[test]
    fn a_leader_of_an_older_record_that_may_still_begin_is_kept_from_it_first() {
        /// order-2 was elected in 6, which the register lost, and order-1 is about to begin in 5: which floor is written.
        #[track_caller]
        fn check(in_sync: &[u8], change: impl FnOnce(&mut [Status; 3]), expected: Option<u64>) {
            let (five, six) = (record(5, 1, in_sync), record(6, 2, &[2]));
            let mut statuses = [status(1, Some(five.clone()), 9), status(2, Some(six), 9), status(3, None, 9)];
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            change(&mut statuses);
            let (configuration, floor, seen) = (present(five), present(Epoch(4)), SeqNum(9));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            assert_eq!(rebuild(&evidence).map(|rebuild| rebuild.floor), Ok(expected.map(Epoch)));
        }
        check(&[1], |_| {}, Some(6));
        check(&[1], |statuses| statuses[0].contested = true, None);
        check(&[1], |statuses| statuses[0].boot = Boot(99), None);
        // It needs the word of order-2.
        check(&[1, 2], |_| {}, None);
    }

    #[test]
    fn a_leader_that_goes_on_is_not_preferred_to_one_that_was_elected_in_the_same_epoch_and_may_begin() {
        /// order-3 led 4 and went on in 5 with order-1; the register went back and gave 5 to order-2, with order-1. Who may lead.
        #[track_caller]
        fn check(change: impl FnOnce(&mut [Status; 3]), expected: Result<&[u8], bool>) {
            let five = record(5, 3, &[1, 3]);
            let goes_on = Configuration { by: Node::Order(five.leader.id, five.leader.boot), ..five };
            let elected = Configuration { nonce: Nonce(99), ..record(5, 2, &[1, 2]) };
            let mut statuses =
                [status(1, Some(elected.clone()), 9), status(2, Some(elected), 9), status(3, Some(goes_on), 9)];
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            (statuses[1].role, statuses[2].boot) = (Role::Activating, Boot(99));
            change(&mut statuses);
            let (configuration, floor, seen) = (present(record(4, 3, &[1, 2, 3])), present(Epoch(5)), SeqNum(9));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let found = match rebuild(&evidence) {
                Ok(rebuild) => Ok(rebuild.fit.iter().map(|status| status.id.get()).collect::<Vec<_>>()),
                Err(why) => Err(matches!(why, Unrepaired::NotYet(_))),
            };
            assert_eq!(found.as_deref().map_err(|not_yet| *not_yet), expected);
        }
        // order-1 has what was committed by either.
        check(|_| {}, Ok(&[1]));
        check(|statuses| statuses[0].leaving = true, Err(true));
        check(|statuses| statuses[1].contested = true, Ok(&[1, 3]));
        check(|statuses| statuses[1].boot = Boot(77), Ok(&[1, 3]));
        check(|statuses| statuses[1].tail.epoch = Epoch(5), Ok(&[1, 2]));
        // It serves by the record before, and is not known to do so by this one.
        let serves = |statuses: &mut [Status; 3]| {
            (statuses[2].role, statuses[2].boot) = (Role::Leader, leader(3).boot);
            statuses[0].leaving = true;
        };
        check(serves, Err(true));
    }

    #[test]
    fn who_has_the_log_of_one_that_an_older_record_names_has_what_was_committed_by_it_once_its_leader_has_ended() {
        /// order-1 went on alone in 5, and order-2 leads 6, which does not follow it as far as anybody holds. Who may lead.
        #[track_caller]
        fn check(ended: bool, chain: u64, expected: &[u8]) {
            let five = record(5, 1, &[1]);
            let five = Configuration { by: Node::Order(five.leader.id, five.leader.boot), ..five };
            let mut statuses = [status(1, Some(five), 9), status(2, Some(record(6, 2, &[2])), 9), status(3, None, 9)];
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            statuses[0].tail.chain = Chain(chain);
            if ended {
                statuses[0].boot = Boot(99);
            }
            let (configuration, floor, seen) = (Slot::KeyMissing, present(Epoch(5)), SeqNum(9));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let fit = rebuild(&evidence).map_or_else(|_| Vec::new(), |rebuild| rebuild.fit);
            assert_eq!(fit.iter().map(|status| status.id.get()).collect::<Vec<_>>(), expected);
        }
        check(true, 0, &[2]);
        check(true, 7, &[]);
        check(false, 0, &[]);
    }

    #[test]
    fn who_was_added_by_the_leader_of_an_older_record_has_what_was_committed_by_it_without_an_entry_of_that_epoch() {
        /// order-3 leads from 4 on, and goes on alone in 6; then order-1 is added by a record that order-3 holds, and elected in 8.
        #[track_caller]
        fn check(adds: impl FnOnce(&mut Configuration), expected: &[u8]) {
            let goes_on = |epoch, in_sync: &[u8]| {
                let held = record(epoch, 3, in_sync);
                Configuration { by: Node::Order(held.leader.id, held.leader.boot), ..held }
            };
            let (six, mut seven, eight) = (goes_on(6, &[3]), goes_on(7, &[1, 3]), record(8, 1, &[1]));
            adds(&mut seven);
            let mut statuses = [status(1, Some(eight), 9), status(2, Some(six), 9), status(3, Some(seven), 9)];
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            statuses[2].boot = Boot(99);
            let (configuration, floor, seen) = (Slot::KeyMissing, present(Epoch(7)), SeqNum(9));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let fit = rebuild(&evidence).map_or_else(|_| Vec::new(), |rebuild| rebuild.fit);
            assert_eq!(fit.iter().map(|status| status.id.get()).collect::<Vec<_>>(), expected);
        }
        check(|_| {}, &[1]);
        check(|seven| seven.leader.boot = Boot(55), &[]);
        check(|seven| seven.in_sync = vec![member(3)], &[]);
    }

    #[test]
    fn a_leader_who_goes_on_or_whose_disk_says_nothing_of_the_record_may_have_served_though_it_has_ended() {
        /// What another run on the leader's disk says.
        #[track_caller]
        fn check(change: impl FnOnce(&mut Configuration, &mut Status), expected: bool) {
            let mut held = record(5, 1, &[1]);
            let mut later = Status { boot: Boot(99), ..status(1, Some(held.clone()), 9) };
            later.tail.epoch = Epoch(4);
            change(&mut held, &mut later);
            assert_eq!(is_void(&held, &[later, status(2, Some(held.clone()), 9)]), expected);
        }
        check(|_, _| {}, true);
        check(|held, _| held.by = Node::Order(held.leader.id, held.leader.boot), false);
        check(|held, later| later.boot = held.leader.boot, false);
        check(|_, later| later.configuration = Some(record(6, 1, &[1])), false);
        // It never had the record on disk.
        check(|_, later| later.configuration = Some(record(4, 1, &[1])), true);
        check(|_, later| later.configuration = None, true);
        check(|_, later| later.tail.epoch = Epoch(5), false);
        check(|_, later| later.store = StoreId(77), false);
    }
}
