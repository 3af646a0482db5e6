// The stream itself: events as people read them. All in them was written by strangers: it becomes text nodes, cut to
// length, without what turns the direction of what stands around it, and nothing of it is ever loaded.
const SHOWN = 40, QUEUED = 30, PACE_MS = 700, FACETS = 40;
const text = value => typeof value === "string" ? value : "";
const TURNING = /[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]/g;
function cut(value, most) {
  const clean = text(value).slice(0, 4 * most).replace(TURNING, "").replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, " ")
    .replace(/(\p{M}{3})\p{M}+/gu, "$1").replace(/\n{3,}/g, "\n\n");
  return clean.length > most ? clean.slice(0, most).replace(/[\ud800-\udbff]$/, "") + "…" : clean;
}
const line = (value, most) => cut(value, most).replace(/\s+/g, " ").trim();
// A name, or a title: empty where nothing of it could be seen.
const named = (value, most) => /[^\s\p{DI}\p{M}\p{C}\u2800]/u.test(cut(value, most)) ? line(value, most) : "";

function hueOf(did) {
  let sum = 0;
  for (const letter of text(did).slice(0, 64)) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  return "h" + sum % 8;
}
function face(person, did, isSmall) {
  const [letter] = (named(person.displayName, 60) || line(person.handle, 60)).match(/[\p{L}\p{N}]/u) || ["?"];
  const made = make("span", "face " + hueOf(did || person.did) + (isSmall ? " small-face" : ""), letter.toUpperCase());
  made.setAttribute("aria-hidden", "true");
  return made;
}
const isolated = (words, tag = "bdi", className = "") => make(tag, className, words);
const handle = person => person.handle && person.handle !== "handle.invalid" ? "@" + line(person.handle, 80) : line(person.did, 60);
function nameOf(person, did) {
  return named(person.displayName, 64) || named(person.handle, 64) || named(did || person.did, 40) || "somebody";
}
// A name is a button: it puts the account into the filter.
function who(person, did, at) {
  const name = make("button", "name", isolated(nameOf(person, did)));
  name.type = "button";
  name.title = "Show only events by this account";
  name.addEventListener("click", () => onlyBy(did || text(person.did)));
  const shown = make("b", "", name), time = at ? make("time", "", clock(at / 1e6, true)) : null;
  return make("div", "who", shown, isolated(person.handle || !did ? handle(person) : "", "bdi", "handle"), time);
}

// Facets count in bytes of UTF-8, and may say anything.
function richText(record, most) {
  const whole = cut(record.text, most), parts = [];
  const facets = list(record.facets).slice(0, FACETS).map(facet => ({ ...object(object(facet).index), kind: text(object(list(object(facet).features)[0]).$type) }))
    .filter(f => Number.isInteger(f.byteStart) && Number.isInteger(f.byteEnd) && f.byteStart >= 0 && f.byteEnd > f.byteStart)
    .sort((a, b) => a.byteStart - b.byteStart);
  if (!facets.length || whole !== record.text) return make("p", "text", whole);
  const coded = new TextEncoder().encode(whole), decode = (from, to) => new TextDecoder().decode(coded.subarray(from, to));
  let at = 0;
  for (const facet of facets) {
    if (facet.byteStart < at || facet.byteEnd > coded.length) continue;
    parts.push(decode(at, facet.byteStart), make("span", "facet", decode(facet.byteStart, facet.byteEnd)));
    at = facet.byteEnd;
  }
  return make("p", "text", ...parts, decode(at));
}
function textOf(record, most) {
  if (!text(record.text)) return null;
  const made = richText(record, most);
  made.dir = "auto";
  return made;
}
function media(embed) {
  const kind = text(embed.$type).split(".").pop(), inner = kind === "recordWithMedia" ? object(embed.media) : embed;
  const images = list(inner.images);
  if (images.length) {
    const alt = line(object(images[0]).alt, 140);
    return make("p", "media", make("span", "", "▧ " + counted(images.length, "image"), alt ? isolated(": " + alt) : null));
  }
  if (inner.external) {
    let host = "";
    try { host = new URL(inner.external.uri).host; } catch { /* no address is no host */ }
    return make("p", "media", make("span", "", "↗ ", isolated(named(inner.external.title, 140) || "a link"), host ? isolated(" · " + line(host, 60)) : null));
  }
  if (inner.video) return make("p", "media", make("span", "", "▷ video", inner.alt ? isolated(": " + line(inner.alt, 140)) : null));
  return null;
}
// A view of another post: of the parent, the quoted one, the one that is liked.
const OTHERS = new Map([["app.bsky.feed.generator", "a feed"], ["app.bsky.graph.list", "a list"], ["app.bsky.graph.starterpack", "a starter pack"],
  ["app.bsky.labeler.service", "a labeler"]]);  // may be liked and quoted, too
function other(view, className, lead, uri, unresolved) {
  if (!view) {
    const kind = OTHERS.get(uri.slice(0, 4096).split("/")[3]);
    if (kind) return make("div", "other " + className, make("p", "act", lead + " " + kind));
    const why = unresolved.includes(uri) ? "could not be had in time" : "is not there any more";
    return uri ? make("div", "other " + className, make("p", "act missing", lead + " a post that " + why)) : null;
  }
  const author = object(view.author), record = object(view.record);
  const top = make("div", "act", lead + " ", face(author, author.did, true), isolated(nameOf(author), "bdi"), " ", isolated(handle(author), "bdi", "soft"));
  return make("div", "other " + className, top, textOf(record, 400), media(object(record.embed)));
}
const VERBS = { "app.bsky.feed.like": "likes", "app.bsky.feed.repost": "reposts", "app.bsky.graph.follow": "follows", "app.bsky.graph.block": "blocks" };
function collectionOf(event) { return text(object(event.commit).collection); }

function body(event, views) {
  const commit = object(event.commit), record = object(commit.record), collection = collectionOf(event);
  const unresolved = list(views.unresolved);
  if (event.kind === "identity") return [make("p", "act", "changed handle or identity"), isolated(line(object(event.identity).handle, 80))];
  if (event.kind === "account") return [make("p", "act", object(event.account).active === false ? "account is " + (line(object(event.account).status, 40) || "inactive") : "account is active")];
  if (commit.operation === "delete") return [make("p", "act", "deleted a record of " + line(collection, 80))];
  if (collection === "app.bsky.feed.post") {
    const reply = object(record.reply), embed = object(record.embed), quoted = text(object(embed.record).uri) || text(object(object(embed.record).record).uri);
    const isQuote = text(embed.$type).startsWith("app.bsky.embed.record");
    return [commit.operation === "update" ? make("p", "act", "edited") : null,
      other(views.parent_post, "parent", "replying to", text(object(reply.parent).uri), unresolved), textOf(record, 1500), media(embed),
      isQuote ? other(views.quote_post, "", "quoting", quoted, unresolved) : null];
  }
  const verb = VERBS[collection];
  if (!verb) return [make("p", "act", line(commit.operation, 20) + " a record of " + line(collection, 80)), textOf(record, 400)];
  if ("subject_user" in views) {
    const person = object(views.subject_user), did = text(record.subject);
    return [make("p", "act", verb + " ", face(person, did, true), isolated(nameOf(person, did)), " ", isolated(person.handle ? handle(person) : "", "bdi", "soft"))];
  }
  return [other(views.subject_post, "", verb, text(object(record.subject).uri), unresolved) || make("p", "act", verb)];
}
function card(received) {
  const event = object(received.message), views = object(received.hydrated_metadata), person = object(views.user), did = text(received.did);
  const followers = Number.isFinite(person.followersCount) && person.followersCount > 0 ? counted(person.followersCount, "follower") : "";
  const mentioned = Object.values(object(views.mentions)).filter(Boolean).slice(0, 3).map(each => nameOf(object(each)));
  const foot = make("p", "foot", followers, mentioned.length ? make("span", "", "mentions ", ...mentioned.flatMap((name, i) => [i ? ", " : "", isolated(name)])) : null,
    list(views.unresolved).length ? make("span", "", counted(views.unresolved.length, "view") + " not had in time") : null);
  return make("li", "", face(person, did), make("div", "", who(person, did, Number(received.cursor) || 0), ...body(event, views), foot.childNodes.length ? foot : null));
}
const news = (words, className) => make("li", "news " + (className || ""), words);

// How they come onto the page: not faster than one reads, and not while one does.
let waiting = [], isPaused = false, passed = 0;
function enqueue(item) {
  waiting.push(item);
  if (waiting.length > QUEUED) { waiting.splice(0, waiting.length - QUEUED); passed++; }
}
function put(item) {
  const posts = el("posts");
  posts.querySelectorAll(".empty").forEach(each => each.remove());
  posts.prepend(item instanceof Element ? item : card(item));
  while (posts.children.length > SHOWN) posts.lastElementChild.remove();
}
const canHover = matchMedia("(hover: hover)").matches;  // where a finger taps, the last place it touched counts as hovered
const isBeingRead = () => isPaused || (canHover && el("posts").matches(":hover")) || el("posts").contains(document.activeElement);
function bringOne() {
  if (isBeingRead()) {
    if (waiting.length) el("feed-state").textContent = (isPaused ? "paused" : "held while you read") + ", " + waiting.length + (waiting.length >= QUEUED ? " or more" : "") + " wait";
    return;
  }
  if (!waiting.length) return;
  const isFirst = !el("posts").querySelector("li:not(.empty)");
  for (let left = isFirst ? QUEUED : Math.ceil(waiting.length / 8); left && waiting.length; left--) put(waiting.shift());
  if (socket && socket.readyState === 1) el("feed-state").textContent = feedWords();
}
setInterval(bringOne, PACE_MS);
el("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  el("pause").setAttribute("aria-pressed", String(isPaused));
  el("pause").textContent = isPaused ? "Go on" : "Pause";
});
