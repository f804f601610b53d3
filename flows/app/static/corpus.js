// Each part of the page is counted when the one above it is there, so that nobody else has to wait.

/** The parts of an answer that is HTML, or the reason why there is none. */
async function part(address) {
  let answer = await fetch(address).catch(() => null);
  // It is counted for somebody else, and asking again takes nothing from anybody.
  while (answer?.status === 503) {
    await new Promise((done) => setTimeout(done, 3000));
    answer = await fetch(address).catch(() => null);
  }
  if (answer?.ok) return [...new DOMParser().parseFromString(await answer.text(), "text/html").body.childNodes];
  const why = document.createElement("p");
  why.className = "note";
  why.textContent = answer === null ? "The server does not answer." : await answer.text();
  return [why];
}

function sunburst() {
  const data = document.getElementById("data");
  if (!data) return;
  // The list beside the rings has a link for each branch and class.
  const of_mid = new Map([...document.querySelectorAll("#tree [data-mid]")].map((one) => [one.dataset.mid, one.querySelector("a").href]));
  globalThis.drawSunburst(JSON.parse(data.textContent), (node) => {
    const line = document.getElementById("searching"), address = of_mid.get(node.m);
    line.replaceChildren();
    if (!address) return;
    const link = document.createElement("a");
    link.href = address;
    link.textContent = `Search ${node.n}`;
    line.append(link);
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-more]");
  if (!button) return;
  button.disabled = true;
  button.replaceWith(...await part(button.dataset.more));
});
// A list of files is read when it is opened.
document.addEventListener("toggle", async (event) => {
  const files = event.target.querySelector?.(":scope[data-files] > .files");
  if (!files || !event.target.open || files.dataset.isRead) return;
  files.dataset.isRead = "yes";
  files.replaceChildren(...await part(event.target.dataset.files));
}, true);

for (const section of document.querySelectorAll("[data-part]")) {
  section.querySelector(".content").replaceChildren(...await part(section.dataset.part + location.search));
  section.removeAttribute("aria-busy");
  if (section.dataset.part === "/corpus/heard") sunburst();
}
