// The labelling of the collection with a taught model: begun here, it goes on when the page is closed.

import { send } from "./app.js";

const number = (n) => n.toLocaleString("en");

/** Show how far the labelling is, and follow it while it is at work. */
export async function follow(place) {
  const model = place.dataset.model;
  if (!model) return;
  const answer = await fetch(`/teach/labellings?model=${encodeURIComponent(model)}`).catch(() => null);
  if (!answer?.ok) return;
  show(place, await answer.json());
}

function show(place, state) {
  const bar = place.querySelector("progress"), line = place.querySelector("[role=status]"), said = place.querySelector("pre");
  const button = place.querySelector("[data-label]"), found = place.querySelector(".found");
  const isWhole = state.n_done >= state.n_all;
  bar.hidden = !state.is_at_work;
  bar.max = Math.max(1, state.n_all);
  bar.value = state.n_done;
  line.textContent = `${state.title}: ${number(state.n_done)} of ${number(state.n_all)} recordings labelled`
    + (state.is_at_work ? "; it goes on when this page is closed" : "");
  said.hidden = !state.has_failed;
  said.textContent = state.said.join("\n");
  if (button) {
    button.hidden = false;
    button.disabled = state.is_at_work;
    button.textContent = isWhole ? "Label what is new" : "Label the collection";
  }
  if (found) found.hidden = state.n_done === 0;
  if (state.is_at_work) setTimeout(() => follow(place), 1000);
}

for (const place of document.querySelectorAll(".labelling")) {
  place.querySelector("[data-label]")?.addEventListener("click", async () => {
    show(place, await send("/teach/labellings", { model: place.dataset.model }));
  });
  follow(place);
}
