// The picture on the desk: open it, paint its mask with the tool in hand, look at it from near and far.

import { all, clamp, find } from "./dom.js";
import { Mask } from "./mask.js";
import { Picture } from "./picture.js";
import { Pointer } from "./pointer.js";
import { Brush, Lasso, Rectangle } from "./tools.js";
import { Viewport } from "./viewport.js";

const [SMALLEST, LARGEST] = [0.004, 0.4]; // brushes, of the picture's shorter side
const ZOOM = 1.25;

export class Desk extends EventTarget {
  constructor() {
    super();
    Object.assign(this, { picture: null, mask: null, name: "brush", held: false });
    this.viewport = new Viewport(find("#stage"), find("#picture"), find("#overlay"), find("#guide"));
    this.slider = find("#size");
    const mask = () => this.mask;
    this.tools = {
      brush: new Brush(mask, this.viewport, () => this.size),
      eraser: new Brush(mask, this.viewport, () => this.size, true),
      rectangle: new Rectangle(mask, this.viewport),
      lasso: new Lasso(mask, this.viewport),
      hand: null,
    };
    this.pointer = new Pointer(find("#surface"), find("#ring"), this.viewport, {
      painter: () => (this.held ? null : this.tools[this.name]),
      before: () => this.dispatchEvent(new Event("paint")),
      size: () => ("size" in (this.tools[this.name] ?? {}) ? this.size : null),
      moving: () => this.held || this.name === "hand",
    });
    this.viewport.addEventListener("move", () => (find("#zoom").textContent = `${Math.round(this.viewport.scale * 100)} %`));
    this.slider.addEventListener("input", () => this.pointer.at(this.pointer.last ?? this.middle()));
    for (const button of all("[data-tool]")) button.addEventListener("click", () => this.take(button.dataset.tool));
    find("#tools").addEventListener("keydown", (event) => this.walk(event));
  }

  // ------------------------------------------------------------------------------------------------ pictures

  /** Put a picture on the desk, with a mask as remembered; else what is transparent in it is missing. */
  async open(blob, name, remembered) {
    const picture = blob === this.picture?.blob ? this.picture : await Picture.open(blob, name);
    const another = picture !== this.picture;
    if (another) {
      this.picture = picture;
      this.mask = new Mask(picture.width, picture.height);
      this.mask.addEventListener("change", () => this.changed());
      this.viewport.show(picture, this.mask);
      find("#surface").ariaLabel = `${name}, ${picture.width} by ${picture.height} pixels. Paint what is missing.`;
    }
    if (remembered) this.mask.restore(remembered);
    else if (blob.type !== "image/jpeg") this.mask.load(picture.copies[0], (data, i) => data[i + 3] < 128);
    if (another) this.mask.done = []; // this is how it begins: nothing to undo
    this.viewport.lay(null, true);
    this.changed();
    this.dispatchEvent(new Event("open"));
  }

  async loadMask(blob, name) {
    const { copies, width, height } = await Picture.open(blob, name);
    if (width !== this.picture.width || height !== this.picture.height) {
      const [is, wanted] = [`${width} x ${height}`, `${this.picture.width} x ${this.picture.height}`];
      throw new Error(`${name}: the mask is ${is} but the picture is ${wanted}. Save it at the picture's size.`);
    }
    this.mask.load(copies[0], (data, i) => 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2] > 127);
  }

  changed() {
    this.viewport.draw("overlay");
    this.dispatchEvent(new Event("change"));
  }

  /** The mask as a PNG, white where the picture is missing. */
  maskFile() {
    const canvas = new OffscreenCanvas(this.mask.width, this.mask.height);
    const context = canvas.getContext("2d", { alpha: false });
    context.drawImage(this.mask.canvas, 0, 0);
    const image = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < image.data.length; i += 4) {
      const missing = image.data[i] > 127 ? 255 : 0; // its red is full where it is opaque
      image.data[i] = image.data[i + 1] = image.data[i + 2] = missing;
    }
    context.putImageData(image, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }

  // --------------------------------------------------------------------------------------------------- tools

  take(name) {
    this.name = name;
    for (const button of all("[data-tool]")) {
      const mine = button.dataset.tool === name;
      button.ariaChecked = String(mine);
      button.tabIndex = mine ? 0 : -1;
    }
    this.pointer.at(this.pointer.last);
  }

  /** Arrow keys among the tools, as in any group of radio buttons. */
  walk(event) {
    const way = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const buttons = all("[data-tool]");
    const at = buttons.findIndex(({ dataset }) => dataset.tool === this.name);
    const next = buttons[(at + way + buttons.length) % buttons.length];
    this.take(next.dataset.tool);
    next.focus();
  }

  /** The view moves while the key for it is held. */
  hold(held) {
    this.held = held;
    this.pointer.at(this.pointer.last);
  }

  /** The brush's width in pixels of the picture. */
  get size() {
    if (!this.picture) return 1;
    const share = SMALLEST * (LARGEST / SMALLEST) ** (this.slider.value / 100);
    return Math.max(1, share * Math.min(this.picture.width, this.picture.height));
  }

  resize(steps) {
    this.slider.value = clamp(Number(this.slider.value) + 4 * steps, 0, 100);
    this.pointer.at(this.pointer.last ?? this.middle());
  }

  middle() {
    const { clientWidth, clientHeight } = this.viewport.stage;
    return { x: clientWidth / 2, y: clientHeight / 2 };
  }

  zoom(steps) {
    this.viewport.zoom(ZOOM ** steps);
  }
}
