// More sounds when the end of the page comes near; addresses without empty fields.

import { tell } from "./app.js";
import { choose } from "./classes.js";

const form = document.getElementById("asked");
for (const group of form.querySelectorAll("[data-classes]")) choose(group, () => form.elements.min_score.value);

form.addEventListener("formdata", (event) => {
  for (const name of new Set(event.formData.keys())) {
    const given = event.formData.getAll(name).filter((value) => value.trim());
    event.formData.delete(name);
    for (const value of given) event.formData.append(name, value);
  }
});

const list = document.getElementById("cards");
// Several sounds of a short recording have one picture and one player: class, score and interval differ.
const nameOf = (card) => [card.dataset.clip, ...[...card.querySelectorAll("h2, .note")].map((part) => part.textContent)].join("\n");
let isLoading = false;

async function showMore(more) {
  if (isLoading) return;
  isLoading = true;
  more.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(more.href, { headers: { accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const known = new Set([...list.querySelectorAll(".card")].map(nameOf));
    // While recordings are labelled, what was on this page may have moved to the next.
    const added = [...page.querySelectorAll("#cards .card")].filter((card) => !known.has(nameOf(card)));
    list.append(...added);
    const n = list.querySelectorAll(".card").length;
    const next = page.getElementById("more");
    const first = Number(list.dataset.first);
    const from = first ? `Sounds ${first + 1} to ${first + n}` : `The first ${n}`;
    document.getElementById("shown").textContent = next ? `${from} of more.` : first ? `${from}.` : `All ${n}.`;
    if (next) {
      more.href = next.href;
      more.removeAttribute("aria-busy");
      watch(more);
    } else {
      if (document.activeElement === more) added[0]?.focus();
      more.closest(".further").remove();
    }
  } catch {
    more.removeAttribute("aria-busy");
    tell("More could not be had: is `audioset app` still running?");
  } finally {
    isLoading = false;
  }
}

const near = new IntersectionObserver((seen) => {
  for (const one of seen) {
    if (!one.isIntersecting) continue;
    near.unobserve(one.target);
    showMore(one.target);
  }
}, { rootMargin: "900px" });

function watch(more) { near.observe(more); }

const more = document.getElementById("more");
if (more) {
  more.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    showMore(more);
  });
  watch(more);
}
