// A sample is heard sound by sound; a verdict leads to the next one.

import { tell } from "./app.js";
import { give, judge, onStored } from "./verdicts.js";

const { review, root, items } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const player = at("player"), buttons = [...document.querySelectorAll("#verdicts button")];
// By clip and class, what the person says by now; and what was before, to undo.
let current = 0, said = {}, done = [], counting;

const MEANS = { yes: "present", no: "absent", other: "absent", unsure: "unsure" };
const isRoot = (item) => item.mid === root.mid;
const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;
const span = (item) => `start_s=${item.start_s.toFixed(2)}&end_s=${item.end_s.toFixed(2)}`;
const sound = (item, kind) => `/sounds/${item.clip}.${kind}?${span(item)}`;

const key = (item, mid) => `${item.clip} ${mid}`;
function answer(item) {
  const own = said[key(item, item.mid)];
  if (own === "absent" && !isRoot(item) && said[key(item, root.mid)] === "present") return "other";
  return { present: "yes", absent: "no", unsure: "unsure" }[own];
}

const dots = items.map((item, index) => {
  const entry = document.createElement("li"), dot = document.createElement("button");
  dot.type = "button";
  dot.textContent = index + 1;
  dot.addEventListener("click", () => show(index));
  entry.append(dot);
  at("dots").append(entry);
  return dot;
});

function mark() {
  const n = items.filter(answer).length;
  at("progress").value = n;
  at("count").textContent = `${n} of ${items.length} judged${judge() ? ` by ${judge()}` : ""}`;
  at("undo").disabled = !done.length || "readOnly" in document.body.dataset;
  dots.forEach((dot, index) => {
    const given = answer(items[index]);
    if (given) dot.dataset.verdict = given; else delete dot.dataset.verdict;
    dot.toggleAttribute("aria-current", index === current);
    dot.setAttribute("aria-label", `sound ${index + 1}: ${given || "not judged"}`);
  });
  for (const button of buttons) button.setAttribute("aria-pressed", String(answer(items[current]) === button.dataset.verdict));
}

function show(index, isPlayed = true) {
  current = Math.max(0, Math.min(items.length - 1, index));
  const item = items[current];
  history.replaceState(null, "", `#${current + 1}`);
  document.querySelector("[data-verdict=other]").hidden = isRoot(item);
  at("question").textContent = `Do you hear: ${item.name}?`;
  const link = document.createElement("a");
  link.href = `/clips/${item.clip}?at=${item.start_s.toFixed(2)}&class=${encodeURIComponent(item.mid)}`;
  link.textContent = item.file;
  at("where").replaceChildren(`Sound ${current + 1} of ${items.length} · `, link, `, ${clock(item.start_s)} to ${clock(item.end_s)}`);
  const picture = at("picture");
  picture.hidden = player.hidden = false;
  at("why").hidden = true;
  picture.alt = `Spectrogram of ${item.file} from ${clock(item.start_s)}`;
  picture.src = sound(item, "png");
  player.src = sound(item, "mp3");
  player.setAttribute("aria-label", `${item.name} in ${item.file}`);
  const length = item.end_s - item.start_s, bar = at("heard").firstElementChild;
  const [from, to] = item.heard || [item.start_s, item.start_s];
  bar.style.left = `${100 * (from - item.start_s) / length}%`;
  bar.style.width = `${100 * Math.max(0, to - from) / length}%`;
  mark();
  at("item").focus({ preventScroll: true });
  if (isPlayed) player.play().catch(() => {});
  if (current + 1 < items.length) ahead(items[current + 1]);
}

// The next sound is decoded while this one is heard.
const fetched = new Set();
function ahead(item) {
  if (fetched.has(item.clip)) return;
  fetched.add(item.clip);
  new Image().src = sound(item, "png");
  fetch(sound(item, "mp3")).catch(() => {});
}

function say(item, words) {
  for (const [mid, verdict] of words) {
    if (!give({ clip: item.clip, mid, start_s: item.start_s, end_s: item.end_s, verdict })) return false;
    said[key(item, mid)] = verdict;
  }
  return true;
}

function verdict(word) {
  const item = items[current];
  const words = [[item.mid, MEANS[word]]];
  if (!isRoot(item)) words.push([root.mid, word === "other" ? "present" : MEANS[word]]);
  const before = words.map(([mid]) => [mid, said[key(item, mid)] || "withdrawn"]);
  if (!say(item, words)) return;
  done.push([current, before]);
  if (current + 1 < items.length) show(current + 1);
  else {
    mark();
    tell("That was the last sound of the sample.");
  }
}

function undo() {
  if (!done.length) return;
  const [index, before] = done.pop();
  say(items[index], before);
  show(index);
  tell(`Taken back: sound ${index + 1}.`);
}

async function count() {
  const answer = await fetch(at("so-far").dataset.address).catch(() => null);
  if (!answer?.ok) return;
  const isOpen = at("differing")?.open;
  const part = new DOMParser().parseFromString(await answer.text(), "text/html").body;
  at("so-far").replaceChildren(...part.childNodes);
  if (isOpen && at("differing")) at("differing").open = true;
}

// What the person said before, here or elsewhere.
async function remember() {
  said = {};
  done = [];
  const who = judge();
  if (who) {
    const answer = await fetch(`/judge/${review}/answers?judge=${encodeURIComponent(who)}`).catch(() => null);
    const known = answer?.ok ? await answer.json() : { asked: {}, node: {} };
    for (const item of items) {
      if (known.node[item.clip]) said[key(item, root.mid)] = known.node[item.clip];
      if (known.asked[item.clip]) said[key(item, item.mid)] = known.asked[item.clip];
    }
  }
}

const asked = () => Number(location.hash.slice(1));
at("picture").addEventListener("error", async () => {
  // One line of the server says why, in place of the picture and the player.
  const item = items[current];
  const answer = await fetch(sound(item, "png")).catch(() => null);
  const why = answer === null ? "The server does not answer." : answer.ok ? "" : await answer.text();
  if (!why || item !== items[current]) return;
  at("picture").hidden = player.hidden = true;
  at("why").hidden = false;
  at("why").textContent = `This sound cannot be played: ${why}`;
});
for (const button of buttons) button.addEventListener("click", () => verdict(button.dataset.verdict));
at("back").addEventListener("click", () => show(current - 1));
at("skip").addEventListener("click", () => show(current + 1));
at("undo").addEventListener("click", undo);
at("again").addEventListener("click", () => {
  if (player.error || !at("why").hidden) {
    show(current); // The server may answer again.
    return;
  }
  player.currentTime = 0;
  player.play().catch(() => {});
});
at("judge-name").addEventListener("change", async () => { await remember(); show(current, false); });
addEventListener("hashchange", () => { if (asked()) show(asked() - 1); });
onStored((verdict) => {
  if (verdict.judge === judge()) said[`${verdict.clip} ${verdict.mid}`] ??= verdict.verdict;
  mark();
  clearTimeout(counting);
  counting = setTimeout(count, 300);
});
(function follow() {
  const part = player.duration > 0 ? player.currentTime / player.duration : 0;
  at("playhead").style.left = `calc(${100 * part}% - 1px)`;
  requestAnimationFrame(follow);
})();
await remember();
const first = items.findIndex((item) => !answer(item));
show(asked() ? asked() - 1 : Math.max(0, first));
if (!judge() && !at("judge-name").disabled) at("judge-name").focus();
count();
