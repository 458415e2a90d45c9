// Charts. Those made of bars are tables whose cells are drawn, so that the numbers are always there to read.

const cell = (...children) => h("td", {}, ...children);
const numberCell = (text, title) => h("td", { class: "number", title }, text);

// A table; columns are [heading, class], rows are lists of cells.
function table(caption, columns, rows, options = {}) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: options.class },
      h("caption", { class: options.hideCaption ? "hidden" : undefined }, caption),
      h("thead", {}, h("tr", {}, columns.map((column) => {
        const [text, kind] = Array.isArray(column) ? column : [column];
        return h("th", { scope: "col", class: kind }, text);
      }))),
      h("tbody", {}, rows.map((row) => (row instanceof Node ? row : h("tr", {}, row))))));
}

const rowHead = (...children) => h("th", { scope: "row" }, ...children);

// A bar from `from` to `to` on the scale [low, high]; the zero line is drawn where it lies inside.
function barCell(from, to, low, high, kind) {
  const at = (value) => (100 * (value - low)) / (high - low || 1);
  const [left, right] = from < to ? [from, to] : [to, from];
  const bar = setStyle(h("span", { class: "bar " + (kind || (to >= from ? "for" : "against")) }), {
    left: at(left) + "%", width: Math.max(at(right) - at(left), 0.4) + "%",
  });
  const zero = low < 0 && high > 0 && setStyle(h("span", { class: "zero" }), { left: at(0) + "%" });
  return h("td", { class: "drawn", "aria-hidden": "true" }, h("span", { class: "track" }, zero, bar));
}

// A dot with its 95% interval.
function whiskerCell(row, low, high, kind) {
  if (!row || !row.n) return h("td", { class: "drawn" });
  const at = (value) => Math.min(100, Math.max(0, (100 * (value - low)) / (high - low || 1)));
  return h("td", { class: "drawn", title: rateTitle(row), "aria-hidden": "true" }, h("span", { class: "track" },
    setStyle(h("span", { class: "whisker " + (kind || "") }), { left: at(row.interval[0]) + "%", width: at(row.interval[1]) - at(row.interval[0]) + "%" }),
    setStyle(h("span", { class: "dot " + (kind || "") }), { left: at(row.value) + "%" })));
}

// Signed bars around zero: rows of {head, value, note}.
function signedBars(caption, rows, headings, options = {}) {
  const size = Math.max(1e-12, ...rows.map((row) => Math.abs(row.value)));
  const low = rows.some((row) => row.value < 0) ? -size : 0;
  const high = rows.some((row) => row.value > 0) ? size : 0;
  return table(caption, [headings[0], ["", "wide"], [headings[1], "number"], ...headings.slice(2).map((t) => [t, "number"])],
    rows.map((row) => [rowHead(row.head), barCell(0, row.value, low, high), numberCell(signed(row.value)), ...(row.cells || [])]),
    { class: "bars", ...options });
}

function niceTicks(low, high, n = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw) || raw;
  const ticks = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) ticks.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
    for (const m of high / low > 300 ? [1] : [1, 2, 5]) {
      const t = m * 10 ** e;
      if (t >= low * 0.999 && t <= high * 1.001) ticks.push(t);
    }
  }
  return ticks;
}

// The frame of a plot: scales, grid and axis titles. `x` and `y`: {low, high, log, title, format}.
function frame(x, y, label, size = [640, 320]) {
  const [width, height] = size;
  const box = { left: 58, right: width - 16, top: 14, bottom: height - 44 };
  const scale = (axis, a, b) => (value) => {
    const f = axis.log ? Math.log10 : (v) => v;
    return a + ((f(value) - f(axis.low)) / (f(axis.high) - f(axis.low) || 1)) * (b - a);
  };
  const X = scale(x, box.left, box.right);
  const Y = scale(y, box.bottom, box.top);
  const format = (axis) => axis.format || ((v) => number(v));
  const root = svg("svg", { viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": label, class: "plot" });
  for (const t of y.log ? logTicks(y.low, y.high) : niceTicks(y.low, y.high)) {
    root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: Y(t), y2: Y(t) }));
    root.append(svg("text", { class: "tick", x: box.left - 8, y: Y(t) + 4, "text-anchor": "end" }, format(y)(t)));
  }
  for (const t of x.log ? logTicks(x.low, x.high) : niceTicks(x.low, x.high, 6)) {
    root.append(svg("line", { class: "tickmark", x1: X(t), x2: X(t), y1: box.bottom, y2: box.bottom + 4 }));
    root.append(svg("text", { class: "tick", x: X(t), y: box.bottom + 18, "text-anchor": "middle" }, format(x)(t)));
  }
  root.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  root.append(svg("text", { class: "title", x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, x.title));
  root.append(svg("text", { class: "title", x: 14, y: (box.top + box.bottom) / 2, "text-anchor": "middle",
    transform: "rotate(-90 14 " + (box.top + box.bottom) / 2 + ")" }, y.title));
  return { root, X, Y, box };
}

function polyline(points, kind) {
  const d = points.map(([x, y], i) => (i ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1)).join("");
  return svg("path", { class: "line " + kind, d });
}

function legend(entries) {
  return h("ul", { class: "legend" }, entries.map(([kind, text]) => h("li", {}, h("span", { class: "key " + kind }), text)));
}

function histogram(data, label) {
  const size = [320, 84];
  const top = Math.max(1, ...data.counts);
  const width = (size[0] - 2) / data.counts.length;
  const root = svg("svg", { viewBox: "0 0 320 84", role: "img", "aria-label": label, class: "plot small" });
  data.counts.forEach((n, i) => {
    const tall = n ? Math.max(1, (62 * n) / top) : 0;
    root.append(svg("rect", { class: "column", x: 1 + i * width, y: 64 - tall, width: Math.max(1, width - 1.2), height: tall }));
  });
  const zero = (320 * (0 - data.low)) / (data.high - data.low || 1);
  root.append(svg("line", { class: "axis", x1: 0, x2: 320, y1: 64.5, y2: 64.5 }));
  if (zero > 24 && zero < 296) {
    root.append(svg("line", { class: "tickmark", x1: zero, x2: zero, y1: 64, y2: 69 }));
    root.append(svg("text", { class: "tick", x: zero, y: 81, "text-anchor": "middle" }, "0"));
  }
  root.append(svg("text", { class: "tick", x: 0, y: 81 }, fixed(data.low, 1)));
  root.append(svg("text", { class: "tick", x: 320, y: 81, "text-anchor": "end" }, signed(data.high, 1)));
  return root;
}
