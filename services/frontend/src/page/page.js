// The live page: what the exchange does, as it does it.
//
//   state   what is known: stocks, the chosen stock's book, trades and candles, the cluster, the account
//   feed    brings it: GET /events, GET /cluster, and reads of what the feed does not repeat
//   render  draws what has changed, once a frame at most, into nodes that stay
//   ticket  changes things: orders and accounts, each request with a key, so that asking again is safe
//
// Rules kept: text of the exchange becomes text of the page (textContent), never markup; every list has a bound; while nothing
// changes, nothing runs but one look at the cluster a second.

// ------------------------------------------------------------ bounds

const LOOK_MS = 1000; // at the cluster, while nothing happens
const LOOK_BUSY_MS = 250; // and while something does
const LOOK_HIDDEN_MS = 10_000;
const LOOK_WITHIN_MS = 3000;
const REOPEN_MS = 1000; // a stream that the browser gave up
const ACCOUNT_EVERY_MS = 400; // the account's own orders, while the market moves
const TRADES_MAX = 60;
const CANDLES_MAX = 60;
const ENTRIES_MAX = 40; // columns of the log
const LEVELS_SHOWN = 10;
const BOOK_DEPTH = 500;
const PENDING_MAX = 5000; // changes of a book that wait for the book itself
const SAMPLES_MAX = 12; // looks at the cluster that rates are made of
const ASKED_SAMPLES = 4; // so many looks until the services have told of themselves
const ASK_FOR_MS = 20_000; // a request without a clear answer is asked again for so long
const ASK_WITHIN_MS = 8000; // longer than the exchange's own deadline

// ------------------------------------------------------------ state

const state = {
  stocks: new Map(), // name → {name, price, quantity, volume, sequence, moved}; prices in cents
  chosen: null,
  book: null, // {sequence, bids, asks}: price → quantity; null until it has been read
  pending: [], // changes of the chosen book that came before it
  trades: [], // the chosen stock's, newest first
  candles: [], // the chosen stock's, oldest first
  interval: "1m",
  entries: new Map(), // log entries that the feed has told of: sequence → {kind, text}
  cluster: null,
  samples: [], // of the counters that rates are made of
  service: null, // the name of the chosen one
  feed: { open: false, looked: true, heard: Date.now(), since: null, last: null },
  account: null, // {account, token}
  balance: null,
  orders: [],
};

const INTERVALS = { "1s": 1000, "1m": 60_000, "1h": 3_600_000 };
const cents = (price) => Math.round(price * 100);

/** Takes a stock in, from an event (which has a sequence) or from a read (which has not). */
function takeStock({ name, price, quantity, volume, sequence }) {
  const known = state.stocks.get(name);
  // Of two events the later counts; of an event and a read, the larger volume. docs/events.md says why.
  if (known && (sequence === undefined || known.sequence === undefined ? volume < known.volume : sequence <= known.sequence)) return;
  const stock = { name, price: cents(price), quantity, volume, sequence: sequence ?? known?.sequence, trend: known?.trend ?? 0 };
  const sold = known ? known.quantity - quantity : 0;
  if (sold !== 0) stock.trend = sold > 0 ? -1 : 1;
  state.stocks.set(name, stock);
  if (sequence === undefined || !known) return dirty("stocks");
  if (sold !== 0 && name === state.chosen) {
    takeTrade({ house: true, at: Date.now(), price, quantity: Math.abs(sold), side: sold > 0 ? "buy" : "sell" });
  }
  const left = `${name}: ${whole(quantity)} left`;
  note(sequence, sold !== 0 ? "H" : "S", left);
  dirty("stocks");
}

/** Takes a trade of the chosen stock in, newest first. Those among accounts are numbered. */
function takeTrade(trade) {
  if (trade.trade !== undefined && state.trades.some((known) => known.trade === trade.trade)) return;
  state.trades.unshift({ ...trade, price: cents(trade.price) });
  state.trades.length = Math.min(state.trades.length, TRADES_MAX);
  dirty("tape");
  if (!trade.house) takeCandle(trade);
}

/** Goes on with the last candle, or begins the next. */
function takeCandle({ at, price, quantity }) {
  const begins = at - (at % INTERVALS[state.interval]);
  const last = state.candles.at(-1);
  const now = cents(price);
  if (last && last.at >= begins) {
    Object.assign(last, { high: Math.max(last.high, now), low: Math.min(last.low, now), close: now, quantity: last.quantity + quantity });
  } else {
    state.candles.push({ at: begins, open: now, high: now, low: now, close: now, quantity });
    state.candles.splice(0, state.candles.length - CANDLES_MAX);
  }
  dirty("candles");
}

/** Takes changes of the chosen stock's book in, or keeps them until the book itself is there. */
function takeBook(change) {
  if (!state.book) {
    state.pending.push(change);
    if (state.pending.length > PENDING_MAX) state.pending.shift();
    return;
  }
  if (change.sequence <= state.book.sequence) return;
  for (const side of ["bids", "asks"]) {
    for (const [price, quantity] of change[side]) {
      if (quantity === 0) state.book[side].delete(cents(price));
      else state.book[side].set(cents(price), quantity);
    }
  }
  state.book.sequence = change.sequence;
  dirty("book");
}

/** Remembers what the feed told of a log entry. A trade says more than the change of its book, that more than its stock's. */
function note(sequence, kind, text) {
  const rank = "SHBT";
  const known = state.entries.get(sequence);
  if (known && rank.indexOf(known.kind) >= rank.indexOf(kind)) return;
  state.entries.set(sequence, { kind, text });
  while (state.entries.size > 4 * ENTRIES_MAX) state.entries.delete(state.entries.keys().next().value);
  dirty("log");
}

// ------------------------------------------------------------ feed

/** What reads and sends. Answers as the exchange does; a failure says its words. */
async function call(path, { method = "GET", body, token, key, within = ASK_WITHIN_MS } = {}) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  if (key) headers["Idempotency-Key"] = key;
  const answer = await fetch(path, {
    method, headers, body: body && JSON.stringify(body), cache: "no-store", signal: AbortSignal.timeout(within),
  });
  const { data, error } = await answer.json();
  if (answer.ok) return data;
  throw Object.assign(new Error(error.message), { status: answer.status });
}

const ofStock = (name, what) => `/stocks/${encodeURIComponent(name)}/${what}`;

/** Follows the events from behind the last one that is known. The browser repeats a broken stream by itself, but not a refused one. */
function follow() {
  const after = state.feed.last === null ? "" : `?last_event_id=${state.feed.last}`;
  const source = new EventSource(`/events${after}`);
  const on = (kind, take) => source.addEventListener(kind, (event) => {
    state.feed.last = event.lastEventId;
    state.feed.heard = Date.now();
    take(JSON.parse(event.data));
    hurry();
  });
  on("stock", takeStock);
  on("trade", (trade) => {
    note(trade.sequence, "T", `${trade.name}: ${whole(trade.quantity)} at ${money(cents(trade.price))}`);
    if (trade.name === state.chosen) takeTrade(trade);
    accountMayHaveChanged();
  });
  on("book", (book) => {
    note(book.sequence, "B", `${book.name}: book changed`);
    if (book.name === state.chosen) takeBook(book);
  });
  on("cluster", () => {});
  on("gap", readAll);
  on("end", () => {});
  source.onopen = () => {
    live("open", true);
    // A stream that goes on where another stopped repeats what came between; the first one begins now.
    if (state.feed.last === null) readAll();
  };
  source.onerror = () => {
    live("open", false);
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, REOPEN_MS);
  };
}

/** Reads everything anew, as after a gap. */
async function readAll() {
  try {
    (await call("/stocks")).forEach(takeStock);
    // The one that is chosen, or that the address names, or of which most has been traded.
    const busiest = [...state.stocks.values()].sort((one, other) => other.volume - one.volume || (one.name < other.name ? -1 : 1))[0]?.name;
    const name = [state.chosen, named(), busiest].find((name) => state.stocks.has(name));
    if (name !== undefined) await choose(name);
  } catch {
    setTimeout(readAll, REOPEN_MS); // No leader yet, or the frontend has gone.
  }
}

/** The stock that the page's address names. */
function named() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

/** Chooses a stock, and reads what the feed does not repeat. */
async function choose(name) {
  Object.assign(state, { chosen: name, book: null, pending: [], trades: [], candles: [] });
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  dirty("stocks", "book", "tape", "candles", "chosen");
  const still = () => state.chosen === name;
  const [book, trades] = await Promise.all([call(ofStock(name, `book?depth=${BOOK_DEPTH}`)), call(ofStock(name, `trades?limit=${TRADES_MAX}`)), readCandles()]);
  if (!still()) return;
  const side = (levels) => new Map(levels.map(([price, quantity]) => [cents(price), quantity]));
  state.book = { sequence: book.sequence, bids: side(book.bids), asks: side(book.asks) };
  state.pending.splice(0).forEach(takeBook);
  const told = state.trades.filter((trade) => trade.house || !trades.some(({ trade: number }) => number === trade.trade));
  const read = trades.map((trade) => ({ ...trade, price: cents(trade.price) }));
  state.trades = [...told, ...read].sort((one, other) => other.at - one.at).slice(0, TRADES_MAX);
  dirty("book", "tape");
}

async function readCandles() {
  const { chosen, interval } = state;
  const read = await call(ofStock(chosen, `candles?interval=${interval}&limit=${CANDLES_MAX}`));
  if (state.chosen !== chosen || state.interval !== interval) return;
  const price = (candle) => Object.fromEntries(["open", "high", "low", "close"].map((name) => [name, cents(candle[name])]));
  state.candles = read.reverse().map((candle) => ({ ...candle, ...price(candle) }));
  dirty("candles");
}

let looking = null; // the timer of the next look; none while one is under way
let lookedAt = 0;
let lookDue = 0;

function lookIn(ms) {
  clearTimeout(looking);
  lookDue = performance.now() + ms;
  looking = setTimeout(look, ms);
}

/** Something happens: look sooner. */
function hurry() {
  const due = Math.max(lookedAt + LOOK_BUSY_MS, performance.now());
  if (!document.hidden && lookDue > due + 1 && looking !== null) lookIn(due - performance.now());
}

/** Looks at the cluster. How far each replica is changes without an event, so this is asked for again and again. */
async function look() {
  looking = null;
  lookedAt = performance.now();
  try {
    state.cluster = await call("/cluster", { within: LOOK_WITHIN_MS });
    const { trades, cache } = state.cluster.frontend;
    const newest = { at: state.cluster.at, trades: trades.count, hits: cache.hits, misses: cache.misses };
    // Another run of the frontend counts anew.
    if (state.samples.at(-1)?.trades > newest.trades) state.samples = [];
    state.samples.push(newest);
    if (state.samples.length > SAMPLES_MAX) state.samples.shift();
    state.feed.heard = Date.now();
    live("looked", true);
    dirty("cluster", "log");
  } catch {
    live("looked", false);
  }
  lookIn(document.hidden ? LOOK_HIDDEN_MS : LOOK_MS);
}

/** Notes whether a source answers. What is shown is live while all do; the last that was heard is where it became stale. */
function live(source, answers) {
  if (state.feed[source] === answers) return;
  state.feed[source] = answers;
  const { open, looked, heard, since } = state.feed;
  state.feed.since = open && looked ? null : since ?? heard;
  dirty("state", "cluster");
}

// ------------------------------------------------------------ render

const $ = (id) => document.getElementById(id);
const format = new Intl.NumberFormat("en");
const whole = (number) => format.format(number);
const moneyFormat = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const money = (price) => moneyFormat.format(price / 100);
const SIDES = { buy: "▲ buy", sell: "▼ sell" };
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function clock(ms) {
  const at = new Date(ms);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

function lasted(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return seconds < 100 ? `${seconds} s` : seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** Writes a text, if it is another one: what stays the same costs no layout. */
function write(node, text) {
  if (node.firstChild?.nodeValue !== text || node.childNodes.length !== 1) node.textContent = text;
}

function mark(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** As many children as there are items, made once and written again. */
function list(parent, items, create, update) {
  while (parent.childElementCount > items.length) parent.lastElementChild.remove();
  while (parent.childElementCount < items.length) parent.append(create());
  items.forEach((item, at) => update(parent.children[at], item, at));
}

const row = (cells) => () => make("tr", {}, ...Array.from({ length: cells }, () => make("td")));

function flash(node, up) {
  if (calm.matches || node.flash?.playState === "running") return;
  node.flash = node.animate([{ backgroundColor: `var(--flash-${up ? "up" : "down"})` }, { backgroundColor: "transparent" }], { duration: 700, easing: "ease-out" });
}

const parts = { state: drawState, cluster: drawCluster, log: drawLog, stocks: drawStocks, chosen: drawChosen, book: drawBook, tape: drawTape, candles: drawCandles, account: drawAccount };
const changed = new Set();

/** These parts are drawn with the next frame, however much happens until then. */
function dirty(...names) {
  if (changed.size === 0) requestAnimationFrame(draw);
  names.forEach((name) => changed.add(name));
}

function draw() {
  const now = [...changed];
  changed.clear();
  now.forEach((name) => parts[name]());
}

function drawState() {
  const { since } = state.feed;
  const { cluster } = state;
  document.body.classList.toggle("stale", since !== null && cluster !== null);
  const [tone, text] =
    since !== null && (cluster || Date.now() - since > LOOK_WITHIN_MS) ? ["bad", `Stale since ${clock(since)}: this frontend does not answer`]
    : !cluster || !state.feed.open ? ["wait", "Connecting"]
    : !cluster.ready ? ["bad", `No trades: ${cluster.trouble ?? "no leader"}`]
    : cluster.trouble ? ["warn", `Live, but ${cluster.trouble}`]
    : cluster.in_sync.length < cluster.replicas.length ? ["warn", `Live, with ${cluster.in_sync.length} of ${cluster.replicas.length} replicas in sync`]
    : ["good", "Live"];
  mark($("state"), "data-tone", tone);
  write($("state"), text);
}

function took(us) {
  return us === null || us === undefined ? "–" : us < 10_000 ? `${(us / 1000).toFixed(1)} ms` : `${whole(Math.round(us / 1000))} ms`;
}

function drawFigures() {
  const { leader, epoch, frontend } = state.cluster;
  write($("leader"), leader === null ? "none" : `order-${leader}`);
  write($("epoch"), whole(epoch));
  write($("p50"), took(frontend.trades.p50_us));
  write($("p99"), took(frontend.trades.p99_us));
  const [first, last] = [state.samples[0], state.samples.at(-1)];
  const seconds = (last.at - first.at) / 1000;
  const rate = seconds > 0 ? (last.trades - first.trades) / seconds : 0;
  write($("rate"), rate > 0 && rate < 10 ? rate.toFixed(1) : whole(Math.round(rate)));
  // Of the last looks, or since the start where nobody has looked anything up since.
  const recent = last.hits + last.misses > first.hits + first.misses;
  const [hits, misses] = recent ? [last.hits - first.hits, last.misses - first.misses] : [last.hits, last.misses];
  write($("hits"), hits + misses === 0 ? "–" : `${Math.round((100 * hits) / (hits + misses))} %`);
}

/** What each card says: of replicas by what the frontend hears itself, of the others by what they answer. */
function cards() {
  const { at, replicas, services, leader, catalog, frontend } = state.cluster;
  // The frontend of this page cannot tell that it has gone itself.
  const lost = state.feed.since;
  const known = (kind, name) => services.find((service) => service.kind === kind && service.name === name);
  const of = (replica) => {
    const name = `order-${replica.id}`;
    const leads = replica.id === leader;
    const since = replica.out_of_sync_since ?? replica.silent_since;
    const standing = replica.in_sync && replica.alive ? "✓ in sync"
      : `✕ ${replica.in_sync ? "silent" : "out of sync"}${since ? ` since ${clock(since)}` : ""}`;
    const silent = `silent${replica.silent_since ? ` · ${lasted(at - replica.silent_since)}` : ""}`;
    return {
      ...known("order", name), name, alive: replica.alive, role: replica.alive ? replica.role : silent,
      tone: !replica.alive ? "bad" : leads ? "lead" : replica.in_sync ? "good" : "wait",
      standing: replica.trouble ? `${standing}; ${replica.trouble}` : standing,
      facts: [`epoch ${replica.epoch}`, `lag ${whole(replica.lag)}`],
      marks: ["tail", "durable", "committed", "applied"].map((name) => [name, replica[name]]),
    };
  };
  const other = (heard) => {
    const gone = lost !== null && heard.boot === frontend.boot;
    const service = gone ? { ...heard, alive: false, seen: lost } : heard;
    const since = gone ? Date.now() - lost : at - service.seen;
    const answers = service.kind === "catalog" && service.boot === catalog;
    const lease = service.kind === "catalog"
      ? (service.lease ? "✓ has authority from the leader" : answers ? "✕ no authority" : "stands by")
      : service.lease === null ? "without a cache" : service.lease ? "✓ lease on its cache" : "✕ no lease";
    return {
      ...service, role: !service.alive ? `gone · ${lasted(since)}` : service.kind === "frontend" ? "frontend" : answers ? "attached" : "standby",
      tone: !service.alive ? "bad" : service.lease === false && (answers || service.kind === "frontend") ? "wait" : "good",
      standing: service.alive ? lease : `✕ no answer since ${clock(service.seen)}`,
      facts: [],
      marks: [],
    };
  };
  return [...replicas.map(of), ...services.filter((service) => service.kind !== "order").map(other)];
}

function makeCard() {
  const card = make("button", { type: "button", className: "service" },
    make("span", { className: "top" }, make("span", { className: "name" }), make("span", { className: "role" })),
    make("span", { className: "standing" }), make("span", { className: "marks" }), make("span", { className: "place" }));
  card.addEventListener("click", () => {
    state.service = card.dataset.name;
    dirty("cluster");
  });
  return card;
}

function drawCard(node, card) {
  mark(node, "data-name", card.name);
  mark(node, "data-tone", card.tone);
  mark(node, "aria-pressed", card.name === state.service);
  const [top, standing, marks, place] = node.children;
  write(top.children[0], card.name);
  write(top.children[1], card.role);
  write(standing, card.standing);
  list(marks, card.marks.flat(), () => make("span"), (cell, value) => write(cell, typeof value === "number" ? whole(value) : value));
  // In a container the host is its own name, and the pid says nothing outside.
  const pid = card.pid && !contained(card) && `pid ${card.pid}`;
  write(place, [...card.facts, card.http?.replace("http://", ""), pid, card.host].filter(Boolean).join(" · "));
  node.classList.toggle("replica", card.marks.length > 0);
  marks.hidden = card.marks.length === 0;
}

const contained = ({ stop }) => stop?.startsWith("docker ") ?? false;

function drawCluster() {
  if (!state.cluster) return;
  drawState();
  drawFigures();
  const all = cards();
  // Whom to stop first, to see what the exchange does about it.
  state.service ??= all.find((card) => card.tone === "lead")?.name ?? null;
  list($("services"), all, makeCard, drawCard);
  drawCommand(all.find((card) => card.name === state.service));
  drawTimeline();
}

/** The command that stops the chosen service, or the one that brings it back. */
function drawCommand(card) {
  const stop = card?.stop ?? null;
  const back = !stop || card.alive ? null
    : contained(card) ? stop.replace(/ stop /, " start ")
    : /^[\w.-]+$/.test(card.name) ? `jq -r '.processes[] | select(.name == "${card.name}").argv | @sh' data/dev.json | sh` : null;
  const command = card?.alive ? stop : back;
  const where = card?.host && !contained(card) ? ` on ${card.host}` : "";
  const about = !card ? "Choose a service to see the command that stops it."
    : command && card.alive ? `Stop ${card.name}${where}:`
    : command ? `Start ${card.name} again, ${contained(card) ? "with" : "where tradenet dev was started"}:`
    : state.samples.length < ASKED_SAMPLES ? `Asking where ${card.name} runs …`
    : `It is not known how ${card.name} is ${card.alive ? "stopped" : "started"}.`;
  write($("command-about"), about);
  write($("command"), command ?? "");
  $("command").hidden = $("copy").hidden = !command;
  mark($("copy"), "aria-label", command && `Copy the command: ${command}`);
}

const HAPPENINGS = { elected: ["lead", "★"], leaderless: ["bad", "▲"], silent: ["bad", "✕"], back: ["good", "↑"], out_of_sync: ["bad", "−"], in_sync: ["good", "✓"], catalog: ["lead", "▤"], broker: ["lead", "⇄"] };

function drawTimeline() {
  const { history: happened, services } = state.cluster;
  const named = (text) => services.reduce((text, { boot, name }) => text.replace(`catalog ${boot}`, name), text);
  const create = () => make("li", {}, make("time"), make("i", { ariaHidden: "true" }), make("span"));
  list($("timeline"), [...happened].reverse(), create, (node, { at, kind, text, epoch }) => {
    const [tone, glyph] = HAPPENINGS[kind] ?? ["lead", "·"];
    mark(node, "data-tone", tone);
    write(node.children[0], clock(at));
    write(node.children[1], glyph);
    write(node.children[2], `${named(text)} (epoch ${epoch})`);
  });
}

/** The newest entries of the log, a column each, and how far each replica is with them. */
function drawLog() {
  if (!state.cluster) return;
  const { replicas } = state.cluster;
  const told = [...state.entries.keys()].reduce((most, sequence) => Math.max(most, sequence), 0);
  const newest = Math.max(told, ...replicas.map((replica) => replica.tail));
  const columns = Array.from({ length: ENTRIES_MAX }, (_, at) => newest - ENTRIES_MAX + 1 + at);
  const rows = [{ name: "entry", kinds: true }, ...replicas.map((replica) => ({ name: `order-${replica.id}`, replica }))];
  const create = () => make("div", { className: "row" }, make("span"), make("div", { className: "cells" }));
  list($("log"), rows, create, (node, { name, kinds, replica }) => {
    write(node.children[0], name);
    mark(node, "data-silent", replica && !replica.alive ? "" : null);
    list(node.children[1], columns, () => (kinds ? make("b") : make("i", { className: "cell" })), (cell, sequence) => {
      if (kinds) return write(cell, sequence < 1 ? "" : state.entries.get(sequence)?.kind ?? "·");
      const { tail, committed, applied } = replica;
      // What the feed has told of is on disk on every replica that is in sync, also where the last look was before that.
      const durable = replica.in_sync && replica.alive ? Math.max(replica.durable, told) : replica.durable;
      const reached = [Math.max(tail, durable), durable, committed, applied];
      mark(cell, "data-level", sequence < 1 ? 0 : reached.filter((mark) => sequence <= mark).length);
    });
  });
  const last = state.entries.get(newest);
  write($("log-newest"), newest > 0 ? `entry ${whole(newest)}${last ? `, ${last.text}` : ""}` : "empty");
  const said = replicas.map(({ id, tail, durable, committed, applied }) => `order-${id}: tail ${tail}, durable ${durable}, committed ${committed}, applied ${applied}`);
  mark($("log"), "aria-label", `The newest entries of the log at each replica. ${said.join("; ")}`);
}

function drawStocks() {
  const stocks = [...state.stocks.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
  const create = () => {
    const button = make("button", { type: "button" });
    button.addEventListener("click", () => choose(button.title).catch(() => {}));
    const node = row(4)();
    node.children[0].append(button);
    node.children[2].append(make("span", { className: "trend" }), make("span"));
    return node;
  };
  list($("stocks"), stocks, create, (node, stock) => {
    const [name, price, left, volume] = node.children;
    const same = name.firstChild.title === stock.name;
    const before = node.shown;
    write(name.firstChild, stock.name);
    name.firstChild.title = stock.name;
    mark(node, "aria-current", stock.name === state.chosen || null);
    write(price, money(stock.price));
    write(left.children[0], stock.trend === 0 ? "" : stock.trend > 0 ? "▲" : "▼");
    left.children[0].className = `trend ${stock.trend > 0 ? "up" : "down"}`;
    write(left.children[1], whole(stock.quantity));
    write(volume, whole(stock.volume));
    if (same && before && before.price !== stock.price) flash(price, stock.price > before.price);
    if (same && before && before.quantity !== stock.quantity) flash(left, stock.quantity > before.quantity);
    if (same && before && before.volume !== stock.volume) flash(volume, stock.quantity >= before.quantity);
    node.shown = stock;
  });
  drawChosen();
}

function drawChosen() {
  const stock = state.stocks.get(state.chosen);
  document.querySelectorAll(".chosen").forEach((node) => write(node, state.chosen ?? "–"));
  write($("house-price"), stock ? money(stock.price) : "–");
  document.title = stock ? `${stock.name} ${money(stock.price)} · Trade-Net` : "Trade-Net";
  const last = state.trades.find((trade) => !trade.house);
  const quote = stock ? [["house", money(stock.price)], ["left", whole(stock.quantity)], ["volume", whole(stock.volume)], ["last trade", last ? money(last.price) : "–"]] : [];
  list($("quote"), quote, () => make("span", {}, make("small"), " ", make("b")), (node, [name, value]) => {
    write(node.children[0], name);
    write(node.children[1], value);
  });
}

const best = (levels, descending) => [...levels].sort(([one], [other]) => (descending ? other - one : one - other));

function drawBook() {
  const bids = best(state.book?.bids ?? [], true);
  const asks = best(state.book?.asks ?? [], false);
  const sums = (levels) => {
    let sum = 0;
    return levels.slice(0, LEVELS_SHOWN).map(([price, quantity]) => ({ price, quantity, sum: (sum += quantity) }));
  };
  const [buys, sells] = [sums(bids), sums(asks)];
  const most = Math.max(1, buys.at(-1)?.sum ?? 0, sells.at(-1)?.sum ?? 0);
  const create = () => {
    const button = make("button", { type: "button" });
    button.addEventListener("click", () => {
      $("order").elements.price.value = button.value;
      if (state.account) $("order").elements.price.focus();
    });
    const node = row(3)();
    node.children[0].append(button);
    node.children[2].append(make("span", { className: "bar" }), make("span"));
    return node;
  };
  const update = (node, { price, quantity, sum }) => {
    const button = node.children[0].firstChild;
    write(button, money(price));
    button.value = (price / 100).toFixed(2);
    mark(button, "aria-label", `${money(price)}: take as the order's price`);
    write(node.children[1], whole(quantity));
    node.children[2].firstChild.style.width = `${Math.round((100 * sum) / most)}%`;
    write(node.children[2].children[1], whole(sum));
  };
  list($("asks"), sells.reverse(), create, update);
  list($("bids"), buys, create, update);
  const [bid, ask] = [bids[0]?.[0], asks[0]?.[0]];
  write($("spread"), !state.book ? "…" : bid === undefined && ask === undefined ? "no orders in the book"
    : bid === undefined ? "no bids" : ask === undefined ? "no asks" : `spread ${money(ask - bid)}`);
  drawDepth(bids, asks);
}

function drawTape() {
  const tape = $("tape");
  // Trades come on top: those that were there keep their rows, and cost no layout.
  const fresh = state.trades.indexOf(tape.firstElementChild?.trade);
  for (let at = 0; at < fresh; at += 1) tape.prepend(row(4)());
  list(tape, state.trades, row(4), (node, trade) => {
    if (node.trade === trade) return;
    node.trade = trade;
    const { at, side, quantity, price, house } = trade;
    const [time, who, many, each] = node.children;
    write(time, clock(at));
    write(who, house ? `${SIDES[side]} · H` : SIDES[side]);
    who.className = side === "buy" ? "up" : "down";
    mark(who, "title", house ? "with the house" : null);
    write(many, whole(quantity));
    write(each, money(price));
  });
  $("tape-empty").hidden = state.trades.length > 0;
  drawChosen();
}

// Charts are a few SVG paths, each written whole: one attribute, however many candles.

const sizes = new WeakMap();
const resized = new ResizeObserver((entries) => {
  entries.forEach(({ target, contentRect: { width, height } }) => sizes.set(target, { width: Math.round(width), height: Math.round(height) }));
  dirty("candles", "book");
});
[$("candles"), $("depth")].forEach((svg) => resized.observe(svg));

/** How large a chart is: to ask it itself would have the page laid out in the middle of being drawn. */
const sizeOf = (svg) => sizes.get(svg) ?? { width: svg.clientWidth, height: svg.clientHeight };

function shape(svg, tag, className) {
  const known = svg.querySelector(`.${className}`);
  if (known) return known;
  const node = document.createElementNS(svg.namespaceURI, tag);
  node.setAttribute("class", className);
  return svg.appendChild(node);
}

function path(svg, className, d) {
  mark(shape(svg, "path", className), "d", d || "M0 0");
}

function label(svg, className, text, x, y, anchor = "start") {
  const node = shape(svg, "text", className);
  mark(node, "x", x);
  mark(node, "y", y);
  mark(node, "text-anchor", anchor);
  write(node, text);
}

const AXIS = 52; // room for prices, to the right

function drawCandles() {
  const svg = $("candles");
  const { width, height } = sizeOf(svg);
  const candles = state.candles.slice(-Math.max(8, Math.floor((width - AXIS) / 9)));
  const [plot, base, room] = [width - AXIS, height - 18, 40];
  if (candles.length === 0) {
    ["grid", "volume", "wick", "rise", "fall"].forEach((name) => path(svg, name, ""));
    ["high", "low", "from", "to"].forEach((name) => label(svg, `axis-${name}`, "", 0, 0));
    label(svg, "none", "No trades among accounts yet", plot / 2, base / 2, "middle");
    return mark(svg, "aria-label", "Candles: no trades among accounts yet");
  }
  label(svg, "none", "", 0, 0);
  const high = Math.max(...candles.map((candle) => candle.high));
  const low = Math.min(...candles.map((candle) => candle.low));
  const most = Math.max(...candles.map((candle) => candle.quantity));
  const pad = Math.max(1, (high - low) * 0.08);
  const y = (price) => Math.round(8 + ((high + pad - price) / (high - low + 2 * pad)) * (base - room - 8)) + 0.5;
  const step = Math.min(26, plot / candles.length);
  const half = Math.max(1, Math.floor(step * 0.32));
  const drawn = { wick: "", rise: "", fall: "", volume: "" };
  candles.forEach(({ open, close, high: top, low: bottom, quantity }, at) => {
    const x = Math.round(plot - (candles.length - at - 0.5) * step) + 0.5;
    const [above, below] = [Math.min(y(open), y(close)), Math.max(y(open), y(close), Math.min(y(open), y(close)) + 1)];
    drawn.wick += `M${x} ${y(top)}V${above}M${x} ${below}V${y(bottom)}`;
    drawn[close >= open ? "rise" : "fall"] += `M${x - half} ${above}H${x + half}V${below}H${x - half}Z`;
    drawn.volume += `M${x - half} ${base}V${base - Math.round((quantity / most) * (room - 8))}H${x + half}V${base}Z`;
  });
  path(svg, "grid", `M0 ${y(high)}H${plot}M0 ${y(low)}H${plot}M0 ${base + 0.5}H${plot}`);
  Object.entries(drawn).forEach(([name, d]) => path(svg, name, d));
  label(svg, "axis-high", money(high), width, y(high) + 4, "end");
  label(svg, "axis-low", low === high ? "" : money(low), width, y(low) + 4, "end");
  label(svg, "axis-from", clock(candles[0].at), Math.max(0, plot - candles.length * step), height - 3);
  label(svg, "axis-to", candles.length > 4 ? clock(candles.at(-1).at) : "", plot, height - 3, "end");
  const last = candles.at(-1);
  mark(svg, "aria-label", `Candles of ${state.interval}: ${candles.length} periods with trades, from ${money(low)} to ${money(high)}, last ${money(last.close)}`);
}

function drawDepth(bids, asks) {
  const svg = $("depth");
  const { width, height } = sizeOf(svg);
  const base = height - 16;
  const [bid, ask] = [bids[0]?.[0], asks[0]?.[0]];
  if (bid === undefined && ask === undefined) {
    ["grid", "bids", "asks"].forEach((name) => path(svg, name, ""));
    ["low", "middle", "high", "most"].forEach((name) => label(svg, `axis-${name}`, "", 0, 0));
    label(svg, "none", state.book ? "No orders in the book" : "", width / 2, base / 2, "middle");
    return mark(svg, "aria-label", "Depth: no orders in the book");
  }
  label(svg, "none", "", 0, 0);
  const middle = ((bid ?? ask) + (ask ?? bid)) / 2;
  // Both sides as wide as the wider of the levels near the best: a lone order far away is not the picture.
  const far = (levels) => Math.abs((levels[Math.min(levels.length, 40) - 1]?.[0] ?? middle) - middle);
  const reach = Math.max(far(bids), far(asks), 1) * 1.05;
  const within = (levels) => levels.filter(([price]) => Math.abs(price - middle) <= reach);
  const total = (levels) => levels.reduce((sum, [, quantity]) => sum + quantity, 0);
  const [buys, sells] = [within(bids), within(asks)];
  const most = Math.max(1, total(buys), total(sells));
  const x = (price) => Math.round((0.5 + (price - middle) / (2 * reach)) * width);
  const y = (sum) => Math.round(base - (sum / most) * (base - 14)) + 0.5;
  const steps = (levels, end) => {
    if (levels.length === 0) return "";
    let sum = 0;
    const walked = levels.map(([price, quantity]) => `H${x(price)}V${y((sum += quantity))}`);
    return `M${x(levels[0][0])} ${base}${walked.join("")}H${end}V${base}Z`;
  };
  path(svg, "grid", `M0 ${base + 0.5}H${width}M${x(middle)} 12V${base}`);
  path(svg, "bids", steps(buys, 0));
  path(svg, "asks", steps(sells, width));
  label(svg, "axis-low", `${money(Math.max(0, middle - reach))} bids`, 0, height - 2);
  label(svg, "axis-middle", money(middle), x(middle), height - 2, "middle");
  label(svg, "axis-high", `asks ${money(middle + reach)}`, width, height - 2, "end");
  label(svg, "axis-most", whole(most), 0, 11);
  mark(svg, "aria-label", `Depth of the book: ${whole(total(bids))} bid${bid ? ` up to ${money(bid)}` : ""}, ${whole(total(asks))} asked${ask ? ` from ${money(ask)}` : ""}`);
}

function drawAccount() {
  const { account, balance, orders } = state;
  // Who works by keys goes on where what they had is gone, and not at the top of the page.
  const held = document.activeElement;
  const [going, cancelling] = [$(account ? "sign-in" : "signed-in").contains(held), $("orders").contains(held)];
  $("sign-in").hidden = account !== null;
  $("signed-in").hidden = account === null;
  write($("account-name"), account?.account ?? "");
  const cash = balance ? [{ name: "cash", quantity: money(cents(balance.cash)), reserved: money(cents(balance.reserved_cash)) }] : [];
  const holdings = (balance?.holdings ?? []).map(({ name, quantity, reserved }) => ({ name, quantity: whole(quantity), reserved: whole(reserved) }));
  list($("balances"), [...cash, ...holdings], row(3), (node, item) => ["name", "quantity", "reserved"].forEach((key, at) => write(node.children[at], item[key])));
  const create = () => {
    const node = row(4)();
    const button = make("button", { type: "button", textContent: "Cancel" });
    button.addEventListener("click", () => cancel(button.value));
    node.children[3].append(button);
    return node;
  };
  list($("orders"), orders, create, (node, { order_num: number, name, side, remaining, price }) => {
    write(node.children[0], `${side} ${name}`);
    node.children[0].className = side === "buy" ? "up" : "down";
    write(node.children[1], whole(remaining));
    write(node.children[2], price === null ? "market" : money(cents(price)));
    const button = node.children[3].firstChild;
    button.value = number;
    mark(button, "aria-label", `Cancel order ${number}: ${side} ${remaining} ${name}`);
  });
  $("orders-empty").hidden = orders.length > 0;
  if (going) $("account-title").focus();
  else if (cancelling && !held.isConnected) ($("orders").lastElementChild?.querySelector("button") ?? $("orders-title")).focus();
}

// ------------------------------------------------------------ ticket

/** A key that no other request has. getRandomValues also works where the page came over plain HTTP. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const again = (status) => [undefined, 408, 429, 503, 504].includes(status);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Sends a request until its outcome is clear: with the same key it happens once, however often it is sent. */
async function ask(path, request, say) {
  const until = performance.now() + ASK_FOR_MS;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await call(path, request);
    } catch (error) {
      if (!again(error.status)) throw error;
      if (performance.now() > until) throw Object.assign(error, { unclear: true });
      say("wait", `${error.status ? error.message : "no answer"}; asking again with the same key`);
      await pause(Math.min(2000, 200 * 2 ** attempt));
    }
  }
}

function outcome(form) {
  const node = form.querySelector(":scope > .outcome") ?? form;
  return (tone, text, ...more) => {
    mark(node, "data-tone", tone);
    node.replaceChildren(text, ...more);
  };
}

/** Carries a request out for a form, one at a time, and says what became of it. Its buttons keep the focus meanwhile. */
async function carryOut(form, path, request, done) {
  if (form.ariaBusy === "true") return;
  const say = outcome(form);
  form.ariaBusy = "true";
  say("wait", "…");
  try {
    say("good", done(await ask(path, request, say)));
  } catch (error) {
    if (error.unclear) {
      const retry = make("button", { type: "button", textContent: "Ask again" });
      retry.addEventListener("click", () => carryOut(form, path, request, done));
      say("bad", "It is not known whether this was done.", retry);
    } else {
      say("bad", error.message);
      if (error.status === 401) signOut("the token does not fit the account");
    }
  } finally {
    form.ariaBusy = "false";
  }
}

/** Has `take` called with a form's fields and the button that sent it. */
function onSubmit(id, take) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    take(event.target, fields, event.submitter?.value);
  });
}

onSubmit("house", (form, { quantity }, type) => {
  const name = state.chosen;
  const body = { name, quantity: Number(quantity), type };
  const verb = type === "buy" ? "bought" : "sold";
  carryOut(form, "/orders", { method: "POST", body, key: newKey() }, ({ transaction_number: number }) => `order ${number}: ${verb} ${whole(body.quantity)} ${name}`);
});

const own = (what = "") => `/accounts/${encodeURIComponent(state.account.account)}${what}`;

onSubmit("sign-in", async (form, { account, token }, action) => {
  if (action === "open") {
    const request = { method: "POST", body: { account }, key: newKey() };
    return carryOut(form, "/accounts", request, (opened) => {
      $("secret-token").value = opened.token;
      $("secret").hidden = false;
      signIn(opened);
      return "";
    });
  }
  if (!token) return outcome(form)("bad", "the token is missing");
  return carryOut(form, `/accounts/${encodeURIComponent(account)}`, { token }, () => {
    signIn({ account, token });
    return "";
  });
});

function signIn(account) {
  state.account = { account: account.account, token: account.token };
  // Of this tab, and gone with it.
  sessionStorage.setItem("account", JSON.stringify(state.account));
  $("sign-in").reset();
  readAccount();
}

function signOut(why = "") {
  sessionStorage.removeItem("account");
  Object.assign(state, { account: null, balance: null, orders: [] });
  $("secret").hidden = true;
  $("secret-token").value = "";
  outcome($("sign-in"))(why ? "bad" : null, why);
  dirty("account");
}

async function readAccount() {
  const asked = state.account;
  if (!asked) return;
  try {
    const { token } = asked;
    const [balance, orders] = await Promise.all([call(own(), { token }), call(own("/orders?status=open&limit=50"), { token })]);
    if (state.account === asked) Object.assign(state, { balance, orders });
  } catch (error) {
    if (error.status === 401 || error.status === 403) signOut(error.message);
  }
  dirty("account");
}

let accountDue = null;

/** The market moved: so may have the account's own orders. */
function accountMayHaveChanged() {
  if (!state.account || accountDue !== null) return;
  accountDue = setTimeout(() => {
    accountDue = null;
    readAccount();
  }, ACCOUNT_EVERY_MS);
}

onSubmit("deposit", (form, { amount }, what) => {
  const body = what === "cash" ? { amount: Number(amount) } : { name: state.chosen, quantity: Number(amount) };
  const request = { method: "POST", body, key: newKey(), token: state.account.token };
  carryOut(form, own("/deposits"), request, () => {
    readAccount();
    return what === "cash" ? `${money(cents(body.amount))} brought in` : `${whole(body.quantity)} ${body.name} brought in`;
  });
});

onSubmit("order", (form, fields) => {
  const body = { name: state.chosen, side: fields.side, quantity: Number(fields.quantity) };
  if (fields.price) Object.assign(body, { price: Number(fields.price), time_in_force: fields.time_in_force });
  if (fields.price && fields.post_only) body.post_only = true;
  const request = { method: "POST", body, key: newKey(), token: state.account.token };
  carryOut(form, own("/orders"), request, ({ order_num: number, status, filled, remaining }) => {
    readAccount();
    return `order ${number}: ${status}, ${whole(filled)} traded${status === "open" ? `, ${whole(remaining)} in the book` : ""}`;
  });
});

function cancel(number) {
  const request = { method: "DELETE", key: newKey(), token: state.account.token };
  carryOut($("orders-outcome"), own(`/orders/${number}`), request, ({ order_num: cancelled }) => {
    readAccount();
    return `order ${cancelled}: cancelled`;
  });
}

$("sign-out").addEventListener("click", () => signOut());

// ------------------------------------------------------------ the rest of the page

/** Copies a text, also where the page came over plain HTTP and the browser gives no clipboard. */
async function copy(button, text, node) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const range = document.createRange();
    if (node.select) node.select();
    else {
      range.selectNodeContents(node);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    }
    document.execCommand("copy");
  }
  write(button, "Copied");
  setTimeout(() => write(button, "Copy"), 1500);
}

$("copy").addEventListener("click", () => copy($("copy"), $("command").textContent, $("command")));
$("secret-copy").addEventListener("click", () => copy($("secret-copy"), $("secret-token").value, $("secret-token")));

document.getElementsByName("interval").forEach((input) => input.addEventListener("change", () => {
  state.interval = input.value;
  if (state.chosen !== null) readCandles().catch(() => {});
}));

// Arrow keys walk through the stocks, as through any list.
$("stocks").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...$("stocks").querySelectorAll("button")];
  buttons[buttons.indexOf(document.activeElement) + step]?.focus();
});

const THEMES = { auto: ["◐", "Colours: as the system has them"], light: ["○", "Colours: light"], dark: ["●", "Colours: dark"] };

function theme(name) {
  const [glyph, said] = THEMES[name] ?? THEMES.auto;
  mark(document.documentElement, "data-theme", name === "auto" ? null : name);
  write($("theme"), glyph);
  mark($("theme"), "aria-label", said);
  mark($("theme"), "title", said);
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(localStorage.getItem("theme") ?? "auto") + 1) % names.length];
  localStorage.setItem("theme", next);
  theme(next);
});

document.addEventListener("visibilitychange", () => !document.hidden && lookIn(0));
new ResizeObserver(() => dirty("candles", "book")).observe($("candles"));

theme(localStorage.getItem("theme") ?? "auto");
const kept = sessionStorage.getItem("account");
if (kept) {
  state.account = JSON.parse(kept);
  readAccount();
}
follow();
look();
