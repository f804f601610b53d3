"use strict";
// The rings of hours by branch, and the list beside them. `shown` is called with each node that is turned to.
globalThis.drawSunburst = (roots, shown = () => {}) => {
  const svg = document.querySelector("#sun svg");
  if (!svg) return;
  const whole = { n: "All sounds", k: roots, h: roots.reduce((sum, node) => sum + node.h, 0) };
  const trail = document.getElementById("trail");
  const INNER = 66, RINGS = 3, RING = (296 - INNER) / RINGS, LEAST = 0.004, LETTER = 6.3;

  const hours = (h) => h < 1 / 60 ? `${Math.round(h * 3600)} s`
    : h < 1 ? `${(h * 60).toFixed(h < 1 / 6 ? 1 : 0)} min`
    : h < 100 ? `${h.toFixed(1)} h` : `${Math.round(h).toLocaleString("en")} h`;
  const made = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const cut = (text, room) => {
    const most = Math.floor(room / LETTER);
    return text.length <= most ? text : most < 4 ? "" : text.slice(0, most - 1).trimEnd() + "…";
  };
  const point = (radius, angle) =>
    `${(radius * Math.sin(angle)).toFixed(2)} ${(-radius * Math.cos(angle)).toFixed(2)}`;
  const arc = (inner, outer, from, to) => {
    const end = Math.min(to, from + 2 * Math.PI - 1e-4), large = end - from > Math.PI ? 1 : 0;
    return `M${point(outer, from)}A${outer} ${outer} 0 ${large} 1 ${point(outer, end)}` +
      `L${point(inner, end)}A${inner} ${inner} 0 ${large} 0 ${point(inner, from)}Z`;
  };
  const acts = (element, what) => {
    element.addEventListener("click", what);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); what(); }
    });
  };

  function label(node, inner, from, to) {
    const middle = (from + to) / 2, radius = inner + RING / 2;
    if ((to - from) * radius < 13) return;
    const text = cut(node.n, RING - 8);
    if (!text) return;
    const degrees = middle * 180 / Math.PI, isLeft = degrees > 180;
    const turn = `rotate(${(degrees - 90).toFixed(2)}) translate(${radius.toFixed(2)} 0)`;
    svg.append(made("text", {
      transform: turn + (isLeft ? " rotate(180)" : ""), "text-anchor": "middle", dy: "0.35em",
    }, text));
  }
  // A node's part is cut among what is below it by hours; where those overlap they share.
  function ring(nodes, path, depth, from, to, total) {
    let at = from;
    for (const node of nodes) {
      const end = at + (to - from) * node.h / total;
      if (end - at >= LEAST) {
        const inner = INNER + depth * RING, here = [...path, node];
        const said = `${node.n}: ${hours(node.h)}, ${node.c.toLocaleString("en")} ${node.c === 1 ? "clip" : "clips"}`;
        const part = made("path", {
          d: arc(inner, inner + RING, at, end), class: `b${node.b % 8}`, tabindex: "0",
          role: "button", "aria-label": said, "data-mid": node.m, "fill-opacity": 1 - 0.09 * depth,
        });
        part.append(made("title", {}, said));
        acts(part, () => show(here));
        svg.append(part);
        if (depth + 1 < RINGS && node.k.length) {
          const below = node.k.reduce((sum, kid) => sum + kid.h, 0);
          ring(node.k, here, depth + 1, at, end, Math.max(below, node.h));
        }
        label(node, inner, at, end);
      }
      at = end;
    }
  }
  function show(path) {
    const focus = path[path.length - 1];
    svg.replaceChildren();
    shown(focus);
    const below = focus.k.reduce((sum, kid) => sum + kid.h, 0);
    ring(focus.k, path, 0, 0, 2 * Math.PI, Math.max(below, focus.h, 1e-9));
    const middle = made("circle", {
      r: INNER - 3, tabindex: "0", role: "button", "aria-label": "one level up",
    });
    acts(middle, () => show(path.length > 1 ? path.slice(0, -1) : path));
    svg.append(middle);
    svg.append(made("text", { class: "middle", dy: path.length > 1 ? "-0.1em" : "0.35em" },
      cut(focus.n, 118)));
    if (path.length > 1) svg.append(made("text", { class: "middle small", dy: "1.3em" }, hours(focus.h)));
    trail.replaceChildren(...path.map((node, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = node.n;
      if (index === path.length - 1) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => show(path.slice(0, index + 1)));
      return button;
    }));
  }
  // Opening a branch of the list turns the picture to it.
  const paths = new Map();
  (function walk(nodes, path) {
    for (const node of nodes) {
      const here = [...path, node];
      if (!paths.has(node.m)) paths.set(node.m, here);
      walk(node.k, here);
    }
  })(roots, [whole]);
  for (const branch of document.querySelectorAll("#tree details")) {
    branch.querySelector("summary").addEventListener("click", () => {
      show(paths.get(branch.dataset.mid));
    });
  }
  show([whole]);
};
