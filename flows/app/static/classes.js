// A field in which a class is chosen from those that fit what is written: an ARIA combobox.
// Source: https://www.w3.org/WAI/ARIA/apg/patterns/combobox/

let number = 0;

function item(found, id) {
  const one = document.createElement("li");
  one.role = "option";
  one.id = id;
  one.dataset.name = found.name;
  const name = document.createElement("span");
  name.textContent = found.name;
  const clips = document.createElement("span");
  clips.className = "clips";
  clips.textContent = found.clips;
  clips.title = "recordings in which it is heard";
  const path = document.createElement("small");
  path.textContent = found.path;
  one.append(name, clips, path);
  return one;
}

/** Make a field such one; beside each class is in how many recordings its score is that high. */
export function combobox(input, leastScore = () => undefined, onChosen = () => {}) {
  const box = document.createElement("div");
  box.className = "choice";
  input.replaceWith(box);
  const list = document.createElement("ul");
  list.id = `choices-${number++}`;
  list.role = "listbox";
  list.hidden = true;
  list.setAttribute("aria-label", "Classes that fit");
  box.append(input, list);
  input.role = "combobox";
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  input.setAttribute("aria-expanded", "false");
  let asked = 0;
  let waiting;

  const active = () => list.querySelector("[aria-selected=true]");
  function close() {
    asked++;
    clearTimeout(waiting);
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function mark(one) {
    active()?.setAttribute("aria-selected", "false");
    one.setAttribute("aria-selected", "true");
    one.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", one.id);
  }
  function take(one) {
    input.value = one.dataset.name;
    close();
    onChosen(input);
  }
  async function ask() {
    const mine = ++asked;
    const query = new URLSearchParams({ text: input.value.slice(0, 200) });
    const least = Number(leastScore());
    if (least >= 0 && least <= 1) query.set("min_score", least);
    const answer = await fetch(`/classes?${query}`).catch(() => null);
    if (mine !== asked || !answer?.ok) return;
    const found = await answer.json();
    if (mine !== asked) return;
    list.replaceChildren(...found.map((one, n) => item(one, `${list.id}-${n}`)));
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.removeAttribute("aria-activedescendant");
  }

  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(ask, 120);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) { ask(); return; }
      const all = [...list.children];
      const step = event.key === "ArrowDown" ? 1 : -1;
      const at = all.indexOf(active());
      mark(all[(at < 0 && step < 0 ? all.length - 1 : at + step + all.length) % all.length]);
    } else if (event.key === "Enter" && !list.hidden && active()) {
      event.preventDefault();
      take(active());
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      close();
    }
  });
  input.addEventListener("blur", close);
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const one = event.target.closest("li");
    if (one) take(one);
  });
}

/** Make each field of a group such one; once the last is filled there is another. */
export function choose(group, leastScore) {
  function onChosen(input) {
    const fields = [...group.querySelectorAll("input")];
    if (input !== fields.at(-1)) return;
    const next = input.cloneNode();
    next.value = "";
    next.id = `${group.dataset.classes}${fields.length}`;
    next.placeholder = group.dataset.another;
    for (const name of ["data-key", "data-does", "required", "aria-activedescendant"]) next.removeAttribute(name);
    group.append(next);
    combobox(next, leastScore, onChosen);
  }
  for (const input of group.querySelectorAll("input")) combobox(input, leastScore, onChosen);
}
