// What a pointer does on the canvas: look, draw a box, click a region, brush, move vertices.

const NEAR = 10; // screen pixels within which a corner or a vertex is grabbed

export const HINTS = {
  look: "Drag to move, wheel or pinch to zoom.",
  box: "Drag a corner or a side of the box, or drag a new box. The mask is predicted again.",
  click: "Click a missing part to add it. Click a wrong part with Shift or the right button to remove it.",
  brush: "Draw to add, with Shift or the right button to remove. [ and ] change the size.",
  polygon: "Drag a vertex. Click a side to add a vertex, Shift-click a vertex to remove it. Without a mask, click around the object, and its first vertex at the end.",
  new: "Drag a box around an object that has none. It gets the class that is chosen above.",
};

// Each tool answers a press with what follows while the pointer moves, and when it is released.
export class Tools {
  constructor(viewer, send) {
    this.viewer = viewer;
    this.send = send; // commits a change of the object
    this.name = "look";
    this.radius = 8;
    this.rings = []; // of the polygon tool, in pixels of the image
    this.drawing = null; // vertices of a polygon that is not closed yet
    this.clicks = []; // on the object that is shown, since it was opened
    this.drag = null;
    this.pointer = null;
    viewer.drawTool = (context) => this.#draw(context);
    this.#listen(viewer.canvas);
  }

  choose(name) {
    this.name = name;
    this.drag = this.drawing = null;
    this.rings = [];
    this.viewer.canvas.style.cursor = name === "look" ? "grab" : "crosshair";
    this.viewer.draw();
  }

  setRings(rings) {
    this.drawing = null;
    this.rings = rings;
    this.viewer.draw();
  }

  #listen(canvas) {
    const pointers = new Map();
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.viewer.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      if (pointers.size > 1) this.drag = null; // the second finger zooms
      else if (this.viewer.object) this.drag = this.#press(event);
      this.viewer.draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      this.pointer = [event.offsetX, event.offsetY];
      const before = pointers.get(event.pointerId);
      if (pointers.size === 2 && before) this.#pinch(pointers, event);
      if (before) pointers.set(event.pointerId, this.pointer);
      if (this.drag && pointers.size < 2) this.drag.move(event, before ?? this.pointer);
      if (this.drag || this.name === "brush") this.viewer.draw();
    });
    const release = (event, cancelled) => {
      pointers.delete(event.pointerId);
      const { drag } = this;
      this.drag = null;
      if (drag && !cancelled) drag.release?.(event);
      this.viewer.draw();
    };
    canvas.addEventListener("pointerup", (event) => release(event, false));
    canvas.addEventListener("pointercancel", (event) => release(event, true));
  }

  #pinch(pointers, event) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const [x, y] = pointers.get(event.pointerId);
    const distance = (a, b) => Math.hypot(a - other[0], b - other[1]);
    this.viewer.pan((event.offsetX - x) / 2, (event.offsetY - y) / 2);
    const factor = distance(event.offsetX, event.offsetY) / Math.max(distance(x, y), 1);
    this.viewer.zoom(factor, (event.offsetX + other[0]) / 2, (event.offsetY + other[1]) / 2);
  }

  #press(event) {
    const pans = event.button === 1 || this.name === "look";
    if (pans) return { move: (moved, before) => this.viewer.pan(moved.offsetX - before[0], moved.offsetY - before[1]) };
    const start = this.viewer.toImage(event.offsetX, event.offsetY);
    const add = !(event.shiftKey || event.button === 2);
    if (this.name === "click") return { move() {}, release: () => this.#click(start, add) };
    if (this.name === "brush") return this.#stroke(start, add);
    if (this.name === "polygon") return this.#vertex(event, start);
    return this.#box(event, start);
  }

  #click(point, add) {
    this.send({ kind: "click", point, add, earlier: [...this.clicks] });
    this.clicks.push({ point, add });
  }

  #stroke(start, add) {
    const points = [start];
    return {
      points,
      add,
      move: (event) => points.push(this.viewer.toImage(event.offsetX, event.offsetY)),
      release: () => this.send({ kind: "brush", points, radius: this.radius, add }),
    };
  }

  // A corner or side of the box that is near, or a new box.
  #box(event, start) {
    const { viewer } = this;
    const isNew = this.name === "new";
    const box = isNew ? [...start, ...start] : [...viewer.object.box];
    const near = isNew ? [] : nearSides(viewer, box, event.offsetX, event.offsetY);
    const fresh = near.length === 0;
    const result = fresh ? [...start, ...start] : box;
    const follow = fresh ? [2, 3] : near;
    return {
      box: result,
      move: (moved) => {
        const place = viewer.toImage(moved.offsetX, moved.offsetY);
        for (const side of follow) result[side] = place[side % 2];
      },
      release: () => {
        if (Math.abs(result[2] - result[0]) < 1 || Math.abs(result[3] - result[1]) < 1) return;
        this.send(isNew ? { kind: "new", box: result } : { kind: "box", box: result });
      },
    };
  }

  // Move the vertex that is near, or add one to the side that is near; Shift removes.
  #vertex(event, start) {
    const found = this.#nearestVertex(event.offsetX, event.offsetY);
    if (this.drawing) return this.#continueRing(found, start);
    if (!this.rings.length) {
      this.drawing = [start];
      return { move() {} };
    }
    if (found && event.shiftKey) {
      const before = this.rings[found.ring];
      const after = before.filter((_, index) => index !== found.index);
      return { move() {}, release: () => this.#sendRing(found.ring, before, after.length < 3 ? [] : after) };
    }
    const place = found ?? this.#nearestSide(event.offsetX, event.offsetY, start);
    if (!place) return { move: (moved, last) => this.viewer.pan(moved.offsetX - last[0], moved.offsetY - last[1]) };
    const before = this.rings[place.ring].map((point) => [...point]);
    const ring = this.rings[place.ring];
    if (!found) ring.splice(place.index, 0, start);
    return {
      move: (moved) => (ring[place.index] = this.viewer.toImage(moved.offsetX, moved.offsetY)),
      release: () => this.#sendRing(place.ring, before, ring),
    };
  }

  #continueRing(found, start) {
    const [first] = this.drawing;
    const closes = this.drawing.length > 2 && this.#isNear(first, this.viewer.toScreen(...start));
    if (!closes) {
      this.drawing.push(start);
      return { move() {} };
    }
    const ring = this.drawing;
    this.drawing = null;
    this.rings = [ring];
    return { move() {}, release: () => this.#sendRing(0, [], ring) };
  }

  #sendRing(index, before, after) {
    if (after.length) this.rings[index] = after;
    else this.rings.splice(index, 1);
    this.send({ kind: "polygon", before, after });
  }

  #isNear(point, [screenX, screenY]) {
    const [x, y] = this.viewer.toScreen(...point);
    return Math.hypot(x - screenX, y - screenY) <= NEAR;
  }

  #nearestVertex(screenX, screenY) {
    for (const [ring, points] of this.rings.entries()) {
      const index = points.findIndex((point) => this.#isNear(point, [screenX, screenY]));
      if (index >= 0) return { ring, index };
    }
    return null;
  }

  #nearestSide(screenX, screenY) {
    let best = null;
    let nearest = NEAR;
    for (const [ring, points] of this.rings.entries()) {
      for (let index = 0; index < points.length; index++) {
        const a = this.viewer.toScreen(...points[index]);
        const b = this.viewer.toScreen(...points[(index + 1) % points.length]);
        const distance = distanceToSide([screenX, screenY], a, b);
        if (distance < nearest) [nearest, best] = [distance, { ring, index: index + 1 }];
      }
    }
    return best;
  }

  #draw(context) {
    const { viewer, drag } = this;
    const path = (points, closed) => {
      context.beginPath();
      for (const point of points) context.lineTo(...viewer.toScreen(...point));
      if (closed) context.closePath();
    };
    context.lineJoin = context.lineCap = "round";
    if (drag?.points) {
      context.strokeStyle = drag.add ? "rgba(111, 220, 140, 0.6)" : "rgba(255, 139, 139, 0.6)";
      context.lineWidth = 2 * this.radius * viewer.view.scale;
      path(drag.points.length > 1 ? drag.points : [drag.points[0], drag.points[0]], false);
      context.stroke();
    }
    if (drag?.box) {
      const [x0, y0] = viewer.toScreen(drag.box[0], drag.box[1]);
      const [x1, y1] = viewer.toScreen(drag.box[2], drag.box[3]);
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.setLineDash([6, 4]);
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      context.setLineDash([]);
    }
    if (this.name === "brush" && this.pointer && !drag) {
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(...this.pointer, this.radius * viewer.view.scale, 0, 2 * Math.PI);
      context.stroke();
    }
    if (this.name !== "polygon") return;
    for (const ring of this.drawing ? [this.drawing] : this.rings) {
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5;
      path(ring, !this.drawing);
      context.stroke();
      for (const point of ring) {
        const [x, y] = viewer.toScreen(...point);
        context.fillStyle = "#fff";
        context.fillRect(x - 4, y - 4, 8, 8);
        context.strokeStyle = "#000";
        context.strokeRect(x - 4, y - 4, 8, 8);
      }
    }
  }
}

// The places in (x0, y0, x1, y1) of the sides of a box that a point of the screen is near.
function nearSides(viewer, box, screenX, screenY) {
  const [x0, y0] = viewer.toScreen(box[0], box[1]);
  const [x1, y1] = viewer.toScreen(box[2], box[3]);
  const insideX = screenX > x0 - NEAR && screenX < x1 + NEAR;
  const insideY = screenY > y0 - NEAR && screenY < y1 + NEAR;
  if (!insideX || !insideY) return [];
  const sides = [];
  if (Math.abs(screenX - x0) <= NEAR) sides.push(0);
  else if (Math.abs(screenX - x1) <= NEAR) sides.push(2);
  if (Math.abs(screenY - y0) <= NEAR) sides.push(1);
  else if (Math.abs(screenY - y1) <= NEAR) sides.push(3);
  return sides;
}

function distanceToSide([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const share = Math.min(Math.max(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1), 0), 1);
  return Math.hypot(x - ax - share * dx, y - ay - share * dy);
}
