"use strict";
const body = document.querySelector(".cases tbody"), rows = [...body.rows];
const search = document.querySelector("#search"), shown = document.querySelector("#shown"), buttons = [...document.querySelectorAll(".bar button")];
let kind = "all";
function filter() {
  const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const fits = (kind === "all" || row.dataset.kinds.split(" ").includes(kind)) && words.every((word) => row.dataset.text.includes(word));
    row.hidden = !fits;
    count += fits;
  }
  shown.textContent = `${count} of ${rows.length} cases`;
}
search.addEventListener("input", filter);
for (const button of buttons)
  button.addEventListener("click", () => {
    kind = button.value;
    buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
    filter();
  });
function sort(heading) {
  const key = heading.dataset.sort, up = heading.getAttribute("aria-sort") !== "ascending";
  document.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.querySelector(`[data-key="${CSS.escape(key)}"]`).dataset.value;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what has no value stays at the end
    const order = key === "name" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return up ? order : -order;
  };
  body.append(...rows.sort(compare));
}
for (const heading of document.querySelectorAll("th[data-sort]")) {
  heading.addEventListener("click", () => sort(heading));
  heading.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(heading); } });
}
const large = document.querySelector("dialog");
body.addEventListener("click", (event) => {
  if (event.target.matches(".picture img")) { large.firstElementChild.src = event.target.src; large.showModal(); }
});
large.addEventListener("click", () => large.close());
filter();
