// The objects of the selection, or the images, as a grid of pictures, a page at a time.

import { getImages, getObjects, partUrl, thumbnailUrl } from "./api.js";

const PER_PAGE = 60;

export class Grid {
  constructor(list, pages, open) {
    this.list = list;
    this.pages = pages;
    this.open = open;
    this.shows = "objects"; // or "images"
    this.rows = []; // objects, or indices of images
    this.page = 0;
    this.reasons = new Map(); // why an object was chosen, by row
    pages.querySelector("#page-back").addEventListener("click", () => this.turn(-1));
    pages.querySelector("#page-on").addEventListener("click", () => this.turn(1));
  }

  async setRows(shows, rows, reasons = new Map()) {
    this.shows = shows;
    this.rows = rows;
    this.reasons = reasons;
    this.page = 0;
    await this.load();
  }

  get lastPage() {
    return Math.max(Math.ceil(this.rows.length / PER_PAGE) - 1, 0);
  }

  async turn(step) {
    this.page = Math.min(Math.max(this.page + step, 0), this.lastPage);
    await this.load();
    this.list.querySelector("button")?.focus();
  }

  async load() {
    const rows = this.rows.slice(this.page * PER_PAGE, (this.page + 1) * PER_PAGE);
    const isImages = this.shows === "images";
    const found = rows.length ? await (isImages ? getImages(rows) : getObjects(rows)) : [];
    this.list.replaceChildren(...found.map((one) => (isImages ? this.#makeImageCell(one) : this.#makeCell(one))));
    const first = this.page * PER_PAGE + 1;
    const total = this.rows.length.toLocaleString("en");
    const shown = this.rows.length ? `${first.toLocaleString("en")} to ${first + rows.length - 1} of ${total}` : `no ${isImages ? "image" : "object"} is like that`;
    this.pages.querySelector("#page-state").textContent = shown;
    this.pages.querySelector("#page-back").disabled = this.page === 0;
    this.pages.querySelector("#page-on").disabled = this.page === this.lastPage;
  }

  // Show a changed object in its place, where it stays until the selection is made again.
  update(object) {
    const cell = this.shows === "objects" && this.list.querySelector(`[data-row="${object.row}"]`);
    if (!cell) return;
    const fresh = this.#makeCell(object).firstElementChild;
    const focused = document.activeElement === cell;
    cell.replaceWith(fresh);
    if (focused) fresh.focus();
  }

  showPlain(plain) {
    for (const picture of this.list.querySelectorAll("img")) picture.src = plain ? picture.dataset.plain : picture.dataset.drawn;
  }

  // Move the focus in the grid; return whether there was somewhere to go.
  moveFocus(key) {
    const cells = [...this.list.querySelectorAll("button")];
    const now = cells.indexOf(document.activeElement);
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    const next = cells[now < 0 ? 0 : now + step];
    next?.focus();
    return Boolean(next);
  }

  focused() {
    const row = document.activeElement?.closest?.("#grid button")?.dataset.row;
    return row === undefined ? null : Number(row);
  }

  #makeCell(object) {
    const caption = element("span", "", "caption");
    caption.append(element("span", this.nameOf(object.category), "class"), qualityMark(object));
    const note = [
      object.state === "open" ? "" : object.corrected ? "corrected" : object.state,
      object.suspect ? `box: ${object.suspect}` : "",
      this.reasons.get(object.row) ?? "",
    ].filter(Boolean).join(", ");
    const urls = [thumbnailUrl(object, false), thumbnailUrl(object, true)];
    return this.#makeButton(object.row, urls, [caption, element("span", note, `note ${object.state}`)]);
  }

  #makeImageCell({ image, file, objects }) {
    const url = partUrl(image, [0, 0, 1e6, 1e6], 320);
    const note = objects === 1 ? "1 object" : `${objects} objects`;
    const caption = element("span", "", "caption");
    caption.append(element("span", file, "class"));
    return this.#makeButton(image, [url, url], [caption, element("span", note, "note")]);
  }

  #makeButton(row, [drawn, plain], texts) {
    const cell = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.row = row;
    button.addEventListener("click", () => this.open(row));
    const picture = document.createElement("img");
    picture.loading = "lazy";
    picture.alt = "";
    picture.dataset.drawn = drawn;
    picture.dataset.plain = plain;
    picture.src = drawn;
    button.append(picture, ...texts);
    cell.append(button);
    return cell;
  }

  nameOf() {
    return "";
  }
}

export function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

// The quality as a number in the color of its grade; for a screen reader, in words.
export function qualityMark({ quality }) {
  if (quality === null) return element("span", "–");
  const mark = element("span", quality.toFixed(2), quality < 0.5 ? "poor" : quality < 0.75 ? "doubt" : "good");
  mark.setAttribute("title", "estimated IoU of the mask with the ground truth");
  return mark;
}
