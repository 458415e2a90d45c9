// Home, classes, samples, method.

function homePage() {
  const home = page.home;
  const regression = page.task === "regression";
  const judged = page.split.split("/")[0]; // of "test/a": the dense layers are known on whole splits
  const best = home.layers.find((row) => row.name !== "this head" && isNumber(row.metrics[judged])) || home.layers[1];
  const metric = (home.chosen.metric || "accuracy").replace("_", " ");
  const whole = home.layers[0].metrics[judged]; // beside the dense layers' accuracy, on the same samples
  const halved = metric === "accuracy" && page.split !== judged && isNumber(whole);
  return [
    h("h1", {}, page.title),
    h("p", { class: "lead" }, lead(home)),
    note(page.note),
    h("div", { class: "tiles" },
      !regression && !halved && tile(percent(home.accuracy && home.accuracy.value), (page.task === "multi-label" ? "all labels right, on " : "accuracy on ") + page.split, rateTitle(home.accuracy)),
      halved && tile(percent(whole), "accuracy on " + judged),
      metric !== "accuracy" && isNumber(home.layers[0].metrics[judged]) && tile(fixed(home.layers[0].metrics[judged], 3), metric + " of this head, on " + judged),
      best && isNumber(best.metrics[judged]) && tile(metric === "accuracy" ? percent(best.metrics[judged]) : fixed(best.metrics[judged], 3), (metric === "accuracy" ? "" : metric + ", ") + best.name + ", on " + judged),
      tile(number(home.mean_count, 3), page.mirrored ? "features" : "features per class, on average"),
      tile(number(home.used), "of " + number(home.n_features) + " features in use"),
      !page.opposite && tile(number(home.shared), "shared by several classes")),
    home.warnings.length > 0 && h("aside", { class: "warnings", "aria-label": "Before you believe it" },
      h("h2", {}, "Before you believe it"), h("ul", {}, home.warnings.map((text) => h("li", {}, text)))),
    networkSection(home.network),
    pathSection(home),
    layersSection(home),
    countsSection(home),
    section("How to read this",
      h("p", {}, (home.network ? "The network was trained to get by with little, and this is its own last layer." : "The network's last layer was replaced by a sparse one, fitted on the same deep features.") + " Every decision is now a short sum: a bias, plus weight times value for each feature in use. Weights and values are in standard deviations of the feature over the training samples, so 0 is the average sample and weights can be compared."),
      h("ul", { class: "plain-list" },
        h("li", {}, h("a", { href: "#/features" }, "Features"), " show what each feature reads, with the evidence for it and checks of that evidence."),
        h("li", {}, h("a", { href: "#/classes" }, "Classes"), " show which features speak for and against each class."),
        h("li", {}, h("a", { href: "#/examples" }, "Samples"), " show the exact sum behind single decisions."),
        h("li", {}, h("a", { href: "#/method" }, "Method"), " names every option, version and seed, and the commands that make it again.")),
      h("p", { class: "legend-line" }, h("span", { class: "key for" }), " blue, +: speaks for, or raises. ", h("span", { class: "key against" }), " orange, \u2212: speaks against, or lowers.")),
  ];
}

function lead(home) {
  const classes = count(page.classes.length, page.task === "regression" ? "output" : "class", page.task === "regression" ? "outputs" : "classes");
  const how = home.chosen.rule === "drop" && isNumber(home.chosen.drop)
    ? ", the sparsest on its path within " + number(100 * home.chosen.drop) + " percentage points of the " + (home.chosen.reference || "best") : "";
  if (home.network) return "The last layer of a network with " + number(home.network.kept) + " of " + number(home.network.total) + " " + home.network.unit + " left, for " + classes + how + ". Judged on " + count(home.n, "sample") + " of " + page.split + ".";
  return "A sparse decision layer for " + classes + how + ". Judged on " + count(home.n, "sample") + " of " + page.split + ".";
}

const tile = (value, label, title) => h("div", { class: "tile", title }, h("b", {}, value), h("span", {}, label));

function pathSection(home) {
  const path = home.path;
  if (!path) return section("The path", absent("The curve of accuracy against features per class was not computed.", page.commands.analysis));
  const metric = home.metric;
  const splits = ["train", "val", "test"].filter((s) => (path.metrics[s] || {})[metric] && path.metrics[s][metric].some(isNumber));
  const sizes = path.kept || path.features_per_class; // of a path of networks, or of layers
  const counted = path.unit ? path.unit + " kept" : "features per class";
  const keep = sizes.map((n, i) => [n, i]).filter(([n]) => n > 0);
  if (!splits.length || keep.length < 2) return null;
  const values = splits.flatMap((s) => keep.map(([, i]) => path.metrics[s][metric][i])).filter(isNumber);
  const ns = keep.map(([n]) => n);
  const span = Math.max(...values) - Math.min(...values);
  const label = metric + " along the " + (path.unit ? "path of networks" : "regularization path") + " against the " + (path.unit ? "number of " : "mean number of ") + counted;
  const { root, X, Y, box } = frame(
    { low: Math.min(...ns), high: Math.max(...ns), log: true, title: counted + (path.unit ? " (log scale)" : " (mean, log scale)") },
    { low: Math.min(...values) - 0.03 * span, high: Math.min(Math.max(...values) + 0.05 * span, metric === "r2" ? Infinity : 1.005), title: metric.replace("_", " "), format: (v) => fixed(v, 2) }, label);
  if (isNumber(home.chosen.index) && sizes[home.chosen.index] > 0) {
    const x = X(sizes[home.chosen.index]);
    root.append(svg("line", { class: "chosen", x1: x, x2: x, y1: box.top, y2: box.bottom }));
    const right = x > (box.left + box.right) / 2;
    const low = splits.every((s) => Y(path.metrics[s][metric][home.chosen.index]) > (box.top + box.bottom) / 2); // the curves are there
    root.append(svg("text", { class: "chosen-name", x: x + (right ? -7 : 7), y: low ? box.top + 12 : box.bottom - 10, "text-anchor": right ? "end" : "start" },
      "this head: " + number(sizes[home.chosen.index])));
  }
  for (const split of splits) {
    root.append(polyline(keep.filter(([, i]) => isNumber(path.metrics[split][metric][i])).map(([n, i]) => [X(n), Y(path.metrics[split][metric][i])]), split));
    const i = home.chosen.index;
    if (isNumber(i) && sizes[i] > 0 && isNumber(path.metrics[split][metric][i])) {
      root.append(svg("circle", { class: "point " + split, cx: X(sizes[i]), cy: Y(path.metrics[split][metric][i]), r: 4.5 }));
    }
  }
  const rows = keep.filter((_, k) => keep.length < 40 || k % Math.ceil(keep.length / 40) === 0).map(([n, i]) => [
    rowHead(number(n)), numberCell(number(path.lam[i])), !path.unit && numberCell(number(path.nnz[i])),
    ...splits.map((s) => numberCell(fixed(path.metrics[s][metric][i], 4)))].filter(Boolean));
  return section("Accuracy against sparsity", h("figure", { class: "chart" }, root, legend(splits.map((s) => ["stroke " + s, s]))),
    h("details", {}, h("summary", {}, "The numbers"),
      table(label, [[counted, "number"], ["lambda", "number"], !path.unit && ["weights", "number"], ...splits.map((s) => [s, "number"])].filter(Boolean), rows, { hideCaption: true })));
}

function networkSection(network) {
  if (!network) return null;
  const drawn = { importance: "Lambda at which each input left: the larger, the more it matters", accuracy_against_units: "Scores of the networks along the path, and of other selections", accuracy_against_density: "Scores of the networks along the path, and of other ways to as few weights" };
  return section("What the network was left with",
    h("p", {}, "Trained by " + network.method + ": " + number(network.kept) + " of " + number(network.total) + " " + network.unit + " are left. This head is the last layer of that very network, on its own deep features" +
      (network.direct_inputs ? ": features 0 to " + (network.hidden_units - 1) + " are units of its last hidden layer, and those from " + network.hidden_units + " on are its standardized inputs, which its outputs read directly" : "") + "."),
    Object.entries(network.figures || {}).map(([name, reference]) => photo(reference, drawn[name] || name, "sheet")));
}

function layersSection(home) {
  const splits = ["train", "val", "test"].filter((s) => home.layers.some((row) => isNumber(row.metrics[s])));
  if (!splits.length) return null;
  const metric = (home.chosen.metric || "accuracy").replace("_", " ");
  const parts = home.topk_rest;
  const counted = home.network ? home.network.unit + " kept" : "features per class";
  const names = { sparse: "this head", dense: "end of the path", network_head: "the network's own layer" };
  return section(home.network ? "Against the other networks of the path" : "Against the dense layers",
    table((home.network ? "Size and " : "Mean features per class and ") + metric + " of this head and " + (home.network ? "the others" : "the dense ones"), [home.network ? "network" : "layer", [counted, "number"], ...splits.map((s) => [s, "number"])],
      home.layers.map((row) => [rowHead(row.name), numberCell(number(row.features)), ...splits.map((s) => numberCell(fixed(row.metrics[s], 4)))])),
    parts && table("What the top " + home.top_k + " features of each class carry, and what the rest does (" + home.analysis_split + ", " + metric + "; no feature at all: " + fixed(home.no_feature, 4) + ")",
      ["layer", ["all", "number"], ["top " + home.top_k, "number"], ["the rest", "number"]],
      Object.entries(parts).map(([name, row]) => [rowHead(names[name] || name), ...["all", "top_k", "rest"].map((k) => numberCell(fixed(row[k], 4)))])));
}

function countsSection(home) {
  if (page.classes.length > 40 || page.mirrored) return null;
  const rows = page.classes.map((entry, k) => {
    const plus = entry.features.filter((f) => f[1] > 0).length;
    return { k, plus, minusCount: entry.features.length - plus };
  });
  const top = Math.max(1, ...rows.map((row) => row.plus + row.minusCount));
  return section("Features per class",
    table("Features that speak for and against each class", ["class", ["", "wide"], ["for", "number"], ["against", "number"]],
      rows.map(({ k, plus, minusCount }) => {
        const bars = h("span", { class: "track" },
          setStyle(h("span", { class: "bar for" }), { left: "0%", width: (100 * plus) / top + "%" }),
          setStyle(h("span", { class: "bar against" }), { left: (100 * plus) / top + "%", width: (100 * minusCount) / top + "%" }));
        return [rowHead(classLink(k)), h("td", { class: "drawn", "aria-hidden": "true" }, bars), numberCell(number(plus)), numberCell(number(minusCount))];
      }), { class: "bars", hideCaption: true }));
}

function classesPage() {
  const judged = page.classes.some((entry) => entry.accuracy);
  const order = page.classes.map((_, k) => k);
  return [
    h("h1", {}, page.task === "regression" ? "Outputs" : "Classes"),
    table("All classes, with what their decisions rest on",
      ["class", judged && ["samples", "number"], judged && ["accuracy", "wide"], judged && ["", "number"], ["features", "number"], "strongest"].filter(Boolean),
      order.map((k) => {
        const entry = page.classes[k];
        return [rowHead(classLink(k)), judged && numberCell(number(entry.n)), judged && whiskerCell(entry.accuracy, 0, 1), judged && numberCell(rate(entry.accuracy), rateTitle(entry.accuracy)),
          numberCell(number(entry.features.length)), cell(entry.features.slice(0, 4).map(([id, w], i) => [i ? ", " : "", featureLink(id), " ", h("span", { class: "quiet" }, signed(w))]))].filter(Boolean);
      }), { class: "bars" }),
  ];
}

function classPage(k) {
  const entry = page.classes[k];
  if (!entry) return unknownPage();
  const byMean = entry.features.filter((f) => isNumber(f[2])).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
  const mistakes = (rows, caption, heading) => rows && rows.length > 0 && table(caption, [heading, ["", "wide"], ["samples", "number"]],
    rows.map(([c, n]) => [rowHead(classLink(c)), barCell(0, n, 0, rows[0][1], "neutral"), numberCell(number(n))]), { class: "bars" });
  const examples = page.examples.map((e, i) => [e, i]).filter(([e]) => e.true.classes && (e.true.classes.includes(k) || (e.said.classes || []).includes(k)));
  const holder = strip();
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/classes" }, "Classes")),
    h("h1", {}, entry.name),
    note(entry.note),
    facts([
      entry.accuracy && ["accuracy", rate(entry.accuracy), rateTitle(entry.accuracy)],
      entry.found && ["found, of those that have it", rate(entry.found), rateTitle(entry.found)],
      isNumber(entry.n) && ["samples", number(entry.n)],
      isNumber(entry.predicted) && ["predicted", number(entry.predicted)],
      ["features", number(entry.features.length)],
      ["bias", signed(entry.bias), "the score of the average training sample"],
    ]),
    entry.features.length
      ? h("div", { class: "columns" },
        section("By weight", signedBars("Weights of the features of " + entry.name, entry.features.slice(0, 40).map(([id, w]) => ({ head: featureName(id), value: w })), ["feature", "weight"], { hideCaption: true }),
          entry.features.length > 40 && h("p", { class: "quiet" }, count(entry.features.length - 40, "smaller one") + " not listed")),
        byMean.length > 0 && section("By mean contribution", signedBars("What the features add to the score, on average over the samples of " + entry.name, byMean.slice(0, 40).map(([id, , m]) => ({ head: featureName(id), value: m })), ["feature", "adds"], { hideCaption: true }),
          h("p", { class: "quiet" }, "Weight times the mean value over this class's samples: what decides in practice.")))
      : h("p", {}, "No feature speaks about this class: its score is its bias."),
    (entry.taken_for || entry.taken_from) && section("Confusions",
      !(entry.taken_for || []).length && !(entry.taken_from || []).length && h("p", {}, "None on " + page.split + "."),
      h("div", { class: "columns" },
        h("div", {}, mistakes(entry.taken_for, "Samples of " + entry.name + " taken for", "taken for")),
        h("div", {}, mistakes(entry.taken_from, "Samples taken for " + entry.name + " that are", "really")))),
    examples.length > 0 && section("Samples", holder, more(examples, ([e]) => exampleCard(e), holder, 24)),
  ];
}

function featureName(id) {
  const entry = featureIndex.get(id);
  const words = entry && entry.positive && entry.positive.slice(0, 3).join(", ");
  return [featureLink(id), words && h("span", { class: "quiet words" }, " " + words)];
}

function exampleCard(example) {
  const verdict = h("span", { class: example.right ? "verdict right" : "verdict wrong" }, example.right ? "\u2713 " : "\u2717 ", decision(example.said));
  const quiet = (...words) => h("span", { class: "quiet" }, words);
  return sampleCard(example, [verdict, isNumber(example.said.p) && quiet(" (" + percent(example.said.p, 0) + ")"), !example.right && quiet(", is ", decisionText(example.true))],
    { alt: "sample " + example.id + ", predicted " + decisionText(example.said) });
}

function examplesPage(query) {
  const state = { show: query.get("show") || "all", class: query.get("class") || "", feature: query.get("feature") || "" };
  const holder = h("div", { class: "strip", id: "results" });
  const tail = h("p", {});
  const status = h("p", { role: "status", class: "quiet" });
  const draw = () => {
    const found = page.examples.filter((e) =>
      (state.show === "all" || e.right === (state.show === "right")) &&
      (state.class === "" || (e.true.classes || []).includes(+state.class) || (e.said.classes || []).includes(+state.class)) &&
      (state.feature === "" || e.cause === +state.feature));
    holder.replaceChildren();
    tail.replaceChildren(more(found, exampleCard, holder));
    status.textContent = count(found.length, "sample") + " of the " + number(page.examples.length) + " that have a page";
    replaceQuery("examples", state);
  };
  const causes = [...new Set(page.examples.map((e) => e.cause).filter((c) => c !== undefined))].sort((a, b) => a - b);
  const controls = h("form", { class: "controls", onsubmit: (event) => event.preventDefault() },
    selectField("Show", "show", [["all", "all samples"], ["wrong", "errors"], ["right", "right ones"]], state, draw),
    page.classes.length > 1 && page.task !== "regression" && selectField("Class", "class", [["", "any"], ...page.classes.map((e, k) => [k, e.name])], state, draw),
    selectField("Decided by", "feature", [["", "any feature"], ...causes.map((c) => [c, "feature " + c])], state, draw));
  draw();
  return [h("h1", {}, "Samples"), h("p", { class: "lead" }, "Each opens to the exact sum of contributions behind its decision."), controls, status, holder, tail];
}

function selectField(label, name, options, state, changed) {
  const id = "field-" + name;
  return h("span", { class: "field" }, h("label", { for: id }, label),
    h("select", { id, onchange: (event) => { state[name] = event.target.value; changed(); } },
      options.map(([value, text]) => h("option", { value, selected: String(value) === String(state[name]) }, text))));
}

async function examplePage(i) {
  const example = page.examples[i];
  if (!example) return unknownPage();
  const found = await part("e" + i);
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/examples" }, "Samples"), neighbours("example", i, page.examples.length)),
    h("h1", {}, "Why ", decisionText(example.said), "?"),
    h("div", { class: "columns narrow-first" },
      h("div", {}, example.picture && photo(example.picture, "the sample, " + example.id, "photo large"), example.text !== undefined && h("blockquote", { class: "text" }, example.text)),
      h("div", {},
        facts([
          ["sample", h("span", { class: "id" }, example.id)],
          ["predicted", [decision(example.said), isNumber(example.said.p) && " (" + percent(example.said.p) + ")"]],
          ["true", [decision(example.true), example.right ? " \u2713" : " \u2717"]],
          example.group && ["group", example.group],
        ]),
        found.probabilities.length > 1 && table("Probabilities", ["class", ["", "wide"], ["", "number"]],
          found.probabilities.map(([k, p]) => [rowHead(classLink(k)), barCell(0, p, 0, 1, "neutral"), numberCell(percent(p))]), { class: "bars", hideCaption: true }))),
    found.cause && h("p", {}, "Against the true class, ", featureLink(found.cause.feature_wrong), " adds most to the wrong one (by ", signed(found.cause.gamma_wrong), "); ",
      featureLink(found.cause.feature_right), " speaks most for the right one. ",
      found.cause.fixed_mean ? "Turned off, the first would leave the right decision." : "Turning off the first alone does not repair the decision."),
    found.outputs.slice(0, page.opposite ? 1 : undefined).map((output) => waterfall(output)),
    page.opposite && h("p", { class: "quiet" }, "With two classes the other score is this sum with its sign changed."),
  ];
}

// The exact sum behind a score: each row starts where the one before ended.
function waterfall(output) {
  const steps = [{ head: "bias", value: output.bias, detail: "the average training sample" }];
  for (const [id, contribution, weight, value] of output.terms) steps.push({ head: featureName(id), value: contribution, detail: signed(weight) + " \u00d7 " + signed(value) });
  if (output.n_others) steps.push({ head: count(output.n_others, "other feature"), value: output.others, detail: "" });
  let at = 0;
  let low = Math.min(0, output.logit);
  let high = Math.max(0, output.logit);
  for (const step of steps) {
    step.from = at;
    at += step.value;
    low = Math.min(low, at);
    high = Math.max(high, at);
  }
  const name = className(output.class);
  return section("The score of " + name,
    table("How the score of " + name + " adds up: " + signed(output.logit, 3), ["", ["", "wide"], ["adds", "number"], ["weight \u00d7 value", "number"], ["sum", "number"]],
      [...steps.map((step) => [rowHead(step.head), barCell(step.from, step.from + step.value, low, high), numberCell(signed(step.value, 3)), numberCell(step.detail), numberCell(fixed(step.from + step.value, 3))]),
        h("tr", { class: "total" }, rowHead("score"), barCell(0, output.logit, low, high, "neutral"), numberCell(""), numberCell(""), numberCell(fixed(output.logit, 3)))],
      { class: "bars waterfall", hideCaption: true }),
    h("p", { class: "quiet" }, "The rows add up to the layer's own score; what rounding leaves: " + (Math.abs(output.residual) < 1e-12 ? "0" : minus(output.residual.toExponential(1))) + "."));
}

function neighbours(route, i, n, name) {
  return h("span", { class: "neighbours" },
    i > 0 && h("a", { href: "#/" + route + "/" + (name ? name(i - 1) : i - 1), rel: "prev" }, "\u2190 previous"),
    i < n - 1 && h("a", { href: "#/" + route + "/" + (name ? name(i + 1) : i + 1), rel: "next" }, "next \u2192"));
}

function methodPage() {
  const method = page.method;
  const save = () => {
    const url = URL.createObjectURL(new Blob([JSON.stringify(page, null, 1)], { type: "application/json" }));
    const link = h("a", { href: url, download: "report.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  };
  return [
    h("h1", {}, "Method"),
    h("p", { class: "lead" }, "Everything here was read from these artefacts. Their commands make them again."),
    method.artefacts.map((made) => h("section", { class: "artefact" },
      h("h2", {}, made.name, " ", h("span", { class: "quiet" }, made.kind === made.name ? "" : made.kind)),
      h("pre", { class: "command" }, h("code", {}, made.command)),
      facts([
        ["made", made.created.replace("T", " ").replace("+00:00", " UTC")],
        ["took", number(made.seconds) + "\u202fs"],
        ["on", made.device],
        made.seed !== null && ["seed", String(made.seed)],
        ["content", h("code", { class: "digest" }, made.digest.slice(0, 16)), made.digest],
      ]),
      Object.keys(made.options).length > 0 && h("details", {}, h("summary", {}, "Options"),
        table("Options of " + made.name, ["option", "value"], Object.entries(made.options).map(([k, v]) => [rowHead(k.replace(/_$/, "").replaceAll("_", "-")), cell(typeof v === "string" ? v : JSON.stringify(v))]), { hideCaption: true })))),
    section("This page", h("ul", { class: "plain-list" },
      h("li", {}, count(page.examples.length, "sample") + " with pages; " + count(method.prototypes, "sample") + " per tail of a feature at most."),
      h("li", {}, count(method.dead, "feature") + " of the network are constant over the training samples and carry no weight."),
      h("li", {}, "It sends and fetches nothing: its content security policy forbids both.")),
      h("button", { type: "button", onclick: save }, "Save the data as JSON")),
    section("Versions", table("Versions", ["package", "version"], Object.entries(method.versions).map(([k, v]) => [rowHead(k), cell(v)]), { hideCaption: true })),
  ];
}
