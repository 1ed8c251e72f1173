// How many fills, how wild, and which: the form beside the stage.

import { all, clamp, find } from "./dom.js";

export class Settings {
  constructor(form) {
    Object.assign(this, { form, said: "" });
    const warmth = find("#temperature");
    warmth.addEventListener("input", () => (find("#temperature-value").textContent = Number(warmth.value).toFixed(2)));
    for (const button of all("[data-step]", form)) {
      button.addEventListener("click", () => {
        form.n.value = clamp(Number(form.n.value) + Number(button.dataset.step), form.n.min, form.n.max);
      });
    }
  }

  get valid() {
    return this.form.reportValidity();
  }

  most(fills) {
    this.form.n.max = fills;
  }

  values() {
    const { n, seed, temperature, caption } = this.form;
    const options = { n: n.value, seed: seed.value, temperature: temperature.value };
    return caption.value.trim() ? { ...options, caption: caption.value.trim() } : options;
  }

  dice() {
    this.form.seed.value = crypto.getRandomValues(new Uint16Array(1))[0];
  }

  /** How it stands, in a few words. */
  say(text) {
    this.said = text;
    find("#status").textContent = text;
  }
}
