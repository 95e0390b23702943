// A canvas that shows a part of an image with the mask and box of an object; it zooms and pans.

import { partUrl } from "./api.js";

const MAX_WIDTH = 2048; // of a picture from the server
const MARGIN = 0.6; // of the image around an object that is fitted, as a share of its longer side
const AROUND = [[1, 0], [-1, 0], [0, 1], [0, -1], [0.7, 0.7], [0.7, -0.7], [-0.7, 0.7], [-0.7, -0.7]];
const SHARP = 3; // screen pixels per image pixel from which pixels are shown as squares

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.fill = true;
    this.hidden = false;
    this.object = null;
    this.color = "#7cc4ff";
    this.view = { scale: 1, x: 0, y: 0 }; // screen = scale * (image - (x, y))
    this.parts = []; // pictures of the image: the whole one first, then the sharpest
    this.drawTool = () => {};
    new ResizeObserver(() => this.#resize()).observe(canvas.parentElement);
  }

  // Show an object. The view stays for a change of the object, and for one that was drawn in the same image.
  async show(object, color, stays = false) {
    const sameImage = this.object?.image === object.image;
    const moved = !sameImage || (this.object.row !== object.row && !stays);
    if (!sameImage) this.parts = [];
    this.object = object;
    this.color = color;
    this.mask = object.mask && (await decodeMask(object.mask.png));
    if (this.object !== object) return;
    if (moved) this.fit(object.row === null);
    this.draw();
  }

  // Fit the object, or the whole image if the object is fitted already.
  fit(whole = false) {
    this.fitted = true;
    const [x0, y0, x1, y1] = whole ? [0, 0, this.object.width, this.object.height] : this.object.box;
    const margin = whole ? 0 : MARGIN * Math.max(x1 - x0, y1 - y0, 8);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = Math.min(width / (x1 - x0 + margin), height / (y1 - y0 + margin)) || 1;
    const previous = { ...this.view };
    this.view = { scale, x: (x0 + x1 - width / scale) / 2, y: (y0 + y1 - height / scale) / 2 };
    this.draw();
    const same = Math.abs(previous.scale - scale) < 1e-6 && Math.abs(previous.x - this.view.x) < 1e-6;
    if (same && !whole) this.fit(true);
  }

  zoom(factor, screenX = this.canvas.clientWidth / 2, screenY = this.canvas.clientHeight / 2) {
    const [x, y] = this.toImage(screenX, screenY);
    const scale = Math.min(Math.max(this.view.scale * factor, 0.02), 64);
    this.view = { scale, x: x - screenX / scale, y: y - screenY / scale };
    this.fitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.view.x -= dx / this.view.scale;
    this.view.y -= dy / this.view.scale;
    this.fitted = false;
    this.draw();
  }

  toImage(screenX, screenY) {
    return [screenX / this.view.scale + this.view.x, screenY / this.view.scale + this.view.y];
  }

  toScreen(x, y) {
    return [(x - this.view.x) * this.view.scale, (y - this.view.y) * this.view.scale];
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.object) this.#draw();
    });
  }

  #resize() {
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.max(Math.round(clientWidth * devicePixelRatio), 1);
    this.canvas.height = Math.max(Math.round(clientHeight * devicePixelRatio), 1);
    if (this.object && this.fitted) this.fit();
    this.draw();
  }

  #draw() {
    const { context, canvas, object, view } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    this.#loadParts();
    this.#toImageUnits(context);
    context.imageSmoothingEnabled = view.scale < SHARP;
    for (const { picture, window } of this.parts) {
      if (picture.complete && picture.naturalWidth) {
        context.drawImage(picture, window[0], window[1], window[2] - window[0], window[3] - window[1]);
      }
    }
    if (this.hidden) return;
    if (this.mask) this.#drawMask();
    this.#toImageUnits(context);
    for (const other of object.others) this.#drawBox(other, "rgba(255, 255, 255, 0.45)", 1);
    this.#drawBox(object.box, this.color, 2);
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    this.drawTool(context);
  }

  #toImageUnits(context) {
    const scale = this.view.scale * devicePixelRatio;
    context.setTransform(scale, 0, 0, scale, -this.view.x * scale, -this.view.y * scale);
  }

  #drawBox([x0, y0, x1, y1], color, width) {
    const line = width / this.view.scale;
    this.context.lineWidth = 2 * line + line;
    this.context.strokeStyle = "rgba(0, 0, 0, 0.5)";
    this.context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    this.context.lineWidth = line;
    this.context.strokeStyle = color;
    this.context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }

  // A dark line around the colored one keeps the outline visible on an object of its own color.
  #drawMask() {
    const line = Math.max(Math.round(1.5 * devicePixelRatio), 1);
    this.#drawOutline(2 * line, "rgba(0, 0, 0, 0.75)", 0);
    this.#drawOutline(line, this.color, this.fill ? 0.4 : 0);
  }

  // The outline is what the mask covers if it is moved by the width of a line, without the mask itself.
  #drawOutline(line, color, fill) {
    const { canvas, context, mask, object } = this;
    const layer = (this.layer ??= document.createElement("canvas"));
    layer.width = canvas.width;
    layer.height = canvas.height;
    const ink = layer.getContext("2d");
    const place = () => ink.drawImage(mask, object.mask.left, object.mask.top);
    ink.imageSmoothingEnabled = false;
    for (const [dx, dy] of AROUND) {
      this.#toImageUnits(ink);
      const { a, d, e, f } = ink.getTransform();
      ink.setTransform(a, 0, 0, d, e + dx * line, f + dy * line);
      place();
    }
    this.#toImageUnits(ink);
    ink.globalCompositeOperation = "destination-out";
    place();
    ink.globalCompositeOperation = "source-over";
    ink.globalAlpha = fill;
    place();
    ink.globalAlpha = 1;
    ink.globalCompositeOperation = "source-in";
    ink.setTransform(1, 0, 0, 1, 0, 0);
    ink.fillStyle = color;
    ink.fillRect(0, 0, layer.width, layer.height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(layer, 0, 0);
  }

  // Ask for the whole image once, and for what is visible as sharp as the screen shows it.
  #loadParts() {
    const { image, width, height } = this.object;
    if (!this.parts.length) this.#load(image, [0, 0, width, height], Math.min(width, 1024));
    const [left, top] = this.toImage(0, 0);
    const [right, bottom] = this.toImage(this.canvas.clientWidth, this.canvas.clientHeight);
    const seen = [Math.max(left, 0), Math.max(top, 0), Math.min(right, width), Math.min(bottom, height)];
    if (seen[2] - seen[0] < 1 || seen[3] - seen[1] < 1) return;
    const wanted = Math.min(this.view.scale * devicePixelRatio, 1);
    const enough = this.parts.some(
      (part) =>
        part.scale >= 0.8 * wanted &&
        part.window[0] <= seen[0] && part.window[1] <= seen[1] && part.window[2] >= seen[2] && part.window[3] >= seen[3],
    );
    if (enough) return;
    const grow = 0.3 * Math.max(seen[2] - seen[0], seen[3] - seen[1]);
    const window = [
      Math.max(Math.floor(seen[0] - grow), 0), Math.max(Math.floor(seen[1] - grow), 0),
      Math.min(Math.ceil(seen[2] + grow), width), Math.min(Math.ceil(seen[3] + grow), height),
    ];
    this.#load(image, window, Math.min(Math.ceil((window[2] - window[0]) * Math.min(1.3 * wanted, 1)), MAX_WIDTH));
    if (this.parts.length > 4) this.parts.splice(1, 1);
  }

  #load(image, window, width) {
    const picture = new Image();
    picture.onload = () => this.draw();
    picture.src = partUrl(image, window, Math.max(width, 1));
    this.parts.push({ picture, window, scale: width / (window[2] - window[0]) });
  }
}

async function decodeMask(png) {
  const picture = new Image();
  picture.src = `data:image/png;base64,${png}`;
  await picture.decode();
  return picture;
}
