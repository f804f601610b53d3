// One class: sounds are judged, what is known is learned again, and the list changes.

import { send, tell } from "./app.js";
import { follow } from "./labelling.js";

const RENEW_AFTER = 5;
const listening = document.getElementById("listening"), list = document.getElementById("candidates");
const undoing = document.getElementById("undo"), who = document.getElementById("judge-name");
const mid = listening.dataset.mid;
const answers = [];
let nSince = 0, shownKey = null, asking = 0;

const number = (n) => Number(n).toLocaleString("en");
const at = (id) => document.getElementById(id);

if (who) {
  try { who.value = localStorage.getItem("audioset-judge") || ""; } catch { /* no storage: asked again */ }
  who.addEventListener("change", () => {
    try { localStorage.setItem("audioset-judge", who.value.trim()); } catch { /* as above */ }
  });
}

function add(verdict, by) {
  const place = { present: at("n-present"), absent: at("n-absent") }[verdict];
  if (place) place.textContent = number(Number(place.textContent.replaceAll(",", "")) + by);
}

function mark(card, verdict) {
  card.dataset.said = verdict;
  for (const button of card.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  }
}

const sameCard = (one) => [...document.querySelectorAll(".asked")].filter((card) =>
  card.dataset.clip === one.clip && (card.dataset.start ?? "") === (one.start ?? ""));

async function store(one, verdict) {
  const { before } = await send("/teach/verdicts", {
    name: one.name, clip: one.clip, verdict, by: who.value.trim(),
    start_s: one.start === undefined ? null : Number(one.start),
    end_s: one.end === undefined ? null : Number(one.end),
  });
  add(before, -1);
  add(verdict, 1);
  for (const card of sameCard(one)) mark(card, verdict);
  return before;
}

async function judge(card, verdict) {
  const { clip, name, start, end, by } = card.dataset;
  const one = { clip, name, start, end };
  const mine = who.value.trim() || "unknown";
  if (by && by !== mine && verdict === "unsure") {
    tell(`${by} said so: say the contrary under your name, and neither of the two counts.`);
    return;
  }
  const player = card.querySelector("audio");
  const isHeard = player && !player.paused;
  const all = [...list.querySelectorAll(".asked")];
  const isInList = all.includes(card);
  const before = await store(one, verdict);
  answers.push({ one, before });
  undoing.disabled = false;
  if (!isInList) return;
  nSince += 1;
  if (nSince >= RENEW_AFTER && !listening.dataset.like && !listening.dataset.search) {
    await renew();
    return;
  }
  const next = all.slice(all.indexOf(card) + 1).find((each) => !each.dataset.said);
  if (!next) return;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
  if (isHeard) next.querySelector("audio")?.play().catch(() => {});
}

async function undo() {
  const last = answers.pop();
  undoing.disabled = !answers.length;
  if (!last) return;
  // What was said is kept in the history; "unsure" counts neither way.
  await store(last.one, last.before ?? "unsure");
  const [card] = sameCard(last.one);
  if (card) {
    if (!last.before) mark(card, "");
    card.focus();
  }
  tell("Undone.");
}

const current = () => document.activeElement.closest(".asked")
  ?? [...list.querySelectorAll(".asked")].find((card) => !card.dataset.said);

for (const button of document.querySelectorAll("[data-say]")) {
  button.addEventListener("mousedown", (event) => event.preventDefault()); // the sound keeps the focus
  button.addEventListener("click", () => {
    const card = current();
    if (card) judge(card, button.dataset.say);
  });
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-verdict]");
  if (!button) return;
  if (!who) tell("The page is read-only: nothing was changed.");
  else judge(button.closest(".asked"), button.dataset.verdict);
});
undoing?.addEventListener("click", undo);
at("renew")?.addEventListener("click", renew);

async function renew() {
  const turn = ++asking;
  nSince = 0;
  list.setAttribute("aria-busy", "true");
  const { order, like, search, at: at_s } = listening.dataset;
  const asked = new URLSearchParams({ name: mid, order, like, search, at: at_s });
  const answer = await fetch(`/teach/candidates?${asked}`).catch(() => null);
  if (turn !== asking) return;
  const text = answer ? await answer.text() : "The server does not answer: is `audioset app` still running?";
  if (turn !== asking) return;
  if (answer?.ok) {
    const hadFocus = list.contains(document.activeElement) || document.activeElement === document.body;
    const isNew = list.querySelector(".asked") !== null;
    list.innerHTML = text; // escaped by the server's template
    if (hadFocus && isNew) list.querySelector(".asked")?.focus({ preventScroll: true });
  } else {
    const why = document.createElement("p");
    why.className = "problem";
    why.textContent = text;
    list.replaceChildren(why);
  }
  list.setAttribute("aria-busy", "false");
  if (list.querySelector("[data-wait]")) setTimeout(renew, 500);
  const counted = at("counted");
  if (counted) {
    at("n-recordings").textContent = number(counted.dataset.recordings);
    if (counted.dataset.learned !== shownKey) measure(counted.dataset);
  }
}

async function measure({ learned, hasHead }) {
  shownKey = learned;
  const place = at("ap"), note = at("figures-note");
  if (!hasHead) {
    place.textContent = "–";
    note.textContent = "";
    return;
  }
  place.classList.add("old");
  note.textContent = "Measuring …";
  const answer = await fetch(`/teach/figures?name=${encodeURIComponent(mid)}`).catch(() => null);
  if (shownKey !== learned) return;
  const found = answer?.ok ? await answer.json() : [];
  const last = found.at(-1);
  place.classList.remove("old");
  note.textContent = "";
  if (!last || last.ap === null) return;
  const [low, high] = last.interval ?? [];
  place.textContent = last.ap.toFixed(2);
  if (low !== undefined) {
    const interval = document.createElement("small");
    interval.textContent = ` 95 %: ${low.toFixed(2)}–${high.toFixed(2)}`;
    place.append(interval);
  }
  note.textContent = `Of recordings that were not learned from: ${number(last.n_recordings)} with it, ${number(last.n_other_recordings)} others.`;
  draw(found.filter((each) => each.ap !== null));
}

/** Average precision by the number of examples: what was measured since the program started. */
function draw(found) {
  const figure = at("learning"), svg = figure.querySelector("svg");
  figure.hidden = found.length < 2;
  if (figure.hidden) return;
  const [width, height, edge] = [240, 64, 6];
  const most = Math.max(...found.map((each) => each.n_patches));
  const points = found.map((each) => [
    edge + (width - 2 * edge) * each.n_patches / most, height - edge - (height - 2 * edge) * each.ap,
  ]);
  const shape = (name, values) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) one.setAttribute(key, value);
    return one;
  };
  svg.replaceChildren(
    ...[edge, height - edge].map((y) => shape("line", { class: "axis", x1: edge, x2: width - edge, y1: y, y2: y })),
    shape("polyline", { class: "curve", points: points.map((point) => point.join(",")).join(" ") }),
    ...points.map(([cx, cy]) => shape("circle", { cx, cy, r: 3 })),
  );
  figure.querySelector("figcaption").textContent = `AP, ${number(found[0].n_patches)} to ${number(most)} examples`;
}

at("teach")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = new FormData(event.target), button = event.target.querySelector("button");
  button.disabled = true;
  button.textContent = "Teaching …";
  try {
    const made = await send("/teach/models", { name: given.get("name"), classes: given.getAll("classes") });
    const place = document.querySelector(".labelling");
    place.dataset.model = made.name;
    await follow(place);
    tell(`${made.title} is taught: ${made.classes.join(", ")}.`);
  } finally {
    button.disabled = false;
    button.textContent = "Teach";
  }
});

at("change")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = new FormData(event.target);
  await send("/teach/classes/change", { name: mid, under: given.getAll("under"), description: given.get("description") });
  location.reload();
});
at("remove")?.addEventListener("click", async () => {
  await send("/teach/classes/remove", { name: mid });
  location.href = "/teach";
});

await renew();
