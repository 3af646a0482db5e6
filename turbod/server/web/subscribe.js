// The page as a subscriber: what to ask for, the connection, and how others would make the same one.
const served = el("collections").dataset.served.split(", ").filter(Boolean);
const POSTS = "app.bsky.feed.post";
const isPostServed = served.some(name => name === POSTS || (name.endsWith("*") && POSTS.startsWith(name.slice(0, -1))));
const form = el("filter");
let shard = { of: 0, number: Math.random() }, socket = null, came = 0, cameSince = 0, cameFresh = 0, headThen = Infinity, lastCursor = 0, lastCame = 0, isInSight = false, wanted = new URLSearchParams();

choices("collections", "checkbox", "wantedCollections", [...new Set([...(isPostServed ? [POSTS] : []), ...served])].slice(0, 30)
  .map(name => [name, name.replace(/^app\.bsky\./, "")]), isPostServed ? [POSTS] : []);
choices("kinds", "checkbox", "kinds", ["commit", "identity", "account"].map(each => [each, each]), isPostServed ? ["commit"] : []);
choices("operations", "checkbox", "operations", ["create", "update", "delete"].map(each => [each, each]), isPostServed ? ["create"] : []);

function chosen() {
  const found = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    const values = /Dids$/.test(name) ? value.split(/[\s,]+/) : [value.trim()];
    for (const each of values.filter(Boolean)) found.append(name, each);
  }
  return found;
}
function onlyBy(did) {
  if (!did) return;
  form.elements.wantedDids.value = did;
  form.elements.cursor.value = "-1h";
  for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = false;
  choose();
}

// So that a busy server does not send a visitor everything: some accounts' events, by the protocol's own `shard`.
function sampled(parameters) {
  const asked = new URLSearchParams(parameters);
  const isNarrow = asked.has("wantedDids") || asked.has("aboutDids");
  const isRecent = Date.now() - lastCame < 120000;  // longer out of sight: begin anew, as a visitor does
  if (lastCursor && isRecent) asked.set("cursor", String(lastCursor));
  else if (!asked.has("cursor")) asked.set("cursor", "-2m");
  if (!isNarrow && shard.of > 1) asked.set("shard", Math.floor(shard.number * shard.of) + "/" + shard.of);
  el("sample").textContent = asked.has("shard") ? "a sample: the accounts of shard " + asked.get("shard") : "all that this choice brings";
  return asked;
}
const feedWords = () => "live, " + short(came) + " received" + (passed ? "; more came than one can read" : "");
function resize() {  // towards one event a second or so
  const seconds = (performance.now() - cameSince) / 1000, rate = cameFresh / Math.max(seconds, 1);
  if (!socket || socket.readyState !== 1 || seconds < 8 || wanted.has("wantedDids") || wanted.has("aboutDids") || wanted.has("cursor")) return;
  const of = rate > 8 ? Math.min(1024, Math.ceil(Math.max(1, shard.of) * rate / 2)) : rate < .15 && shard.of > 1 ? Math.ceil(shard.of / 6) : shard.of;
  if (of !== shard.of) { shard.of = of; subscribe(); }
}
setInterval(resize, 8000);

function feed(isOn, words) {
  el("feed-dot").className = "dot" + (isOn ? " on" : "");
  el("feed-state").textContent = words;
}
function leave(words) {
  if (socket) { socket.onclose = null; socket.close(); socket = null; }
  feed(false, words);
}
let retryTimer = 0, tries = 0;
function subscribe() {
  clearTimeout(retryTimer);
  leave("connecting");
  if (!isInSight || document.hidden) return leave("asleep while out of sight");
  if (isTokenNeeded && !token.get()) return leave("a token is needed");
  if (!isKnown) return leave("connecting");  // how much there is tells how much to ask for: `look` comes back
  if (!shard.of) shard.of = Math.max(1, Math.min(1024, Math.round((seen.events_per_minute || 0) / 240)));
  const asked = sampled(wanted), mine = new WebSocket(base.ws + "/turbostream?" + asked,
    ["turbostream.v1.json", ...(token.get() ? ["bearer." + token.get()] : [])]);
  socket = mine;
  came = 0; cameFresh = 0; headThen = Infinity; passed = 0; cameSince = performance.now();
  let wasOpen = false;
  mine.onopen = () => { wasOpen = true; tries = 0; feed(true, "live"); };
  mine.onmessage = message => { if (socket === mine) take(message.data); };
  mine.onclose = async event => {
    if (socket !== mine) return;
    socket = null;
    feed(false, wasOpen ? "the server closed: " + (line(event.reason, 100) || "code " + event.code) : "refused");
    if (!wasOpen && await explain(asked)) return;
    if (socket) return;  // somebody chose anew meanwhile
    retryTimer = setTimeout(subscribe, Math.min(30000, 2000 * 2 ** tries++) * (.5 + Math.random()));
  };
}
// A browser does not tell why a WebSocket was refused; /records takes the same and says it. True where it makes no sense to try again.
async function explain(asked) {
  const same = new URLSearchParams([...asked].filter(([name]) => name !== "batch"));
  same.set("limit", "1");
  try { await ask("/records?" + same); } catch (error) {
    if (error.status === 400 && !socket) { el("wrong").textContent = line(error.message, 500); return true; }
  }
  return false;
}
function take(data) {
  let message;
  try { message = JSON.parse(data); } catch { return; }
  if (Array.isArray(message)) {
    came += message.length;
    for (const each of message) if (object(each).cursor > headThen) cameFresh++;
    lastCame = Date.now();
    lastCursor = Number(object(message[message.length - 1]).cursor) || lastCursor;
    for (const each of message.slice(-QUEUED)) if (each && typeof each === "object") enqueue(each);
  } else if (object(message).name === "Gap") {
    enqueue(news("Between " + utc(message.after) + " and " + utc(message.before) + " events may be missing. " + line(message.message, 300), "gap"));
  } else if (object(message).name === "OutdatedCursor" || object(message).$type === "#error") {
    enqueue(news(line(message.message || message.error, 300)));
  } else if (object(message).$type === "#cursor" && headThen === Infinity) {
    headThen = message.head;
    if (!el("posts").children.length)
      el("posts").append(make("li", "empty", "Connected. What you chose is shown here as it comes."));
  }
}

function choose() {
  wanted = wantedForCommand = chosen();
  el("wrong").textContent = "";
  waiting = [];
  lastCursor = 0;
  el("posts").replaceChildren();
  showCommand();
  subscribe();
}
form.addEventListener("submit", event => { event.preventDefault(); choose(); });
form.addEventListener("reset", () => setTimeout(choose));
form.addEventListener("input", () => { wantedForCommand = chosen(); showCommand(); });

// The command that makes the very connection of the form, on this server.
let way = "turbod", wantedForCommand = chosen();
const WAYS = [["turbod", "turbod"], ["websocat", "websocat"], ["curl", "curl"], ["python", "Python"], ["javascript", "JavaScript"]];
const HINTS = {
  turbod: "Follows the stream, reconnects, and loses nothing.", websocat: "An array holds records, an object is about the connection. After a break go on with cursor= and the last cursor you saw.",
  curl: "One page of records as JSON lines. Go on after the last line’s cursor, or the header Turbod-Cursor.",
  python: "With the package websockets. An array holds records, an object is about the connection.", javascript: "Works in this page’s console, too.",
};
function showCommand() {
  const query = String(wantedForCommand), url = base.ws + "/turbostream" + (query ? "?" + query : "");
  const records = new URLSearchParams(wantedForCommand);
  if (!records.has("cursor")) records.set("cursor", "-5m");
  records.set("limit", "10");
  const secret = isTokenNeeded, header = secret ? " -H \"Authorization: Bearer $TURBOD_TOKEN\"" : "";
  const export_ = secret ? "export TURBOD_TOKEN=turbod_…\n" : "";
  el("command").textContent = {
    turbod: export_ + "turbod tail \"" + url + "\"",
    websocat: export_ + "websocat" + header + " \"" + url + "\"",
    curl: export_ + "curl" + header + " \"" + base.http + "/records?" + records + "\"",
    python: "import json" + (secret ? ", os" : "") + "\nfrom websockets.sync.client import connect\n\nwith connect(\"" + url + "\"" +
      (secret ? ",\n        additional_headers={\"Authorization\": \"Bearer \" + os.environ[\"TURBOD_TOKEN\"]}" : "") +
      ",\n        max_size=None) as stream:\n    for message in stream:\n        print(json.loads(message))",
    javascript: "new WebSocket(\"" + url + "\"" + (secret ? ",\n  [\"turbostream.v1.json\", \"bearer.\" + token]" : "") + ")\n  .onmessage = m => console.log(JSON.parse(m.data))",
  }[way];
  el("hint").textContent = HINTS[way];
}
choices("ways", "radio", "way", WAYS, [way], value => { way = value; showCommand(); });
el("copy").addEventListener("click", async () => {
  const selected = getSelection();
  selected.selectAllChildren(el("command"));
  try { await navigator.clipboard.writeText(el("command").textContent); } catch { document.execCommand("copy"); }  // the former needs TLS
  el("copy").textContent = "Copied";
  setTimeout(() => { el("copy").textContent = "Copy"; }, 1500);
});

wanted = chosen();
new IntersectionObserver(entries => {
  const isNow = entries[entries.length - 1].isIntersecting;
  if (isNow !== isInSight) { isInSight = isNow; subscribe(); }
}, { rootMargin: "200px" }).observe(el("posts"));
document.addEventListener("visibilitychange", () => {
  subscribe();
  if (!document.hidden) { look(); lookBack(); }
});
