// Pictures, overlays, texts and clouds: the pieces that pages are put together from.

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    attach(entry.target);
  }
}, { rootMargin: "400px" });
const attachments = new WeakMap();
const unattached = new Set();

// Do something for an element when it is about to be seen, or printed.
function whenSeen(element, action) {
  attachments.set(element, action);
  unattached.add(element);
  seen.observe(element);
  return element;
}
function attach(element) {
  const action = attachments.get(element);
  attachments.delete(element);
  unattached.delete(element);
  if (action) during(action());
}
globalThis.addEventListener("beforeprint", () => {
  for (const element of [...unattached]) if (element.isConnected) attach(element);
});

// One transparent pixel, until the picture is needed.
const NOTHING_YET = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

// A picture: [key, width, height]. Small ones are enlarged without smoothing.
function photo(reference, alt, kind) {
  if (!reference) return h("span", { class: "nopicture " + (kind || ""), role: "img", "aria-label": alt });
  const [key, width, height] = reference;
  const tiny = Math.max(width, height) <= 64 ? " tiny" : "";
  const image = h("img", { class: (kind || "photo") + tiny, width, height, alt, decoding: "async", src: NOTHING_YET });
  return whenSeen(image, () => part(key).then((source) => {
    image.src = source;
    return image.decode().catch(() => {});
  }));
}

async function pixels(reference) {
  const image = new Image();
  image.src = await part(reference[0]);
  await image.decode();
  return image;
}

const view = { strength: 0.75, sign: "both" };
const canvases = new Set();

// The controls of all overlays on a page.
function overlayControls() {
  const redraw = () => {
    for (const canvas of canvases) if (canvas.isConnected) canvas.redraw();
  };
  const slider = h("input", { type: "range", id: "strength", min: 0, max: 100, value: 100 * view.strength, oninput: (event) => {
    view.strength = event.target.value / 100;
    redraw();
  } });
  const choice = h("select", { id: "sign", onchange: (event) => {
    view.sign = event.target.value;
    redraw();
  } }, [["both", "both"], ["for", "raising it"], ["against", "lowering it"]].map(([value, text]) =>
    h("option", { value, selected: value === view.sign }, text)));
  return h("div", { class: "controls overlays" },
    h("label", { for: "strength" }, "Overlay"), slider,
    h("label", { for: "sign" }, "Superpixels"), choice,
    h("span", { class: "scale", "aria-hidden": "true" }, h("i", { class: "key against" }), "lowers", h("i", { class: "key for" }), "raises"));
}

// A photograph with its superpixels tinted by their effects, on a fixed symmetric scale.
function overlay(prototype, alt) {
  const { map, effects, limit } = prototype.lime;
  const ratio = prototype.picture[2] / prototype.picture[1];
  const canvas = h("canvas", { class: "photo", width: 320, height: Math.round(320 * ratio), role: "img", "aria-label": alt });
  canvases.add(canvas);
  return whenSeen(canvas, async () => {
    const [base, index] = await Promise.all([pixels(prototype.picture), pixels(map)]);
    canvas.redraw = () => drawOverlay(canvas, base, readMap(index, canvas), effects, limit);
    canvas.redraw();
    canvas.dataset.ok = "true";
  });
}

function readMap(image, canvas) {
  if (canvas.map) return canvas.map;
  const small = h("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = small.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, image.naturalWidth, image.naturalHeight);
  const map = new Uint16Array(canvas.width * canvas.height);
  for (let y = 0; y < canvas.height; y += 1) {
    const row = Math.floor((y * height) / canvas.height) * width;
    for (let x = 0; x < canvas.width; x += 1) {
      const at = 4 * (row + Math.floor((x * width) / canvas.width));
      map[y * canvas.width + x] = data[at] + 256 * data[at + 1];
    }
  }
  canvas.map = map;
  return map;
}

const RAISES = [24, 118, 200];
const LOWERS = [230, 120, 20];

function drawOverlay(canvas, base, map, effects, limit) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = base.naturalWidth > 64;
  context.drawImage(base, 0, 0, width, height);
  const shown = view.strength;
  if (!shown) return;
  const image = context.getImageData(0, 0, width, height);
  const data = image.data;
  const fade = Math.min(1, 2 * shown); // the picture's own colours go first: a tint must not mix with them
  const strength = effects.map((e) => {
    const s = limit > 0 && e !== null ? Math.max(-1, Math.min(1, e / limit)) : 0;
    return (view.sign === "for" && s < 0) || (view.sign === "against" && s > 0) ? 0 : s;
  });
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const p = y * width + x;
      const s = strength[map[p]] || 0;
      const at = 4 * p;
      const light = (data[at] + data[at + 1] + data[at + 2]) / 3;
      const grey = light + (80 - light * 0.5) * shown * 0.6;
      const colour = s >= 0 ? RAISES : LOWERS;
      let dark = 1;
      if (s < -0.2 && (x + y) % 14 < 4) dark = 0.45;
      const edge = s > 0.2 && (edgeAt(map, strength, p, x, y, width, height));
      for (let c = 0; c < 3; c += 1) {
        const plain = data[at + c] + (grey - data[at + c]) * fade;
        data[at + c] = edge ? 255 : (plain + (colour[c] - plain) * shown * Math.abs(s)) * dark;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

// Whether a pixel lies within two of the border of a raising superpixel.
function edgeAt(map, strength, p, x, y, width, height) {
  for (const d of [1, 2]) {
    if (x >= d && map[p - d] !== map[p]) return true;
    if (x + d < width && map[p + d] !== map[p]) return true;
    if (y >= d && map[p - d * width] !== map[p]) return true;
    if (y + d < height && map[p + d * width] !== map[p]) return true;
  }
  return false;
}

// A text whose words are marked by their effect.
function markedText(pieces, limit) {
  return h("p", { class: "text" }, pieces.map(([piece, effect]) => {
    if (effect === null || !limit || Math.abs(effect) < 0.08 * limit) return piece;
    const mark = h("mark", { class: effect > 0 ? "for" : "against", title: signed(effect) + " sd" }, piece);
    return setStyle(mark, { "--strength": Math.min(1, Math.abs(effect) / limit).toFixed(2) });
  }));
}

// A cloud as text: sized by effect, in no order but the strongest near the middle.
function cloud(words, top, kind, label) {
  if (!words || !words.length) return h("p", { class: "quiet" }, "no words on this side");
  const middle = [];
  words.forEach((word, i) => (i % 2 ? middle.push(word) : middle.unshift(word)));
  return h("p", { class: "cloud " + kind, role: "img", "aria-label": label + ": " + words.slice(0, 12).map(([w]) => w).join(", ") },
    middle.map(([word, mean, n]) => {
      const size = top > 0 ? Math.abs(mean) / top : 1;
      const text = word.length > 28 ? word.slice(0, 27) + "\u2026" : word;
      return [setStyle(h("span", { title: word + ": " + signed(mean) + " sd, " + count(n, "text") }, text), { "--size": size.toFixed(2) }), " "];
    }));
}

// One sample in a row of samples: picture or text, and what is known about it.
function sampleCard(sample, caption, options = {}) {
  const i = exampleIndex.get(sample.id);
  const alt = options.alt || "sample " + sample.id;
  const body = options.body || (sample.picture ? photo(sample.picture, alt) : sample.text !== undefined ? h("p", { class: "text" }, clip(sample.text)) : h("span", { class: "id" }, sample.id));
  const linked = i !== undefined && !options.body ? h("a", { href: "#/example/" + i, class: "plain" }, body) : body;
  return h("figure", { class: "sample" + (sample.text !== undefined ? " textual" : "") }, linked, h("figcaption", {}, caption));
}
const clip = (text, n = 320) => (text.length > n ? text.slice(0, n - 1) + "\u2026" : text);

// A long list, shown some at a time.
function more(items, draw, container, step = 60) {
  let shown = 0;
  const button = h("button", { type: "button", class: "more", onclick: () => next() });
  const next = () => {
    const batch = items.slice(shown, shown + step).map(draw);
    container.append(...batch);
    shown += batch.length;
    button.textContent = "Show more (" + number(items.length - shown) + " left)";
    button.hidden = shown >= items.length;
  };
  next();
  return button;
}

const strip = (...cards) => h("div", { class: "strip" }, ...cards);
const note = (text) => text && h("p", { class: "note" }, h("b", {}, "Note "), text);
const section = (title, ...children) => h("section", {}, h("h2", {}, title), ...children);
const facts = (entries) => h("dl", { class: "facts" }, entries.filter(Boolean).map(([term, value, title]) =>
  h("div", { title }, h("dt", {}, term), h("dd", {}, value))));
