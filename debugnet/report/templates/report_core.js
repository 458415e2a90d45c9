"use strict";
// Data come as JSON and reach the page as text nodes only: nothing here parses HTML.

const page = JSON.parse(document.getElementById("content").textContent);
const partsFolder = document.body.dataset.parts;
const loaded = new Map();
const waiting = new Map();
let busy = 0;

globalThis.debugnetPart = (key, value) => {
  const resolve = waiting.get(key);
  waiting.delete(key);
  if (resolve) resolve(value);
};

// A part of the report (a feature, a sample, a picture), read when it is first needed.
function part(key) {
  if (!loaded.has(key)) {
    const holder = document.getElementById("part-" + key);
    loaded.set(key, holder ? Promise.resolve(JSON.parse(holder.textContent)) : fetchPart(key));
  }
  return loaded.get(key);
}

function fetchPart(key) {
  if (!partsFolder || !/^[a-z0-9]+$/.test(key)) return Promise.reject(new Error("no part " + key));
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(key, resolve);
    script.onerror = () => reject(new Error("part " + key + " is missing beside this page"));
    script.src = partsFolder + "/" + key + ".js";
    document.head.append(script);
  });
}

// The page says in data-ready when everything it waits for is there.
function during(promise) {
  busy += 1;
  document.documentElement.dataset.ready = "false";
  return promise
    .catch((error) => document.getElementById("main").append(h("p", { class: "warning" }, String(error.message))))
    .finally(() => {
      busy -= 1;
      if (!busy) document.documentElement.dataset.ready = "true";
    });
}

function put(element, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

const h = (tag, properties, ...children) => put(document.createElement(tag), properties, children);
const svg = (tag, properties, ...children) =>
  put(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);

// Numbers as people read them, with a real minus sign.
const minus = (text) => text.replace("-", "\u2212");
const missing = "\u2013";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function number(value, digits = 3) {
  if (!isNumber(value)) return missing;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return minus(value.toExponential(1));
  return minus(Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""));
}
const fixed = (value, digits = 2) => (isNumber(value) ? minus(value.toFixed(digits)) : missing);
const signed = (value, digits = 2) =>
  isNumber(value) ? (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits) : missing;
const percent = (value, digits = 1) => (isNumber(value) ? (100 * value).toFixed(digits) + "\u202f%" : missing);
const count = (n, one, many) => number(n) + " " + (n === 1 ? one : many || one + "s");
const pValue = (p) => (!isNumber(p) ? missing : p < 0.001 ? "p < 0.001" : "p = " + number(p, 2));

function rate(row) {
  if (!row || !row.n) return missing;
  return percent(row.value);
}
function rateTitle(row) {
  if (!row || !row.n) return "no samples";
  return percent(row.value) + " (" + number(row.count) + " of " + number(row.n) + "), 95% interval " +
    percent(row.interval[0]) + " to " + percent(row.interval[1]);
}

const className = (k) => (page.classes[k] ? page.classes[k].name : String(k));
const classIndex = new Map(page.classes.map((entry, k) => [entry.name, k]));
const featureIndex = new Map(page.features.map((entry) => [entry.id, entry]));
const exampleIndex = new Map(page.examples.map((entry, i) => [entry.id, i]));

function classLink(k) {
  const index = typeof k === "number" ? k : classIndex.get(k);
  return index === undefined ? h("span", {}, String(k)) : h("a", { class: "name", href: "#/class/" + index }, className(index));
}
function featureLink(id) {
  return featureIndex.has(id)
    ? h("a", { class: "feature", href: "#/feature/" + id }, "feature\u00a0" + id)
    : h("span", { class: "feature" }, "feature\u00a0" + id);
}
function sampleLink(id) {
  const i = exampleIndex.get(id);
  return i === undefined ? h("span", { class: "id" }, id) : h("a", { class: "id", href: "#/example/" + i }, id);
}
function decision(said) {
  if (said.text !== undefined) return h("span", {}, said.text);
  if (!said.classes.length) return h("span", {}, "none");
  return h("span", {}, said.classes.map((k, i) => [i ? ", " : "", classLink(k)]));
}
const decisionText = (said) => (said.text !== undefined ? said.text : said.classes.map(className).join(", ") || "none");

// What stands in for a page that was not computed.
function absent(what, command) {
  return h("div", { class: "absent" },
    h("p", {}, what),
    command && h("p", {}, "To have it here, run this and make the report again:"),
    command && h("pre", { class: "command" }, h("code", {}, command)));
}

const setStyle = (element, values) => {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(name, value);
  return element;
};
