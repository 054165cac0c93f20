// Nothing of the page needs this to be read: it sorts, filters and unfolds.
"use strict";
const all = (query, root = document) => [...root.querySelectorAll(query)];

function valueOf(cell) { // "−3.2 %" -> -3.2; a dash or nothing comes last; words stay words
  const text = cell ? (cell.dataset.value ?? cell.textContent).trim() : "";
  if (text === "" || text === "–") return null;
  const plain = text.replace(/−/g, "-").replace(/[\s  ,%>*+]/g, "");
  return plain !== "" && !isNaN(plain) ? Number(plain) : text;
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

for (const table of all("table.sort")) {
  const head = all("thead tr", table).pop();
  all("th", head).forEach((th, column) => {
    const button = document.createElement("button");
    button.append(...th.childNodes);
    if (!button.textContent.trim()) return;
    button.title = WORDS.sort;
    th.append(button);
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") === "ascending";
      all("th", head).forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = all("tr", table.tBodies[0]).map((row) => [valueOf(row.cells[column]), row]);
      const known = rows.filter(([value]) => value !== null).sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
      const lost = rows.filter(([value]) => value === null);
      table.tBodies[0].append(...known.concat(lost).map(([, row]) => row));
    });
  });
}

for (const table of all("table.filter")) {
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = WORDS.filter;
  input.setAttribute("aria-label", WORDS.filter);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of all("tr", table.tBodies[0])) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  (table.closest(".scroll") ?? table).before(input);
}

function unfold(target) { // a link into a folded section opens it
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  all("details", target).slice(0, 1).forEach((details) => { details.open = true; });
}
const follow = () => { const target = document.getElementById(location.hash.slice(1)); if (target) unfold(target); };
addEventListener("hashchange", follow);
follow();

let folded = [];
addEventListener("beforeprint", () => { folded = all("details:not([open])"); folded.forEach((one) => { one.open = true; }); });
addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));

// Values under the pointer at once, where a browser alone would wait a second.
const tip = document.createElement("div");
tip.className = "shown";
tip.hidden = true;
document.body.append(tip);
document.addEventListener("pointerover", (event) => {
  const title = event.target.closest?.("rect.tip")?.querySelector("title");
  tip.hidden = !title;
  if (!title) return;
  tip.textContent = title.textContent;
  const box = event.target.getBoundingClientRect();
  tip.style.left = `${Math.min(box.right + 8, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(8, Math.min(event.clientY, innerHeight - tip.offsetHeight - 8))}px`;
});

// Which section the reader is in.
const links = new Map(all(".contents a").map((a) => [a.hash.slice(1), a]));
if (links.size) {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  links.forEach((_, id) => seen.observe(document.getElementById(id)));
}
