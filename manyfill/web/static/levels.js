// The hierarchy to hold in hand: levels by their size, each locked (kept) or free (drawn anew).

import { all, find, icon, make } from "./dom.js";

const NAMES = { 1: "Overall tone", 2: "Overall layout", 4: "Composition", 8: "Large shapes", 16: "Shapes", 32: "Details", 64: "Texture" };
const COARSE = 8; // the largest size that is composition rather than texture

export class Levels {
  constructor(list, buttons) {
    Object.assign(this, { list, sizes: [] });
    for (const button of buttons) button.addEventListener("click", () => this.lock(button.dataset.locks));
  }

  /** Levels of these sizes, coarsest first; those of one size go together. */
  show(sizes) {
    if (String(sizes) === String(this.sizes)) return;
    this.sizes = sizes;
    this.list.replaceChildren(...[...new Set(sizes)].map((size) => make("li", {}, this.button(size))));
    this.lock("coarse");
  }

  button(size) {
    const count = this.sizes.filter((other) => other === size).length;
    const grain = make("i", { className: "grain" });
    grain.style.setProperty("--cells", Math.min(2 * Math.log2(size) || 1, 11));
    const name = NAMES[size] ?? (size > 64 ? "Fine texture" : `${size} × ${size}`);
    const detail = `${count > 1 ? `${count} of ` : ""}${size} × ${size}`;
    const button = make(
      "button",
      { type: "button", className: "level", role: "switch", data: { size } },
      grain,
      make("span", { className: "name" }, name),
      make("small", {}, detail),
      make("span", { className: "lock" }),
    );
    button.addEventListener("click", () => this.set(button, !this.locked(button)));
    return button;
  }

  locked(button) {
    return button.ariaChecked === "true";
  }

  set(button, locked) {
    button.ariaChecked = String(locked);
    button.title = locked ? "Kept: click to draw it anew" : "Drawn anew: click to keep it";
    find(".lock", button).replaceChildren(icon(locked ? "locked" : "unlocked"));
  }

  /** Lock the coarse or the fine half. */
  lock(half) {
    for (const button of all(".level", this.list)) this.set(button, (button.dataset.size <= COARSE) === (half === "coarse"));
  }

  /** The levels that are kept, counted from 1, as the API takes them. */
  get kept() {
    const locked = new Set(all(".level", this.list).filter(this.locked).map(({ dataset }) => Number(dataset.size)));
    return this.sizes.flatMap((size, index) => (locked.has(size) ? [index + 1] : [])).join(",") || "none";
  }
}
