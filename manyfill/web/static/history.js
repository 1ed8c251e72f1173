// What was done since the page was opened, to go back to: pictures, masks and their fills.

import { make } from "./dom.js";

const MOST = 24;
const SIDE = 120;

export class History extends EventTarget {
  constructor(list, section) {
    super();
    Object.assign(this, { list, section, entries: [] });
  }

  /** Remember { label, picture, mask, run }; `patch` is laid over its thumbnail. */
  add({ label, picture, mask, run, patch }) {
    const entry = { label, blob: picture.blob, name: picture.name, mask: mask.snapshot(), run };
    const canvas = make("canvas", { width: SIDE, height: SIDE });
    const side = Math.min(picture.width, picture.height);
    const part = { left: (picture.width - side) / 2, top: (picture.height - side) / 2, width: side, height: side };
    const context = canvas.getContext("2d");
    picture.draw(context, part, 0, 0, SIDE, SIDE);
    if (patch) {
      context.scale(SIDE / side, SIDE / side);
      context.drawImage(patch.bitmap, patch.left - part.left, patch.top - part.top);
    }
    entry.button = make("button", { type: "button", className: "past", title: `Back to: ${label}` }, canvas, make("span", {}, label));
    entry.button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("back", { detail: entry })));
    this.entries.push(entry);
    if (this.entries.length > MOST) this.entries.shift();
    this.list.replaceChildren(...this.entries.map(({ button }) => make("li", {}, button)).reverse());
    this.section.hidden = false;
    this.mark(entry);
  }

  mark(entry) {
    for (const { button } of this.entries) button.ariaCurrent = String(button === entry.button);
  }
}
