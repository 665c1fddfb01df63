//! Who owns what.
//!
//! Problem: money and stocks change hands in small pieces, millions of times, and none may appear or vanish.
//! Idea: an account has what it owns and what of it its open orders reserve; only what is free can leave or be reserved.
//! What was brought in and taken out is summed apart from what the accounts hold, piece by piece.
//! Rule kept: reserved ≤ owned; and after each entry the two sums agree ([`Accounts::assert_conserved`]), for money and for
//! each stock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tradenet_schemas::account::{Account, Credentials, TokenHash};
use tradenet_schemas::ids::{OrderNumber, SeqNum};
use tradenet_schemas::statement::Statements;

/// Money or some of a stock: what there is, and how much of it open orders reserve.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Stake {
    pub(super) owned: u64,
    pub(super) reserved: u64,
}

impl Stake {
    pub(super) fn free(self) -> u64 {
        self.owned - self.reserved
    }
    fn assert_sound(self) {
        assert!(self.reserved <= self.owned, "an account reserves {} and owns {}", self.reserved, self.owned);
    }
}

/// Which of an account's stakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Cash,
    /// Of the stock that was listed so manieth.
    Stock(u32),
}

/// What came into the exchange less what left it, and what accounts hold.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Sums {
    brought: u64,
    held: u64,
}

/// An account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) name: Account,
    token: TokenHash,
    /// Whether it has done anything: from then on its token is not replaced.
    used: bool,
    pub(super) cash: Stake,
    /// By listing; those with nothing are dropped.
    pub(super) stocks: BTreeMap<u32, Stake>,
    /// Its orders in the state: those that are open, and those that are done and that no statement has.
    pub(super) orders: BTreeSet<OrderNumber>,
    /// The latter, in the order in which that came about.
    pub(super) done: VecDeque<OrderNumber>,
    /// All of its statements, the newest last.
    pub(super) statements: Vec<Statements>,
    /// How many of its orders are open.
    pub(super) open: usize,
}

impl Holder {
    pub(super) fn stake(&self, kind: Kind) -> Stake {
        match kind {
            Kind::Cash => self.cash,
            Kind::Stock(listing) => self.stocks.get(&listing).copied().unwrap_or_default(),
        }
    }
}

/// All accounts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Accounts {
    by_name: BTreeMap<Account, u32>,
    holders: Vec<Holder>,
    cash: Sums,
    stocks: BTreeMap<u32, Sums>,
}

impl Accounts {
    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn find(&self, name: &Account) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn holder(&self, id: u32) -> &Holder {
        &self.holders[id as usize]
    }

    pub(super) fn holder_mut(&mut self, id: u32) -> &mut Holder {
        &mut self.holders[id as usize]
    }

    /// The caller's account, if the token is right.
    pub(super) fn authorise(&self, caller: &Credentials) -> Option<u32> {
        let id = self.find(&caller.account)?;
        // How long it takes says nothing of how much of it is right.
        bool::from(self.holder(id).token.0.ct_eq(&caller.token.0)).then_some(id)
    }

    /// Whether the account's opening may be repeated with another token.
    pub(super) fn is_fresh(&self, id: u32) -> bool {
        !self.holder(id).used
    }

    /// Opens an account, or replaces the token of one that has done nothing.
    pub(super) fn open(&mut self, seq: SeqNum, name: &Account, token: TokenHash) -> u32 {
        if let Some(id) = self.find(name) {
            assert!(self.is_fresh(id), "entry {seq}: the token of {name}, which was used, is replaced");
            self.holder_mut(id).token = token;
            return id;
        }
        let id = u32::try_from(self.holders.len()).expect("there are not that many accounts");
        self.by_name.insert(name.clone(), id);
        self.holders.push(Holder {
            name: name.clone(),
            token,
            used: false,
            cash: Stake::default(),
            stocks: BTreeMap::new(),
            orders: BTreeSet::new(),
            done: VecDeque::new(),
            statements: Vec::new(),
            open: 0,
        });
        id
    }

    /// The account of that name, which does something.
    pub(super) fn acting(&mut self, seq: SeqNum, name: &Account) -> u32 {
        let id = self.find(name).unwrap_or_else(|| panic!("entry {seq}: there is no account {name}"));
        self.holder_mut(id).used = true;
        id
    }

    fn sums(&mut self, kind: Kind) -> &mut Sums {
        match kind {
            Kind::Cash => &mut self.cash,
            Kind::Stock(listing) => self.stocks.entry(listing).or_default(),
        }
    }

    /// How much of a kind all accounts have together.
    pub(super) fn held(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Cash => self.cash.held,
            Kind::Stock(listing) => self.stocks.get(&listing).map_or(0, |sums| sums.held),
        }
    }

    /// Changes a stake by one rule, and drops it where nothing is left.
    fn change(&mut self, id: u32, kind: Kind, change: impl FnOnce(Stake) -> Option<Stake>) {
        let holder = &mut self.holders[id as usize];
        let stake = match kind {
            Kind::Cash => &mut holder.cash,
            Kind::Stock(listing) => holder.stocks.entry(listing).or_default(),
        };
        let before = *stake;
        let after = change(before);
        let after = after.unwrap_or_else(|| panic!("{} has less of {kind:?} than leaves it: {before:?}", holder.name));
        after.assert_sound();
        *stake = after;
        if let (Kind::Stock(listing), 0) = (kind, after.owned) {
            holder.stocks.remove(&listing);
        }
        let sums = self.sums(kind);
        sums.held = sums.held - before.owned + after.owned;
    }

    pub(super) fn bring(&mut self, id: u32, kind: Kind, amount: u64) {
        self.sums(kind).brought += amount;
        self.credit(id, kind, amount);
    }

    pub(super) fn take_out(&mut self, id: u32, kind: Kind, amount: u64) {
        let sums = self.sums(kind);
        sums.brought = sums.brought.checked_sub(amount).expect("no more is taken out than was brought in");
        self.debit(id, kind, amount);
    }

    pub(super) fn credit(&mut self, id: u32, kind: Kind, amount: u64) {
        self.change(id, kind, |stake| Some(Stake { owned: stake.owned.checked_add(amount)?, ..stake }));
    }

    pub(super) fn debit(&mut self, id: u32, kind: Kind, amount: u64) {
        self.change(id, kind, |stake| Some(Stake { owned: stake.owned.checked_sub(amount)?, ..stake }));
    }

    pub(super) fn reserve(&mut self, id: u32, kind: Kind, amount: u64) {
        self.change(id, kind, |stake| Some(Stake { reserved: stake.reserved.checked_add(amount)?, ..stake }));
    }

    pub(super) fn release(&mut self, id: u32, kind: Kind, amount: u64) {
        self.change(id, kind, |stake| Some(Stake { reserved: stake.reserved.checked_sub(amount)?, ..stake }));
    }

    /// What was brought in and not taken out is there, of money and of that stock.
    pub(super) fn assert_conserved(&self, seq: SeqNum, listing: Option<u32>) {
        let stock = listing.and_then(|listing| self.stocks.get(&listing)).copied().unwrap_or_default();
        for (what, Sums { brought, held }) in [("money", self.cash), ("stocks", stock)] {
            assert_eq!(brought, held, "entry {seq}: {what} were made or lost");
        }
    }

    /// Counts everything anew: the sums are those of the accounts.
    pub(super) fn assert_summed(&self) {
        let cash: u64 = self.holders.iter().map(|holder| holder.cash.owned).sum();
        assert_eq!(cash, self.cash.held, "the accounts' money does not add up");
        let mut stocks: BTreeMap<u32, u64> = BTreeMap::new();
        for (listing, stake) in self.holders.iter().flat_map(|holder| &holder.stocks) {
            *stocks.entry(*listing).or_default() += stake.owned;
        }
        for (listing, sums) in &self.stocks {
            let summed = stocks.get(listing).copied().unwrap_or_default();
            assert_eq!(summed, sums.held, "the accounts' stocks do not add up");
        }
    }
}
