// The page: what its buttons and keys do, and what goes from one part to another.

import { Api, ApiError } from "./api.js";
import { Desk } from "./desk.js";
import { all, download, find, make } from "./dom.js";
import { Gallery } from "./gallery.js";
import { History } from "./history.js";
import { keys } from "./keys.js";
import { Levels } from "./levels.js";
import { menus } from "./menus.js";
import { Notices } from "./notices.js";
import { Run } from "./run.js";
import { Settings } from "./settings.js";

const desk = new Desk();
const notices = new Notices(find("#notices"));
const api = new Api(askToken);
const gallery = new Gallery(find("#tiles"));
const levels = new Levels(find("#levels"), all("[data-locks]"));
const history = new History(find("#history"), find("#history-section"));
const settings = new Settings(find("#settings"));
let run = null; // the one whose fills are in the strip
let drawing = null; // the one that is being drawn

// ------------------------------------------------------------------------------------------- pictures and masks

async function open(blob, name) {
  await guarded(async () => {
    await desk.open(blob, name);
    leave();
    history.add({ label: "Opened", picture: desk.picture, mask: desk.mask, run: null });
  });
}

async function loadMask(blob, name) {
  await guarded(async () => {
    await desk.loadMask(blob, name);
    look(null);
  });
}

/** Take the fills off the strip. */
function leave() {
  notices.clear();
  drawing?.cancel();
  run?.rest();
  run = null;
  gallery.empty();
  settings.say("");
  look(null);
}

/** Do something that may fail in a way that a person can mend; the page stays as it is. */
async function guarded(act, retry = () => guarded(act)) {
  try {
    await act();
  } catch (error) {
    if (error.name === "AbortError") return;
    const answered = error instanceof ApiError;
    if (!answered && error.constructor !== Error) throw error; // a fault of the page's own
    notices.error(error.message, answered && error.status !== 422 ? retry : null);
  }
}

// ------------------------------------------------------------------------------------------------------- drawing

function fill() {
  if (!settings.valid || desk.mask?.empty !== false) return;
  drawer(false);
  start({ picture: desk.picture.blob, mask: desk.mask.file(), options: { ...settings.sampling, ...settings.told } });
}

function reroll() {
  if (gallery.fill === null || !run?.result || !settings.valid) return;
  const { picture, mask } = run.asked;
  drawer(false);
  start({ picture, mask, options: settings.sampling, parent: run, fill: gallery.fill, keep: levels.kept }); // as it was told
}

async function start(asked) {
  notices.clear();
  drawing?.cancel();
  run?.rest();
  const mine = new Run(api, asked);
  run = drawing = mine;
  const { picture, mask } = desk;
  gallery.begin(picture, mask, mine.total);
  look(null);
  busy(true);
  mine.addEventListener("progress", ({ detail }) => drawing === mine && progress(mine, detail));
  await guarded(
    async () => {
      await mine.draw();
      const label = mine.rerolled ? `Re-rolled fill ${mine.asked.fill + 1}` : `${mine.total} ${mine.total > 1 ? "fills" : "fill"}`;
      history.add({ label, picture, mask, run: mine, patch: gallery.patch });
    },
    () => start(asked),
  );
  if (drawing !== mine) return;
  drawing = null;
  busy(false);
  gallery.settle();
  if (!mine.result) settings.say(mine.stop.signal.aborted ? "Cancelled." : "");
  if (!mine.fills.length) gallery.empty();
  update();
}

function progress(mine, { name, data }) {
  const bar = find("#progress");
  bar.classList.toggle("waiting", name === "waiting" || name === "busy");
  if (name === "waiting") settings.say(data.ahead ? `Waiting for ${data.ahead} before this one` : "Looking at the picture");
  if (name === "busy") settings.say(`The server is busy; asking again in ${data.after} s`);
  if (name === "start") data.notes.forEach((note) => notices.note(note));
  if (name === "start") gallery.show(mine, 0);
  if (name === "fill") {
    gallery.show(mine, gallery.place(data.index));
    bar.firstElementChild.style.transform = `scaleX(${(data.index + 1) / mine.total})`;
    settings.say(`Drawn ${data.index + 1} of ${mine.total}`);
    if (data.index === 0 && gallery.selected === 0) gallery.select(gallery.place(0));
  }
  if (name === "done") {
    gallery.show(mine);
    settings.say(`${mine.total} ${mine.total > 1 ? "fills" : "fill"} in ${data.record.timings.total.toFixed(1)} s`);
    if (data.levels) levels.show(data.levels);
  }
}

function busy(on) {
  find("#fill").hidden = on;
  find("#cancel").hidden = !on;
  find("#progress").hidden = !on;
  find("#progress").firstElementChild.style.transform = "";
  if (on && document.activeElement === document.body) find("#cancel").focus();
}

// --------------------------------------------------------------------------------------------- looking at fills

/** Show the selected tile on the stage; `compare` shows the picture as it was instead. */
function look(selected = gallery, compare = false) {
  const patch = selected?.patch ?? null;
  if (!selected && gallery.items.length) gallery.select(0, true);
  desk.viewport.lay(compare ? null : patch, !patch);
  find("#seen").hidden = !patch;
  find("#seen-name").textContent = compare ? "Original" : gallery.name;
  find("#go-on").hidden = gallery.fill === null;
  find("#legend").hidden = !patch || !gallery.uncertain || compare;
  find("#legend-most").textContent = `± ${run?.largest.toFixed(0)} of 255`;
  update();
}

const compare = (on) => find("#seen").hidden || look(gallery, on);

async function goOn() {
  if (gallery.fill === null || !run) return;
  const [mine, index] = [run, gallery.fill];
  await guarded(async () => {
    const blob = await mine.file(`fill-${String(index).padStart(2, "0")}.png`);
    await desk.open(blob, `${desk.picture.stem}-fill-${index + 1}.png`);
    leave();
    history.add({ label: `Fill ${index + 1}`, picture: desk.picture, mask: desk.mask, run: null });
  });
}

async function back({ detail: entry }) {
  await guarded(async () => {
    await desk.open(entry.blob, entry.name, entry.mask);
    leave();
    history.mark(entry);
    if (!entry.run?.view) return;
    run = entry.run;
    await run.wake();
    gallery.begin(desk.picture, desk.mask, run.total);
    gallery.show(run);
    gallery.settle();
    gallery.select(gallery.place(0));
  });
}

/** Enable what can be done now. */
function update() {
  const { picture, mask } = desk;
  const some = Boolean(picture && !mask.empty);
  find("#empty").hidden = Boolean(picture);
  find("#save-button").disabled = !picture;
  document.body.classList.toggle("opened", Boolean(picture));
  find("#hud").hidden = find("#strip").hidden = !picture;
  find("#strip-hint").hidden = gallery.items.length > 0;
  find("#fill").disabled = !some;
  for (const act of ["invert", "mask"]) find(`[data-act=${act}]`).disabled = !picture;
  find("[data-act=clear]").disabled = !some;
  find("[data-act=undo]").disabled = !mask?.done.length;
  find("[data-act=redo]").disabled = !mask?.undone.length;
  find("[data-save=mask]").disabled = !some;
  for (const what of ["all", "record"]) find(`[data-save=${what}]`).disabled = !run?.result;
  const steerable = gallery.fill !== null && Boolean(run?.result) && levels.sizes.length > 0;
  find("#levels-section").hidden = !steerable;
  find("#levels-of").textContent = steerable ? `fill ${gallery.fill + 1}` : "";
  if (picture && !some && !drawing) settings.say("Paint what is missing, then fill it.");
  else if (settings.said.startsWith("Paint")) settings.say("");
}

// -------------------------------------------------------------------------------------------------------- saving

const SAVED = {
  mask: async () => [await desk.maskFile(), `${desk.picture.stem}-mask.png`],
  all: async () => [await run.file("all.zip"), `${desk.picture.stem}-fills.zip`],
  record: async () => [await run.file("fill.json"), `${desk.picture.stem}-fill.json`],
  picture: async () => {
    if (!gallery.patch) return [desk.picture.blob, desk.picture.name];
    const names = { Mean: "mean", Uncertainty: "std" };
    const name = names[gallery.name] ?? `fill-${String(gallery.fill).padStart(2, "0")}`;
    return [await run.file(`${name}.png`), `${desk.picture.stem}-${name}.png`];
  },
};

const save = (what) => guarded(async () => download(...(await SAVED[what]())));

// ------------------------------------------------------------------------------------------------------- wiring

const acts = {
  open: () => find("#picture-file").click(),
  mask: () => desk.picture && find("#mask-file").click(),
  undo: () => desk.mask && (look(null), desk.mask.undo()),
  redo: () => desk.mask && (look(null), desk.mask.redo()),
  clear: () => desk.mask && !desk.mask.empty && (look(null), desk.mask.clear()),
  invert: () => desk.mask && (look(null), desk.mask.invert()),
  fit: () => desk.viewport.fit(),
  in: () => desk.zoom(1),
  out: () => desk.zoom(-1),
  smaller: () => desk.resize(-1),
  larger: () => desk.resize(1),
  dice: () => settings.dice(),
  previous: () => gallery.step(-1),
  next: () => gallery.step(1),
  help: () => find("#help").showModal(),
  cancel: () => drawing?.cancel(),
  theme: () => {
    const root = document.documentElement;
    const dark = root.dataset.theme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : root.dataset.theme === "dark";
    localStorage.setItem("theme", (root.dataset.theme = dark ? "light" : "dark"));
  },
  fill, reroll, goOn,
  ...Object.fromEntries(Object.keys(desk.tools).map((name) => [name, () => desk.take(name)])),
};

for (const button of all("[data-act]")) button.addEventListener("click", () => acts[button.dataset.act]());
for (const button of all("[data-save]")) button.addEventListener("click", () => save(button.dataset.save));
find("#settings").addEventListener("submit", (event) => (event.preventDefault(), fill()));
find("#cancel").addEventListener("click", acts.cancel);
find("#reroll").addEventListener("click", reroll);
find("#go-on").addEventListener("click", goOn);
const toggle = find("#drawer-toggle");
const drawer = (opened) => (toggle.ariaExpanded = String(find("#drawer").classList.toggle("opened", opened)));
toggle.addEventListener("click", () => drawer());
find("#stage").addEventListener("pointerdown", () => drawer(false));
const hold = find("#compare");
hold.addEventListener("pointerdown", () => compare(true));
for (const end of ["pointerup", "pointerleave", "pointercancel"]) hold.addEventListener(end, () => compare(false));
hold.addEventListener("keydown", ({ key }) => key === " " && compare(true));
hold.addEventListener("keyup", () => compare(false));
keys(acts, { move: (on) => desk.hold(on), compare });
menus();

desk.addEventListener("paint", () => look(null));
desk.addEventListener("change", update);
gallery.addEventListener("select", () => look());
history.addEventListener("back", back);

for (const [id, take] of [["#picture-file", open], ["#mask-file", loadMask]]) {
  find(id).addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = ""; // so that the same file can be chosen again
    if (file) take(file, file.name);
  });
}
const stage = find("#stage");
const pictured = (items) => [...(items ?? [])].find(({ type }) => type.startsWith("image/"));
document.addEventListener("dragover", (event) => (event.preventDefault(), stage.classList.add("dropping")));
document.addEventListener("dragleave", (event) => event.relatedTarget ?? stage.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("dropping");
  const file = pictured(event.dataTransfer.files);
  if (file) open(file, file.name);
  else notices.error("Drop a picture file: PNG, JPEG or WebP.");
});
document.addEventListener("paste", (event) => {
  const file = pictured(event.clipboardData.files);
  if (file) open(file, file.name);
});

// ---------------------------------------------------------------------------------------------------- beginning

async function askToken(refused) {
  const dialog = find("#token");
  find("p", dialog).textContent = refused ? "The server did not accept that one." : "It was set when the server was started.";
  find("#token-value").value = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return find("#token-value").value;
}

async function examples() {
  const titles = await api.json("/examples");
  find("#examples-button").hidden = !Object.keys(titles).length;
  for (const shelf of [find("#shelf"), find("#examples")]) shelf.replaceChildren();
  for (const [name, title] of Object.entries(titles)) {
    const blob = await api.blob(`/examples/${name}`);
    for (const shelf of [find("#shelf"), find("#examples")]) {
      const image = make("img", { src: URL.createObjectURL(blob), alt: "" });
      const button = make("button", { type: "button", className: "example" }, image, title);
      button.addEventListener("click", () => open(blob, `${name}.png`));
      shelf.append(button);
    }
  }
}

async function begin() {
  const model = await api.json("/model");
  find("#model").textContent = `${model.model} · ${model.levels.length} levels`;
  find("#told").hidden = !model.captions;
  settings.most(model.limits.fills);
  levels.show(model.levels.map(({ size }) => size));
  await examples();
}

// What was painted lives in this page alone.
window.addEventListener("beforeunload", (event) => desk.mask?.empty === false && event.preventDefault());
update();
guarded(begin);
