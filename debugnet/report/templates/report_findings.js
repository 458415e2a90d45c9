// What debugging found: errors, pairs, counterfactuals, edits, and two heads side by side.

function errorsPage() {
  const errors = page.errors;
  if (!errors) return [h("h1", {}, "Errors"), absent("The errors were not diagnosed.", page.commands.errors)];
  const fixes = Object.entries(errors.fixed_by_one_feature);
  const widest = Math.max(1, ...errors.groups.map((g) => g.errors));
  const suspects = errors.suspects.filter((s) => s.suspect);
  const listed = suspects.length ? suspects.slice(0, 25) : errors.suspects.slice(0, 8);
  const reach = Math.max(1, ...listed.map((s) => Math.max(s.fixed, s.broken)));
  return [
    h("h1", {}, "Errors"),
    h("p", { class: "lead" }, count(errors.errors, "error") + " on " + errors.split + ", grouped by the feature that pushes most towards the wrong class."),
    facts([["accuracy", rate(errors.accuracy), rateTitle(errors.accuracy)],
      ...fixes.map(([off, row]) => ["repaired by turning one feature off (" + (off === "mean" ? "to its mean" : "to zero") + ")", rate(row), rateTitle(row)]),
      ["the paper, robust ImageNet", percent(errors.published_fixable, 0)]]),
    errors.never_predicted.length > 0 && h("p", { class: "warning" }, "Never predicted: ", errors.never_predicted.map((name, i) => [i ? ", " : "", classLink(name)])),
    section("Behind the errors",
      table("Features by the errors they dominate", ["feature", ["", "wide"], ["errors", "number"], ["repaired", "number"], "mostly"],
        errors.groups.slice(0, 40).map((g) => [rowHead(featureName(g.feature)), barCell(0, g.errors, 0, widest, "neutral"),
          numberCell(number(g.errors)), numberCell(number(g.fixed)),
          cell(g.pairs.slice(0, 2).map((p, i) => [i ? "; " : "", p.true, " \u2192 ", p.predicted, h("span", { class: "quiet" }, " (" + number(p.errors) + ")")]))]), { class: "bars", hideCaption: true })),
    section(suspects.length ? "Suspects" : "No suspects",
      h("p", {}, suspects.length ? "The layer leans on these features more than the samples of " + errors.split + " bear out (corrected p < " + number(errors.threshold) + "): a shortcut looks like this. Beside it, what removing each one alone would do."
        : "The layer leans on no feature more than the samples of " + errors.split + " bear out, beyond chance (corrected p < " + number(errors.threshold) + "). The closest ones, and what removing each would do:"),
      suspects.filter((s) => s.misled).map((s) => h("p", {}, featureLink(s.feature), " misleads " + count(s.misled, "sample") + " to ", classLink(s.towards),
        (s.companions || []).length > 0 && ["; with it go ", s.companions.slice(0, 12).map((c, i) => [i ? ", " : "", featureLink(c.feature)])], ".")),
      table("What removing each feature does", ["feature", ["repairs", "wide"], ["", "number"], ["breaks", "wide"], ["", "number"], ["p", "number"]],
        listed.map((s) => [rowHead(featureName(s.feature)), barCell(0, s.fixed, 0, reach, "good"), numberCell(number(s.fixed)), barCell(0, s.broken, 0, reach, "against"), numberCell(number(s.broken)), numberCell(number(s.p_value, 2))]), { class: "bars", hideCaption: true })),
    errors.groups.filter((g) => g.examples.length).slice(0, 12).map((g) => section(
      ["Errors dominated by ", featureLink(g.feature)], strip(...g.examples.slice(0, 8).map((i) => exampleCard(page.examples[i]))))),
  ];
}

async function pairsPage() {
  const pairs = page.pairs;
  if (!pairs) return [h("h1", {}, "Pairs"), absent(page.mirrored || page.classes.length < 2 ? "This head has no pairs of classes." : "Pairs of classes were not compared.", page.mirrored ? null : page.commands.pairs)];
  const shared = await part("pairs");
  const holder = h("div", {});
  const r = pairs.correlation;
  return [
    h("h1", {}, "Pairs of classes"),
    h("p", { class: "lead" }, "Are classes that share features confused with each other? On " + pairs.split + ", over " + count(r.n_pairs, "pair") + ": ",
      isNumber(r.r) ? [h("b", {}, r.method + " r = " + fixed(r.r)), ", " + pValue(r.p_value) + " (classes permuted). The paper: " + fixed(pairs.published.standard) + " and " + fixed(pairs.published.robust) + "."] : "one of the two does not vary."),
    confusionPlot(pairs),
    section("Confused pairs", pairs.confused_pairs.length ? table("Pairs by confusion rate", ["pair", ["", "wide"], ["confused", "number"], ["there / back", "number"], ["overlap (" + pairs.overlap + ")", "number"]],
      pairs.confused_pairs.map((row) => [rowHead(classLink(row.classes[0]), " / ", classLink(row.classes[1])), barCell(0, row.confusion, 0, pairs.confused_pairs[0].confusion, "neutral"), numberCell(percent(row.confusion)), numberCell(row.counts.join(" / ")), numberCell(fixed(row.overlap))]), { class: "bars", hideCaption: true }) : h("p", {}, "No two classes are confused.")),
    section("Shared features", shared.length ? h("p", {}, "Both classes give the feature a large weight: do their strongest samples show a common pattern, and is it part of the object? ",
      pairs.n_shared > pairs.shown && count(pairs.shown, "strongest one") + " of " + number(pairs.n_shared) + ".") : h("p", {}, "No two classes share a feature above the threshold."),
    holder, shared.length > 0 && more(shared, sharedCard, holder, 12)),
  ];
}

function sharedCard(row) {
  return h("article", { class: "shared" }, h("h3", {}, classLink(row.classes[0]), " and ", classLink(row.classes[1]), " share ", featureLink(row.feature)),
    h("div", { class: "columns" }, row.samples.map((samples, side) => h("div", {}, h("p", { class: "quiet" }, row.classes[side] + ", weight " + signed(row.weights[side])),
      strip(...samples.map((s) => sampleCard(s, sampleLink(s.id), { alt: "a sample of " + row.classes[side] + " that activates feature " + row.feature }))))))); 
}

function confusionPlot(pairs) {
  const rows = pairs.confused_pairs;
  if (rows.length < 3 || new Set(rows.map((row) => row.overlap)).size < 2) return null;
  const { root, X, Y } = frame({ low: 0, high: Math.max(0.01, ...rows.map((row) => row.overlap)) * 1.05, title: "overlap of the features (" + pairs.overlap + ")" },
    { low: 0, high: Math.max(...rows.map((row) => row.confusion)) * 1.08, title: "confusion rate", format: (v) => percent(v, 0) },
    "Confusion rate against feature overlap of the " + rows.length + " most confused pairs", [640, 300]);
  const named = [];
  rows.forEach((row) => {
    const dot = svg("circle", { class: "scatter", cx: X(row.overlap), cy: Y(row.confusion), r: 5 }, svg("title", {}, row.classes.join(" / ") + ": " + percent(row.confusion)));
    root.append(dot);
    if (named.length < 3 && named.every((y) => Math.abs(y - Y(row.confusion)) > 16)) {
      named.push(Y(row.confusion));
      const right = X(row.overlap) > 420;
      root.append(svg("text", { class: "tick", x: X(row.overlap) + (right ? -9 : 9), y: Y(row.confusion) + 4, "text-anchor": right ? "end" : "start" }, clip(row.classes.join(" / "), 36)));
    }
  });
  return h("figure", { class: "chart" }, root, h("figcaption", {}, "The confused pairs; the numbers are in the table below."));
}

function counterfactualsPage() {
  if (!page.counterfactuals.length) return [h("h1", {}, "Counterfactuals"), absent("No counterfactual was tried.", page.commands.counterfactuals)];
  return [h("h1", {}, "Counterfactuals"), page.counterfactuals.map((c) => (c.kind === "text" ? textCounterfactual(c) : imageCounterfactual(c)))];
}

function counterfactualTitle(found, title) {
  return page.counterfactuals.length > 1 ? title + ": " + found.name : title;
}

function rateTable(caption, rows) {
  return table(caption, ["", ["", "wide"], ["flips", "number"], ["of", "number"]],
    rows.filter(([, row]) => row && row.n).map(([name, row, kind]) => [rowHead(name), whiskerCell(row, 0, 1, kind), numberCell(rate(row), rateTitle(row)), numberCell(number(row.n))]), { class: "bars" });
}

function textCounterfactual(found) {
  const layers = Object.entries(found.rates.layers);
  const flipped = found.rows.filter((row) => row.flipped !== undefined);
  const holder = h("div", { class: "diffs" });
  return section(counterfactualTitle(found, "One word exchanged"),
    h("p", {}, "One word of a sentence is exchanged for one from the clouds of a feature that the decision rests on. The control exchanges a word of like frequency."),
    rateTable("How often the decision flips, where every layer has a counterfactual, with 95% intervals", layers.flatMap(([name, layer]) => [
      [name + ": a word of the clouds", layer.common.flip], [name + ": control", layer.common.control, "control"]])),
    found.rates.search && h("p", {}, "Searched for: " + rate(found.rates.search.flipped) + " of the sentences flip with a few words exchanged."),
    found.rates.insertions && insertionTable(found.rates.insertions),
    flipped.length > 0 && h("h3", {}, "Sentences"), holder, more(flipped, textDiff, holder, 20),
    found.search.length > 0 && searched(found.search));
}

function searched(rows) {
  const holder = h("div", { class: "diffs" });
  return [h("h3", {}, "The fewest words that bring a sentence to another class"), holder, more(rows, searchDiff, holder, 20)];
}

function searchDiff(row) {
  return h("article", { class: "diff" },
    h("p", { class: "text" }, markedWords(row.before, row.after, "del")),
    h("p", { class: "text" }, markedWords(row.after, row.before, "ins")),
    h("p", { class: "quiet" }, row.from, row.flipped ? h("b", {}, " becomes ") : " does not become ", row.to, " \u00b7 ", row.edits.length === 1 ? "1 word" : row.edits.length + " words", " \u00b7 ", sampleLink(row.id)));
}

// Mark the words of `text` that differ from those of `other` at the same place: a substitution moves no other word.
function markedWords(text, other, tag) {
  const against = other.split(/(\s+)/);
  return text.split(/(\s+)/).map((word, i) => (word === against[i] ? word : h(tag, {}, word)));
}

function textDiff(row) {
  return h("article", { class: "diff" },
    h("p", { class: "text" }, markedWords(row.before, row.after || row.before, "del")),
    h("p", { class: "text" }, markedWords(row.after || row.before, row.before, "ins")),
    h("p", { class: "quiet" }, row.layer, ": ", row.predicted, row.flipped ? h("b", {}, " flips") : " stays", row.edit && row.edit.feature !== undefined && [" \u00b7 ", featureLink(row.edit.feature)], " \u00b7 ", sampleLink(row.id)));
}

function insertionTable(rows) {
  return table("Inserting a word into every sentence", ["word", ["", "wide"], ["flips (sparse)", "number"], ["flips (dense)", "number"], "mostly"],
    rows.slice(0, 40).map((row) => [rowHead(row.word, row.unknown_to_the_network && h("span", { class: "chip warn" }, "unknown to the network")), whiskerCell(row.sparse, 0, 1), numberCell(rate(row.sparse)), numberCell(rate(row.dense)),
      cell((row.sparse.to || []).slice(0, 1).map((t) => t.from + " \u2192 " + t.to))]), { class: "bars" });
}

function imageCounterfactual(found) {
  const rates = found.rates;
  return section(counterfactualTitle(found, "A pattern put in"),
    h("p", {}, "The pattern \u201c" + rates.pattern + "\u201d, which covers " + percent(rates.area) + " of a picture, put into images of other classes: does the decision become ", classLink(rates.target), "? The control puts the same colours there in random order."),
    rateTable("How often the decision becomes " + rates.target + ", with 95% intervals", [["the pattern", rates.flip], ["random pattern", rates.control, "control"]]),
    Object.entries(found.pictures).map(([name, reference]) => photo(reference, name + ": the pattern, and images before and after it was put in", "sheet")),
    found.rows.length > 0 && h("details", {}, h("summary", {}, "Images"), table("Decisions before and after", ["image", "before", "after", ["random patterns that flip it", "number"]],
      found.rows.map((row) => [rowHead(sampleLink(row.id)), cell(classLink(row.before)), cell(classLink(row.after), row.flipped && " \u2713"), numberCell(number(row.controls_flipped))]))));
}

function editsPage() {
  if (!page.edits.length) return [h("h1", {}, "Edits and audits"), absent("No edited head lies beside this one.", page.commands.edits)];
  return [h("h1", {}, "Edits and audits"), page.edits.map(auditSection)];
}

function auditSection(audit) {
  const rows = audit.groups || audit.classes;
  return section(audit.name,
    h("pre", { class: "command" }, h("code", {}, audit.command)),
    h("p", {}, "Audited on " + audit.audited_on + " (" + count(audit.n, "sample") + ")", audit.chosen_on ? ", chosen on " + audit.chosen_on : "", "."),
    audit.same_samples && h("p", { class: "warning" }, "The edits were chosen on these very samples: the figures flatter them."),
    facts([["before", rate(audit.before), rateTitle(audit.before)], ["after", rate(audit.after), rateTitle(audit.after)], ["fixed", number(audit.fixed.n)], ["broken", number(audit.broken.n)], ["McNemar", pValue(audit.mcnemar_p)],
      audit.worst_group && ["worst group", audit.worst_group.before.name + " " + rate(audit.worst_group.before.before) + " \u2192 " + audit.worst_group.after.name + " " + rate(audit.worst_group.after.after)]]),
    table("Edits", ["what", "feature", "class", "to", "note"], audit.edits.map((edit) => [rowHead(edit.action), cell(featureLink(edit.feature)), cell(edit.output ? classLink(edit.output) : "all"), cell(edit.value === null || edit.value === undefined ? "" : number(edit.value)), cell(edit.note || "")])),
    beforeAfter("Accuracy before and after, by " + (audit.groups ? "group" : "class"), rows),
    changedSamples(audit));
}

function beforeAfter(caption, rows) {
  return table(caption, ["", ["before", "wide"], ["", "number"], ["after", "wide"], ["", "number"], ["fixed", "number"], ["broken", "number"]],
    rows.map((row) => [rowHead(classIndex.has(row.name) ? classLink(row.name) : row.name), whiskerCell(row.before, 0, 1), numberCell(rate(row.before), rateTitle(row.before)), whiskerCell(row.after, 0, 1, "after"), numberCell(rate(row.after), rateTitle(row.after)), numberCell(number(row.fixed)), numberCell(number(row.broken))]), { class: "bars" });
}

function changedSamples(found) {
  return ["fixed", "broken"].map((kind) => found[kind].examples.length > 0 && [h("h3", {}, kind === "fixed" ? "Now right" : "Now wrong"), strip(...found[kind].examples.slice(0, 10).map((i) => exampleCard(page.examples[i])))]);
}

function comparePage(query) {
  if (!page.compare.length) return [h("h1", {}, "Compare"), absent("No other head of the same features lies beside this one.", page.commands.edits)];
  const state = { head: query.get("head") || "0" };
  const holder = h("div", {});
  const draw = () => {
    const found = page.compare[+state.head] || page.compare[0];
    holder.replaceChildren(...compared(found).flat(3).filter((child) => child instanceof Node));
    replaceQuery("compare", state);
  };
  draw();
  return [h("h1", {}, "Two heads"), page.compare.length > 1 && h("form", { class: "controls" }, selectField("Beside", "head", page.compare.map((c, i) => [i, c.name]), state, draw)), holder];
}

function compared(found) {
  const size = Math.max(1e-12, ...found.weights.flatMap((row) => [Math.abs(row.first), Math.abs(row.second)]));
  const pair = (title, a, b) => [rowHead(title), numberCell(a), numberCell(b)];
  return [
    h("p", { class: "lead" }, "This head and ", h("b", {}, found.name), " on the same " + count(page.home.n, "sample") + " of " + page.split + "."),
    table("Two heads side by side", ["", ["this head", "number"], [found.name, "number"]], [
      pair("accuracy", rate(found.before), rate(found.after)), pair("weights", number(found.nnz[0]), number(found.nnz[1])),
      pair("features in use", number(found.features[0]), number(found.features[1])), pair("features per class", number(found.per_class[0]), number(found.per_class[1])),
      pair("right where the other is wrong", number(found.broken.n), number(found.fixed.n))], { hideCaption: true }),
    h("p", { class: "quiet" }, "McNemar's exact test of the two accuracies: " + pValue(found.mcnemar_p) + "."),
    changedSamples(found),
    section("Weights that differ", h("p", {}, number(found.counts.added) + " added, " + number(found.counts.removed) + " removed, " + number(found.counts.changed) + " changed."),
      table("Weights that differ, largest difference first", ["class", "feature", ["this head", "wide"], ["", "number"], [found.name, "wide"], ["", "number"]],
        found.weights.slice(0, 60).map((row) => [rowHead(classLink(row.output)), cell(featureLink(row.feature)), barCell(0, row.first, -size, size), numberCell(signed(row.first)), barCell(0, row.second, -size, size), numberCell(signed(row.second))]), { class: "bars", hideCaption: true }),
      found.n_weights > 60 && h("p", { class: "quiet" }, count(found.n_weights - 60, "more", "more"))),
    section("By " + (found.groups ? "group" : "class"), beforeAfter("Accuracy of this head (before) and of " + found.name + " (after)", found.groups || found.classes)),
  ];
}
