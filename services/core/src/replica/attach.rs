//! The leader's side of the catalog: attachment, grants, and what an answer waits for.
//!
//! Problem: look-ups and cached copies are answered elsewhere, and an answered trade must be visible in every one of them.
//! Idea: one catalog at a time is *attached* by a log entry, and holds *authority* for a second at a time. While it may
//! hold any, an entry is released only when the catalog has *staged* it: every cache has dropped what it changes. A
//! catalog that falls silent is waited out, detached by a log entry, and then the leader answers look-ups itself.
//! Rule kept: C4, and C3's first half: a grant counts from when the catalog asked, and is given only after a confirmation
//! round that began later.

use std::time::Duration;

use tradenet_schemas::ids::{Boot, Epoch, SeqNum};
use tradenet_schemas::journal::Event;
use tradenet_schemas::message::Message;
use tradenet_schemas::trade::Stock;

use super::Replica;
use super::lead::Due;
use crate::bugs::{Bug, bug};
use crate::{Mono, Output, ReplyTo};

/// Catalogs that may wait for a snapshot.
const SNAPSHOTS_MAX: usize = 8;
/// A catalog that has not staged an entry for so long gets no more authority. Longer than a lease is waited out, so that one
/// dead frontend does not cost the catalog its place.
const STAGES_WITHIN: Duration = Duration::from_millis(650);

/// What the leader knows of the attached catalog. Which one it is stands in the log.
#[derive(Clone, Default, Debug)]
pub(super) struct Attachment {
    /// Entries up to here need not be staged: they were released before it was attached.
    since: SeqNum,
    staged: SeqNum,
    /// Until when a grant may be alive, by this leader's clock.
    granted_until: Option<Mono>,
    heard: Mono,
    /// Since when an entry waits for it.
    gated_since: Option<Mono>,
    /// It gets no more authority.
    withheld: bool,
    /// The entry that detaches it is on its way.
    detaching: bool,
    snapshots: Vec<ReplyTo>,
}

impl Attachment {
    /// The attachment that a new leader finds in its log, with a grant that may be alive until then.
    pub(super) fn inherited(granted_until: Option<Mono>, now: Mono) -> Self {
        Self { granted_until, heard: now, ..Self::default() }
    }
}

impl Replica {
    /// Up to where the attached catalog lets entries be released.
    pub(super) fn gate(&self) -> SeqNum {
        match (&self.leading, self.state.exchange.catalog()) {
            (Some(_), Some(_)) if bug(Bug::ForgetTheCatalog) => SeqNum(u64::MAX),
            (Some(leading), Some(_)) => leading.attachment.since.max(leading.attachment.staged),
            _ => SeqNum(u64::MAX),
        }
    }

    pub(super) fn authority_asked(
        &mut self,
        catalog: Boot,
        epoch: Epoch,
        request: u64,
        staged: Option<SeqNum>,
        reply: ReplyTo,
    ) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.serves()) else {
            return self.not_leader(vec![request], reply);
        };
        let followed = staged.filter(|_| epoch >= leading.in_force_since());
        if followed.is_none() && leading.attachment.snapshots.len() < SNAPSHOTS_MAX {
            leading.attachment.snapshots.push(reply.clone());
        }
        match self.state.exchange.catalog() {
            None => {
                let coming = leading.facts.iter().flatten().any(|event| matches!(event, Event::Attached { .. }));
                // One that can't follow the log would only be in the way.
                if followed.is_some() && !coming && self.leaving.is_none() {
                    leading.facts.push_back(vec![Event::Attached { catalog }]);
                }
            }
            Some(attached) if attached == catalog || bug(Bug::GrantToAnyCatalog) => {
                let Some(staged) = followed else { return };
                leading.attachment.heard = self.now.mono;
                leading.attachment.staged = leading.attachment.staged.max(staged);
                // An inherited one has to have all that former leaders released, and so the own first entry.
                let since = leading.attachment.since.max(leading.begun.unwrap_or_default());
                if !leading.attachment.withheld {
                    let asked = self.now.mono;
                    self.owe_confirmed(reply, since, Due::Grant { request, catalog, asked });
                }
            }
            Some(_) => {} // It stands by, and follows the log meanwhile.
        }
    }

    /// It counts from when it was asked for: from the request's arrival here, which is later than its sending.
    pub(super) fn grant(&mut self, reply: ReplyTo, request: u64, catalog: Boot, asked: Mono, released: SeqNum) {
        let attached = self.state.exchange.catalog() == Some(catalog) || bug(Bug::GrantToAnyCatalog);
        let Some(leading) = self.leading.as_mut().filter(|leading| attached && !leading.attachment.withheld) else {
            return;
        };
        let until = asked.after(self.options.times.authority_waited_out);
        leading.attachment.granted_until = leading.attachment.granted_until.max(Some(until));
        let valid_ms = u64::try_from(self.options.times.authority.as_millis()).unwrap_or(0);
        self.reply(reply, Message::Grant { request, valid_ms, released });
    }

    pub(super) fn staged(&mut self, catalog: Boot, epoch: Epoch, seq: SeqNum) {
        let attached = self.state.exchange.catalog() == Some(catalog);
        if let Some(leading) = self.leading.as_mut().filter(|leading| attached && epoch >= leading.in_force_since()) {
            leading.attachment.staged = leading.attachment.staged.max(seq);
        }
    }

    /// The entry that attaches the catalog is in the log.
    pub(super) fn attached_at(&mut self, seq: SeqNum) {
        let now = self.now.mono;
        if let Some(leading) = &mut self.leading {
            let snapshots = std::mem::take(&mut leading.attachment.snapshots);
            leading.attachment = Attachment { since: seq, heard: now, snapshots, ..Attachment::default() };
        }
        if let Some(catalog) = self.state.exchange.catalog() {
            self.outputs.push_back(Output::info(format!("catalog {catalog} attached at entry {seq}")));
        }
    }

    /// A snapshot is all committed state, so it is given between two batches.
    pub(super) fn give_snapshots(&mut self) {
        if self.committed != self.log.tail().seq {
            return;
        }
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.serves()) else {
            return;
        };
        let replies = std::mem::take(&mut leading.attachment.snapshots);
        for reply in replies {
            let (leader, at, stocks) = (self.me(), self.log.tail(), self.state.exchange.stocks());
            self.reply(reply, Message::Snapshot { leader, at, stocks });
        }
    }

    pub(super) fn list_asked(&mut self, stocks: &[Stock], reply: ReplyTo) {
        let tail = self.log.tail().seq;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.serves()) else {
            return;
        };
        let events = self.state.exchange.list(stocks);
        if events.is_empty() {
            self.owe_confirmed(reply, tail, Due::Listed);
        } else if leading.facts.is_empty() {
            // Asked again when the entry is in the log; then nothing is left to list.
            leading.facts.push_back(events);
        }
    }

    /// The catalog goes, and no lease of its is alive.
    pub(super) fn relinquished(&mut self, catalog: Boot) {
        if self.state.exchange.catalog() == Some(catalog) {
            self.detach(catalog, "it leaves");
        }
    }

    fn detach(&mut self, catalog: Boot, why: &str) {
        let Some(leading) = &mut self.leading else { return };
        let coming = leading.facts.iter().flatten().any(|event| matches!(event, Event::Detached { .. }));
        if !coming {
            leading.facts.push_back(vec![Event::Detached { catalog }]);
            leading.attachment.detaching = true;
            leading.attachment.withheld = true;
            self.outputs.push_back(Output::info(format!("catalog {catalog} detached: {why}")));
        }
    }

    /// Whether nothing waits for the attached catalog, which was heard lately; or none is attached.
    pub(super) fn is_attached_calmly(&self, attachment: &Attachment) -> bool {
        let heard = self.now.mono.since(attachment.heard) < self.options.times.heartbeat * 3;
        let content = heard && attachment.gated_since.is_none() && !attachment.withheld && !attachment.detaching;
        self.gate() >= self.committed && (content || self.state.exchange.catalog().is_none())
    }

    /// Waits out a catalog that is silent or does not stage.
    pub(super) fn attachment_tick(&mut self) {
        let (now, gate, committed) = (self.now.mono, self.gate(), self.committed);
        let Some(catalog) = self.state.exchange.catalog() else { return };
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.serves()) else {
            return;
        };
        let attachment = &mut leading.attachment;
        attachment.gated_since = (gate < committed).then(|| attachment.gated_since.unwrap_or(now));
        let gated_long = attachment.gated_since.is_some_and(|since| now.since(since) >= STAGES_WITHIN);
        attachment.withheld = gated_long || attachment.detaching;
        let silent = now.since(attachment.heard) >= self.options.times.authority || attachment.withheld;
        let over = attachment.granted_until.is_none_or(|until| now > until) || bug(Bug::DetachAtOnce);
        if silent && over {
            self.counts.authorities_waited_out += u64::from(!attachment.detaching);
            self.detach(catalog, "it was silent, and its authority is over");
        }
    }
}
