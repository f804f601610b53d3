// The page where samples are drawn, and the one where a sample is heard.

import { send } from "./app.js";
import { combobox } from "./classes.js";

if (document.getElementById("item")) import("./judge_sample.js");

const form = document.getElementById("draw");
if (form) combobox(form.elements.under, () => form.elements.min_score.value);
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = Object.fromEntries(new FormData(form));
  const wanted = { under: given.under };
  for (const name of ["size", "per_class", "min_score", "seed"]) if (given[name] !== "") wanted[name] = Number(given[name]);
  const button = form.querySelector("button");
  button.disabled = true;
  button.textContent = "Drawing…";
  try {
    location.href = (await send("/judge/samples", wanted)).address;
  } catch {
    // It was told.
  } finally {
    button.disabled = false;
    button.textContent = "Draw a sample";
  }
});
