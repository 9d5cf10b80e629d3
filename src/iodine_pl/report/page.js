"use strict";

const loaded = (address) => {
  const picture = new Image();
  picture.src = address;
  return picture.decode().then(() => picture);
};

const contentOf = (box) => JSON.parse(box.querySelector("script").textContent);

function tile(canvas, picture, column, row) {
  const { width, height } = canvas;
  canvas.getContext("2d").drawImage(picture, column * width, row * height, width, height, 0, 0, width, height);
}

async function steps(box) {
  const { atlas, images, columns, ari } = contentOf(box);
  const [slider, number] = ["input", "output"].map((kind) => box.querySelector(kind));
  const canvases = [...box.querySelectorAll("canvas")], scores = [...box.querySelectorAll(".ari")];
  const picture = await loaded(atlas);
  const show = () => {
    const step = Number(slider.value);
    number.value = step;
    canvases.forEach((canvas, i) => {
      tile(canvas, picture, i % columns.length, step * images + Math.floor(i / columns.length));
    });
    scores.forEach((cell, i) => { cell.textContent = ari[step][i]; });
  };
  slider.addEventListener("input", show);
  show();
}

let groups = 0;

/* Fills a row of choices: each is a canvas or none, a name, and colors or none. Calls back with the chosen number. */
function choices(place, entries, chosen, changed) {
  const group = `choice${groups++}`;
  place.replaceChildren(...entries.map(({ canvas, name, color, ink }, i) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: group, value: i, checked: i === chosen });
    input.setAttribute("aria-label", name);
    input.addEventListener("change", () => changed(i));
    label.append(input, ...(canvas ? [canvas] : []));
    if (!canvas || color) {
      const text = document.createElement("span");
      text.textContent = name;
      if (color) Object.assign(text.style, { background: color, color: ink });
      label.append(text);
    }
    return label;
  }));
}

async function traversals(box) {
  const { width, height, values, thumbs, scenes } = contentOf(box);
  const [slider, number] = ["input[type=range]", "output"].map((kind) => box.querySelector(kind));
  const places = ["images", "slots", "latents"].map((kind) => box.querySelector(`.${kind}`));
  const [given, mean, changed] = box.querySelectorAll(".scenes canvas");
  const small = await loaded(thumbs), frames = await Promise.all(scenes.map((scene) => loaded(scene.frames)));
  const at = { image: 0, slot: 0, latent: 0 };

  const thumb = (column, row) => {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    tile(canvas, small, column, row);
    return canvas;
  };
  const show = () => {
    const { slots } = scenes[at.image];
    const before = slots.slice(0, at.slot).reduce((sum, slot) => sum + slot.latents.length, 0);
    const latent = slots[at.slot].latents[at.latent], value = values[slider.value];
    tile(changed, frames[at.image], Number(slider.value), before + at.latent);
    const sign = value > 0 ? "+" : value < 0 ? "−" : "";
    number.value = `z${latent.number} = ${sign}${Math.abs(value)} standard deviations of the prior, ` +
      `posterior’s mean ${latent.mean < 0 ? "−" : ""}${Math.abs(latent.mean)}`;
  };
  const chooseLatent = (latent) => {
    at.latent = latent;
    const { mean: wanted } = scenes[at.image].slots[at.slot].latents[latent];
    slider.value = values.reduce((best, value, i) => (
      Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? i : best), 0);
    show();
  };
  const chooseSlot = (slot) => {
    at.slot = slot;
    const entries = scenes[at.image].slots[slot].latents.map(({ number: z, kl }) => ({ name: `z${z} · KL ${kl}` }));
    choices(places[2], entries, 0, chooseLatent);
    chooseLatent(0);
  };
  const chooseImage = (image) => {
    at.image = image;
    tile(given, small, 0, image);
    tile(mean, small, 1, image);
    const entries = scenes[image].slots.map(({ head, color, ink }, k) => (
      { canvas: thumb(2 + k, image), name: head, color, ink }));
    const first = entries.length > 1 && scenes[image].slots[0].head === "background" ? 1 : 0;
    choices(places[1], entries, first, chooseSlot);
    chooseSlot(first);
  };
  choices(places[0], scenes.map((_, i) => ({ canvas: thumb(0, i), name: `image ${i + 1}` })), 0, chooseImage);
  slider.addEventListener("input", show);
  chooseImage(0);
}

document.querySelectorAll("[data-steps]").forEach(steps);
document.querySelectorAll("[data-traversals]").forEach(traversals);
