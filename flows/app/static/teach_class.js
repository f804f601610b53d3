// One class: sounds are judged, what is known is learned again, and the list changes.

import { send, tell } from "./app.js";
import { choose } from "./classes.js";
import { follow } from "./labelling.js";
import { give, judge, onStored, unstored } from "./verdicts.js";

const RENEW_AFTER = 5;
const listening = document.getElementById("listening"), list = document.getElementById("candidates");
const undoing = document.getElementById("undo"), who = document.getElementById("judge-name");
const mid = listening.dataset.mid, isChosen = Boolean(listening.dataset.like || listening.dataset.search);
// What the person who judges has said here, by sound; and each answer with what was before, to undo.
let said = {}, answers = [];
let nSince = 0, shownKey = null, asking = 0;

const number = (n) => Number(n).toLocaleString("en");
const at = (id) => document.getElementById(id);

const key = ({ clip, name, start, end }) => [clip, name, start, end].join(" ");
const sameCards = (one) => [...document.querySelectorAll(".asked")].filter((card) => key(card.dataset) === key(one));

function before(one) {
  const own = sameCards(one).find((card) => card.dataset.by === judge() && card.dataset.said);
  return said[key(one)] ?? own?.dataset.said ?? "withdrawn";
}

function add(place, by) {
  if (place) place.textContent = number(Number(place.textContent.replaceAll(",", "")) + by);
}

// An example shows what one person said; another sound the last word of whoever judges.
const isOwn = (card) => !card.closest("#examples") || card.dataset.by === judge();

function mark(card, verdict) {
  card.dataset.by = judge();
  card.dataset.said = verdict === "withdrawn" ? "" : verdict;
  for (const button of card.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  }
  if (!card.closest("#examples") || card.hidden === (verdict === "withdrawn")) return;
  card.hidden = verdict === "withdrawn";
  add(at("n-examples"), card.hidden ? -1 : 1);
}

/** Give the verdict, and show it; what the person had said before, or null if nobody judges. */
function say(one, verdict) {
  const { clip, name, start, end } = one, known = before(one);
  const span = { start_s: start === undefined ? null : Number(start), end_s: end === undefined ? null : Number(end) };
  if (!give({ clip, mid: name, ...span, verdict })) return null;
  said[key(one)] = verdict;
  add(at(`n-${known}`), -1);
  add(at(`n-${verdict}`), 1);
  for (const card of sameCards(one)) if (isOwn(card)) mark(card, verdict);
  return known;
}

function answer(card, verdict) {
  const { clip, name, start, end, by } = card.dataset;
  const one = { clip, name, start, end };
  if (by && by !== judge() && verdict === "withdrawn") {
    tell(`${by} said so: say the contrary under your name, and neither of the two counts.`);
    return;
  }
  const player = card.querySelector("audio");
  const isHeard = player && !player.paused;
  const all = [...list.querySelectorAll(".asked")];
  const known = say(one, verdict);
  if (known === null) {
    who.addEventListener("change", () => setTimeout(() => card.focus()), { once: true });
    return;
  }
  answers.push({ one, known });
  undoing.disabled = false;
  if (!isOwn(card)) tell(`Stored under your name, beside what ${by} said.`);
  if (!all.includes(card)) return;
  // Once that many are stored, the list is renewed.
  if (!isChosen && ++nSince % RENEW_AFTER === 0) return;
  const next = all.slice(all.indexOf(card) + 1).find((each) => !each.dataset.said);
  if (!next) return;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
  if (isHeard) next.querySelector("audio")?.play().catch(() => {});
}

function undo() {
  const last = answers.pop();
  undoing.disabled = !answers.length;
  if (!last || say(last.one, last.known) === null) return;
  sameCards(last.one)[0]?.focus();
  tell("Taken back.");
}

onStored(() => { if (nSince >= RENEW_AFTER && !unstored()) renew(); });
who?.addEventListener("change", () => {
  said = {};
  answers = [];
  undoing.disabled = true;
});

const current = () => document.activeElement.closest(".asked")
  ?? [...list.querySelectorAll(".asked")].find((card) => !card.dataset.said);

for (const button of document.querySelectorAll("[data-say]")) {
  button.addEventListener("mousedown", (event) => event.preventDefault()); // the sound keeps the focus
  button.addEventListener("click", () => {
    const card = current();
    if (card) answer(card, button.dataset.say);
  });
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-verdict]");
  if (!button) return;
  if (!who) tell("The page is read-only: nothing was changed.");
  else answer(button.closest(".asked"), button.dataset.verdict);
});
undoing?.addEventListener("click", undo);
at("renew")?.addEventListener("click", () => {
  if (unstored()) nSince = RENEW_AFTER; // what was said last is to count, too
  else renew();
});

async function renew() {
  const turn = ++asking;
  nSince = 0;
  list.setAttribute("aria-busy", "true");
  const { order, like, search, at: at_s } = listening.dataset;
  const asked = new URLSearchParams({ name: mid, order, like, search, at: at_s, judge: judge() });
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

for (const group of document.querySelectorAll("[data-classes]")) choose(group);
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
