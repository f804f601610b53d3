import { send } from "./app.js";
import "./labelling.js";

document.getElementById("add")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = new FormData(event.target);
  const made = await send("/teach/classes", {
    name: given.get("name"), under: given.getAll("under"), description: given.get("description"),
  });
  location.href = `/teach/class?name=${encodeURIComponent(made.mid)}`;
});
