// Buttons that open a sheet below them; Escape, a choice, or a click elsewhere closes it.

import { all, find } from "./dom.js";

export function menus() {
  const buttons = all("[aria-haspopup]");
  const sheet = (button) => find(`#${button.getAttribute("aria-controls")}`);
  const set = (button, open) => {
    sheet(button).hidden = !open;
    button.ariaExpanded = String(open);
    if (open) find("button", sheet(button))?.focus();
  };
  for (const button of buttons) {
    button.addEventListener("click", () => set(button, sheet(button).hidden));
    sheet(button).addEventListener("click", () => set(button, false));
  }
  document.addEventListener("pointerdown", ({ target }) => {
    for (const button of buttons) if (!button.contains(target) && !sheet(button).contains(target)) set(button, false);
  });
  document.addEventListener("keydown", (event) => {
    const opened = event.key === "Escape" && buttons.find((button) => !sheet(button).hidden);
    if (!opened) return;
    event.stopImmediatePropagation();
    set(opened, false);
    opened.focus();
  });
}
