// The page: a grid of objects, one object on a canvas, and the keys of both.

import {
  Conflict, getDataset, getGuarantee, getImage, getNext, getObject, getProgress, getSelection, getVertices, postChange,
  postImage, postObject,
} from "./api.js";
import { element, Grid, qualityMark } from "./grid.js";
import { History } from "./history.js";
import { HINTS, Tools } from "./tools.js";
import { Viewer } from "./viewer.js";

const KEYS = {
  "a": "accept, and go on", "r": "reject, and go on", "i": "ignore: neither object nor background", "Delete": "there is no such object",
  "← →": "previous, next object", "Enter": "open the object", "Esc": "all objects", "h": "hide masks while it is held",
  "m": "fill or outline", "+ - 0": "zoom; fit the object, then the image", "v b c d p n": "look, box, click, brush, polygon, new object",
  "[ ]": "smaller, larger brush", "1 … 9": "class", "z y": "undo, redo", "?": "these keys",
};
const PREFETCHED = 2; // objects after the one that is shown

const $ = (id) => document.getElementById(id);
const viewer = (window.boxelView = new Viewer($("canvas")));
const tools = new Tools(viewer, (change) => guarded(() => commit(change)));
const grid = new Grid($("grid"), $("pages"), (row) => guarded(() => open(row)));
const known = new Map(); // requests of objects that come next, by row
let dataset, history, current = null, busy = Promise.resolve(), waiting = 0; // pieces of work that are not done

start();

async function start() {
  try {
    dataset = await getDataset();
    history = new History(dataset.history);
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("name").textContent = document.title = `${dataset.name}: boxel review`;
  for (const select of [$("category"), $("filters").elements.category]) {
    for (const { name } of dataset.categories) select.append(new Option(name, name));
  }
  grid.nameOf = (label) => dataset.categories[label].name;
  for (const [key, meaning] of Object.entries(KEYS)) $("keys").append(element("dt", key), element("dd", meaning));
  for (const button of document.querySelectorAll("[data-key]")) addKey(button);
  listen();
  listenForFiles();
  const state = new URLSearchParams(location.hash.slice(1));
  if (!dataset.objects && !state.has("show")) setField("show", "images");
  for (const [name, value] of state) if ($("filters").elements[name]) setField(name, value);
  await guarded(select);
  if (state.has("object")) await guarded(async () => show(await getObject(Number(state.get("object")))));
  if (state.has("image")) await guarded(async () => show(await getImage(Number(state.get("image")))));
}

function addKey(button) {
  const shown = { ArrowLeft: "←", ArrowRight: "→", Escape: "Esc", Delete: "Del" }[button.dataset.key] ?? button.dataset.key;
  if (button.textContent.length > 1) button.append(" ", element("kbd", shown));
  button.setAttribute("aria-keyshortcuts", button.dataset.key);
}

function setField(name, value) {
  const field = $("filters").elements[name];
  if (field.type === "checkbox") field.checked = value === "true";
  else field.value = value;
}

// Run what changes something, one after the other; show what goes wrong.
function guarded(work) {
  waiting += 1;
  document.body.dataset.busy = "true";
  busy = busy.then(work).catch((error) => say(error.message, true)).finally(() => {
    waiting -= 1;
    if (!waiting) document.body.dataset.busy = "false";
  });
  return busy;
}

// Show a sentence: a problem, or what is under way, until the next one; what is done, for a moment.
function say(text, isProblem = false, stays = isProblem) {
  $("message").textContent = text;
  $("message").classList.toggle("problem", isProblem);
  clearTimeout(say.timer);
  if (!stays) say.timer = setTimeout(() => ($("message").textContent = ""), 4000);
}

function showProgress(progress) {
  const part = (count, text) => `${count.toLocaleString("en")} ${text}`;
  const decided = ["accepted", "rejected", "ignored", "deleted"].filter((state) => progress[state]);
  $("progress").textContent = [
    part(progress.doubtful, "in doubt and open"), ...decided.map((state) => part(progress[state], state)),
    part(progress.open, "open in all"),
  ].join(" · ");
}

async function refreshProgress(progress) {
  showProgress(progress ?? (await getProgress()));
  const isRandom = readFilters().order === "random";
  $("guarantee").hidden = !isRandom;
  if (isRandom) $("guarantee").textContent = (await getGuarantee()).text;
}

function readFilters() {
  const entries = [...new FormData($("filters"))].filter(([, value]) => value !== "");
  return Object.fromEntries(entries);
}

function remember() {
  const state = new URLSearchParams(readFilters());
  if (current) state.set(current.row === null ? "image" : "object", current.row ?? current.image);
  window.history.replaceState(null, "", `#${state}`);
}

async function select() {
  const { show, ...filters } = readFilters();
  const isImages = show === "images";
  const rows = isImages ? [...Array(dataset.images).keys()] : (await getSelection(filters)).rows;
  await grid.setRows(show, rows);
  for (const label of $("filters").querySelectorAll("label")) {
    label.hidden = isImages && !label.querySelector("[name=show]");
  }
  $("drop").hidden = !(isImages && dataset.takes_images);
  remember();
  await refreshProgress();
}

async function showNext() {
  say("Choosing the masks whose correction is worth the most …", false, true);
  const objects = await getNext(20);
  await grid.setRows("objects", objects.map(({ row }) => row), new Map(objects.map(({ row, reason }) => [row, reason])));
  close();
  say(objects.length ? "These are worth the most." : "Every mask was decided on.");
}

// --- One object

function fetchObject(row) {
  const request = known.get(row) ?? getObject(row);
  known.delete(row);
  return request;
}

async function open(row) {
  if (grid.shows === "images") return show(await getImage(row));
  await show(await fetchObject(row));
  const place = grid.rows.indexOf(row);
  for (const next of grid.rows.slice(place + 1, place + 1 + PREFETCHED)) {
    if (known.has(next)) continue;
    const request = getObject(next);
    request.catch(() => known.delete(next)); // it is asked for again when it is opened
    known.set(next, request);
  }
}

async function show(object, stays = false) {
  if (object.row === null) return showImage(object);
  const isNew = current?.row !== object.row;
  if (isNew) tools.clicks = [];
  current = object;
  $("grid-view").hidden = true;
  $("object-view").hidden = false;
  remember();
  enableDecisions(true);
  const name = dataset.categories[object.category].name;
  $("category").value = name;
  const place = grid.rows.indexOf(object.row);
  $("facts").replaceChildren(
    element("strong", name), " ", qualityMark(object), ` · ${object.corrected ? "corrected" : object.state}`,
    element("br", ""), `${object.file}, id ${object.id}`, element("br", ""),
    `${object.maker ? `mask by ${object.maker}` : object.mask ? "mask in the dataset" : "no mask"}`,
    place < 0 ? "" : ` · ${(place + 1).toLocaleString("en")} of ${grid.rows.length.toLocaleString("en")}`,
  );
  const words = [object.suspect && `The box looks wrong: ${object.suspect}.`, object.problem].filter(Boolean);
  $("problem").textContent = words.join(" ");
  $("canvas").setAttribute("aria-label", `${name}, ${object.state}, in ${object.file}`);
  for (const button of document.querySelectorAll("[data-action]")) {
    button.setAttribute("aria-pressed", String(button.dataset.action === object.state));
  }
  await viewer.show(object, dataset.categories[object.category].color, stays);
  if (isNew && tools.name === "polygon") await loadRings();
}

// An image in which no object is chosen, to draw boxes.
async function showImage(image) {
  current = image;
  $("grid-view").hidden = true;
  $("object-view").hidden = false;
  remember();
  const count = image.others.length;
  $("facts").replaceChildren(
    element("strong", image.file), element("br", ""),
    `${image.width} x ${image.height} pixels, ${count === 1 ? "1 object" : `${count} objects`}`,
  );
  $("problem").textContent = "";
  $("canvas").setAttribute("aria-label", `image ${image.file}`);
  enableDecisions(false);
  await viewer.show(image, "transparent");
  await chooseTool("new");
}

function enableDecisions(enabled) {
  for (const button of document.querySelectorAll("[data-action], [data-tool]")) {
    button.disabled = !enabled && !["look", "new"].includes(button.dataset.tool);
  }
}

async function loadRings() {
  tools.setRings(await getVertices(current.row));
}

async function chooseTool(name) {
  tools.choose(name);
  $("hint").textContent = HINTS[name];
  $("radius-label").hidden = name !== "brush";
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
  if (name === "polygon" && current) await loadRings();
}

function close() {
  current = null;
  $("object-view").hidden = true;
  $("grid-view").hidden = false;
  remember();
}

async function closeAndFocus() {
  const row = grid.shows === "images" ? current?.image : current?.row;
  close();
  await grid.load();
  $("grid").querySelector(`[data-row="${row}"]`)?.focus();
}

async function go(step) {
  const place = grid.rows.indexOf(grid.shows === "images" ? current.image : current.row);
  const row = grid.rows[place + step];
  if (row === undefined) say(step > 0 ? "This was the last one." : "This is the first one.");
  else await open(row);
}

// --- Changes

// Send a change; unless it stays, another object is shown next.
async function commit(change, object = current, stays = true) {
  if (change.kind === "new") {
    const made = await postObject(object.image, $("category").value, change.box);
    history.add(made.row, 0, made.version);
    if (grid.shows === "objects") grid.rows.splice(grid.rows.indexOf(object.row) + 1, 0, made.row);
    await show(made, true);
    return refreshProgress(made.progress);
  }
  const changed = await sendChange(object.row, object.version, change);
  history.add(changed.row, object.version, changed.version);
  await took(changed, stays);
  return changed;
}

// Return the object as the change left it; if another tab was faster, show what that left.
async function sendChange(row, version, change) {
  known.delete(row);
  try {
    return await postChange(row, version, change);
  } catch (error) {
    if (error instanceof Conflict) await reload(row);
    throw error;
  }
}

async function took(changed, stays = true) {
  grid.update(changed);
  if (stays && current?.row === changed.row) await show(changed);
  await refreshProgress(changed.progress);
}

async function reload(row) {
  history.forget(row);
  const object = await getObject(row);
  grid.update(object);
  if (current?.row === row) await show(object);
}

async function decide(state) {
  if (current && current.row === null) return say("Draw a box, or open an object, first.");
  if (current) {
    const { row } = current;
    const next = current.state === state ? "open" : state;
    const place = grid.rows.indexOf(row);
    const goesOn = next !== "open" && grid.shows === "objects" && place >= 0 && place + 1 < grid.rows.length;
    const changed = await commit({ kind: "state", state: next }, current, !goesOn);
    say(`${dataset.categories[changed.category].name} ${row + 1}: ${changed.state}`);
    if (goesOn) await open(grid.rows[place + 1]);
    return;
  }
  const row = grid.focused();
  if (row === null || grid.shows === "images") return;
  const object = await getObject(row);
  const changed = await commit({ kind: "state", state: object.state === state ? "open" : state }, object);
  say(`${dataset.categories[changed.category].name} ${row + 1}: ${changed.state}`);
  grid.moveFocus("ArrowRight");
}

// Change the class of the object; while boxes are drawn, that of the next one.
async function chooseClass(name) {
  $("category").value = name;
  if (tools.name !== "new" && current.row !== null) await commit({ kind: "category", category: name });
}

async function undo(step) {
  tools.clicks = [];
  if (!step) return say("There is nothing left.");
  const changed = await sendChange(step.row, step.version, { kind: "restore", to: step.to });
  step.finish(changed.version);
  if (current && current.row !== step.row) await show(changed);
  await took(changed);
  if (tools.name === "polygon" && current) await loadRings();
}

// --- Images that are dropped on the page

async function takeFiles(files) {
  for (const file of files) {
    say(`Taking ${file.name} …`, false, true);
    await postImage(file);
  }
  dataset = await getDataset();
  setField("show", "images");
  await select();
  say(files.length === 1 ? "1 image more." : `${files.length} images more.`);
}

function listenForFiles() {
  if (!dataset.takes_images) return;
  $("files").addEventListener("change", (event) => guarded(() => takeFiles([...event.target.files])));
  const mark = (dropping) => document.body.classList.toggle("dropping", dropping);
  document.addEventListener("dragover", (event) => (event.preventDefault(), mark(true)));
  document.addEventListener("dragleave", () => mark(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    guarded(() => takeFiles([...event.dataTransfer.files]));
  });
}

// --- Keys and buttons

function listen() {
  const on = (id, work) => $(id).addEventListener("click", () => guarded(work));
  $("filters").addEventListener("change", () => guarded(select));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  on("show-next", showNext);
  $("show-help").addEventListener("click", () => $("help").showModal());
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => guarded(() => decide(button.dataset.action)));
  }
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => guarded(() => chooseTool(button.dataset.tool)));
  }
  $("category").addEventListener("change", (event) => {
    event.target.blur();
    guarded(() => chooseClass(event.target.value));
  });
  $("radius").addEventListener("input", (event) => setRadius(Number(event.target.value)));
  $("toggle-fill").addEventListener("click", toggleFill);
  const hide = $("hide");
  hide.addEventListener("pointerdown", () => setHidden(true));
  for (const end of ["pointerup", "pointerleave", "blur"]) hide.addEventListener(end, () => setHidden(false));
  $("fit").addEventListener("click", () => viewer.fit());
  $("zoom-in").addEventListener("click", () => viewer.zoom(1.5));
  $("zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
  on("undo", () => undo(history.undo()));
  on("redo", () => undo(history.redo()));
  on("back", () => go(-1));
  on("on", () => go(1));
  on("close", closeAndFocus);
  document.addEventListener("keydown", press);
  document.addEventListener("keyup", (event) => event.key === "h" && setHidden(false));
  window.addEventListener("blur", () => setHidden(false));
  chooseTool("look");
}

function setRadius(radius) {
  tools.radius = Math.min(Math.max(radius, 1), 100);
  $("radius").value = tools.radius;
  viewer.draw();
}

function toggleFill() {
  viewer.fill = !viewer.fill;
  $("toggle-fill").setAttribute("aria-pressed", String(viewer.fill));
  viewer.draw();
}

function setHidden(hidden) {
  if (viewer.hidden === hidden) return;
  viewer.hidden = hidden;
  $("hide").setAttribute("aria-pressed", String(hidden));
  viewer.draw();
  if (!current) grid.showPlain(hidden);
}

function press(event) {
  const isField = event.target.matches("input, select, textarea");
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() === "z" && !isField) {
      event.preventDefault();
      guarded(() => undo(event.shiftKey ? history.redo() : history.undo()));
    }
    return;
  }
  if (event.altKey || isField || $("help").open) return;
  const work = findWork(event.key);
  if (!work) return;
  event.preventDefault();
  work();
}

// Return what a key does in the view that is shown, or nothing.
function findWork(key) {
  const states = { a: "accepted", r: "rejected", i: "ignored", Delete: "deleted" };
  if (states[key]) return () => guarded(() => decide(states[key]));
  const anywhere = {
    "z": () => guarded(() => undo(history.undo())),
    "y": () => guarded(() => undo(history.redo())),
    "h": () => setHidden(true),
    "?": () => $("help").showModal(),
  };
  if (anywhere[key]) return anywhere[key];
  if (!current) return key.startsWith("Arrow") ? () => grid.moveFocus(key) : null;
  const tool = document.querySelector(`[data-tool][data-key="${CSS.escape(key)}"]`);
  if (tool) return () => guarded(() => chooseTool(tool.dataset.tool));
  if (/^[1-9]$/.test(key)) return dataset.categories[key - 1] && (() => guarded(() => chooseClass(dataset.categories[key - 1].name)));
  return {
    "ArrowRight": () => guarded(() => go(1)),
    "ArrowLeft": () => guarded(() => go(-1)),
    "Escape": () => guarded(closeAndFocus),
    "m": toggleFill,
    "0": () => viewer.fit(),
    "+": () => viewer.zoom(1.5),
    "=": () => viewer.zoom(1.5),
    "-": () => viewer.zoom(1 / 1.5),
    "[": () => setRadius(tools.radius / 1.25),
    "]": () => setRadius(tools.radius * 1.25),
  }[key];
}
