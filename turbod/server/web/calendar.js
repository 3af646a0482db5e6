// Every hour of the last weeks, as /status/hours tells them. All times here are UTC, as the files' names are.
const HOUR = 3600e3, GLYPHS = { waiting: "↑", plain: "", verified: "", missing: "", damaged: "✕", conflict: "≠" };
const WORDS = { plain: "in the log on this disk", waiting: "sealed, waits for the archive", verified: "verified in the archive",
  missing: "missing: nobody has it", damaged: "cannot be read", conflict: "in conflict: two different objects of this hour" };
let told = { hours: [] }, days = 14;

const classOf = (state, isHere) => state === "missing" ? "absent" : state + (state === "verified" && !isHere ? " far" : "");
const gapWords = gap => utc(gap.after).slice(0, 16) + " to " + utc(gap.before).slice(0, 16) + " UTC";
function hourWords(hour) {
  return hour.hour.replace("T", " ") + ":00 UTC, " + [WORDS[hour.state] || hour.state,
    hour.state === "verified" && (hour.is_here ? "and on this disk" : "no longer on this disk"),
    hour.records != null && short(hour.records) + " events", hour.size && bytes(hour.size),
    list(hour.gaps).length && (list(hour.gaps).length > 1 ? list(hour.gaps).length + " gaps" : "a gap")].filter(Boolean).join(", ");
}

function showCalendar() {
  const byName = new Map(list(told.hours).map(hour => [hour.hour, hour])), now = Date.now();
  const oldest = list(told.hours).length ? told.hours[told.hours.length - 1].hour : "9999";
  const head = make("tr", "", make("th", "day", make("span", "vh", "Day")), ...Array.from({ length: 24 }, (_, hour) => {
    const cell = make("th", "", hour % 6 ? make("span", "vh", two(hour)) : two(hour));
    cell.scope = "col";
    return cell;
  }));
  const reach = (now - Date.parse(oldest + ":00Z")) / (24 * HOUR) + 2;  // a server that began just now has no weeks to show
  const body = Array.from({ length: Math.max(7, Math.min(days, Math.floor(reach) || 0)) }, (_, ago) => {
    const date = new Date(now - ago * 24 * HOUR).toISOString().slice(0, 10), named = { timeZone: "UTC" };
    const row = make("th", "", make("span", "weekday", new Date(date + "T00:00Z").toLocaleDateString("en", { ...named, weekday: "short" }) + " "),
      new Date(date + "T00:00Z").toLocaleDateString("en", { ...named, day: "numeric", month: "short" }));
    row.scope = "row";
    return make("tr", "", row, ...Array.from({ length: 24 }, (_, at) => cell(date + "T" + two(at), byName, oldest, now)));
  });
  el("calendar").replaceChildren(make("caption", "vh", "Hours by day, UTC"), make("thead", "", head), make("tbody", "", ...body));
  showLegend(byName);
  const gaps = new Map(list(told.hours).flatMap(hour => list(hour.gaps)).map(gap => [gap.after, gap]));
  el("gaps").replaceChildren(...[...gaps.values()].sort((a, b) => b.after - a.after).slice(0, 10).map(gap =>
    make("li", "", gapWords(gap) + ", events may be missing: " + line(gap.message, 300))));
}
function cell(name, byName, oldest, now) {
  const hour = byName.get(name), isComing = Date.parse(name + ":00Z") > now;
  if (!hour) return make("td", isComing || name < oldest ? "none-yet" : "nothing", make("span", "vh", isComing ? "to come" : "nothing"));
  const hasGap = list(hour.gaps).length > 0 && hour.state !== "missing";
  const made = make("td", classOf(hour.state, hour.is_here) + (hasGap ? " has-gap" : ""), hasGap ? "!" : GLYPHS[hour.state],
    make("span", "vh", hourWords(hour)));
  made.title = hourWords(hour);
  return made;
}
function showLegend(byName) {
  const all = [...byName.values()], count = test => all.filter(test).length;
  const entries = [["plain", "", "in the log, on this disk", count(h => h.state === "plain")],
    ["waiting", "↑", "sealed, waits for the archive", count(h => h.state === "waiting")],
    ["verified", "", "verified, here too", count(h => h.state === "verified" && h.is_here)],
    ["verified far", "", "verified, only in the archive", count(h => h.state === "verified" && !h.is_here)],
    ["nothing has-gap", "!", "has a gap", count(h => list(h.gaps).length && h.state !== "missing")],
    ["absent", "", "missing", count(h => h.state === "missing")],
    ["damaged", "✕", "cannot be read", count(h => h.state === "damaged")],
    ["conflict", "≠", "in conflict", count(h => h.state === "conflict")]];
  el("calendar-legend").replaceChildren(...entries.filter(([, , , n], at) => n || at < 4).map(([kind, glyph, words, n]) => {
    const mark = make("i", kind, glyph);
    mark.setAttribute("aria-hidden", "true");
    return make("li", "", mark, n + " " + words);
  }));
}
function showArchiveWords() {
  const archive = object(seen.archive), archiver = object(archive.archiver), local = object(archive.local);
  if (!seen.archive) return;
  const waits = archiver.hours_waiting && archiver.oldest_waiting ? counted(archiver.hours_waiting, "hour") + (archiver.hours_waiting === 1 ? " waits, since " : " wait, the oldest since ") +
    span((seen.now - archiver.oldest_waiting) / 1e6) : "none wait";
  el("archive-words").textContent = "In the archive: " + counted(archiver.stored_hours, "hour") + ", " + bytes(archiver.stored_bytes) + ". On this disk: " +
    counted((local.sealed || 0) + (local.verified || 0), "sealed hour") + ", " + bytes((local.sealed_bytes || 0) + (local.verified_bytes || 0)) + "; " + waits + "." +
    (archiver.hours_left == null ? "" : " There is room for " + (archiver.hours_left > 3 * 8766 ? "more than three years" : span(archiver.hours_left * 3600)) + ".");
}
el("calendar").addEventListener("pointerover", event => {
  const cell = event.target.closest("td");
  if (cell) el("hour-words").textContent = cell.title;
});
el("calendar").addEventListener("click", event => {  // a finger has no title to rest on
  const cell = event.target.closest("td");
  if (cell) el("hour-words").textContent = cell.title;
});
el("weeks").addEventListener("click", () => {
  days = days === 14 ? 42 : 14;
  el("weeks").setAttribute("aria-expanded", String(days === 42));
  el("weeks").textContent = days === 42 ? "Show two weeks" : "Show six weeks";
  showCalendar();
});

let hoursTimer = 0;
async function lookAtHours() {
  clearTimeout(hoursTimer);
  try {
    if (!document.hidden || !list(told.hours).length) {
      told = await (await ask("/status/hours")).json();
      showCalendar();
    }
  } catch (error) {
    if (error.status === 401) return;
  }
  hoursTimer = setTimeout(lookAtHours, told.is_whole === false ? 5000 : 30000);
}
