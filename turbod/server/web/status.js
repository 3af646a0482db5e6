// The moment: what /status says, every other second.
const STATES = { live: ["live", "good"], catching_up: ["catching up", "warn"], stalled: ["stalled", "bad"] };
function pill(words, kind) { el("state").textContent = words; el("state").className = "pill " + kind; }

let seen = {}, seenBefore = null, isKnown = false;
function perSecond(...path) {
  const read = from => path.reduce((value, key) => object(value)[key], from) || 0;
  return seenBefore && seen.now > seenBefore.now ?
    Math.max(0, read(seen) - read(seenBefore)) * 1e6 / (seen.now - seenBefore.now) : null;
}

function faultsNow() {
  const log = object(seen.log), view = object(seen.appview), archive = object(seen.archive), archiver = object(archive.archiver);
  return [
    log.fault && "Nothing can be written: " + log.fault,
    seen.upstream === "stalled" && !log.fault && "No Jetstream host sends anything.",
    view.down && "The AppView does not answer, so events wait for their views: " + (view.last_error || "no answer"),
    object(seen.cache).fault && "The cache cannot be saved: " + seen.cache.fault,
    object(archive.sealer).fault && "Finished hours cannot be sealed: " + archive.sealer.fault,
    archiver.state && archiver.state !== "ok" &&
      "The archive is " + archiver.state + ", " + counted(archiver.hours_waiting, "hour") + (archiver.hours_waiting === 1 ? " waits: " : " wait: ") + (archiver.fault || ""),
  ].filter(Boolean);
}

function shares(id, parts) {
  const whole = parts.reduce((sum, part) => sum + part[1], 0);
  const bar = make("div", "shares"), keys = make("div", "keys");
  bar.setAttribute("aria-hidden", "true");
  parts.forEach(([name, value], at) => {
    const part = make("i", "k" + (at + 1));
    part.style.flex = String(value || 0);
    if (value) bar.append(part);
    keys.append(make("span", "key k" + (at + 1), name + " " + share(value, whole)));
  });
  el(id).replaceChildren(bar, keys);
}

function showHydration() {
  const view = object(seen.appview), hydration = object(seen.hydration), cache = object(seen.cache);
  const calls = perSecond("appview", "asked_items") == null ? null : (total(view.calls) - total(object(seenBefore.appview).calls)) *
    1e6 / Math.max(1, seen.now - seenBefore.now);
  shares("sources", [["memory", cache.hits_memory || 0], ["disk", cache.hits_disk || 0], ["asked the AppView", cache.misses || 0]]);
  const remaining = view.remaining == null ? "" : ", " + short(view.remaining) + " left by its headers";
  rows("hydration", [
    ["calls a second, of those allowed", number(calls) + " of " + number(view.rate) + remaining],
    ["places used in a call", view.fill == null ? "–" : share(view.fill, 1)],
    ["the AppView answers", view.down ? line(view.last_error, 200) || "no" : total(view.calls) ? "yes" : "–", view.down],
    ["events waiting for views", short(hydration.waiting_events) +
      (hydration.waiting_events ? ", the oldest " + span(hydration.oldest_waiting_seconds) : "")],
    ["views built from the stream itself", short(hydration.from_stream)],
    ["views not had in time", short(hydration.unresolved)],
  ]);
}

function showSubscribers() {
  const server = object(seen.server), behind = object(server.behind_seconds), delivery = object(server.delivery_seconds);
  shares("behind", [["up to date", server.in_memory || 0], ["reading files", Math.max(0, (server.on_disk || 0) - (server.archive_readers || 0))],
    ["reading the archive", server.archive_readers || 0]]);
  rows("server", [
    ["connected", counted(server.subscribers, "subscriber") + " of " + counted(server.connections, "connection")],
    ["behind the newest event", !server.subscribers ? "–" : !(server.farthest_behind_seconds >= 1) ? "none is behind" :
      "half " + span(Math.min(behind.p50, server.farthest_behind_seconds)) + ", the last " + span(server.farthest_behind_seconds)],
    ["from disk to subscriber", delivery.count ? "half " + span(delivery.p50) + ", 99 of 100 " + span(delivery.p99) : "–"],
    ["sent a second", counted(perSecond("server", "records"), "event") + ", " + bytes(perSecond("server", "bytes"))],
    ["sent since the start", counted(server.records, "event") + ", " + bytes(server.bytes)],
    ["refused", short(total(server.refused))],
  ]);
}

function showCounts() {
  const log = object(seen.log), process = object(seen.process), cache = object(seen.cache), server = object(seen.server);
  rows("log", [["written", short(log.records) + " events"], ["newest", utc(log.head)], ["oldest in plain files", utc(log.floor)],
    ["on disk", bytes(log.disk_bytes)], ["in memory", short(log.memory_records) + " events, " + bytes(log.memory_bytes)],
    ["waiting to be written", bytes(log.queued_bytes)], ["gaps in it", number(log.gaps)]]);
  rows("process", [["up", span(seen.uptime_seconds)], ["memory", bytes(process.resident_bytes)], ["CPU time", span(process.cpu_seconds)],
    ["cache in memory", bytes(cache.memory_bytes) + ", " + short(cache.memory_entries) + " views"], ["cache on disk", bytes(cache.disk_bytes)],
    ["clients reset", short(server.resets)]]);
}

function show(told) {
  seenBefore = seen.now ? seen : null;
  seen = told;
  isKnown = true;
  const cache = object(told.cache), found = (cache.hits_memory || 0) + (cache.hits_disk || 0), faults = faultsNow();
  pill(...(STATES[told.upstream] || [String(told.upstream || "not known"), "warn"]));
  document.title = (faults.length ? "⚠ " : "") + "turbod · " + (STATES[told.upstream] || [""])[0];
  el("faults").hidden = !faults.length;
  el("faults").replaceChildren(...faults.map(words => make("li", "", line(words, 500))));
  el("rate").textContent = short(told.events_per_minute);
  el("lag").textContent = span(told.lag_seconds);
  el("subscribers").textContent = number(object(told.server).subscribers);
  el("hits").textContent = share(found, found + (cache.misses || 0));
  el("version").textContent = "turbod " + told.turbod;
  showHosts(list(told.hosts));
  showHydration();
  showSubscribers();
  showCounts();
  showArchiveWords();
}

let timer = 0;
async function look() {
  try {
    const isFirst = !isKnown;
    show(await (await ask("/status")).json());
    el("ask").hidden = true;
    if (isFirst && !socket) subscribe();
  } catch (error) {
    seen = {};
    const needsToken = error.status === 401 || (error.status === 429 && error.hadToken);
    el("ask").hidden = !needsToken;
    if (needsToken) isTokenNeeded = true;
    if (error.status === 401) {  // asked again when there is another token: each wrong one counts
      token.forget();
      showCommand();
      return pill(error.hadToken ? "this token is not known here" : "a token is needed", "warn");
    }
    pill(error.status === 429 ? "too many requests" : error instanceof Refused ? "the server says no" : "not reachable", "bad");
  }
  clearTimeout(timer);  // one at a time, whoever began to look
  timer = setTimeout(look, document.hidden ? 10000 : 2000);
}
el("token").addEventListener("change", () => {
  const text = el("token").value.trim();
  if (!/^[\w.~+\/=-]+$/.test(text)) return;
  token.set(text);
  el("token").value = "";
  look().then(() => { if (token.get()) { lookBack(); lookAtHours(); if (!socket) subscribe(); } });
});
