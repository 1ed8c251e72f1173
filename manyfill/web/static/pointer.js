// Pointers on the stage: one paints, or moves the view with the hand; two fingers move and zoom; the wheel zooms.

import { clamp } from "./dom.js";

const NUDGE = 0.02; // of the picture's shorter side, for the arrow keys

export class Pointer {
  /** `painter()` is the tool in hand or null, `before()` is called when painting begins, `size()` is the brush's. */
  constructor(surface, ring, viewport, { painter, before, size, moving }) {
    Object.assign(this, { surface, ring, viewport, painter, before, size, moving, fingers: new Map(), tool: null });
    const on = (name, act) => surface.addEventListener(name, act.bind(this), { passive: false });
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.up);
    on("pointerleave", () => this.at(null));
    on("wheel", this.wheel);
    on("keydown", this.key);
    on("blur", () => this.lift());
    on("contextmenu", (event) => event.preventDefault());
    viewport.addEventListener("move", () => this.at(this.last));
  }

  point(event) {
    const { left, top } = this.surface.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  down(event) {
    if (!this.viewport.shown) return;
    this.surface.focus({ preventScroll: true });
    this.surface.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, this.point(event));
    if (this.fingers.size > 1) return this.lift(true); // a second finger: the first one did not mean to paint
    if (event.button === 1 || this.moving()) return event.preventDefault();
    if (event.button === 0) this.put(this.inside(event), event.altKey);
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    const now = this.point(event);
    if (event.pointerType !== "touch" || this.tool) this.at(now);
    if (!before) return;
    if (this.fingers.size > 1) return this.pinch(event.pointerId, now);
    this.fingers.set(event.pointerId, now);
    if (!this.tool) return this.viewport.pan(now.x - before.x, now.y - before.y);
    for (const part of event.getCoalescedEvents?.() ?? [event]) this.tool.move(this.inside(part));
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    this.lift();
    if (event.pointerType === "touch") this.at(null);
  }

  pinch(id, now) {
    const [other] = [...this.fingers].filter(([key]) => key !== id).map(([, point]) => point);
    const before = this.fingers.get(id);
    this.fingers.set(id, now);
    const apart = (a, b) => Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
    this.viewport.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    this.viewport.zoom(apart(now, other) / apart(before, other), (now.x + other.x) / 2, (now.y + other.y) / 2);
  }

  wheel(event) {
    event.preventDefault();
    const { x, y } = this.point(event);
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    const steps = clamp(event.deltaY * lines, -300, 300);
    this.viewport.zoom(Math.exp(-steps * (event.ctrlKey ? 0.01 : 0.002)), x, y);
  }

  // ------------------------------------------------------------------------------------------------ the pen

  inside(event) {
    const { x, y } = this.point(event);
    return this.viewport.inside(x, y);
  }

  put(point, erase = false) {
    this.tool = this.painter();
    if (!this.tool) return;
    this.before();
    this.tool.down(point, erase);
    this.ring.classList.add("down");
  }

  lift(undone = false) {
    this.ring.classList.remove("down");
    const { tool } = this;
    this.tool = null;
    if (undone) tool?.cancel();
    else tool?.up();
  }

  /** By keys: arrows move the pen, Enter puts it down or lifts it. */
  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const { shown, stage, scale, left, top } = this.viewport;
    if (!shown || event.ctrlKey || event.metaKey || (!way && event.key !== "Enter")) return;
    event.preventDefault();
    event.stopPropagation();
    const centre = { x: stage.clientWidth / 2, y: stage.clientHeight / 2 };
    const pen = this.last ?? centre;
    const far = Math.min(shown.width, shown.height) * NUDGE * scale * (event.shiftKey ? 4 : 1);
    const next = way ? { x: pen.x + way[0] * far, y: pen.y + way[1] * far } : pen;
    next.x = clamp(next.x, Math.max(0, left), Math.min(stage.clientWidth, left + shown.width * scale));
    next.y = clamp(next.y, Math.max(0, top), Math.min(stage.clientHeight, top + shown.height * scale));
    this.at(next);
    const place = this.viewport.inside(next.x, next.y);
    if (way) this.tool?.move(place);
    else if (this.tool) this.lift();
    else this.put(place, event.altKey);
  }

  /** Show the ring around this point of the stage, or hide it. */
  at(point) {
    this.last = point;
    const ringed = Boolean(point && this.viewport.shown && this.painter() && !this.moving());
    this.ring.hidden = !ringed;
    this.surface.classList.toggle("ringed", ringed && this.size() !== null);
    this.surface.classList.toggle("moving", this.moving());
    if (!ringed) return;
    const side = Math.max(4, (this.size() ?? 0) * this.viewport.scale);
    this.ring.style.width = this.ring.style.height = `${side}px`;
    this.ring.style.transform = `translate(${point.x - side / 2}px, ${point.y - side / 2}px)`;
  }
}
