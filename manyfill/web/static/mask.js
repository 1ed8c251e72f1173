// The hole, at the picture's full size: what is opaque on its canvas is missing. Undo keeps the tiles that a step touches.

import { clamp } from "./dom.js";

const TILE = 256;
const MOST = 256 * 2 ** 20; // bytes of tiles to undo
export const COLOUR = "#ff4f64";

export class Mask extends EventTarget {
  constructor(width, height) {
    super();
    Object.assign(this, { width, height, done: [], undone: [], step: null, columns: Math.ceil(width / TILE) });
    this.canvas = new OffscreenCanvas(width, height);
    // In the computer's memory, not the graphics card's: tiles are read back all the time.
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.filled = new Set(); // tiles with anything missing
  }

  get empty() {
    return this.filled.size === 0;
  }

  // ------------------------------------------------------------------------------------------------- changes

  begin() {
    this.step = new Map();
  }

  /** Change what lies in a rectangle of the picture; what was there is kept for undo. */
  paint({ left, top, right, bottom }, draw) {
    for (const tile of this.tiles(left, top, right, bottom)) {
      if (!this.step.has(tile)) this.step.set(tile, this.read(tile));
    }
    draw(this.context);
  }

  commit() {
    const { step } = this;
    this.step = null;
    if (!step?.size) return;
    this.done.push(step);
    this.undone = [];
    this.count(step.keys());
    for (let held = this.done.reduce((sum, s) => sum + bytes(s), 0); held > MOST && this.done.length > 1; ) {
      held -= bytes(this.done.shift());
    }
    this.changed();
  }

  /** Take back what was painted since `begin`. */
  revert() {
    for (const [tile, alpha] of this.step ?? []) this.write(tile, alpha);
    this.step = null;
    this.changed();
  }

  /** One step over all of the picture. */
  all(draw) {
    this.begin();
    this.paint({ left: 0, top: 0, right: this.width, bottom: this.height }, draw);
    this.commit();
  }

  clear() {
    this.all((context) => context.clearRect(0, 0, this.width, this.height));
  }

  invert() {
    this.all((context) => {
      context.globalCompositeOperation = "source-out";
      context.fillStyle = COLOUR;
      context.fillRect(0, 0, this.width, this.height);
      context.globalCompositeOperation = "source-over";
    });
  }

  /** Take over a picture's mask: white over black, or by its transparency. */
  load(bitmap, missing) {
    this.all((context) => {
      context.clearRect(0, 0, this.width, this.height);
      for (let top = 0; top < this.height; top += TILE) {
        const height = Math.min(TILE, this.height - top);
        const strip = new OffscreenCanvas(this.width, height).getContext("2d", { willReadFrequently: true });
        strip.drawImage(bitmap, 0, -top);
        const image = strip.getImageData(0, 0, this.width, height);
        for (let i = 0; i < image.data.length; i += 4) put(image.data, i, missing(image.data, i) ? 255 : 0);
        context.putImageData(image, 0, top);
      }
    });
  }

  undo() {
    this.swap(this.done, this.undone);
  }

  redo() {
    this.swap(this.undone, this.done);
  }

  swap(from, to) {
    const step = from.pop();
    if (!step) return;
    to.push(new Map([...step.keys()].map((tile) => [tile, this.read(tile)])));
    for (const [tile, alpha] of step) this.write(tile, alpha);
    this.count(step.keys());
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  // --------------------------------------------------------------------------------------------------- tiles

  *tiles(left, top, right, bottom) {
    const [x0, x1] = [clamp(left, 0, this.width - 1), clamp(right, 0, this.width - 1)].map((x) => Math.floor(x / TILE));
    const [y0, y1] = [clamp(top, 0, this.height - 1), clamp(bottom, 0, this.height - 1)].map((y) => Math.floor(y / TILE));
    for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) yield y * this.columns + x;
  }

  place(tile) {
    const [left, top] = [(tile % this.columns) * TILE, Math.floor(tile / this.columns) * TILE];
    return [left, top, Math.min(TILE, this.width - left), Math.min(TILE, this.height - top)];
  }

  /** The opacity of a tile's pixels, or one number where all have the same. */
  read(tile) {
    const { data } = this.context.getImageData(...this.place(tile));
    const alpha = new Uint8Array(data.length / 4);
    for (let i = 0; i < alpha.length; i++) alpha[i] = data[4 * i + 3];
    return alpha.every((value) => value === alpha[0]) ? alpha[0] : alpha;
  }

  write(tile, alpha) {
    const [left, top, width, height] = this.place(tile);
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i++) put(image.data, 4 * i, alpha[i] ?? alpha);
    this.context.putImageData(image, left, top);
  }

  count(tiles) {
    for (const tile of tiles) {
      const alpha = this.read(tile);
      const missing = alpha.some?.((value) => value > 127) ?? alpha > 127;
      this.filled[missing ? "add" : "delete"](tile);
    }
  }

  // --------------------------------------------------------------------------------------------- in and out

  /** The mask as a portable bitmap, one bit a pixel: exact, small and quick to write at any size. */
  file() {
    const row = Math.ceil(this.width / 8);
    const bits = new Uint8Array(row * this.height).fill(255); // 1 is black there
    for (const tile of this.filled) {
      const [left, top, width, height] = this.place(tile);
      const { data } = this.context.getImageData(left, top, width, height);
      for (let y = 0, i = 3; y < height; y++) {
        for (let x = left; x < left + width; x++, i += 4) {
          if (data[i] > 127) bits[(top + y) * row + (x >> 3)] &= ~(128 >> (x & 7));
        }
      }
    }
    return new Blob([`P4\n${this.width} ${this.height}\n`, bits], { type: "image/x-portable-bitmap" });
  }

  /** All of it, to come back to later. */
  snapshot() {
    return new Map([...this.filled].map((tile) => [tile, this.read(tile)]));
  }

  /** Come back to a snapshot, as one step. */
  restore(snapshot) {
    this.all((context) => {
      context.clearRect(0, 0, this.width, this.height);
      for (const [tile, alpha] of snapshot) this.write(tile, alpha);
    });
  }
}

function put(data, i, alpha) {
  data[i] = 255;
  data[i + 1] = 79;
  data[i + 2] = 100;
  data[i + 3] = alpha;
}

const bytes = (step) => [...step.values()].reduce((sum, alpha) => sum + (alpha.length ?? 8), 0);
