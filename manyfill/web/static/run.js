// One request for fills: what was asked, what has come of it, and how to ask again when the server has forgotten.

import { png } from "./api.js";

const BUSY = 429;
const RETRIES = 20;

export class Run extends EventTarget {
  /** `asked` is { picture, mask, options, parent?, fill?, keep? }; the last three make it a re-roll. */
  constructor(api, asked) {
    super();
    Object.assign(this, { api, asked, fills: [], mean: null, heat: null, largest: 0, view: null, result: null, notes: [] });
    this.stop = new AbortController();
  }

  get rerolled() {
    return Boolean(this.asked.parent);
  }

  get total() {
    return Number(this.asked.options.n);
  }

  /** Ask, and tell of everything that comes by `progress` events; throws as the API does. */
  draw() {
    return (this.drawn = this.follow());
  }

  async follow() {
    for await (const [name, data] of this.events(this.stop.signal)) {
      await this[`take_${name}`]?.(data);
      this.dispatchEvent(new CustomEvent("progress", { detail: { name, data } }));
    }
  }

  async *events(signal) {
    for (let attempt = 0; ; attempt++) {
      try {
        yield* await this.ask(signal);
        return;
      } catch (error) {
        if (error.status !== BUSY || attempt === RETRIES) throw error;
        this.dispatchEvent(new CustomEvent("progress", { detail: { name: "busy", data: error } }));
        await pause(error.after * 1000, signal);
      }
    }
  }

  async ask(signal) {
    const { picture, mask, options, parent, fill, keep } = this.asked;
    if (!parent) return this.api.events("/fill", { image: picture, mask, ...options, view: "hole" }, signal);
    const asked = (result) => ({ result, fill, keep_levels: keep, ...options, view: "hole" });
    return parent.kept(async (result) => {
      const events = this.api.events("/reroll", asked(result), signal);
      const first = await events.next(); // where the result is gone, it is now that one learns of it
      return resumed(first, events);
    });
  }

  take_start({ view, notes }) {
    Object.assign(this, { view, notes });
  }

  async take_fill({ index, png: text }) {
    this.fills[index] = await Patch.of(png(text));
  }

  async take_mean({ png: text }) {
    this.mean = await Patch.of(png(text));
  }

  async take_uncertainty({ png: text, largest }) {
    Object.assign(this, { heat: await Patch.of(png(text)), largest });
  }

  take_done({ result }) {
    this.result = result;
  }

  /** Use the result that the server keeps, once it is drawn; where it is not kept, have it drawn again first. */
  async kept(use) {
    await this.drawn?.catch(() => {}); // whoever drew was told
    try {
      if (this.result) return await use(this.result);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    for await (const [name, data] of this.events()) if (name === "done") this.take_done(data);
    return use(this.result);
  }

  file(name) {
    return this.kept((result) => this.api.blob(`/results/${result}/${name}`));
  }

  cancel() {
    this.stop.abort();
  }

  /** Let go of decoded pictures; their files stay. */
  rest() {
    for (const patch of [...this.fills, this.mean, this.heat]) patch?.rest();
  }

  async wake() {
    await Promise.all([...this.fills, this.mean, this.heat].map((patch) => patch?.wake()));
  }
}

/** A picture of the hole's rectangle: its file, and while it is looked at its pixels. */
class Patch {
  static async of(file) {
    const patch = new Patch();
    patch.file = file;
    await patch.wake();
    return patch;
  }

  async wake() {
    this.bitmap ??= await createImageBitmap(this.file, { colorSpaceConversion: "none" });
  }

  rest() {
    this.bitmap?.close();
    this.bitmap = null;
  }
}

async function* resumed(first, rest) {
  if (!first.done) yield first.value;
  yield* rest;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("cancelled", "AbortError"));
    });
  });
}

