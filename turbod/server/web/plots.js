// The last hours: samples that the server took, drawn small.
const SPANS = [["900", "15 min"], ["3600", "1 h"], ["21600", "6 h"]];
const WIDTH = 600, HEIGHT = 150, BINS = 300, KEPT = 2200;
const nothing = () => ({ seconds: [], figures: {}, hosts: {}, incidents: [] });
let past = nothing(), step = 10, spanSeconds = 21600, pointed = null, shownSeconds = 3600;

// What each plot shows. `lines` are drawn over one another, `stack` on top of one another.
const PLOTS = [
  { title: "Events a second", unit: short, lines: [["written", "events", "mean"]], area: true,
    shades: [["state", v => v === 2, "stalled"], ["state", v => v === 1, "catching up"]] },
  { title: "Behind the clock", unit: span, lines: [["newest event", "lag_seconds", "max"]], area: true,
    shades: [["state", v => v === 2, "stalled"], ["state", v => v === 1, "catching up"]] },
  { title: "Views needed, a second", unit: short, stack: true,
    lines: [["memory", "memory", "mean"], ["disk", "disk", "mean"], ["asked the AppView", "asked", "mean"], ["not had in time", "unresolved", "mean"]] },
  { title: "AppView calls a second", unit: number, lines: [["calls", "calls", "mean"], ["failed", "failed_calls", "mean", 4],
    ["allowed", "calls_allowed", "mean", 0]], shades: [["appview_down", v => v, "does not answer"]] },
  { title: "Events waiting for views", unit: short, lines: [["waiting", "waiting_events", "max"]], area: true,
    shades: [["appview_down", v => v, "AppView away"]] },
  { title: "Subscribers", unit: number, lines: [["connected", "subscribers", "max"]], area: true, whole: true },
  { title: "The last subscriber’s lag", unit: span, lines: [["behind the newest event", "farthest_behind_seconds", "max"]], area: true },
  { title: "Sent a second", unit: bytes, lines: [["to all subscribers", "bytes_sent", "mean", 2]], area: true },
];

function bins(values, times, from, to, how) {
  const found = new Array(BINS).fill(null), counts = new Array(BINS).fill(0);
  for (let i = 0; i < times.length; i++) {
    const value = values[i];
    if (value == null || times[i] < from) continue;
    const at = Math.min(BINS - 1, Math.floor((times[i] - from) / (to - from) * BINS));
    found[at] = found[at] == null ? value : how === "max" ? Math.max(found[at], value) : found[at] + value;
    counts[at]++;
  }
  return found.map((value, at) => value == null || how === "max" ? value : value / counts[at]);
}
// A sample may fall between two bins where these are narrow: only what is missing for longer is a break.
function runs(values) {
  const reach = Math.max(1, Math.ceil(2.5 * step / (shownSeconds / BINS))), found = [];
  let last = -Infinity;
  values.forEach((value, at) => {
    if (value == null) return;
    if (at - last > reach) found.push([]);
    found[found.length - 1].push([at, value]);
    last = at;
  });
  return found;
}
function niceTop(most, isWhole, isTime) {
  if (isTime && most > 90) return most > 5400 ? niceTop(most / 3600) * 3600 : niceTop(most / 60) * 60;
  if (!(most > 0)) return isWhole ? 2 : 1;
  const power = 10 ** Math.floor(Math.log10(most));
  const top = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map(n => n * power).find(n => n >= most * 1.05) || 15 * power;
  return isWhole ? Math.max(2, top) : top;
}
const x = at => ((at + .5) / BINS * WIDTH).toFixed(1);

function paint(plot, times, columns, from, to) {
  const svg = plot.svg, lines = plot.lines.map(([, name, how]) => bins(list(columns[name]), times, from, to, how));
  const drawn = plot.stack ? stacked(lines) : lines;
  const top = niceTop(Math.max(0, ...drawn.flat().filter(v => v != null)), plot.whole, plot.unit === span), y = v => (HEIGHT - v / top * (HEIGHT - 4)).toFixed(1);
  svg.replaceChildren(...[.5, 1].map(part => draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(part * top), y2: y(part * top) })));
  for (const [shade, [name, isSo]] of (plot.shades || []).entries())
    for (const run of runs(bins(list(columns[name]).map(v => v != null && isSo(v) ? 1 : null), times, from, to, "max"))) {
      const left = run[0][0] / BINS * WIDTH, width = Math.max(2, (run[run.length - 1][0] + 1) / BINS * WIDTH - left);
      svg.append(draw("rect", { class: shade ? "shade2" : "shade", x: left, width, y: 0, height: HEIGHT }));
    }
  drawn.map((values, at) => [values, at]).reverse().forEach(([values, at]) => {
    const colour = plot.lines[at][3] ?? at + 1;
    if (colour === 4 && !values.some(v => v)) return;  // no red line where there is no trouble
    for (const run of runs(values)) {
      const last = run[run.length - 1];
      if (run.length === 1) run.push([last[0] + 1, last[1]]);  // one alone would be nothing
      const path = run.map(([bin, v], i) => (i ? "L" : "M") + x(bin) + " " + y(v)).join("");
      if (plot.stack || (plot.area && !at))
        svg.append(draw("path", { class: (plot.stack ? "stack f" : "area f") + colour,
          d: path + "L" + x(run[run.length - 1][0]) + " " + HEIGHT + "L" + x(run[0][0]) + " " + HEIGHT + "Z" }));
      if (!plot.stack) svg.append(draw("path", { class: "line " + (colour ? "s" + colour : "dashed"), d: path }));
    }
  });
  plot.marks.forEach((mark, i) => { mark.style.top = y([.5, 1][i] * top) / HEIGHT * 100 + "%"; mark.textContent = plot.unit([.5, 1][i] * top); });
  plot.values = lines;
  plot.none.hidden = lines.some(values => values.some(v => v != null));
  plot.from = from; plot.to = to;
  plot.xs.replaceChildren(...[0, 1, 2, 3].map(i => make("span", "", i === 3 ? "now" : clock(from + (to - from) * i / 3))));
  tell(plot);
}
function stacked(lines) {
  const sums = new Array(BINS).fill(0);
  return lines.map(values => values.map((v, at) => v == null ? null : (sums[at] += v)));
}
// The newest value of each line, or the one under the pointer.
function tell(plot) {
  const near = values => {
    const start = pointed == null ? BINS - 1 : pointed, reach = pointed == null ? BINS : 12;
    for (let away = 0; away < reach; away++) for (const at of [start - away, start + away]) if (values[at] != null) return values[at];
    return null;
  };
  const found = plot.values.map(near);
  const at = pointed == null ? "" : clock(plot.from + (pointed + .5) / BINS * (plot.to - plot.from)), value = plot.stack ? "" : plot.unit(found[0]);
  plot.now.textContent = [at, value].filter(Boolean).join(" · ");
  plot.keys.forEach((key, at) => { key.textContent = plot.lines[at][0] + " " + plot.unit(found[at]); });
  plot.rule.hidden = pointed == null;
  if (pointed != null) { plot.rule.style.left = (pointed + .5) / BINS * 100 + "%"; return; }
  const all = plot.values.map(values => values.filter(v => v != null));
  plot.svg.setAttribute("aria-label", plot.title + ": " + plot.lines.map(([name], at) => name + " now " + plot.unit(found[at]) +
    (all[at].length ? ", between " + plot.unit(Math.min(...all[at])) + " and " + plot.unit(Math.max(...all[at])) : "")).join("; "));
}
function field(plot) {
  plot.svg = draw("svg", { viewBox: "0 0 " + WIDTH + " " + HEIGHT, preserveAspectRatio: "none", role: "img" });
  plot.marks = plot.lines[0][4] === "bare" ? [] : [make("span", "y"), make("span", "y")];
  plot.rule = make("i", "rule"); plot.rule.hidden = true;
  plot.none = make("span", "none", "not known yet");
  plot.xs = make("div", "xs"); plot.xs.setAttribute("aria-hidden", "true");
  plot.now = make("span", "now");
  plot.keys = plot.lines.map(([name, , , colour], at) => make("span", "key " + (colour === 0 ? "dashed" : "k" + (colour || at + 1)), name));
  const made = make("div", "field", plot.svg, ...plot.marks, plot.rule, plot.none);
  made.addEventListener("pointermove", event => {
    const box = made.getBoundingClientRect();
    pointed = Math.max(0, Math.min(BINS - 1, Math.floor((event.clientX - box.left) / box.width * BINS)));
    everyPlot(tell);
  });
  made.addEventListener("pointerleave", () => { pointed = null; everyPlot(tell); });
  return made;
}
const hostPlots = {};
function everyPlot(act) { PLOTS.filter(plot => plot.svg).forEach(act); Object.values(hostPlots).flat().forEach(act); }

function makePlots() {
  el("plots").replaceChildren(...PLOTS.map(plot => {
    const made = field(plot), keys = make("span", "keys", ...(plot.lines.length > 1 ? plot.keys : []),
      ...(plot.shades || []).map(([, , words], at) => make("span", "key " + (at ? "shade2" : "shade"), words)));
    return make("figure", "card", make("figcaption", "", make("b", "", plot.title), plot.now, keys), made, plot.xs);
  }));
  choices("range", "radio", "range", SPANS, [String(spanSeconds)], value => { spanSeconds = Number(value); paintAll(); });
}
function paintAll() {
  const times = past.seconds, to = times.length ? times[times.length - 1] : Date.now() / 1000;
  const kept = times.length ? to - times[0] : 0;
  shownSeconds = Math.min(spanSeconds, Math.max(kept, 300));  // a server that began just now has little to show: all of the width for it
  const from = to - shownSeconds;
  for (const plot of PLOTS) paint(plot, times, past.figures, from, to);
  for (const [url, plots] of Object.entries(hostPlots))
    for (const plot of plots) paint(plot, times, object(past.hosts[url]), from, to);
  el("hours-note").textContent = "A sample every ten seconds" + (kept < spanSeconds ? "; the server has taken them for " + span(kept) + "." : ".");
}

function showHosts(hosts) {
  if (hosts.map(host => host.url).join() !== Object.keys(hostPlots).join()) {
    for (const url of Object.keys(hostPlots)) delete hostPlots[url];
    el("hosts").replaceChildren(...hosts.map(makeHost));
    paintAll();
  }
  hosts.forEach((host, at) => {
    const card = el("hosts").children[at], isAway = ["waiting", "connecting"].includes(host.state);
    const state = card.querySelector(".pill"), reason = card.querySelector(".reason");
    state.textContent = String(host.state).replace("_", " ");
    state.className = "pill " + (host.state === "live" ? "good" : isAway ? "bad" : "warn");
    reason.textContent = isAway ? line(host.last_error, 300) : "";
    const before = list(object(seenBefore).hosts).find(each => each.url === host.url);
    const rate = before ? Math.max(0, host.received - before.received) * 1e6 / Math.max(1, seen.now - seenBefore.now) : null;
    card.querySelector("dl").replaceChildren(...[["events a second", isAway ? "–" : short(rate)], ["behind the clock", span(host.lag_seconds)],
      ["first here", share(host.accepted, host.accepted + host.duplicate)], ["received", short(host.received)],
      ["connects", short(host.connects)], ["malformed", short(total(host.malformed))],
    ].map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value))));
  });
}
function makeHost(host) {
  const plots = [{ title: hostName(host.url) + ": events a second", unit: short, lines: [["events a second", "events", "mean"]], area: true },
    { title: hostName(host.url) + ": behind the clock", unit: span, lines: [["behind the clock", "lag_seconds", "max", 3]], area: true }];
  hostPlots[host.url] = plots;
  const drawn = plots.flatMap(plot => { const made = field(plot); return [make("div", "keys", ...plot.keys), made]; });
  return make("article", "card host", make("h3", "", make("span", "", hostName(host.url)), make("span", "pill", "")),
    make("dl", ""), make("p", "reason", ""), ...drawn, plots[1].xs);
}

const when = us => new Date(us / 1000).toLocaleDateString("en", { day: "numeric", month: "short" }) + " " + clock(us / 1e6);
function showIncidents() {
  const shown = list(past.incidents).slice(0, 40).map(each => {
    const isOn = each.ended == null, lasted = isOn ? 0 : (each.ended - each.began) / 1e6;
    const words = make("span", "", line(each.words, 500), make("span", "soft", (each.times > 1 ? " · " + each.times + " times" : "") +
      (isOn ? "" : lasted >= 1 ? " · for " + span(lasted) : "")));
    return make("li", isOn ? "entry on" : "entry", make("time", "", when(each.began) + (isOn ? ", still so" : "")), words);
  });
  el("incidents").replaceChildren(...(shown.length ? shown : [make("li", "", make("span", "well", "Nothing, since the server started."))]));
}

let backTimer = 0;
async function lookBack() {
  try {
    const newest = () => past.seconds[past.seconds.length - 1];
    if (seen.now && newest() > seen.now / 1e6 + 120) past = nothing();  // the server's clock was set back
    const after = newest(), told = await (await ask("/status/samples" + (after ? "?after=" + after : ""))).json();
    if (newest() !== after) return;  // who looked at the same time was quicker
    step = told.step_seconds || step;
    const grow = (old, fresh) => [...list(old), ...list(fresh)].slice(-KEPT);
    const unknown = past.seconds.map(() => null);  // what was not there before begins where the others stand
    const unseen = list(told.seconds).map(() => null);  // and what a server that just started does not know yet is not lost
    const names = (old, fresh) => [...new Set([...Object.keys(object(old)), ...Object.keys(object(fresh))])];
    const columns = (old, fresh) => Object.fromEntries(names(old, fresh).map(name =>
      [name, grow(object(old)[name] || unknown, object(fresh)[name] || unseen)]));
    past = {
      seconds: grow(past.seconds, told.seconds), figures: columns(past.figures, told.figures), incidents: told.incidents,
      hosts: Object.fromEntries(names(past.hosts, told.hosts).map(url => [url, columns(past.hosts[url], object(told.hosts)[url])])),
    };
    if (!document.hidden || !after) { paintAll(); showIncidents(); }
  } catch (error) {
    if (error.status === 401) return;  // until there is another token
  }
  clearTimeout(backTimer);  // one at a time, as with `look`
  backTimer = setTimeout(lookBack, 10000);
}
