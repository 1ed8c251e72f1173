// What a person is told: errors stay until they are dismissed, notes go by themselves.

import { icon, make } from "./dom.js";

const SECONDS = 7;

export class Notices {
  constructor(place) {
    this.place = place;
  }

  error(message, retry) {
    this.clear();
    const notice = this.add("bad", message);
    if (retry) {
      const again = make("button", { type: "button", className: "secondary" }, "Retry");
      again.addEventListener("click", () => (notice.remove(), retry()));
      notice.lastChild.before(again);
    }
  }

  note(message) {
    const notice = this.add("", message);
    setTimeout(() => notice.remove(), SECONDS * 1000);
  }

  clear() {
    this.place.replaceChildren();
  }

  add(kind, message) {
    const close = make("button", { type: "button", className: "quiet", ariaLabel: "Dismiss" }, icon("close"));
    const notice = make("div", { className: `notice ${kind}` }, make("p", {}, message), close);
    close.addEventListener("click", () => notice.remove());
    this.place.append(notice);
    return notice;
  }
}
