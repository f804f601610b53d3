// What every page does: keys, one sound at a time, and the reason where a sound cannot be had.
//
// An element with data-key="x" is clicked (or, if one can write in it, focused) by the key x;
// data-does says what that does, for the list of keys.

const said = document.getElementById("said");
let fading;

/** Tell something in one line, for a few seconds. */
export function tell(text) {
  said.textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => { said.textContent = ""; }, 6000);
}

/** Send JSON to this server; gives its JSON. What went wrong is told, and thrown. */
export async function send(path, body, method = "POST") {
  const csrf = document.querySelector("meta[name=csrf]").content;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: { "content-type": "application/json", "x-audioset-csrf": csrf },
      body: JSON.stringify(body),
    });
  } catch {
    tell("The server does not answer: is `audioset app` still running?");
    throw new Error("no answer");
  }
  if (!answer.ok) {
    const why = await answer.text();
    tell(why);
    throw new Error(why);
  }
  return answer.status === 204 ? null : answer.json();
}

const isTyping = (element) =>
  element.matches("input:not([type=checkbox], [type=radio], [type=range]), select, textarea, [contenteditable]");

// Keys that an element with the focus uses itself.
const isItsOwn = (element, key) => (key === " " || key === "Enter"
  ? element.matches("button, a[href], summary, input, select")
  : key.startsWith("Arrow") && element.matches("input[type=range], input[type=radio]"));

function keyed(key) {
  return [...document.querySelectorAll(`[data-key="${CSS.escape(key)}"]`)]
    .find((element) => !element.disabled && element.offsetParent !== null);
}

const cards = () => [...document.querySelectorAll(".card")].filter((one) => one.offsetParent !== null);

function moveTo(step) {
  const all = cards();
  if (!all.length) return;
  const here = all.indexOf(document.activeElement.closest(".card"));
  const next = all[Math.min(all.length - 1, Math.max(0, here < 0 ? 0 : here + step))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function playOrPause(player) {
  if (player.error) player.load(); // The server may answer again.
  if (player.paused) player.play().catch(() => {});
  else player.pause();
}

document.addEventListener("keydown", (event) => {
  const dialog = document.querySelector("dialog[open]");
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog) return;
  const target = event.target;
  if (isTyping(target)) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (isItsOwn(target, event.key)) return;
  const element = keyed(event.key) || keyed(event.key.toLowerCase());
  if (element) {
    event.preventDefault();
    if (event.repeat && !event.key.startsWith("Arrow")) return;
    if (isTyping(element)) element.focus();
    else element.click();
  } else if (event.key === "j" || event.key === "k") {
    event.preventDefault();
    moveTo(event.key === "j" ? 1 : -1);
  } else if (event.key === " " && target.matches(".card")) {
    event.preventDefault();
    const player = target.querySelector("audio");
    if (player) playOrPause(player);
  } else if (event.key === "Enter" && target.matches(".card")) {
    target.querySelector("a[href]")?.click();
  }
});

document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);

// A picture that cannot be made is replaced by the reason, which the server says in one line; one with
// data-own is cared for by its own page.
async function explain(picture) {
  if (picture.tagName !== "IMG" || !picture.src.includes("/sounds/") || "own" in picture.dataset) return;
  const answer = await fetch(picture.src).catch(() => null);
  const why = document.createElement("div");
  why.className = "why";
  why.textContent = answer === null ? "The server does not answer." : answer.ok ? "no picture" : await answer.text();
  picture.closest(".card")?.querySelector("audio")?.remove();
  picture.replaceWith(why);
}
document.addEventListener("error", (event) => { explain(event.target); }, true);
for (const picture of document.images) if (picture.complete && !picture.naturalWidth && picture.loading !== "lazy") explain(picture);

const KEY_NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→" };
const keys = document.getElementById("keys");
document.getElementById("keys-button").addEventListener("click", () => {
  const always = cards().length
    ? [["j / k", "the next, the previous sound"], ["Space", "play or pause it"], ["Enter", "open its recording"]] : [];
  const own = [...document.querySelectorAll("[data-key]")]
    .filter((one) => one.offsetParent !== null)
    .map((one) => [KEY_NAMES[one.dataset.key] ?? one.dataset.key, one.dataset.does || one.textContent.trim()]);
  const list = keys.querySelector("dl");
  list.replaceChildren(...[...always, ...own].flatMap(([key, does]) => {
    const name = document.createElement("dt");
    const cap = document.createElement("kbd");
    cap.textContent = key;
    name.append(cap);
    const what = document.createElement("dd");
    what.textContent = does;
    return [name, what];
  }));
  keys.showModal();
});
keys.querySelector("button").addEventListener("click", () => keys.close());
