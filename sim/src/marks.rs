//! Named rare situations, counted, so that it shows when the swarm no longer reaches one.
//!
//! Most are read off what core tells people. Faults are among them, each kind when it struck. A test fails if the standard swarm
//! misses any of [`all`]; what is too rare for that has a story.

use crate::nemesis::KINDS;

/// What a notice contains, and the situation it tells of.
pub(crate) const NOTICES: [(&str, &str); 33] = [
    ("which a former leader wrote", "a divergent tail cut"),
    ("its authority is over", "a catalog's authority waited out"),
    ("was paused", "a leader that was paused"),
    ("no leader any more", "a leader deposed"),
    ("in the middle of line", "a torn tail cut"),
    ("the disk is full", "a full disk"),
    ("holds an older record", "a register gone back, seen by a leader"),
    ("refused to write a proposed", "a proposal refused"),
    ("written anew from what", "a register repaired"),
    ("did not answer", "a register that did not answer a leader"),
    ("(the highest in-sync id leads)", "a planned hand-over"),
    ("is too slow or full)", "a hand-over for the disk's sake"),
    ("has caught up)", "a learner taken in"),
    ("silent or too slow)", "a follower taken out"),
    ("a lease was waited out", "a lease waited out"),
    ("requests wait", "a hand-over with requests in flight"),
    ("batches that came meanwhile", "catch-up joined to live batches mid-way"),
    ("is damaged at line", "a damaged journal given up"),
    ("made the snapshot of", "a snapshot made"),
    ("starting from the snapshot", "a start from a snapshot"),
    ("going back to the snapshot", "a state taken back to a snapshot"),
    ("is passed over", "a snapshot passed over"),
    ("took over the snapshot of", "a peer's snapshot taken over"),
    ("snapshot: nobody has", "a peer's snapshot looked for in vain"),
    ("has rotted at line", "rot found by reading again"),
    ("is repaired at line", "rotten lines got back from another replica"),
    ("look-ups of old orders", "an old order read from the journal"),
    ("statements read for", "an account's old order found by its statements"),
    ("old order's part", OLD_UNREAD),
    ("where an old order stands", OLD_ROTTEN),
    ("orders.jsonl can't be read at line", "a part that can't be read, got back"),
    ("what a peer asked for", PEER_UNREAD),
    ("to begin again with what is good", FOUND_RUNNING),
];
/// An old order was looked up in a part of the journal that had rotted: [too rare](RARE) for a standard swarm.
pub(crate) const OLD_ROTTEN: &str = "an old order looked up in a part that has rotted";
/// The same, in a part that could not be read: too rare, too.
pub(crate) const OLD_UNREAD: &str = "an old order looked up in a part that can't be read";
/// What a peer asked for could not be read, so that it asked somebody else: too rare, too.
pub(crate) const PEER_UNREAD: &str = "a read for a peer that failed";
/// Rot was found in a line that others may not have, which ends the process: too rare, too.
pub(crate) const FOUND_RUNNING: &str = "damage found while running";
/// A leader had entries that were not committed when another one took over.
pub(crate) const DEPOSED_AHEAD: &str = "a leader deposed with uncommitted entries";
/// A write of the register took effect, and nobody was told.
pub(crate) const UNTOLD_WRITE: &str = "a compare-and-set whose answer was lost";
/// What a client said before its connection broke arrives on the next one.
pub(crate) const LATE: &str = "messages delivered late after a reconnect";
/// Only an operator could go on.
pub(crate) const OPERATOR: &str = "only an operator could help";
/// Why: the register lost its record, and a disk is gone, too.
pub(crate) const REGISTER_AND_DISK: &str = "operator: register and disk";
/// Why: register or disk were lost before the first entry was committed.
pub(crate) const NEVER_BEGUN: &str = "operator: lost before it began";
/// Why: no disk that the newest record names is left.
pub(crate) const LAST_DISK: &str = "operator: the last disk";
/// A message to a slow consumer was dropped.
pub(crate) const LOST: &str = "fault: a message lost";
/// A message came twice.
pub(crate) const TWICE: &str = "fault: a message doubled";
/// A message came twice, and the second time seconds later.
pub(crate) const COPY_LATE: &str = "fault: a message doubled, seconds later";
/// A message was overtaken by later ones of its line.
pub(crate) const OVERTAKEN: &str = "fault: a message overtaken";
/// A cut line healed before it was given up, and what it had held back went on.
pub(crate) const HELD: &str = "fault: messages held back by a cut line";
/// The broker said that nobody listens.
pub(crate) const NOBODY: &str = "fault: no responders";
/// A request to the register was lost on its way.
pub(crate) const UNHEARD: &str = "fault: a request that the register never got";
/// A read of the register was answered by a copy that lags behind.
pub(crate) const STALE: &str = "fault: a stale read of the register";
/// A crash lost what was not synced.
pub(crate) const UNSYNCED: &str = "fault: unsynced data lost";
/// A crash left a part of a write.
pub(crate) const TORN: &str = "fault: a torn write";
/// A crash left zeros in place of a part of a write: too rare, too.
pub(crate) const ZEROS: &str = "fault: zeros instead of data";
/// A start found the last segment before the newest without its end.
pub(crate) const SHORT: &str = "a start without the end of a segment";
/// A command was answered again.
pub(crate) const REPLAYED: &str = "a key answered again";
/// A read was served from a cache.
pub(crate) const HIT: &str = "a read from a cache";

/// An order met one that was placed under an earlier leader.
pub(crate) const MATCHED_LATER: &str = "an order matched with one that a former leader took";
/// An account's command was answered again, by a later leader than the one that did it.
pub(crate) const REPLAYED_LATER: &str = "an account's command answered again by the next leader";
/// An order was done when it was to be cancelled.
pub(crate) const CANCELLED_LATE: &str = "a cancel that came after the fill";
/// Some of an account's orders were stated.
pub(crate) const STATED: &str = "an account's orders stated";
/// The same of an account that had statements before.
pub(crate) const STATED_AGAIN: &str = "a statement that leads to earlier ones";
/// A post-only order would have traded.
pub(crate) const WOULD_CROSS: &str = "a post-only order refused";
/// An order that was to be whole or not at all was not.
pub(crate) const KILLED: &str = "a fill-or-kill order killed";

/// What 300 seeds may miss. A story of each asserts that it comes to pass.
const RARE: [&str; 5] = [OLD_ROTTEN, OLD_UNREAD, PEER_UNREAD, FOUND_RUNNING, ZEROS];

/// All situations that a standard swarm must reach.
pub fn all() -> impl Iterator<Item = &'static str> {
    let others = [DEPOSED_AHEAD, UNTOLD_WRITE, LATE, OPERATOR, REPLAYED, HIT];
    let market = [MATCHED_LATER, REPLAYED_LATER, CANCELLED_LATE, STATED, STATED_AGAIN, WOULD_CROSS, KILLED];
    let weather = [LOST, TWICE, COPY_LATE, OVERTAKEN, HELD, NOBODY, UNHEARD, STALE, UNSYNCED, TORN, ZEROS, SHORT];
    let faults = KINDS.iter().map(|(_, name)| *name).chain(weather);
    let notices = NOTICES.iter().map(|(_, name)| *name);
    notices.chain(others).chain(market).chain(faults).filter(|name| !RARE.contains(name))
}
