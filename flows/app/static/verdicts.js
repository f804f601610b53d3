// Verdicts on their way to the server: in order, each once, and kept until they are stored.
//
// What the server has not stored yet is kept by the browser and sent when it answers again, also
// after the page was closed. #unstored says how many there are; #judge-name is who judges.

import { tell } from "./app.js";

const WHO = "audioset-judge", UNSTORED = "audioset-unstored-";
const WAITS_MS = [500, 1000, 2000, 4000, 8000, 15000];
const line = document.getElementById("unstored");
const field = document.getElementById("judge-name") || added_field();
const own = UNSTORED + crypto.getRandomValues(new Uint32Array(2)).join("-");
const stored = new EventTarget();
let waiting = [], why = "", isSending = false, n_failed = 0, timer;

const kept = {
  get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* only this page has it */ } },
  remove: (key) => { try { localStorage.removeItem(key); } catch { /* not there */ } },
  keys: () => { try { return Object.keys(localStorage); } catch { return []; } },
};

// A page that only has a place for verdicts on a span gets the field there.
function added_field() {
  const slot = document.getElementById("span-actions");
  if (!slot) return null;
  const label = document.createElement("label"), input = document.createElement("input");
  Object.assign(input, { id: "judge-name", maxLength: 80, autocomplete: "name", placeholder: "your name" });
  label.htmlFor = input.id;
  label.append("Who judges ", input);
  slot.append(label);
  return input;
}

/** Who judges, "" as long as nobody has said it. */
export const judge = () => (field ? field.value : kept.get(WHO) || "").trim().replace(/\s+/g, " ");

/** Calls back with each verdict that the server has stored. */
export const onStored = (what) => stored.addEventListener("stored", (event) => what(event.detail));

const name = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Give a verdict: {clip, mid, start_s, end_s, verdict}. False, and told, if nobody judges. */
export function give(verdict) {
  const who = judge();
  if (!who) {
    tell("Write who judges first: verdicts are kept by person.");
    field?.focus();
    return false;
  }
  waiting.push({ ...verdict, judge: who, name: name(), at: Date.now() });
  keep();
  sendAll();
  return true;
}

/** How many verdicts are not stored yet. */
export const unstored = () => waiting.length;

function keep() {
  if (waiting.length) kept.set(own, JSON.stringify(waiting));
  else kept.remove(own);
  if (!line) return;
  line.hidden = n_failed === 0 || waiting.length === 0;
  line.textContent = line.hidden ? ""
    : `${waiting.length} not stored yet: ${why} They are kept here, and sent when that is over.`;
}

// The server counts back from when it is asked: the next verdict is not older than the one before,
// though that may have been long on its way.
let atLeast = 0;
async function post({ at, ...verdict }) {
  const csrf = document.querySelector("meta[name=csrf]");
  const age = Math.max(0, Date.now() - Math.max(at, atLeast));
  try {
    return await fetch("/verdicts", {
      method: "POST",
      headers: { "content-type": "application/json", "x-audioset-csrf": csrf.content },
      body: JSON.stringify({ ...verdict, age_s: age / 1000 }),
    });
  } finally {
    atLeast = Date.now() - age;
  }
}

// The server has started anew: its pages have another secret.
async function renew() {
  const text = await (await fetch(location.href)).text();
  const meta = new DOMParser().parseFromString(text, "text/html").querySelector("meta[name=csrf]");
  const own_meta = document.querySelector("meta[name=csrf]");
  const is_new = Boolean(meta) && meta.content !== own_meta.content;
  if (is_new) own_meta.content = meta.content;
  return is_new;
}

async function sendAll() {
  if (isSending) return;
  isSending = true;
  clearTimeout(timer);
  try {
    while (waiting.length) {
      const verdict = waiting[0];
      let answer = await post(verdict);
      if (answer.status === 403 && await renew()) answer = await post(verdict);
      if (answer.status === 400) tell(`Not stored: ${await answer.text()}`); // It never can be.
      else if (!answer.ok) throw new Error(await answer.text());
      waiting.shift();
      n_failed = 0;
      keep();
      if (answer.ok) stored.dispatchEvent(new CustomEvent("stored", { detail: verdict }));
    }
  } catch (error) {
    // What fetch itself throws means that there was no answer.
    why = error instanceof TypeError ? "the server does not answer." : error.message.trim();
    n_failed += 1;
    keep();
    timer = setTimeout(sendAll, WAITS_MS[Math.min(n_failed, WAITS_MS.length) - 1]);
  } finally {
    isSending = false;
  }
}

if (field) {
  if (field.value) kept.set(WHO, judge()); // It was written before this script was there.
  else field.value = kept.get(WHO) || "";
  field.addEventListener("change", () => kept.set(WHO, judge()));
  field.addEventListener("keydown", (event) => { if (event.key === "Enter") field.blur(); });
}
// What another page of this browser could not send; if it is still open, sending it twice stores it once.
for (const key of kept.keys().filter((one) => one.startsWith(UNSTORED))) {
  try { waiting.push(...JSON.parse(kept.get(key))); } catch { /* damaged */ }
  kept.remove(key);
}
keep();
if (!("readOnly" in document.body.dataset)) sendAll();
addEventListener("online", sendAll);
addEventListener("beforeunload", (event) => { if (waiting.length && n_failed) event.preventDefault(); });
