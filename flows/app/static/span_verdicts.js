// On the page of a recording: whether a class is heard in the marked span, as a verdict.
//
// The page dispatches "span" at the document with {clip, start_s, end_s}, or null where none is marked.

import { tell } from "./app.js";
import { combobox } from "./classes.js";
import { give, onStored } from "./verdicts.js";

const slot = document.getElementById("span-actions");
const CLASS = "audioset-class";
let span = null;

const made = (tag, properties, data = {}) => {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  return element;
};

function build() {
  const name = made("input", { id: "judged-class", autocomplete: "off", maxLength: 200, placeholder: "such as Wood saw" }, { key: "c", does: "write the class to judge in the span" });
  const label = made("label", { htmlFor: name.id, textContent: "Has the span " });
  try { name.value = sessionStorage.getItem(CLASS) || ""; } catch { /* as it is */ }
  const buttons = [["y", "present", "Yes", "yes: the class is heard in the span"],
    ["l", "absent", "No", "no: the class is lacking in the span"]].map(([key, verdict, text, does]) => {
    const button = made("button", { type: "button", textContent: text }, { key, does });
    button.addEventListener("click", () => say(name, verdict));
    return button;
  });
  slot.append(label, name, ...buttons);
  combobox(name);
  name.addEventListener("keydown", (event) => { if (event.key === "Enter") name.blur(); });
}

function say(name, verdict) {
  const mid = name.value.trim();
  if (!span) return;
  if (!mid) {
    tell("Write which class.");
    name.focus();
    return;
  }
  try { sessionStorage.setItem(CLASS, mid); } catch { /* not remembered */ }
  give({ ...span, mid, verdict });
}

// The list of verdicts as it is now.
async function showAll() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.getElementById("judged").replaceChildren(...page.getElementById("judged").childNodes);
}

if (slot && !("readOnly" in document.body.dataset)) {
  build();
  document.addEventListener("span", (event) => { span = event.detail; });
  onStored(({ mid, verdict, judge }) => {
    tell(`Stored: ${verdict === "present" ? "" : "no "}${mid}, says ${judge}.`);
    showAll();
  });
}
