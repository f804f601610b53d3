// The page of a recording: what is in view, where the cursor is, which span is marked.
//
// Whenever the marked span changes, the document gets an event "span" whose detail is
// { clip, start_s, end_s }, or null; what acts on a span lies in #span-actions.

import { tell } from "./app.js";
import { LANE, clock, drawAxis, drawFrequencies, drawLanes, drawMap, style } from "./recording-lanes.js";
import { Player } from "./recording-player.js";
import { Tiles } from "./recording-tiles.js";

const $ = (id) => document.getElementById(id);
const given = $("recording").dataset;
const clip = given.clip, rate = Number(given.rate), samples = Number(given.samples);
const duration = samples / rate, shortest = Math.min(duration, 0.02);
const began = given.began ? Date.parse(given.began) : 0;
const AROUND_S = 30;

const within = (value, low, high) => Math.min(high, Math.max(low, value));
const asked = new URLSearchParams(location.search);
const number = (name) => { const value = parseFloat(asked.get(name)); return Number.isFinite(value) ? value : null; };

const view = { start: 0, end: duration };
let cursor = within(number("at") ?? 0, 0, duration), span = null, chosen = null;
let labels = { classes: [], detections: [], remarks: [] }, lanes = [], scores = null, why = "";

// --- what is drawn

const tiles = new Tiles({
  clip, samples, bands: Number(given.bands), palette: given.palette, changed: () => redraw(),
  failed(reason) { why = reason; $("why").hidden = !reason; $("why").textContent = reason; },
});
tiles.axis = asked.get("axis") ?? (rate >= 96000 ? "linear" : "mel");
if (!["mel", "linear"].includes(tiles.axis)) tiles.axis = "mel";

const player = new Player({
  clip, duration, rates: [Number(given.played), Number(given.slow)], slowed: Number(given.slowed),
  changed: () => { $("play").textContent = player.state === "paused" ? "Play" : "Pause"; follow(); redraw(); keep(); },
  failed: tell,
});

let isDue = false;
function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; draw(); });
}

function sized(canvas, high) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.round((high ?? canvas.clientHeight) * ratio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return ratio;
}

function draw() {
  const ratio = sized($("spectrum"));
  for (const id of ["map", "axis", "wave"]) sized($(id));
  $("tracks").style.height = `${lanes.length * LANE}px`;
  sized($("tracks"), lanes.length * LANE);
  drawMap($("map"), duration, view, ratio, lanes, labels.remarks);
  const large = ratio * (parseFloat(getComputedStyle(document.body).fontSize) / 15);
  drawAxis($("axis"), view, large, labels.remarks, began);
  tiles.draw($("wave"), $("spectrum"), view.start * rate, view.end * rate, style("--bar"));
  drawFrequencies($("spectrum"), large, rate, tiles.axis);
  drawLanes($("tracks"), view, ratio, lanes, scores, chosen);
  if (tiles.dark !== null) showDark();
  const across = view.end - view.start, left = (s) => `${(100 * (s - view.start)) / across}%`;
  $("marked").hidden = !span;
  if (span) {
    $("marked").style.left = left(span.start);
    $("marked").style.width = `${(100 * (span.end - span.start)) / across}%`;
  }
  showCursor();
  $("state").textContent = why ? "" : tiles.done < 1
    ? `The overview is being computed: ${Math.round(100 * tiles.done)} %` : player.state === "waiting" ? "Loading the sound" : "";
}

function showCursor() {
  const at = player.state === "paused" ? cursor : player.time, across = view.end - view.start;
  const part = (at - view.start) / across;
  $("cursor").hidden = part < 0 || part > 1;
  $("cursor").style.left = `${100 * within(part, 0, 1)}%`;
  const digits = across < 10 ? 3 : 1;
  const moment = began ? ` · ${new Date(began + 1000 * at).toISOString().slice(11, 19)}` : "";
  $("time").textContent = `${clock(at, digits)} of ${clock(duration)}${moment}`;
}

// While it plays, the cursor moves with the sound, and the view with the cursor.
let isFollowing = false;
function follow() {
  if (isFollowing) return;
  isFollowing = true;
  const step = () => {
    if (player.state === "paused") { cursor = player.time; isFollowing = false; redraw(); return; }
    cursor = player.time;
    if (player.state === "playing" && !drag && cursor >= view.end && view.end < duration) {
      show(cursor, cursor + view.end - view.start);
    }
    showCursor();
    requestAnimationFrame(step);
  };
  step();
}

// --- what is in view

function show(start, end) {
  const across = within(end - start, shortest, duration);
  view.start = within(start, 0, duration - across);
  view.end = view.start + across;
  askScores();
  keep();
  redraw();
}

function zoom(factor, around = (view.start + view.end) / 2) {
  const across = within((view.end - view.start) * factor, shortest, duration);
  const part = (around - view.start) / (view.end - view.start);
  show(around - part * across, around - part * across + across);
}

function move(part) {
  const by = part * (view.end - view.start);
  show(view.start + by, view.end + by);
}

function reveal(s) {
  if (s >= view.start && s <= view.end) return;
  const half = (view.end - view.start) / 2;
  show(s - half, s + half);
}

let keeping;
function keep() {
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    const query = new URLSearchParams({ at: cursor.toFixed(3) });
    if (view.end - view.start < duration) { query.set("from", view.start.toFixed(3)); query.set("to", view.end.toFixed(3)); }
    if (span) { query.set("start", span.start.toFixed(3)); query.set("end", span.end.toFixed(3)); }
    if (asked.has("axis")) query.set("axis", tiles.axis);
    if (lanes.isChosen) for (const lane of lanes) query.append("class", lane.mid);
    history.replaceState(null, "", `?${query}`);
  }, 250);
}

let asking, n_asked = 0;
function askScores() {
  clearTimeout(asking);
  asking = setTimeout(async () => {
    if (!lanes.length) return;
    const mids = lanes.map((lane) => lane.mid), margin = (view.end - view.start) / 2, turn = ++n_asked;
    const start = Math.max(0, view.start - margin), end = Math.min(duration, view.end + margin);
    const n = Math.min(4096, 2 * $("tracks").width);
    const query = new URLSearchParams([["start_s", start], ["end_s", end], ["n", n], ...mids.map((mid) => ["mid", mid])]);
    const answer = await fetch(`/clips/${clip}/scores?${query}`).catch(() => null);
    if (turn !== n_asked || !answer) return;
    if (!answer.ok) { tell(await answer.text()); return; }
    const values = new Uint8Array(await answer.arrayBuffer());
    scores = { start, end, rows: new Map(mids.map((mid, at) => [mid, values.subarray(at * n, (at + 1) * n)])) };
    redraw();
  }, 120);
}

// --- classes

function showClasses(mids, isChosen) {
  const known = new Map(labels.classes.map(([mid, name, peak], at) => [mid, { mid, name, peak, at }]));
  lanes = mids.filter((mid) => known.has(mid)).slice(0, 40).map((mid) => {
    const one = known.get(mid);
    return { ...one, heard: labels.detections.filter((each) => each[0] === one.at) };
  });
  lanes.isChosen = isChosen;
  $("names").replaceChildren(...lanes.map(({ name, peak }) => {
    const item = document.createElement("li"), text = document.createElement("span");
    text.textContent = `${name} ${peak.toFixed(2)}`;
    item.append(text);
    return item;
  }));
  const shown = new Set(lanes.map((lane) => lane.mid));
  for (const box of document.querySelectorAll("#labels [data-mid]")) box.checked = shown.has(box.dataset.mid);
  for (const id of ["previous", "next"]) $(id).disabled = !lanes.some((lane) => lane.heard.length);
  askScores();
  redraw();
}

$("labels")?.addEventListener("change", () => {
  const mids = [...document.querySelectorAll("#labels [data-mid]:checked")].map((box) => box.dataset.mid);
  showClasses(mids, true);
  keep();
});

$("class").addEventListener("change", () => {
  const name = $("class").value.trim().toLowerCase();
  if (!name) return;
  const found = labels.classes.find((each) => each[1].toLowerCase() === name);
  if (!found) { tell(`No class called ${$("class").value} has a score in this recording.`); return; }
  showClasses([...new Set([...lanes.map((lane) => lane.mid), found[0]])], true);
  $("class").value = "";
  keep();
});

/** Classes that are detected in view, then those with the best scores at all; best first. */
function bestOf({ start, end }, most) {
  const here = new Map();
  for (const [at, from, to, peak] of labels.detections) {
    if (to > start && from < end) here.set(at, Math.max(peak, here.get(at) ?? 0));
  }
  const order = [...here.entries()].sort((a, b) => b[1] - a[1]).map((each) => each[0]);
  const all = [...new Set([...order, ...labels.classes.keys()])].slice(0, most);
  return all.map((at) => labels.classes[at][0]);
}

function choose(heard) {
  chosen = heard;
  mark(heard[1], heard[2]);
  cursor = heard[1];
  reveal(cursor);
  tell(`${labels.classes[heard[0]][1]} ${heard[3].toFixed(2)}: ${clock(heard[1])} to ${clock(heard[2])}`);
  redraw();
}

function nextSound(step) {
  const at = chosen && Math.abs(chosen[1] - cursor) < 1e-6 ? chosen : [Infinity * step, cursor];
  const order = (a, b) => a[1] - b[1] || a[0] - b[0];
  const all = lanes.flatMap((lane) => lane.heard).sort(order);
  const found = step > 0 ? all.find((each) => order(each, at) > 0) : all.findLast((each) => order(each, at) < 0);
  if (!found) { tell(step > 0 ? "That was the last sound." : "That was the first sound."); return; }
  const isOn = player.state !== "paused";
  player.pause();
  choose(found);
  if (isOn) player.play(cursor);
}

// --- the marked span

function mark(start, end) {
  const low = within(Math.min(start, end), 0, duration), high = within(Math.max(start, end), 0, duration);
  span = high > low ? { start: low, end: high } : null;
  $("span-actions").hidden = !span;
  $("unmark").disabled = !span;
  $("what").textContent = span ? `${clock(low, 2)} to ${clock(high, 2)} (${(high - low).toFixed(2)} s)` : "No span is marked: drag over the picture.";
  $("download").hidden = span !== null && high - low > Number(given.cut);
  if ($("download").hidden) $("what").textContent += `; a file has up to ${Number(given.cut) / 60} min`;
  if (span) $("download").href = `/clips/${clip}/cut?start_s=${low}&end_s=${high}`;
  document.dispatchEvent(new CustomEvent("span", { detail: span && { clip, start_s: low, end_s: high } }));
  keep();
  redraw();
}

// --- buttons, which are keys too

function goTo(s) {
  cursor = within(s, 0, duration);
  if (player.state !== "paused") player.play(cursor);
  player.place = cursor;
  reveal(cursor);
  keep();
  redraw();
}

const does = {
  play: () => { if (player.state === "paused") player.play(cursor < duration ? cursor : 0); else player.pause(); },
  in: () => zoom(0.5, within(cursor, view.start, view.end)), out: () => zoom(2, within(cursor, view.start, view.end)),
  whole: () => show(0, duration), left: () => move(-0.25), right: () => move(0.25),
  back: () => goTo(cursor - (view.end - view.start) / 50), forth: () => goTo(cursor + (view.end - view.start) / 50),
  previous: () => nextSound(-1), next: () => nextSound(1),
  slow: () => { player.slow(!player.isSlow); $("slow").setAttribute("aria-pressed", player.isSlow); },
  begin: () => mark(cursor, span && span.end > cursor ? span.end : Math.min(duration, cursor + (view.end - view.start) / 50)),
  end: () => mark(span && span.start < cursor ? span.start : Math.max(0, cursor - (view.end - view.start) / 50), cursor),
  unmark: () => { chosen = null; mark(0, 0); },
  "play-span": () => player.play(span.start, span.end),
};
for (const [id, action] of Object.entries(does)) $(id).addEventListener("click", action);

$("gain").addEventListener("input", () => { player.louder(Number($("gain").value)); $("gain-is").textContent = `${$("gain").value} dB`; });
$("gain-is").textContent = "0 dB";
const decibels = (value) => -120 + (120 * value) / 255;
function showDark() {
  const db = Math.round(decibels(tiles.dark));
  if (document.activeElement !== $("dark")) $("dark").value = db;
  $("dark-is").textContent = `${db} dB`;
}
$("dark").addEventListener("input", () => { tiles.isDarkChosen = true; tiles.dark = Math.round((255 * (Number($("dark").value) + 120)) / 120); redraw(); });
$("frequencies").value = tiles.axis;
$("frequencies").addEventListener("change", () => { tiles.axis = $("frequencies").value; asked.set("axis", tiles.axis); keep(); redraw(); });

// --- the mouse: drag over the picture marks a span, elsewhere it moves the view; a click plays

let drag = null;
const timeline = $("timeline");
const timeAt = (event) => {
  const box = timeline.getBoundingClientRect();
  return view.start + ((event.clientX - box.left - timeline.clientLeft) / timeline.clientWidth) * (view.end - view.start);
};
const inMap = (event) => ((event.clientX - timeline.getBoundingClientRect().left) / timeline.clientWidth) * duration;

timeline.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  const isMap = event.target === $("map"), isPicture = $("picture").contains(event.target);
  const marks = isPicture && event.pointerType !== "touch" && !event.shiftKey;
  drag = { x: event.clientX, from: timeAt(event), start: view.start, end: view.end, isMap, isPicture, marks, isMoved: false };
  timeline.setPointerCapture(event.pointerId);
});
timeline.addEventListener("pointermove", (event) => {
  if (!drag || (!drag.isMoved && Math.abs(event.clientX - drag.x) < 4)) return;
  drag.isMoved = true;
  if (drag.marks) { chosen = null; mark(drag.from, timeAt(event)); return; }
  timeline.classList.add("dragging");
  const across = drag.end - drag.start, moved = event.clientX - drag.x;
  const start = drag.isMap ? inMap(event) - across / 2 : drag.start - (moved / timeline.clientWidth) * across;
  show(start, start + across);
});
for (const name of ["pointerup", "pointercancel"]) timeline.addEventListener(name, (event) => {
  const ended = drag;
  drag = null;
  timeline.classList.remove("dragging");
  if (!ended || ended.isMoved || name === "pointercancel") return;
  if (ended.isMap) { const half = (view.end - view.start) / 2, at = inMap(event); show(at - half, at + half); return; }
  const at = timeAt(event), lane = ended.isPicture ? null : lanes[Math.floor((event.clientY - $("lanes").getBoundingClientRect().top) / LANE)];
  const slack = (3 * (view.end - view.start)) / timeline.clientWidth;
  const heard = lane?.heard.find((each) => each[1] - slack <= at && at <= each[2] + slack);
  if (heard) { choose(heard); player.play(heard[1], heard[2]); return; }
  cursor = within(at, 0, duration);
  player.play(cursor);
});
timeline.addEventListener("wheel", (event) => {
  if ($("lanes").contains(event.target) && !event.ctrlKey && !event.deltaX && !event.shiftKey) return; // the page scrolls
  event.preventDefault();
  const by = event.deltaMode === 1 ? 20 : 1; // lines of text, in Firefox
  const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
  if (Math.abs(sideways) >= Math.abs(event.deltaY) || event.shiftKey) move((sideways * by) / timeline.clientWidth);
  else zoom(2 ** within((event.deltaY * by) / 240, -1, 1), timeAt(event));
}, { passive: false });

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-at]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const start = Number(link.dataset.at), end = Number(link.dataset.end ?? link.dataset.at);
  if (link.dataset.end) mark(start, end);
  goTo(start);
  timeline.scrollIntoView({ block: "nearest" });
});

// --- the beginning

const from = number("from"), to = number("to");
if (from !== null && to !== null && to > from) show(from, to);
else if (number("at") !== null && duration > 2 * AROUND_S) show(cursor - AROUND_S / 3, cursor + (2 * AROUND_S) / 3);
mark(number("start") ?? 0, number("end") ?? 0);
new ResizeObserver(() => { redraw(); askScores(); }).observe(timeline);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

const answer = await fetch(`/clips/${clip}/labels`).catch(() => null);
if (answer?.ok) {
  labels = await answer.json();
  const wanted = asked.getAll("class").filter((mid) => labels.classes.some(([known]) => known === mid));
  showClasses(wanted.length ? wanted : bestOf(view, Number(given.shown)), wanted.length > 0);
} else tell("The classes cannot be shown: the server does not answer.");
