// Keys for everything that has a button.

/** `acts` by name, `hold` for what lasts while a key is down. */
export function keys(acts, hold) {
  const plain = {
    b: "brush", e: "eraser", r: "rectangle", l: "lasso", h: "hand", "[": "smaller", "]": "larger", "+": "in", "=": "in", "-": "out",
    0: "fit", i: "invert", m: "mask", o: "open", s: "dice", x: "reroll", g: "goOn", "?": "help", Delete: "clear", Backspace: "clear",
    ArrowLeft: "previous", ArrowRight: "next", Escape: "cancel",
  };
  const held = { " ": "move", c: "compare" };
  const name = ({ key }) => (key.length === 1 ? key.toLowerCase() : key);

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range]), textarea") && event.key !== "Escape";
    const command = event.ctrlKey || event.metaKey;
    if (document.querySelector("dialog[open]")) return;
    const run = (act) => (event.preventDefault(), acts[act]());
    if (command && event.key === "Enter") return run("fill");
    if (typing) return;
    if (command) {
      if (name(event) === "z") return run(event.shiftKey ? "redo" : "undo");
      if (name(event) === "y") return run("redo");
      return;
    }
    if (event.altKey) return;
    const lasting = held[name(event)];
    const onButton = event.key === " " && event.target.matches("button, a, input");
    if (lasting && !onButton) {
      event.preventDefault();
      if (!event.repeat) hold[lasting](true);
      return;
    }
    const onSlider = event.target.matches("input") && event.key.startsWith("Arrow");
    if (plain[name(event)] && !onSlider) run(plain[name(event)]);
  });
  const release = (event) => {
    for (const [key, act] of Object.entries(held)) if (!event.key || key === name(event)) hold[act](false);
  };
  document.addEventListener("keyup", release);
  window.addEventListener("blur", release);
}
