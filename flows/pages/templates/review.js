"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { items, columns, key, root } = data;
  const at = (id) => document.getElementById(id);
  const player = at("player"), buttons = [...document.querySelectorAll("#verdicts button")];
  let current = 0, verdicts = {};

  try {
    verdicts = JSON.parse(localStorage.getItem(key)) || {};
  } catch {
    at("warning").hidden = false;
  }
  const keep = () => {
    try {
      localStorage.setItem(key, JSON.stringify(verdicts));
    } catch {
      at("warning").hidden = false;
    }
  };
  const isRoot = (item) => item.mid === root.mid;
  const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;
  const dots = items.map((item, index) => {
    const entry = document.createElement("li"), dot = document.createElement("button");
    dot.type = "button";
    dot.textContent = index + 1;
    dot.addEventListener("click", () => show(index));
    entry.append(dot);
    at("dots").append(entry);
    return dot;
  });

  function mark() {
    const n = items.filter((item) => verdicts[item.clip]).length;
    at("progress").value = n;
    at("count").textContent = `${n} of ${items.length} judged`;
    at("save").disabled = n === 0;
    dots.forEach((dot, index) => {
      const given = verdicts[items[index].clip];
      if (given) dot.dataset.verdict = given[0]; else delete dot.dataset.verdict;
      dot.toggleAttribute("aria-current", index === current);
      dot.setAttribute("aria-label", `clip ${index + 1}: ${given ? given[0] : "not judged"}`);
    });
    const given = items.length ? verdicts[items[current].clip] : undefined;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(Boolean(given) && given[0] === button.dataset.verdict));
    }
  }
  function show(index) {
    if (!items.length) return;
    current = Math.max(0, Math.min(items.length - 1, index));
    const item = items[current], has = item.audio !== "";
    at("other").hidden = isRoot(item);
    at("question").textContent = `Do you hear: ${item.name}?`;
    at("where").textContent = `${item.file}, ${clock(item.start_s)} to ${clock(item.end_s)}`;
    at("where").title = item.path;
    at("sound").hidden = !has;
    at("why").hidden = has;
    at("why").textContent = has ? "" : `This recording cannot be played: ${item.why}`;
    player.pause();
    if (has) {
      player.src = item.audio;
      at("picture").src = item.picture;
      at("picture").alt = `Spectrogram of ${item.file}`;
    } else {
      player.removeAttribute("src");
    }
    const span = item.end_s - item.start_s, bar = at("heard").firstElementChild;
    const [from, to] = item.heard || [item.start_s, item.start_s];
    bar.style.left = `${100 * (from - item.start_s) / span}%`;
    bar.style.width = `${100 * Math.max(0, to - from) / span}%`;
    mark();
  }
  function judge(verdict) {
    if (!items.length || (verdict === "other" && isRoot(items[current]))) return;
    verdicts[items[current].clip] = [verdict, new Date().toISOString()];
    keep();
    if (current + 1 < items.length) show(current + 1); else mark();
  }
  function play() {
    if (!player.src) return;
    if (player.paused) player.play().catch(() => {}); else player.pause();
  }
  const field = (value) => {
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  // What a verdict says of the class that was asked about, and of the node above it.
  const said = (item, verdict) => isRoot(item) ? [{ verdict }]
    : [{ verdict: verdict === "other" ? "no" : verdict },
      { ...root, verdict: verdict === "other" ? "yes" : verdict }];
  function csv() {
    const rows = items.filter((item) => verdicts[item.clip]).flatMap((item) => {
      const [verdict, reviewed_at] = verdicts[item.clip];
      return said(item, verdict).map((row) => columns.map(
        (name) => field({ ...item, ...row, reviewed_at }[name])).join(","));
    });
    return [columns.join(","), ...rows, ""].join("\n");
  }
  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "verdicts.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const keys = {
    y: () => judge("yes"), o: () => judge("other"), n: () => judge("no"), u: () => judge("unsure"),
    ArrowLeft: () => show(current - 1), ArrowRight: () => show(current + 1), " ": play,
  };
  document.addEventListener("keydown", (event) => {
    const what = keys[event.key] || keys[event.key.toLowerCase()];
    if (!what || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest("button")) return;
    // A player that has the focus would take the key as well.
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat || event.key.startsWith("Arrow")) what();
  }, true);
  // A button that was clicked must not take the space that plays.
  document.addEventListener("click", (event) => {
    if (event.detail > 0) event.target.closest("button")?.blur();
  });
  at("other-name").textContent = `No, another ${root.name}`;
  for (const button of buttons) button.addEventListener("click", () => judge(button.dataset.verdict));
  at("back").addEventListener("click", () => show(current - 1));
  at("next").addEventListener("click", () => show(current + 1));
  at("save").addEventListener("click", save);
  (function follow() {
    const part = player.duration > 0 ? player.currentTime / player.duration : 0;
    at("playhead").style.left = `calc(${100 * part}% - 1px)`;
    requestAnimationFrame(follow);
  })();
  const first = items.findIndex((item) => !verdicts[item.clip]);
  if (items.length) show(Math.max(0, first)); else mark();
})();
