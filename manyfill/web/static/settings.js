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

  /** How many fills, and how they are drawn. */
  get sampling() {
    const { n, seed, temperature } = this.form;
    return { n: n.value, seed: seed.value, temperature: temperature.value };
  }

  /** What is said of the picture, if anything. */
  get told() {
    const { caption, guidance } = this.form;
    return caption.value.trim() ? { caption: caption.value.trim(), guidance: guidance.value } : {};
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
