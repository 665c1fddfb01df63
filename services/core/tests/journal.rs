//! The journal's codec: what was written is read, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::str::FromStr;

use proptest::prelude::*;
use tradenet_core::exchange::Exchange;
use tradenet_core::journal::{BadLine, Scanned, decode, encode, is_torn_tail, scan};
use tradenet_schemas::account::{Account, Asset, TimeInForce};
use tradenet_schemas::ids::{
    Boot, Chain, Digest, Epoch, Leader, OrderNumber, Position, ReplicaId, SeqNum, TradeNumber,
};
use tradenet_schemas::journal::{Entry, Event};
use tradenet_schemas::limits::{PRICE_CENTS_MAX, QUANTITY_MAX};
use tradenet_schemas::statement::{DoneOrder, Statements};
use tradenet_schemas::trade::{CommandKey, IdempotencyKey, Price, Quantity, Side, Symbol};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const GOLDEN: &str = include_str!("golden/journal.jsonl");

fn symbol(name: &str) -> Symbol {
    Symbol::new(name).unwrap()
}

fn client_key(text: &str) -> Option<CommandKey> {
    Some(CommandKey::of_client(&IdempotencyKey::new(text).unwrap()))
}

fn listed(name: &str, cents: u64, quantity: u64) -> Event {
    let (price, quantity) = (Price::from_cents(cents).unwrap(), Quantity::new(quantity).unwrap());
    Event::Listed { symbol: symbol(name), price, quantity }
}

fn traded(order: u64, name: &str, side: Side, quantity: u64, cents: u64) -> Event {
    let (price, quantity) = (Price::from_cents(cents).unwrap(), Quantity::new(quantity).unwrap());
    Event::Traded { order: OrderNumber(order), symbol: symbol(name), side, quantity, price }
}

/// One order that was filled, by halves, and one that was cancelled at once; one of the statements before it.
fn stated() -> Event {
    let fill = |trade| (TradeNumber(trade), Price::from_cents(1599).unwrap(), Quantity::new(1).unwrap());
    let done = |order, price, time_in_force, rested_after, fills: Vec<_>| DoneOrder {
        order: OrderNumber(order),
        symbol: symbol("GameStart"),
        side: Side::Buy,
        quantity: Quantity::new(2).unwrap(),
        price,
        time_in_force,
        rested_after,
        cancelled: Quantity::new(2 - fills.len() as u64).unwrap(),
        fills,
    };
    let earlier = Statements {
        count: 1,
        newest: SeqNum(3),
        lowest: OrderNumber(1),
        highest: OrderNumber(9),
        filled: true,
        cancelled: false,
    };
    let orders = vec![
        done(12, Price::from_cents(1599), TimeInForce::Gtc, Some(1), vec![fill(3), fill(4)]),
        done(15, None, TimeInForce::Ioc, None, vec![]),
    ];
    Event::Stated { account: Account::new("ann").unwrap(), earlier: vec![earlier], orders }
}

/// One entry of each kind, and the awkward ones: several events, quotes in a key, a change of epoch.
fn golden_entries() -> Vec<Entry> {
    let leader = |id| Leader { id: ReplicaId::new(id).unwrap(), boot: Boot(0x0123_4567_89ab_cdef) };
    let catalog = Boot(0xca7a_1090_0000_0001);
    let entries = [
        (1, None, vec![Event::EpochStart { leader: leader(3), digest: Digest(0xd1) }]),
        (1, None, vec![listed("GameStart", 1599, 100), listed("\"\\", PRICE_CENTS_MAX, QUANTITY_MAX)]),
        (1, None, vec![Event::Attached { catalog }]),
        (1, client_key("cli\"ent"), vec![traded(1, "GameStart", Side::Buy, 2, 1599)]),
        (2, None, vec![Event::EpochStart { leader: leader(2), digest: Digest(u64::MAX) }]),
        (2, None, vec![Event::Detached { catalog }]),
        (2, Some(CommandKey::generated(Boot(0xf0), 7)), vec![traded(2, "GameStart", Side::Sell, 1, 1599)]),
        (2, None, vec![stated()]),
    ];
    let numbered = entries.into_iter().zip(1..);
    numbered
        .map(|((epoch, key, events), seq)| Entry {
            seq: SeqNum(seq),
            epoch: Epoch(epoch),
            at: 1_700_000_000_000 + seq,
            key,
            events,
        })
        .collect()
}

/// The file of `entries`, and where each of its lines ends.
fn file(entries: &[Entry]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends, mut chain) = (Vec::new(), Vec::new(), Chain::default());
    for entry in entries {
        chain = encode(entry, chain, &mut bytes);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// All that a scan says: the entries, why it ended, what is left, whether that is torn.
fn scanned(bytes: &[u8]) -> (Vec<Entry>, Option<BadLine>, &[u8], bool) {
    let mut scan = scan(bytes, Position::default());
    let (mut good, mut bad) = (Vec::new(), None);
    for line in &mut scan {
        match line {
            Ok(Scanned { entry, .. }) => good.push(entry),
            Err(error) => assert_eq!(bad.replace(error), None, "a scan ends behind its first bad line"),
        }
    }
    (good, bad, scan.rest(), scan.is_torn())
}

// ---------------------------------------------------------------- what is written is read

#[test]
fn golden_lines_are_what_is_written() {
    let (bytes, _) = file(&golden_entries());
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text, GOLDEN, "the journal's form has changed; old files would not be read. Written now:\n{text}");
}

/// Whether every kind of event, and every form of its fields, stands in a golden file. A new kind does not compile before it has
/// its place here.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::EpochStart { .. } => "epoch_start",
        Event::Listed { .. } => "listed",
        Event::Traded { .. } => "traded",
        Event::Opened { .. } => "opened",
        Event::Deposited { asset: Asset::Cash(_), .. } => "deposited cash",
        Event::Deposited { asset: Asset::Stock(..), .. } => "deposited stock",
        Event::Withdrawn { .. } => "withdrawn",
        Event::Placed { price: None, .. } => "placed at any price",
        Event::Placed { post_only: true, .. } => "placed post-only",
        Event::Placed { time_in_force: TimeInForce::Gtc, .. } => "placed gtc",
        Event::Placed { time_in_force: TimeInForce::Ioc, .. } => "placed ioc",
        Event::Placed { time_in_force: TimeInForce::Fok, .. } => "placed fok",
        Event::Matched { .. } => "matched",
        Event::Cancelled { .. } => "cancelled",
        Event::Stated { .. } => "stated",
        Event::Attached { .. } => "attached",
        Event::Detached { .. } => "detached",
    }
}
const KINDS: usize = 17;

/// Files that an exchange has written, of every released form. They are never changed, only added to: what they hold is on disks.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "core does no IO; its golden files are found by their directory, so that none is forgotten"
)]
fn every_golden_file_is_read_applied_and_written_again_as_it_is() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut kinds = BTreeSet::new();
    for path in std::fs::read_dir(golden).unwrap().map(|file| file.unwrap().path()) {
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let text = std::fs::read(&path).unwrap();
        let (entries, bad, rest, torn) = scanned(&text);
        assert_eq!((bad, rest.len(), torn), (None, 0, false), "{}", path.display());
        assert!(file(&entries).0 == text, "{} is written otherwise today", path.display());
        kinds.extend(entries.iter().flat_map(|entry| &entry.events).map(kind));
        // The small file shows forms, not a history: only what an exchange wrote can be applied.
        if path.file_stem().is_some_and(|stem| stem != "journal") {
            let mut state = Exchange::new();
            entries.iter().for_each(|entry| state.apply(entry));
            let digest = std::fs::read_to_string(path.with_extension("digest")).unwrap();
            assert_eq!(state.digest().to_string(), digest.trim(), "{} comes to another state today", path.display());
        }
    }
    assert_eq!(kinds.len(), KINDS, "in no golden file: {kinds:?} is all there is");
}

#[test]
fn golden_lines_are_read() {
    let (good, bad, rest, torn) = scanned(GOLDEN.as_bytes());
    assert_eq!((good, bad, rest, torn), (golden_entries(), None, &[][..], false));
}

fn any_symbol() -> impl Strategy<Value = Symbol> {
    "[!-~]{1,32}".prop_filter_map("not allowed in a symbol", |name| Symbol::new(&name).ok())
}

fn any_key() -> impl Strategy<Value = CommandKey> {
    prop_oneof![
        "[!-~]{1,255}".prop_map(|text| client_key(&text).unwrap()),
        (any::<u64>(), any::<u64>()).prop_map(|(boot, number)| CommandKey::generated(Boot(boot), number)),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let price = || (0..=PRICE_CENTS_MAX).prop_map(|cents| Price::from_cents(cents).unwrap());
    let quantity = || (0..=QUANTITY_MAX).prop_map(|count| Quantity::new(count).unwrap());
    let side = prop_oneof![Just(Side::Buy), Just(Side::Sell)];
    prop_oneof![
        (1..=63_u8, any::<u64>(), any::<u64>()).prop_map(|(id, boot, digest)| {
            let leader = Leader { id: ReplicaId::new(id).unwrap(), boot: Boot(boot) };
            Event::EpochStart { leader, digest: Digest(digest) }
        }),
        (any_symbol(), price(), quantity()).prop_map(|(symbol, price, quantity)| Event::Listed {
            symbol,
            price,
            quantity
        }),
        (any::<u64>(), any_symbol(), side, quantity(), price()).prop_map(|(order, symbol, side, quantity, price)| {
            Event::Traded { order: OrderNumber(order), symbol, side, quantity, price }
        }),
        any::<u64>().prop_map(|boot| Event::Attached { catalog: Boot(boot) }),
        any::<u64>().prop_map(|boot| Event::Detached { catalog: Boot(boot) }),
    ]
}

fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let part = (0..3_u64, any::<u64>(), proptest::option::of(any_key()), prop::collection::vec(any_event(), 0..4));
    prop::collection::vec(part, 0..12).prop_map(|parts| {
        let mut epoch = Epoch(1);
        let entries = parts.into_iter().zip(1..).map(|((later, at, key, events), seq)| {
            epoch.0 += later;
            Entry { seq: SeqNum(seq), epoch, at, key, events }
        });
        entries.collect()
    })
}

proptest! {
    #[test]
    fn every_entry_is_read_as_it_was_written(entries in any_entries()) {
        let (bytes, ends) = file(&entries);
        let mut scan = scan(&bytes, Position::default());
        let (mut start, mut prev) = (0, Position::default());
        for (entry, end) in entries.iter().zip(ends) {
            let line = &bytes[start..end];
            prop_assert_eq!(line.iter().position(|&b| b == b'\n'), Some(line.len() - 1), "one line feed, at the end");
            let (read, position) = decode(&line[..line.len() - 1], prev).unwrap();
            prop_assert_eq!(&read, entry);
            prop_assert_eq!((position.seq, position.epoch), (entry.seq, entry.epoch));
            let bytes = line.len();
            prop_assert_eq!(scan.next(), Some(Ok(Scanned { entry: read, position, bytes })));
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            prop_assert_eq!(value["chain"].as_str().unwrap(), position.chain.to_string(), "jq can read it");
            (start, prev) = (end, position);
        }
        prop_assert_eq!(scan.next(), None);
        prop_assert_eq!((scan.rest(), scan.position(), scan.is_torn()), (&[][..], prev, false));
    }

    #[test]
    fn a_file_read_in_pieces_is_the_same_as_in_one(entries in any_entries(), piece in 1..700_usize) {
        let (bytes, _) = file(&entries);
        let (mut good, mut rest, mut position) = (Vec::new(), Vec::new(), Position::default());
        for piece in bytes.chunks(piece) {
            rest.extend_from_slice(piece);
            let mut scan = scan(&rest, position);
            good.extend(scan.by_ref().map(|line| line.unwrap().entry));
            position = scan.position();
            rest = scan.rest().to_vec();
        }
        prop_assert_eq!((good, rest.len()), (entries, 0));
    }

    #[test]
    fn random_bytes_are_no_entry(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(scanned(&bytes).0, vec![]);
    }
}

// ---------------------------------------------------------------- nothing else is

#[test]
fn a_file_cut_at_any_byte_keeps_the_whole_lines_before() {
    let entries = golden_entries();
    let (bytes, ends) = file(&entries);
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let start = if whole == 0 { 0 } else { ends[whole - 1] };
        let expected = (entries[..whole].to_vec(), None, &bytes[start..cut], cut > start);
        assert_eq!(scanned(&bytes[..cut]), expected, "cut at byte {cut}");
    }
}

#[test]
fn a_file_whose_end_reads_as_nuls_keeps_the_whole_lines_before() {
    let entries = golden_entries();
    let (bytes, ends) = file(&entries);
    for cut in 0..bytes.len() {
        let mut nuls = bytes.clone();
        nuls[cut..].fill(0);
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let (good, bad, rest, torn) = scanned(&nuls);
        let start = if whole == 0 { 0 } else { ends[whole - 1] };
        assert_eq!((good, bad, rest), (entries[..whole].to_vec(), None, &nuls[start..]), "NULs from byte {cut}");
        assert!(torn, "NULs from byte {cut}");
    }
}

#[test]
fn a_flipped_bit_is_never_read_and_never_cut() {
    let entries = golden_entries();
    let (bytes, ends) = file(&entries);
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        let (good, bad, rest, torn) = scanned(&flipped);
        let before = ends.iter().filter(|&&end| end <= at).count();
        let start = if before == 0 { 0 } else { ends[before - 1] };
        let place = format!("bit {bit} of byte {at}");
        assert_eq!((&good[..], rest), (&entries[..before], &flipped[start..]), "{place}");
        // Only the file's last line feed can go without leaving a line.
        assert_eq!(bad.is_some(), at + 1 < bytes.len(), "{place}");
        assert!(!torn, "{place}");
    }
}

/// What comes of lines with a right checksum, behind the entry (epoch 5, seq 7), that are not the next entry.
#[test]
fn whole_lines_that_do_not_fit_are_told_apart_and_never_cut() {
    let good = r#"{"seq":8,"epoch":5,"at":1,"events":[]}"#;
    check("the next entry is read", good, |text| text.into(), Ok(8));
    check("a gap", r#"{"seq":9,"epoch":5,"at":1,"events":[]}"#, |text| text.into(), Err(out_of_order(9)));
    check("the same again", r#"{"seq":7,"epoch":5,"at":1,"events":[]}"#, |text| text.into(), Err(out_of_order(7)));
    let stale = BadLine::StaleEpoch { before: Epoch(5), found: Epoch(4) };
    check("an older epoch", r#"{"seq":8,"epoch":4,"at":1,"events":[]}"#, |text| text.into(), Err(stale));
    for (name, newer) in [
        ("an event that is not known", r#"{"seq":8,"epoch":5,"at":1,"events":[{"split":{}}]}"#),
        ("a field of the entry that is not known", r#"{"seq":8,"epoch":5,"at":1,"by":"x","events":[]}"#),
        (
            "a field of an event that is not known",
            r#"{"seq":8,"epoch":5,"at":1,"events":[{"attached":{"catalog":"00000000000000aa","lease":1}}]}"#,
        ),
        ("a value out of its bounds", r#"{"seq":8,"epoch":5,"at":-1,"events":[]}"#),
        ("nothing that is an entry", "{}"),
    ] {
        check(name, newer, |text| text.into(), Err(BadLine::UnknownForm(String::new())));
    }
}

#[test]
fn lines_that_were_not_written_so_are_refused() {
    let good = r#"{"seq":8,"epoch":5,"at":1,"events":[]}"#;
    let replace = |from: &'static str, to: &'static str| move |line: &str| line.replacen(from, to, 1).into_bytes();
    check("another value", good, replace(r#""at":1"#, r#""at":2"#), Err(BadLine::Checksum));
    check("a space more", good, replace(r#""at":1"#, r#""at": 1"#), Err(BadLine::Checksum));
    check("bytes behind the entry", good, replace("[]}", "[]} "), Err(BadLine::Checksum));
    check("a byte that is no text", good, |line| [line.as_bytes(), b"\xff"].concat(), Err(BadLine::Checksum));
    check("another mark in the comma's place", good, replace(r#"","seq"#, r#"":"seq"#), Err(BadLine::NotALine));
    check("no chain", good, |_| good.into(), Err(BadLine::NotALine));
    check("nothing", good, |_| vec![], Err(BadLine::NotALine));
    check("only the beginning", good, |line| line[..20].into(), Err(BadLine::NotALine));
    check("only the chain", good, |line| line[..27].into(), Err(BadLine::NotALine));
    check("digits in upper case", good, |line| line.to_uppercase().into(), Err(BadLine::NotALine));
    check("a carriage return", good, |line| format!("{line}\r").into(), Err(BadLine::Checksum));
}

fn out_of_order(found: u64) -> BadLine {
    BadLine::OutOfOrder { expected: SeqNum(8), found: SeqNum(found) }
}

/// Puts a right chain before `json`, spoils the line with `spoil`, and decodes it behind (epoch 5, seq 7). A form that is
/// not known is compared without its reason.
#[track_caller]
fn check(name: &str, json: &str, spoil: impl Fn(&str) -> Vec<u8>, expected: Result<u64, BadLine>) {
    let prev = Position { epoch: Epoch(5), seq: SeqNum(7), chain: Chain::from_str("00000000000000c7").unwrap() };
    let chain = Chain(xxh3_64_with_seed(json.as_bytes(), prev.chain.0));
    let mut line = spoil(&format!("{{\"chain\":\"{chain}\",{}", &json[1..]));
    let found = decode(&line, prev).map(|(entry, _)| entry.seq.0).map_err(|bad| match bad {
        BadLine::UnknownForm(_) => BadLine::UnknownForm(String::new()),
        other => other,
    });
    assert_eq!(found, expected, "{name}");
    line.push(b'\n');
    let mut scan = scan(&line, prev);
    assert_eq!(scan.by_ref().count(), 1, "{name}");
    assert!(!scan.is_torn(), "{name}: a line that was whole once is never cut");
    let not_as_written = matches!(expected, Err(BadLine::NotALine | BadLine::Checksum));
    let damage = expected.is_err_and(|bad| bad.is_damage());
    assert_eq!(damage, not_as_written, "{name}: a right checksum is no damage");
}

#[test]
fn the_sequence_can_not_overflow() {
    let prev = Position { seq: SeqNum(u64::MAX), ..Position::default() };
    let mut line = Vec::new();
    encode(&golden_entries()[0], prev.chain, &mut line);
    let expected = BadLine::OutOfOrder { expected: SeqNum(u64::MAX), found: SeqNum(1) };
    assert_eq!(decode(&line[..line.len() - 1], prev), Err(expected));
}

// ---------------------------------------------------------------- torn or damaged

#[test]
fn only_a_line_that_was_never_whole_is_torn() {
    let (bytes, ends) = file(&golden_entries());
    let line = |at: usize| String::from_utf8(bytes[ends[at - 1]..ends[at]].to_vec()).unwrap();
    let (a, b) = (line(3), line(4));
    let mut before = scan(&bytes[..ends[2]], Position::default());
    assert_eq!(before.by_ref().count(), 3);
    let prev = before.position();
    let hole = |line: &str| format!("{}\0\0\0\0{}", &line[..40], &line[44..]);
    let whole_a = a.trim_end();
    let cases = [
        ("an incomplete line", a[..50].to_string(), true),
        ("the first byte of a line", "{".to_string(), true),
        ("a line without its line feed", whole_a.to_string(), true),
        ("a line with NULs in place of its line feed", format!("{whole_a}\0\0"), true),
        ("a line with another byte in place of its line feed", format!("{whole_a}\u{b}"), false),
        ("NULs alone", "\0".repeat(4096), true),
        ("an incomplete line and NULs", format!("{}{}", &a[..50], "\0".repeat(4096)), true),
        ("a line with a hole", hole(&a), false),
        ("a line with a hole, and NULs", format!("{}\0\0\0", hole(&a)), false),
        ("a hole over the end of a line, into the last one", format!("{}\0\0\0\0{}", &a[..60], &b[20..]), false),
        ("a line with a hole, and a whole line", format!("{}{b}", hole(&a)), false),
        ("a line with a hole, and an incomplete one", format!("{}{}", hole(&a), &b[..50]), false),
        ("a line with a hole, and the first byte of one", format!("{}{{", hole(&a)), false),
        ("a line with a hole, and something else", format!("{}x", hole(&a)), false),
        ("a line with a hole, NULs, a whole line", format!("{}\0\0\0{b}", hole(&a)), false),
        ("two lines with holes", format!("{}{}", hole(&a), hole(&b)), false),
        ("NULs before a whole line", format!("\0\0\0\0{b}"), false),
        ("NULs before an incomplete line", format!("\0\0\0\0{}", &b[..50]), false),
        ("a lost line feed before the last line", format!("{whole_a}{b}"), false),
        ("a spoilt line feed before an incomplete line", format!("{whole_a}\x0b{}", &b[..50]), false),
        ("an empty line before a whole one", format!("\n{b}"), false),
        ("lines of another file", "name,price\nGameStart,15.99\n".to_string(), false),
    ];
    for (name, rest, torn) in cases {
        assert_eq!(is_torn_tail(rest.as_bytes(), prev), torn, "{name}: {rest:?}");
    }
}
