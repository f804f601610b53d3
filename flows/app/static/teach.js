import { send } from "./app.js";
import { choose, combobox } from "./classes.js";
import "./labelling.js";

for (const group of document.querySelectorAll("[data-classes]")) choose(group);
const taught = document.getElementById("taught");
if (taught) combobox(taught);
document.getElementById("add")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = new FormData(event.target);
  const made = await send("/teach/classes", {
    name: given.get("name"), under: given.getAll("under"), description: given.get("description"),
  });
  location.href = `/teach/class?name=${encodeURIComponent(made.mid)}`;
});
