// Elements, numbers, words, and how the server is asked. Nothing here makes markup of text.
const el = id => document.getElementById(id);
const list = value => Array.isArray(value) ? value : [];
const object = value => value && typeof value === "object" && !Array.isArray(value) ? value : {};
const total = counts => Object.values(object(counts)).reduce((a, b) => a + b, 0);

function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter(each => each != null && each !== ""));
  return made;
}
function draw(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const number = n => n == null ? "–" : Number(n).toLocaleString("en", { maximumFractionDigits: Math.abs(n) < 10 ? 1 : 0 });
const short = n => n == null ? "–" : Math.abs(n) < 10000 ? number(n) :
  new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(n);
const counted = (n, noun) => short(n) + " " + noun + (n === 1 ? "" : "s");
function bytes(n) {
  if (n == null) return "–";
  let unit = 0;
  while (n >= 1000 && unit < 4) { n /= 1000; unit++; }
  return number(n) + " " + ["B", "kB", "MB", "GB", "TB"][unit];
}
const span = s => s == null ? "–" : s < 0.0005 ? "0 s" : s < 1 ? Math.round(s * 1000) + " ms" : s < 120 ? number(s) + " s" :
  s < 7200 ? number(s / 60) + " min" : s < 172800 ? number(s / 3600) + " h" : number(s / 86400) + " d";
const share = (part, whole) => whole > 0 ? (100 * part / whole).toFixed(part < whole && part / whole > .99 ? 1 : 0) + " %" : "–";
const two = n => String(n).padStart(2, "0");
const clock = (seconds, withSeconds) => {
  const at = new Date(seconds * 1000);
  return two(at.getHours()) + ":" + two(at.getMinutes()) + (withSeconds ? ":" + two(at.getSeconds()) : "");
};
const utc = us => us > 0 ? new Date(us / 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC" : "–";
const hostName = url => String(url).replace(/^wss?:\/\//, "").replace(/\/subscribe$/, "");

function rows(id, pairs) {
  el(id).replaceChildren(...pairs.map(([name, value, isFault]) => {
    const head = make("th", "", name);
    head.scope = "row";
    return make("tr", "", head, make("td", isFault ? "fault" : "", String(value)));
  }));
}

// Radio buttons and boxes that look like one control; the input lies over its words, so keys and readers find it.
function choices(id, type, name, values, chosen, changed) {
  el(id).replaceChildren(...values.map(([value, words]) => {
    const input = make("input");
    Object.assign(input, { type, name, value, checked: chosen.includes(value), defaultChecked: chosen.includes(value) });
    if (changed) input.addEventListener("change", () => changed(value));
    return make("label", "", input, make("span", "", words));
  }));
}

const base = location.host ? { ws: (location.protocol === "https:" ? "wss://" : "ws://") + location.host, http: location.origin } :
  { ws: "ws://localhost:8080", http: "http://localhost:8080" };
for (const each of document.querySelectorAll(".ws")) each.textContent = base.ws;

// Kept for this tab only; no browser sends it by itself.
const token = {
  get: () => { try { return sessionStorage.getItem("token"); } catch { return null; } },
  set: text => { try { sessionStorage.setItem("token", text); } catch { /* asked again at the next load */ } },
  forget: () => { try { sessionStorage.removeItem("token"); } catch { /* there was none */ } },
};
let isTokenNeeded = Boolean(token.get());

class Refused extends Error { }  // the server answered, and said no

async function ask(path) {
  const held = token.get(), headers = held ? { Authorization: "Bearer " + held } : {};
  const answer = await fetch(path, { cache: "no-store", headers, signal: AbortSignal.timeout(10000) });
  if (answer.ok) return answer;
  const refused = new Refused(String(object(await answer.json().catch(() => null)).message || "HTTP " + answer.status));
  refused.status = answer.status;
  refused.hadToken = Boolean(held);
  throw refused;
}
