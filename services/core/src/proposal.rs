//! May this record be written? What frontends propose, and what replicas check before they write it.
//!
//! Problem: frontends elect, but they face the outside: whoever has taken one over must not be able to change the
//! configuration. And the register may go back: then records are decided by one that others have served behind.
//! Idea: a frontend only *proposes* a record, to the replica that would lead by it. That replica looks for itself, at the
//! register, at its own state, and for a rebuild at every other replica, and writes the record only if it could have
//! decided so too. Both sides use the same functions, so that they agree on what is allowed. What the register shows is never
//! trusted for who has served: that is the *floor*, which each leader takes from a record that its own follows, and from no other
//! (ADR 13). The records that took it are one chain, whatever else was written.
//! Rules kept: R1 and R3, the leader and `in_sync` come from the old `in_sync`, with the same disks; R7, nothing is
//! elected by a register that is older than anything known; R8, a register is rebuilt only from *all* replicas; R9, who
//! leads has everything that anyone was told of. And a leader that is heard is not replaced (the pre-vote).

use tradenet_schemas::ids::{Epoch, Leader, Member, Node, Nonce, ReplicaId, SeqNum};
use tradenet_schemas::limits::FOLLOWED_MAX;
use tradenet_schemas::message::{Configuration, Floor, RecordId, Role, Status};

use crate::bugs::{Bug, bug};
use crate::{Slot, highest};

/// A frontend may know of so many more lost epochs than the replicas do.
const LOST_EPOCHS_MAX: u64 = 16;

/// What is said where replicas lost their disks.
pub(crate) const EMPTIED: &str =
    "the replicas are empty, but the register is not: if their data is really gone, tradenet recover";

/// Whether a record of the register can be built on: it has the floor, or may take it, and is not older than anything that the
/// replicas of `statuses` hold (R7).
///
/// Where the register went back and gave an epoch again, a replica may hold another record of it, and would never take this one on: once it
/// is served by, or where it is the leader that does not, the next record has to come.
pub(crate) fn stands<'a>(
    record: &Configuration,
    floor: &Slot<Floor>,
    statuses: impl IntoIterator<Item = &'a Status>,
) -> bool {
    let floor_stands = match floor.value() {
        Some(floor) => floor.is(record) || may_take(record, floor) || is_of_old(record, floor),
        None => floor.is_missing() && record.epoch == Epoch(1) || bug(Bug::IgnoreTheFloor),
    };
    let served = floor.value().is_some_and(|floor| floor.is(record));
    let outdated = |status: &Status, held: &Configuration| {
        let leads = is_run_of(status, record.leader);
        held.epoch > record.epoch && !bug(Bug::IgnoreReportedEpochs)
            || held.epoch == record.epoch && held.nonce != record.nonce && (served || leads)
    };
    let knows_better = |status: &Status| status.configuration.as_ref().is_some_and(|held| outdated(status, held));
    floor_stands && !statuses.into_iter().any(knows_better)
}

/// Whether the leader of that record may take the floor, as that stands.
pub(crate) fn may_take(record: &Configuration, floor: &Floor) -> bool {
    record.may_take(floor) || bug(Bug::IgnoreTheFloor)
}

/// Both are of a release whose records did not say whom they follow, and whose floors had no more than an epoch.
fn is_of_old(record: &Configuration, floor: &Floor) -> bool {
    floor.record().is_none() && record.follows.is_empty() && floor.epoch() <= record.epoch
}

/// Whom a record follows that is decided by this one, newest first: it, and what it follows itself but for what is older than the
/// floor. Where too many leaders in a row have not got to take it, those in the middle are left out: whoever of them does so in the
/// end makes the register one that does not stand, and it is repaired.
pub(crate) fn followed(record: &Configuration, floor: &Slot<Floor>) -> Vec<RecordId> {
    let epoch = floor.value().map(Floor::epoch).unwrap_or_default();
    let not_older = |id: &&RecordId| id.epoch >= epoch;
    let mut followed = vec![record.id()];
    if !floor.value().is_some_and(|floor| floor.is(record)) {
        followed.extend(record.follows.iter().filter(not_older).take(FOLLOWED_MAX - 1));
        if let (Some(oldest), Some(last)) = (record.follows.iter().rfind(not_older), followed.last_mut()) {
            *last = *oldest;
        }
    }
    followed
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

/// The record on the disk of a replica that leads by it, or is about to.
fn leads_by(status: &Status) -> Option<&Configuration> {
    let leads = matches!(status.role, Role::Leader | Role::Activating);
    status.configuration.as_ref().filter(|_| leads)
}

/// What is known where a register that does not stand is to be written anew.
pub(crate) struct Evidence<'a> {
    /// What the register holds.
    pub(crate) configuration: &'a Slot<Configuration>,
    /// And its floor.
    pub(crate) floor: &'a Slot<Floor>,
    /// What **all** replicas say of themselves, each behind the start.
    pub(crate) statuses: &'a [Status],
    /// The newest entry that anybody was told of, as far as the asker knows.
    pub(crate) seen: SeqNum,
}

impl<'a> Evidence<'a> {
    /// All records that are known. What the register still holds counts too: a leader that ended before it took the first floor of
    /// all leaves a good record without any. A record that is on no disk was served by nobody.
    fn records(&self) -> impl Iterator<Item = &'a Configuration> {
        let held = self.statuses.iter().filter_map(|status| status.configuration.as_ref());
        let before = self.statuses.iter().filter_map(|status| status.written_by.as_deref());
        held.chain(before).chain(self.configuration.value()).chain(self.floor.value().and_then(Floor::record))
    }
}

/// Why nothing may be written in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unrepaired {
    /// Only the operator can go on; the text says why and how.
    Operator(String),
    /// It shows soon who goes on.
    NotYet(String),
}

/// What is done with the floor before a record is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FloorFirst {
    /// It stands.
    Stands,
    /// It was lost under a leader that serves: its record is put back, and everything looked at again.
    PutBack(Box<Configuration>),
    /// It was lost, and nobody serves: a record of that epoch is put there, which no known one follows, and which follows those of
    /// its epoch, with those in sync who have every order. From then on nobody can begin by any other, and everything is looked
    /// at again.
    Anew(Epoch),
}

/// What may be written in place of a register that does not stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rebuild {
    /// The newest record known; none at the first start of all.
    pub(crate) newest: Option<Configuration>,
    /// The epoch of the new record.
    pub(crate) epoch: Epoch,
    /// Whom it follows.
    pub(crate) follows: Vec<RecordId>,
    /// What has to be done before.
    pub(crate) floor: FloorFirst,
    /// The record by which a leader serves: it stays, with those who are in sync with it.
    pub(crate) serving: Option<Configuration>,
    /// Who has every order, by id: any of them may lead, together with any others of them.
    pub(crate) fit: Vec<Status>,
}

impl Rebuild {
    /// Leader and in-sync set of the record to write: as they are where a leader serves, else all who are fit, and the
    /// highest id.
    pub(crate) fn choice(&self) -> Option<(Leader, Vec<Member>)> {
        if let Some(serving) = &self.serving {
            return Some((serving.leader, serving.in_sync.clone()));
        }
        let best = self.fit.iter().max_by_key(|status| status.id)?;
        let in_sync = self.fit.iter().map(|status| Member { id: status.id, store: status.store }).collect();
        Some((Leader { id: best.id, boot: best.boot }, in_sync))
    }

    fn allows(&self, target: &Configuration) -> bool {
        let is_fit =
            |member: &Member| self.fit.iter().any(|status| (status.id, status.store) == (member.id, member.store));
        target.follows == self.follows
            && match &self.serving {
                Some(serving) => target.leader == serving.leader && target.in_sync == serving.in_sync,
                None => target.in_sync.iter().all(is_fit),
            }
    }
}

/// Rules R7 and R8: what may be written where the register is missing, unreadable or older than what is known, and only
/// where nothing acknowledged can be missing.
///
/// # Errors
/// Something acknowledged may be missing, as far as can be told at present.
pub(crate) fn rebuild(evidence: &Evidence<'_>) -> Result<Rebuild, Unrepaired> {
    let nothing = evidence.statuses.iter().all(|status| status.configuration.is_none());
    let newest = evidence.records().max_by_key(|held| held.epoch);
    let Some(newest) = newest.filter(|_| !nothing || evidence.configuration.value().is_some()) else {
        return first_start(evidence);
    };
    let floor = evidence.floor.value().and_then(Floor::record).filter(|floor| !went_back(floor, evidence));
    match floor {
        Some(floor) => by_the_floor(floor, newest, evidence),
        None => without_a_floor(newest, evidence),
    }
}

/// Whether the floor is older than what somebody has served by: that was the floor when another was decided, or has an entry in a log.
fn went_back(floor: &Configuration, evidence: &Evidence<'_>) -> bool {
    let is_newer =
        |id: RecordId| id.epoch > floor.epoch || id.epoch == floor.epoch && id != floor.id() && !floor.follows(id);
    let begun = |status: &Status| begun(status).is_some_and(|held| is_newer(held.id()));
    evidence.records().filter_map(|held| held.follows.last()).any(|id| is_newer(*id))
        || evidence.statuses.iter().any(|status| status.tail.epoch > floor.epoch || begun(status))
}

/// The record by which the end of the replica's log was written, if that is known: the one on its disk, or one before that.
fn begun(status: &Status) -> Option<&Configuration> {
    let known = status.configuration.as_ref().into_iter().chain(status.written_by.as_deref());
    known.into_iter().find(|held| held.epoch == status.tail.epoch)
}

/// The floor says by which record was served last: whoever is in sync by it, or by one that follows it, has everything that was
/// committed, and nobody serves by another record from now on but by one that follows it.
fn by_the_floor(floor: &Configuration, newest: &Configuration, evidence: &Evidence<'_>) -> Result<Rebuild, Unrepaired> {
    let base = match bug(Bug::RebuildFromTheOldest) {
        true => evidence.records().min_by_key(|held| held.epoch).unwrap_or(floor),
        false => floor,
    };
    let behind = |status: &Status| {
        is_named(status, base) || evidence.records().any(|held| held.follows(floor.id()) && is_named(status, held))
    };
    let serving = evidence.statuses.iter().any(|status| status.role == Role::Leader && is_run_of(status, floor.leader));
    let fit = fit(evidence, behind);
    if !serving && fit.is_empty() {
        return Err(nobody_is_fit(evidence));
    }
    Ok(Rebuild {
        newest: Some(newest.clone()),
        epoch: newest.epoch.max(floor.epoch).next(),
        follows: vec![floor.id()],
        floor: FloorFirst::Stands,
        serving: serving.then(|| floor.clone()),
        fit,
    })
}

/// The floor is lost, and with it who has served last. But all replicas have answered with their disks, and whoever commits anything
/// by a record has an entry of its epoch: the last entry of all is of the record that was served by last. It was not so in older
/// releases, so that their newest record counts as if it had one.
fn without_a_floor(newest: &Configuration, evidence: &Evidence<'_>) -> Result<Rebuild, Unrepaired> {
    let statuses = evidence.statuses;
    let end = statuses.iter().map(|status| status.tail.epoch).max().unwrap_or_default();
    let serving = serving(end, evidence)?;
    let newer =
        |held: &Configuration| evidence.records().any(|other| other.epoch >= held.epoch && other.id() != held.id());
    let put_back = serving.iter().find(|held| !newer(held));
    let number = evidence.floor.value().filter(|floor| floor.record().is_none()).map(Floor::epoch);
    let of_old = evidence.records().filter(|held| is_of_older_release(held)).map(|held| held.epoch);
    let end = of_old.chain(number).fold(end, Epoch::max);
    let known = served_last(end, evidence);
    // Where nobody knows the record of the last entry, it may have been that of any newer one, and who has the longest log has all.
    let last: Vec<_> = known.clone().unwrap_or_else(|| evidence.records().filter(|held| held.epoch >= end).collect());
    let longest = statuses.iter().map(|status| (status.tail.epoch, status.tail.seq)).max();
    let is_longest = |status: &Status| Some((status.tail.epoch, status.tail.seq)) == longest;
    // Whoever is in sync by a record has everything that was committed by those that it follows.
    let is_followed = |held: &&Configuration| last.iter().any(|other| other.follows(held.id()));
    let is_there =
        |member: &Member| statuses.iter().any(|status| (status.id, status.store) == (member.id, member.store));
    let whole = last.iter().filter(|held| !is_followed(held)).flat_map(|held| &held.in_sync).all(is_there);
    if put_back.is_none() && !whole {
        return Err(Unrepaired::Operator(format!(
            "the register {}, and a disk that may hold acknowledged orders is gone. To go on with what the replicas \
             have: tradenet recover",
            state(evidence.configuration)
        )));
    }
    let behind = |status: &Status| {
        last.iter().any(|held| is_named(status, held))
            && serving.iter().all(|held| is_named(status, held))
            && (known.is_some() || is_longest(status))
    };
    let fit = fit(evidence, behind);
    if put_back.is_none() && fit.is_empty() {
        return Err(nobody_is_fit(evidence));
    }
    let epoch = newest.epoch.max(evidence.floor.value().map(Floor::epoch).unwrap_or_default());
    let mut follows: Vec<_> = evidence.records().map(Configuration::id).filter(|id| id.epoch == epoch).collect();
    follows.sort_by_key(|id| id.nonce.0);
    follows.dedup();
    follows.truncate(FOLLOWED_MAX);
    Ok(Rebuild {
        newest: Some(newest.clone()),
        epoch: epoch.next(),
        follows,
        floor: put_back.map_or(FloorFirst::Anew(epoch), |held| FloorFirst::PutBack(Box::new((*held).clone()))),
        serving: put_back.map(|held| (*held).clone()),
        fit,
    })
}

/// The records of those who serve without a floor. Who had taken it before it was lost goes on; who had not finds it lost, says so, and
/// does not begin.
///
/// # Errors
/// One is about to begin, and has not looked yet.
fn serving<'a>(end: Epoch, evidence: &Evidence<'a>) -> Result<Vec<&'a Configuration>, Unrepaired> {
    let mut serving = Vec::new();
    for (status, held) in evidence.statuses.iter().filter_map(|status| leads_by(status).map(|held| (status, held))) {
        if status.role == Role::Leader || status.tail.epoch >= held.epoch || goes_on(held) {
            // Else somebody has begun since, and nothing is committed any more without his word.
            serving.extend((status.tail.epoch == end).then_some(held));
        } else if !status.contested {
            return Err(Unrepaired::NotYet(format!(
                "the register {}, and order-{} is about to begin in epoch {}, or to give that up",
                state(evidence.configuration),
                status.id,
                held.epoch
            )));
        }
    }
    Ok(serving)
}

/// The record that the last entry of all was written by, or one that has had the floor since, if it is known which that was, and those
/// that follow it: whoever is in sync by one of them has everything that was committed.
fn served_last<'a>(end: Epoch, evidence: &Evidence<'a>) -> Option<Vec<&'a Configuration>> {
    let on_disk = evidence.statuses.iter().filter_map(begun).map(Configuration::id);
    let followed = evidence.records().filter_map(|held| held.follows.last().copied());
    let of_old = |held: &&Configuration| is_of_older_release(held) && held.epoch == end;
    let of_old: Vec<_> = evidence.records().filter(of_old).map(Configuration::id).collect();
    if of_old.iter().any(|id| *id != of_old[0]) {
        return Some(Vec::new()); // By which of the two somebody served, nothing tells.
    }
    let mut last: Vec<_> = on_disk.chain(followed).chain(of_old).filter(|id| id.epoch >= end).collect();
    let known = !last.is_empty();
    let mut records: Vec<_> = evidence.records().collect();
    records.sort_by_key(|held| held.epoch);
    records.retain(|held| {
        let follows = last.contains(&held.id()) || held.follows.iter().any(|id| last.contains(id));
        last.extend(follows.then(|| held.id()));
        follows
    });
    known.then_some(records)
}

/// Whether a record does not say whom it follows, though others were before it.
fn is_of_older_release(held: &Configuration) -> bool {
    held.follows.is_empty() && held.epoch > Epoch(1)
}

/// Those who have every order, as `behind` sees it and as far as was told, and can lead.
fn fit(evidence: &Evidence<'_>, behind: impl Fn(&Status) -> bool) -> Vec<Status> {
    let seen = highest(evidence.statuses.iter().map(|status| status.committed).chain([evidence.seen]));
    let fit = |status: &&Status| behind(status) && status.tail.seq >= seen && !status.leaving;
    evidence.statuses.iter().filter(fit).cloned().collect()
}

fn nobody_is_fit(evidence: &Evidence<'_>) -> Unrepaired {
    let state = state(evidence.configuration);
    if let Some(status) = evidence.statuses.iter().find(|status| status.leaving) {
        return Unrepaired::NotYet(format!("the register {state}, and order-{} is being stopped", status.id));
    }
    Unrepaired::Operator(format!("the register {state}, and no replica has every order: tradenet recover"))
}

/// Whether its leader had begun before, by another record, and may serve by that still.
fn goes_on(held: &Configuration) -> bool {
    held.by == Node::Order(held.leader.id, held.leader.boot)
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
        follows: Vec::new(),
        floor: FloorFirst::Stands,
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
    /// Its leader could not take the floor, or from a record of others.
    #[error("it does not follow who has served last")]
    Floor,
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
    pub(crate) fn may_follow(
        &self,
        held: &Configuration,
        floor: &Slot<Floor>,
        target: &Configuration,
    ) -> Result<(), Refusal> {
        self.may_lead(target)?;
        if target.cluster != held.cluster {
            return Err(Refusal::Foreign);
        }
        if target.epoch != held.epoch.next() {
            return Err(Refusal::Epoch);
        }
        // Whose leader has taken the floor since the frontend looked has been served by: nothing before it is to be followed.
        let served = floor.value().is_some_and(|floor| floor.is(held));
        let follows = target.follows.split_first().is_some_and(|(first, before)| {
            let before_it = before.len() < FOLLOWED_MAX && before.iter().all(|id| held.follows(*id));
            *first == held.id() && before_it && (before.is_empty() || !served)
        });
        if !follows || floor.value().is_some_and(|floor| !may_take(target, floor)) {
            return Err(Refusal::Floor);
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
pub(crate) mod tests {
    use tradenet_schemas::ids::{Boot, ClusterId, Position, StoreId};

    use super::*;

    pub(crate) fn id(id: u8) -> ReplicaId {
        ReplicaId::new(id).unwrap_or_else(|| panic!("{id} is no id"))
    }

    fn member(number: u8) -> Member {
        Member { id: id(number), store: StoreId(u64::from(number)) }
    }

    /// The run of that replica that is alive.
    fn leader(number: u8) -> Leader {
        Leader { id: id(number), boot: Boot(100 + u64::from(number)) }
    }

    pub(crate) fn record(epoch: u64, leads: u8, in_sync: &[u8]) -> Configuration {
        Configuration {
            cluster: ClusterId(1),
            epoch: Epoch(epoch),
            nonce: Nonce(epoch),
            leader: leader(leads),
            in_sync: in_sync.iter().map(|&number| member(number)).collect(),
            members: vec![id(1), id(2), id(3)],
            follows: (epoch > 1).then(|| named(epoch - 1)).into_iter().collect(),
            by: Node::Frontend(Boot(9)),
            why: String::new(),
            at: 0,
        }
    }

    /// The same for a leader that goes on.
    fn goes_on(epoch: u64, leads: u8, in_sync: &[u8]) -> Configuration {
        let Leader { id, boot } = leader(leads);
        Configuration { by: Node::Order(id, boot), ..record(epoch, leads, in_sync) }
    }

    /// Another record of its epoch, by whatever lost answer or register that went back.
    fn twin(record: Configuration) -> Configuration {
        Configuration { nonce: Nonce(100 + record.nonce.0), ..record }
    }

    fn named(epoch: u64) -> RecordId {
        RecordId { epoch: Epoch(epoch), nonce: Nonce(epoch) }
    }

    pub(crate) fn status(number: u8, held: Option<Configuration>, tail: u64) -> Status {
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
            answers: None,
            written_by: None,
            unlisted: false,
            leaving: false,
            trouble: None,
        }
    }

    fn present<T>(value: T) -> Slot<T> {
        Slot::Present { value, revision: 7 }
    }

    fn floor(record: Configuration) -> Slot<Floor> {
        present(Floor::Record(Box::new(record)))
    }

    #[test]
    fn a_record_stands_that_has_the_floor_or_may_take_it_and_is_the_newest() {
        #[track_caller]
        fn check(epoch: u64, floor: &Slot<Floor>, held: Option<Configuration>, expected: bool) {
            assert_eq!(stands(&record(epoch, 3, &[3]), floor, &[status(1, held, 0)]), expected);
        }
        let (four, five) = (record(4, 3, &[3]), record(5, 3, &[3]));
        check(5, &floor(five.clone()), None, true);
        check(5, &floor(four.clone()), Some(four.clone()), true);
        check(5, &floor(record(6, 3, &[3])), None, false);
        check(5, &floor(record(3, 3, &[3])), None, false);
        check(5, &floor(twin(five.clone())), None, false);
        check(5, &floor(twin(four.clone())), None, false);
        check(5, &Slot::KeyMissing, None, false);
        check(1, &Slot::KeyMissing, None, true);
        check(1, &Slot::Unreadable { why: String::new(), revision: 1 }, None, false);
        check(5, &floor(four.clone()), Some(record(6, 3, &[3])), false);
        // Who holds a twin does not take this one on, so that there has to be a next one, if this one is served by.
        check(5, &floor(five.clone()), Some(twin(five.clone())), false);
        check(5, &floor(four.clone()), Some(twin(five.clone())), true);
        assert!(
            !stands(&record(5, 1, &[1]), &floor(four), &[status(1, Some(twin(five)), 0)]),
            "its leader has another"
        );
        // A floor of an older release.
        check(5, &present(Floor::Number(Epoch(4))), None, true);
        check(5, &present(Floor::Number(Epoch(5))), None, false);
        let old = Configuration { follows: Vec::new(), ..record(5, 3, &[3]) };
        assert!(stands(&old, &present(Floor::Number(Epoch(5))), &[]));
        assert!(!stands(&old, &present(Floor::Number(Epoch(6))), &[]));
    }

    #[test]
    fn a_record_follows_the_one_that_it_is_decided_by_and_what_that_one_may_take_the_floor_from() {
        #[track_caller]
        fn check(follows: impl IntoIterator<Item = u64>, floor: &Slot<Floor>, expected: &[u64]) {
            let decided_by = Configuration { follows: follows.into_iter().map(named).collect(), ..record(50, 3, &[3]) };
            let followed: Vec<_> = followed(&decided_by, floor).iter().map(|id| id.epoch.0).collect();
            assert_eq!(followed, expected);
        }
        check([49], &floor(record(50, 3, &[3])), &[50]);
        check([49], &floor(record(49, 3, &[3])), &[50, 49]);
        check([49, 48], &floor(record(48, 3, &[3])), &[50, 49, 48]);
        check([49, 48], &floor(record(49, 3, &[3])), &[50, 49]);
        // 49 to 34, and the floor is 34: of those only the one after the floor is left out.
        let many = 50 - FOLLOWED_MAX as u64;
        let kept: Vec<_> = (many + 2..=50).rev().chain([many]).collect();
        check((many..50).rev(), &floor(record(many, 3, &[3])), &kept);
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
            assert_eq!(heir.may_follow(&held, &floor(held.clone()), &target), expected);
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
        check(|target, _, _| target.follows = vec![], Err(Refusal::Floor));
        check(|target, _, _| target.follows = vec![named(4)], Err(Refusal::Floor));
        check(|target, _, _| target.follows = vec![named(5), named(4)], Err(Refusal::Floor));
        check(|target, _, _| target.follows = vec![named(5), named(3)], Err(Refusal::Floor));
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
            let (configuration, floor, seen) = (Slot::BucketMissing, floor(record(5, 3, &[2, 3])), SeqNum(0));
            let evidence = Evidence { configuration: &configuration, floor: &floor, statuses: &statuses, seen };
            let members = [id(1), id(2), id(3)];
            let heir = Heir { status: &statuses[1], members: &members, agreed: None };
            let allowed = rebuild(&evidence).map_err(|_| Refusal::NoRebuild);
            assert_eq!(allowed.and_then(|rebuild| heir.may_rebuild(&rebuild, target)), expected);
        }
        let (old, new) = (record(4, 1, &[1, 2, 3]), record(5, 3, &[2, 3]));
        let held = || [Some(old.clone()), Some(new.clone()), Some(new.clone())];
        let anew =
            |epoch, leads, in_sync: &[u8]| Configuration { follows: vec![new.id()], ..record(epoch, leads, in_sync) };
        check(held(), &anew(6, 2, &[2, 3]), Ok(()));
        check(held(), &anew(6, 2, &[2]), Ok(()));
        check(held(), &anew(6 + LOST_EPOCHS_MAX, 2, &[2]), Ok(()));
        check(held(), &anew(7 + LOST_EPOCHS_MAX, 2, &[2]), Err(Refusal::Epoch));
        check(held(), &anew(5, 2, &[2]), Err(Refusal::Epoch));
        check(held(), &anew(6, 2, &[1, 2]), Err(Refusal::NoRebuild));
        check(held(), &anew(6, 3, &[2, 3]), Err(Refusal::NotMine));
        check(held(), &Configuration { follows: vec![named(4)], ..anew(6, 2, &[2]) }, Err(Refusal::NoRebuild));
        // Nobody holds anything, and the floor says that somebody served: this is no first start.
        check([None, None, None], &record(1, 2, &[1, 2, 3]), Err(Refusal::NoRebuild));
    }

    /// What may be done: the floor that is written first, the leader that stays, and who may lead else.
    type May<'a> = (Option<u64>, Option<u8>, &'a [u8]);

    #[track_caller]
    fn check_rebuild(
        configuration: &Slot<Configuration>,
        floor: &Slot<Floor>,
        statuses: &[Status],
        expected: Result<May<'_>, bool>,
    ) {
        let evidence = Evidence { configuration, floor, statuses, seen: SeqNum(9) };
        let found = rebuild(&evidence).map_err(|why| matches!(why, Unrepaired::NotYet(_)));
        let found = found.map(|rebuild| {
            let floor = match rebuild.floor {
                FloorFirst::Stands => None,
                FloorFirst::PutBack(record) => Some(record.epoch.0),
                FloorFirst::Anew(epoch) => Some(epoch.0),
            };
            let serving = rebuild.serving.map(|serving| serving.leader.id.get());
            (floor, serving, rebuild.fit.iter().map(|status| status.id.get()).collect::<Vec<_>>())
        });
        let expected = expected.map(|(floor, serving, fit)| (floor, serving, fit.to_vec()));
        assert_eq!(found, expected);
    }

    #[test]
    fn where_the_register_went_back_the_floor_says_who_may_lead() {
        /// order-3 led 4 with all in sync, then the register went back, and gave 5 to order-1 and to order-2, each in sync alone; the
        /// floor, and what else is.
        #[track_caller]
        fn check(floor_is: Configuration, change: impl FnOnce(&mut [Status; 3]), expected: Result<May<'_>, bool>) {
            let (one, two) = (record(5, 1, &[1]), twin(record(5, 2, &[2])));
            let mut statuses =
                [status(1, Some(one), 9), status(2, Some(two), 9), status(3, Some(record(4, 3, &[1, 2, 3])), 9)];
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            change(&mut statuses);
            check_rebuild(&present(record(4, 3, &[1, 2, 3])), &floor(floor_is), &statuses, expected);
        }
        let (four, one, two) = (record(4, 3, &[1, 2, 3]), record(5, 1, &[1]), twin(record(5, 2, &[2])));
        check(four.clone(), |_| {}, Ok((None, None, &[1, 2, 3])));
        check(one.clone(), |_| {}, Ok((None, None, &[1])));
        check(two.clone(), |_| {}, Ok((None, None, &[2])));
        // Whoever serves by the floor's record goes on.
        check(one.clone(), |statuses| statuses[0].role = Role::Leader, Ok((None, Some(1), &[1])));
        check(two, |statuses| statuses[0].role = Role::Leader, Ok((None, None, &[2])));
        // It has restarted.
        check(
            one.clone(),
            |statuses| (statuses[0].role, statuses[0].boot) = (Role::Leader, Boot(7)),
            Ok((None, None, &[1])),
        );
        check(one, |statuses| statuses[0].store = StoreId(77), Err(false));
        check(four.clone(), |statuses| statuses[2].store = StoreId(77), Ok((None, None, &[1, 2])));
        check(four.clone(), |statuses| statuses[1].leaving = true, Ok((None, None, &[1, 3])));
        check(four.clone(), |statuses| statuses[1].tail.seq = SeqNum(8), Ok((None, None, &[1, 3])));
        // Whoever was added by a record that follows it has everything, too.
        let alone = record(4, 3, &[3]);
        check(alone, |_| {}, Ok((None, None, &[1, 2, 3])));
        // Others follow another record of its epoch, by which somebody served, then: as if it were lost.
        check(twin(record(4, 3, &[3])), |_| {}, Ok((Some(5), None, &[1, 2, 3])));
        // Older than what somebody follows, or has an entry of.
        check(record(3, 3, &[1]), |_| {}, Ok((Some(5), None, &[1, 2, 3])));
        let begun = |statuses: &mut [Status; 3]| statuses[0].tail.epoch = Epoch(5);
        check(four, begun, Ok((Some(5), None, &[1])));
    }

    #[test]
    fn where_the_floor_is_lost_the_last_entry_of_all_tells_who_may_lead() {
        /// order-3 leads 4 with order-2, and nothing else was written; what else is.
        #[track_caller]
        fn check(change: impl FnOnce(&mut [Status; 3]), expected: Result<May<'_>, bool>) {
            let four = record(4, 3, &[2, 3]);
            let mut statuses = [1, 2, 3].map(|number| status(number, Some(four.clone()), 9));
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            change(&mut statuses);
            check_rebuild(&present(four), &Slot::KeyMissing, &statuses, expected);
        }
        fn tail(status: &mut Status, epoch: u64, seq: u64) {
            (status.tail.epoch, status.tail.seq) = (Epoch(epoch), SeqNum(seq));
        }
        check(|_| {}, Ok((Some(4), None, &[2, 3])));
        check(|statuses| statuses[2].role = Role::Leader, Ok((Some(4), Some(3), &[2, 3])));
        // One of the two has one that was committed by nobody, or the learner has.
        check(|statuses| tail(&mut statuses[2], 4, 10), Ok((Some(4), None, &[2, 3])));
        check(|statuses| tail(&mut statuses[0], 4, 10), Ok((Some(4), None, &[2, 3])));
        check(|statuses| statuses[1].store = StoreId(77), Err(false));
        check(|statuses| statuses[0].store = StoreId(77), Ok((Some(4), None, &[2, 3])));
        // Elected, and not begun: it may have taken the floor just before, unless it says that it has not.
        let elected = |statuses: &mut [Status; 3], contested| {
            let five = Some(record(5, 2, &[2]));
            (statuses[1].configuration, statuses[1].role, statuses[1].contested) = (five, Role::Activating, contested);
        };
        check(|statuses| elected(statuses, false), Err(true));
        check(|statuses| elected(statuses, true), Ok((Some(5), None, &[2, 3])));
        check(|statuses| (elected(statuses, true), tail(&mut statuses[1], 5, 10)).0, Ok((Some(5), Some(2), &[2])));
        // The leader goes on alone, and has not written its entry, nor committed anything, or has.
        let shrinks = |statuses: &mut [Status; 3]| {
            (statuses[2].configuration, statuses[2].role) = (Some(goes_on(5, 3, &[3])), Role::Leader);
        };
        check(shrinks, Ok((Some(5), Some(3), &[3])));
        check(|statuses| (shrinks(statuses), statuses[2].role = Role::Follower).0, Ok((Some(5), None, &[2, 3])));
        let shrunk = |statuses: &mut [Status; 3]| {
            shrinks(statuses);
            statuses[2].role = Role::Follower;
            tail(&mut statuses[2], 5, 10);
        };
        check(shrunk, Ok((Some(5), None, &[3])));
        // It is not the newest: it goes on until it hears of the next one, with those by whose word it does.
        let deposed = |statuses: &mut [Status; 3]| {
            shrinks(statuses);
            statuses[0].configuration = Some(record(6, 2, &[2]));
        };
        check(deposed, Ok((Some(6), None, &[3])));
        // Somebody has begun since: it is deposed.
        check(|statuses| (deposed(statuses), tail(&mut statuses[1], 6, 10)).0, Ok((Some(6), None, &[2])));
        // Nobody has the record of the last entry, but another was decided by it.
        let unknown = |statuses: &mut [Status; 3]| {
            statuses.iter_mut().for_each(|status| status.configuration = Some(record(6, 2, &[2])));
            tail(&mut statuses[2], 5, 10);
        };
        check(|statuses| (unknown(statuses), statuses[2].configuration = None).0, Ok((Some(6), None, &[2])));
        let another = |statuses: &mut [Status; 3]| {
            unknown(statuses);
            statuses.iter_mut().for_each(|status| {
                status.configuration = Some(Configuration { follows: vec![named(4)], ..record(6, 2, &[2]) });
            });
        };
        check(another, Err(false));
        // It is on no disk any more, but one who held it has run since.
        let held_before = |statuses: &mut [Status; 3], known: bool| {
            unknown(statuses);
            let next = Configuration { follows: vec![named(5), named(4)], ..record(6, 2, &[2]) };
            statuses.iter_mut().for_each(|status| status.configuration = Some(next.clone()));
            statuses[2].written_by = known.then(|| Box::new(record(5, 3, &[2, 3])));
        };
        check(|statuses| held_before(statuses, false), Err(false));
        check(|statuses| held_before(statuses, true), Ok((Some(6), None, &[2, 3])));
        // What it held before is no word on an end that was written by another.
        let earlier = |statuses: &mut [Status; 3]| {
            held_before(statuses, false);
            statuses[2].written_by = Some(Box::new(record(4, 3, &[2, 3])));
        };
        check(earlier, Err(false));
    }

    #[test]
    fn where_an_older_release_may_have_committed_without_an_entry_its_newest_record_tells_who_may_lead() {
        /// order-2 led 4 with order-3, and then went on alone in 5; the floor, and who may lead.
        #[track_caller]
        fn check(floor: &Slot<Floor>, change: impl FnOnce(&mut [Status; 3]), expected: Result<May<'_>, bool>) {
            let of_old = |record| Configuration { follows: Vec::new(), ..record };
            let (four, five) = (of_old(record(4, 2, &[2, 3])), of_old(goes_on(5, 2, &[2])));
            let mut statuses = [1, 2, 3].map(|number| status(number, Some(four.clone()), 9));
            statuses.iter_mut().for_each(|status| status.tail.epoch = Epoch(4));
            (statuses[1].configuration, statuses[1].tail.seq) = (Some(five), SeqNum(10));
            change(&mut statuses);
            check_rebuild(&present(four), floor, &statuses, expected);
        }
        for floor in [present(Floor::Number(Epoch(5))), Slot::KeyMissing] {
            check(&floor, |_| {}, Ok((Some(5), None, &[2])));
            check(&floor, |statuses| statuses[1].store = StoreId(77), Err(false));
            // Another one of that epoch.
            let twin = |statuses: &mut [Status; 3]| {
                statuses[0].configuration = statuses[1].configuration.clone().map(twin);
            };
            check(&floor, twin, Err(false));
        }
        // Its disk is gone, with whatever it did by the record that the floor tells of.
        let gone = |statuses: &mut [Status; 3]| statuses[1] = status(2, None, 0);
        check(&present(Floor::Number(Epoch(5))), gone, Err(false));
    }
}
