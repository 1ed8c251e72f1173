// Where the picture lies in the window, and what is drawn there: the picture with what fills its hole, and the mask over it.

import { clamp } from "./dom.js";

const [MARGIN, BARS] = [24, 96]; // around a picture that fits; above and below it, for what floats there
const LOW = 360; // a stage lower than that has no room to leave
const ENLARGED = 8; // at most, to fit
const CLOSEST = 40;

export class Viewport extends EventTarget {
  constructor(stage, picture, overlay, guide) {
    super();
    Object.assign(this, { stage, scale: 1, left: 0, top: 0, fitted: true, shown: null, mask: null, patch: null, waiting: 0 });
    this.contexts = { picture, overlay, guide };
    for (const [name, canvas] of Object.entries(this.contexts)) this.contexts[name] = canvas.getContext("2d");
    new ResizeObserver(() => this.resize()).observe(stage);
  }

  /** Show a picture, or nothing. */
  show(picture, mask) {
    Object.assign(this, { shown: picture, mask, patch: null });
    if (picture) this.fit();
    else this.draw("picture", "overlay", "guide");
  }

  /** Lay `patch`, { bitmap, left, top }, over the picture, and hide the mask; or take it away. */
  lay(patch, masked) {
    this.patch = patch;
    this.contexts.overlay.canvas.hidden = !masked;
    this.draw("picture", "overlay");
  }

  get masked() {
    return !this.contexts.overlay.canvas.hidden;
  }

  // ------------------------------------------------------------------------------------------------ geometry

  resize() {
    const { clientWidth, clientHeight } = this.stage;
    this.density = window.devicePixelRatio || 1;
    for (const { canvas } of Object.values(this.contexts)) {
      canvas.width = Math.round(clientWidth * this.density);
      canvas.height = Math.round(clientHeight * this.density);
    }
    if (this.fitted) this.fit();
    // At once: a canvas that was resized is blank until it is drawn.
    this.render(["picture", "overlay", "guide"]);
  }

  fit() {
    if (!this.shown) return;
    const { clientWidth, clientHeight } = this.stage;
    const [margin, bars] = clientHeight < LOW ? [4, 0] : [MARGIN, BARS];
    const [width, height] = [clientWidth - 2 * margin, clientHeight - 2 * margin - bars];
    const scale = Math.max(Math.min(width / this.shown.width, height / this.shown.height, ENLARGED), 0.005);
    const [left, top] = [(clientWidth - this.shown.width * scale) / 2, (clientHeight - this.shown.height * scale) / 2];
    this.move(scale, left, top);
    this.fitted = true;
  }

  move(scale, left, top) {
    Object.assign(this, { scale, left, top, fitted: false });
    this.draw("picture", "overlay", "guide");
    this.dispatchEvent(new Event("move"));
  }

  pan(across, down) {
    this.move(this.scale, this.left + across, this.top + down);
  }

  /** Zoom by a factor; the point (x, y) of the stage stays where it is. */
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.shown) return;
    const scale = clamp(this.scale * factor, Math.min(0.05, this.scale), CLOSEST);
    const ratio = scale / this.scale;
    this.move(scale, x - (x - this.left) * ratio, y - (y - this.top) * ratio);
  }

  /** A point of the stage in pixels of the picture. */
  inside(x, y) {
    return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale };
  }

  // ------------------------------------------------------------------------------------------------- drawing

  draw(...layers) {
    this.pending = new Set([...(this.pending ?? []), ...layers]);
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      this.render(this.pending);
    });
  }

  render(layers) {
    for (const layer of layers) {
      const context = this.contexts[layer];
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, context.canvas.width, context.canvas.height);
      if (this.shown) this[`render_${layer}`](context);
    }
    this.pending = new Set();
  }

  /** The part of the picture in sight, and the rectangle of the canvas that it takes. */
  sight() {
    const { shown, scale, density } = this;
    const left = clamp(Math.floor(-this.left / scale), 0, shown.width);
    const top = clamp(Math.floor(-this.top / scale), 0, shown.height);
    const width = clamp(Math.ceil((this.stage.clientWidth - this.left) / scale), 0, shown.width) - left;
    const height = clamp(Math.ceil((this.stage.clientHeight - this.top) / scale), 0, shown.height) - top;
    const by = scale * density;
    return [{ left, top, width, height }, this.left * density + left * by, this.top * density + top * by, width * by, height * by];
  }

  render_picture(context) {
    const sight = this.sight();
    if (sight[0].width <= 0 || sight[0].height <= 0) return;
    this.shown.draw(context, ...sight);
    if (!this.patch) return;
    this.transform(context);
    context.imageSmoothingEnabled = this.scale * this.density < 3;
    context.drawImage(this.patch.bitmap, this.patch.left, this.patch.top);
  }

  render_overlay(context) {
    if (!this.mask || this.mask.empty || !this.masked) return;
    const [part, ...place] = this.sight();
    if (part.width <= 0 || part.height <= 0) return;
    context.imageSmoothingEnabled = this.scale * this.density < 1;
    context.drawImage(this.mask.canvas, part.left, part.top, part.width, part.height, ...place);
  }

  render_guide(context) {
    if (!this.outline) return;
    this.transform(context);
    context.lineWidth = 1.5 / this.scale;
    for (const [colour, dash] of [["#000", []], ["#fff", [5 / this.scale, 5 / this.scale]]]) {
      context.strokeStyle = colour;
      context.setLineDash(dash);
      context.stroke(this.outline);
    }
  }

  transform(context) {
    const by = this.scale * this.density;
    context.setTransform(by, 0, 0, by, this.left * this.density, this.top * this.density);
  }

  /** Draw on the mask in sight what was drawn on the mask itself, without drawing all of it anew. */
  echo(draw) {
    const context = this.contexts.overlay;
    this.transform(context);
    context.save();
    context.beginPath();
    context.rect(0, 0, this.shown.width, this.shown.height);
    context.clip();
    draw(context);
    context.restore();
  }
}

