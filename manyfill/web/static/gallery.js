// The strip of results: the picture with its hole, every fill as it comes, their mean, and where they differ.

import { make } from "./dom.js";

const HEIGHT = 232; // twice what it takes on the page
const [NARROW, WIDE] = [0.7, 1.5];
const FIRST = ["Original", "Mean", "Uncertainty"]; // then come the fills
const ROOM = 0.4; // around the hole, of its longer side

export class Gallery extends EventTarget {
  constructor(list) {
    super();
    Object.assign(this, { list, items: [], selected: 0 });
    list.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.across, ArrowDown: this.across }[event.key];
      if (!way) return;
      event.preventDefault();
      event.stopPropagation();
      this.step(way);
      this.tile(this.selected).focus();
    });
  }

  /** Lay out empty tiles for a run of n fills. */
  begin(picture, mask, n) {
    Object.assign(this, { picture, mask, run: null, selected: 0 });
    this.list.style.removeProperty("--shape");
    const names = [...FIRST, ...Array.from({ length: n }, (_, i) => `Fill ${i + 1}`)];
    this.items = names.map((name, index) => this.item(name, index));
    this.list.replaceChildren(...this.items.map(({ tile }) => tile));
    this.items[FIRST.length]?.tile.classList.add("apart");
    for (const item of this.items.slice(1)) item.tile.classList.add("pending");
  }

  empty() {
    Object.assign(this, { items: [], run: null, selected: 0 });
    this.list.replaceChildren();
  }

  item(name, index) {
    const canvas = make("canvas");
    const tile = make("button", { type: "button", className: "tile", role: "option", title: name }, canvas, make("span", {}, name));
    tile.setAttribute("aria-selected", "false");
    tile.tabIndex = index ? -1 : 0;
    tile.disabled = index > 0;
    tile.addEventListener("click", () => this.select(index));
    return { name, tile, canvas };
  }

  tile(index) {
    return this.items[index].tile;
  }

  /** Where a fill stands in the strip. */
  place(fill) {
    return FIRST.length + fill;
  }

  /** The index of the fill that is selected, or null. */
  get fill() {
    return this.selected >= FIRST.length ? this.selected - FIRST.length : null;
  }

  get uncertain() {
    return this.selected === FIRST.indexOf("Uncertainty");
  }

  get name() {
    return this.items[this.selected]?.name ?? "";
  }

  /** What is laid over the picture for the selected tile. */
  get patch() {
    const { run, fill } = this;
    if (!run || !this.selected) return null;
    const patch = fill !== null ? run.fills[fill] : this.uncertain ? run.heat : run.mean;
    return patch?.bitmap ? { bitmap: patch.bitmap, left: run.view.left, top: run.view.top } : null;
  }

  /** Draw what has come of a run: one of its fills, or all that is there. */
  show(run, only = null) {
    this.run = run;
    const patches = [null, run.mean, run.heat, ...run.fills];
    patches.forEach((patch, index) => {
      if (only !== null && index !== only && index !== 0) return;
      if (index && !patch) return;
      this.paint(this.items[index], run.view, patch?.bitmap);
    });
  }

  paint({ tile, canvas }, view, bitmap) {
    const part = around(view, this.picture);
    const scale = HEIGHT / part.height;
    Object.assign(canvas, { width: Math.round(part.width * scale), height: HEIGHT });
    this.list.style.setProperty("--shape", part.width / part.height);
    const context = canvas.getContext("2d");
    this.picture.draw(context, part, 0, 0, canvas.width, HEIGHT);
    context.translate(-part.left * scale, -part.top * scale);
    context.scale(scale, scale);
    context.imageSmoothingEnabled = scale < 3;
    context.imageSmoothingQuality = "medium";
    if (bitmap) context.drawImage(bitmap, view.left, view.top);
    else {
      context.globalAlpha = 0.58;
      context.drawImage(this.mask.canvas, part.left, part.top, part.width, part.height, part.left, part.top, part.width, part.height);
    }
    tile.classList.remove("pending");
    tile.disabled = false;
  }

  select(index, quiet = false) {
    if (!this.items[index] || this.tile(index).disabled) return;
    this.selected = index;
    this.items.forEach(({ tile }, i) => {
      tile.setAttribute("aria-selected", String(i === index));
      tile.tabIndex = i === index ? 0 : -1;
    });
    if (!quiet) this.tile(index).scrollIntoView({ block: "nearest", inline: "nearest" });
    this.dispatchEvent(new Event("select"));
  }

  step(way) {
    for (let next = this.selected + way; this.items[next]; next += way) {
      if (!this.tile(next).disabled) return this.select(next);
    }
  }

  /** How many tiles stand in the first row. */
  get across() {
    const tiles = this.items.map(({ tile }) => tile).filter((tile) => !tile.hidden);
    const below = tiles.findIndex((tile) => tile.offsetTop > tiles[0].offsetTop);
    return below < 0 ? tiles.length : below;
  }

  /** Take away what has not come. */
  settle() {
    for (const { tile } of this.items) tile.hidden = tile.disabled;
  }
}

/** A rectangle around another one, with some room, neither narrow nor wide, inside the picture. */
function around({ left, top, width, height }, picture) {
  const room = 2 * ROOM * Math.max(width, height);
  let [across, down] = [width + room, height + room];
  across = Math.min(Math.max(across, NARROW * down), picture.width);
  down = Math.min(Math.max(down, across / WIDE), picture.height);
  across = Math.min(across, WIDE * down);
  return {
    left: Math.min(Math.max(0, left + width / 2 - across / 2), picture.width - across),
    top: Math.min(Math.max(0, top + height / 2 - down / 2), picture.height - down),
    width: across,
    height: down,
  };
}
