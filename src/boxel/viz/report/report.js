"use strict";
// Sort tables, enlarge pictures, and list the rows of a labeling. Without it, the page is complete but for the list.
const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const create = (tag, parent, text) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
};
const parse = (text) => (/^[<\d.,\s%-]+$/.test(text) && /\d/.test(text) ? Number(text.replace(/[<,%\s]/g, "")) : text);
// What is not known comes last, up or down.
const compare = (a, b, sign) => {
  const unknown = [a, b].map((value) => value === null || value === "" || value === "\u2013");
  if (unknown[0] || unknown[1]) return unknown[0] - unknown[1];
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
};

// Make the heads of a table buttons; `sort(column, sign)` puts its rows in order.
function addSorting(heads, sort) {
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      sort(column, sign);
    });
  });
}
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  if (body.rows.length > 1) {
    addSorting(all("th", table.tHead), (column, sign) => {
      const rows = [...body.rows].map((row) => [row, parse(row.cells[column].textContent.trim())]);
      body.append(...rows.sort((a, b) => compare(a[1], b[1], sign)).map(([row]) => row));
    });
  }
}

const dialog = $("#zoom");
let opened = null;
function enlarge(button) {
  opened = button;
  const content = button.firstElementChild.cloneNode(true);
  const caption = $("figcaption", button.closest("figure, tr"))?.textContent ?? button.dataset.caption ?? "";
  $("div", dialog).replaceChildren(content);
  create("p", $("div", dialog), caption.replace(/\s+/g, " ").trim());
  if (!dialog.open) dialog.showModal();
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.zoom");
  if (button) enlarge(button);
  else if (event.target === dialog || event.target === dialog.firstElementChild) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const buttons = all("button.zoom");
  const next = step && buttons[buttons.indexOf(opened) + step];
  if (next) enlarge(next);
});

const list = $("#rows");
if (list) {
  const { heads, rows, files, classes, sources, thumbs } = JSON.parse(list.textContent);
  const PER_PAGE = 100;
  const table = $("#every table");
  const [filter, status, back, on] = ["input", "output", ".back", ".on"].map((what) => $(`#every ${what}`));
  // [row, file, id, class, quality, box, state, source], of which the first names the picture.
  const cells = rows.map((row, k) => [k, files[row[0]], row[1], classes[row[2]], row[3], row[4], row[5], sources[row[6]]]);
  const columns = heads.map((head) => head.column);
  let chosen = cells, page = 0;
  const show = () => {
    const first = page * PER_PAGE, shown = chosen.slice(first, first + PER_PAGE);
    table.tBodies[0].replaceChildren(...shown.map((values) => {
      const line = document.createElement("tr");
      const cell = create("td", line);
      const place = thumbs[values[0]];
      if (place !== undefined) {
        const button = create("button", cell);
        button.type = "button";
        button.className = "zoom";
        button.dataset.caption = `${values[3]} ${values[4]?.toFixed(3) ?? ""}, ${values[1]}, annotation ${values[2]}`;
        button.ariaLabel = `Enlarge annotation ${values[2]}`;
        const picture = create("img", create("span", button));
        picture.alt = `mask of ${values[3]}`;
        picture.src = place.startsWith("#") ? $(`${place} img`).src : place;
      }
      for (const column of columns.slice(1)) {
        const value = values[column];
        const text = value === null ? "\u2013" : column === 4 ? value.toFixed(3) : Array.isArray(value) ? value.join(" x ") : value;
        create("td", line, text);
      }
      return line;
    }));
    const last = first + shown.length;
    status.textContent = shown.length ? `${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${chosen.length.toLocaleString("en")}` : "none";
    back.disabled = !page;
    on.disabled = last >= chosen.length;
  };
  const turn = (to) => { page = to; show(); };
  addSorting(all("th", table.tHead).slice(1), (at, sign) => {
    const column = columns[at + 1];
    const key = ([...values]) => (column === 5 && values[5] ? values[5][0] * values[5][1] : values[column]);
    const keyed = cells.map((values) => [values, key(values)]);
    const order = new Intl.Collator(undefined, { numeric: true });
    keyed.sort(([, a], [, b]) => (typeof a === "string" && typeof b === "string" && a && b ? sign * order.compare(a, b) : compare(a, b, sign)));
    cells.splice(0, cells.length, ...keyed.map(([values]) => values));
    choose();
  });
  const choose = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (values) => columns.slice(1).map((column) => values[column]).join(" ").toLowerCase();
    chosen = words.length ? cells.filter((values) => { const own = text(values); return words.every((word) => own.includes(word)); }) : cells;
    turn(0);
  };
  filter.addEventListener("input", choose);
  back.addEventListener("click", () => turn(page - 1));
  on.addEventListener("click", () => turn(page + 1));
  show();
}
