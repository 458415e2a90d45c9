// The list of features, and the page of one.

function strongest(entry) {
  return entry.weights.length ? Math.abs(entry.weights[0][1]) : 0;
}
function trustText(entry) {
  if (entry.checked) return number(entry.stable) + " of " + number(entry.checked);
  return entry.explained ? "yes" : missing;
}

function featuresPage(query) {
  const state = {
    q: query.get("q") || "", class: query.get("class") || "", sign: query.get("sign") || "any",
    only: query.get("only") || "all", sort: query.get("sort") || "weight",
  };
  const holder = h("tbody", {});
  const tail = h("p", {});
  const status = h("p", { role: "status", class: "quiet" });
  const hasWords = page.features.some((f) => f.positive || f.negative);
  const hasPictures = page.features.some((f) => f.picture);
  const hasShare = page.features.some((f) => isNumber(f.share));
  const draw = () => {
    const found = filterFeatures(state);
    holder.replaceChildren();
    tail.replaceChildren(more(found, (entry) => featureRow(entry, { hasWords, hasShare, hasPictures }, state), holder, 100));
    status.textContent = count(found.length, "feature") + (found.length < page.features.length ? " of " + number(page.features.length) : "");
    replaceQuery("features", state);
  };
  const controls = h("form", { class: "controls", role: "search", onsubmit: (event) => event.preventDefault() },
    h("span", { class: "field grow" }, h("label", { for: "q" }, "Search"),
      h("input", { id: "q", type: "search", value: state.q, placeholder: "number, class, word, note", oninput: (event) => { state.q = event.target.value; draw(); } })),
    selectField("Class", "class", [["", "any"], ...page.classes.map((e, k) => [k, e.name])], state, draw),
    selectField("Speaks", "sign", [["any", "for or against"], ["for", "for it"], ["against", "against it"]], state, draw),
    selectField("Only", "only", [["all", "all features"], ["explained", "explained"], ["unstable", "explanations doubtful"], ["rare", "selected in under half"], ["suspect", "suspects"], ...(page.opposite ? [] : [["shared", "shared by classes"]]), ["noted", "with a note"]], state, draw),
    selectField("Order", "sort", [["weight", "largest weight"], ["classes", "most classes"], ["share", "least often selected"], ["r2", "best explained"], ["id", "number"]], state, draw));
  draw();
  return [
    h("h1", {}, "Features"),
    !page.features.some((f) => f.explained) && absent("The features are not explained yet: only their extreme samples are shown.", page.commands.explanations),
    controls, status,
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Features" }, h("table", { class: "features" },
      h("caption", { class: "hidden" }, "Features with the classes they speak for and against"),
      h("thead", {}, h("tr", {}, [hasPictures && ["", "pic"], ["feature"], [page.task === "regression" ? "outputs" : "for and against"], hasWords && ["raised by", ""], hasWords && ["lowered by", ""], ["checks passed", "number"], hasShare && ["selected", "number"]].filter(Boolean).map(([t, k]) => h("th", { scope: "col", class: k }, t || h("span", { class: "hidden" }, "picture"))))),
      holder)),
    tail,
  ];
}

function filterFeatures(state) {
  const wanted = state.q.trim().toLowerCase();
  const k = state.class === "" ? null : +state.class;
  const filters = {
    all: () => true,
    explained: (f) => f.explained,
    unstable: (f) => f.checked && f.stable < f.checked / 2,
    rare: (f) => isNumber(f.share) && f.share < 0.5,
    suspect: (f) => f.suspect,
    shared: (f) => f.weights.length > (page.opposite ? 2 : 1),
    noted: (f) => f.note,
  };
  const keep = filters[state.only] || filters.all;
  const matches = (f) => !wanted || String(f.id) === wanted || ("feature " + f.id).startsWith(wanted) ||
    [...(f.positive || []), ...(f.negative || []), f.note || "", ...f.weights.map(([c]) => className(c))].some((t) => t.toLowerCase().includes(wanted));
  const weightFor = (f) => (k === null ? strongest(f) : Math.abs((f.weights.find(([c]) => c === k) || [0, 0])[1]));
  const orders = {
    weight: (a, b) => weightFor(b) - weightFor(a),
    classes: (a, b) => b.weights.length - a.weights.length || weightFor(b) - weightFor(a),
    share: (a, b) => (a.share ?? 2) - (b.share ?? 2),
    r2: (a, b) => (b.r2 ?? -1) - (a.r2 ?? -1),
    id: (a, b) => a.id - b.id,
  };
  return page.features.filter((f) => keep(f) && matches(f) && f.weights.some(([c, w]) =>
    (k === null || c === k) && (state.sign === "any" || (state.sign === "for") === w > 0))).sort(orders[state.sort] || orders.weight);
}

function featureRow(entry, { hasWords, hasShare, hasPictures }, state) {
  const chosen = state.class === "" ? [] : entry.weights.filter(([c]) => c === +state.class);
  const rest = entry.weights.filter(([c]) => !chosen.some(([d]) => c === d));
  return h("tr", {},
    hasPictures && h("td", { class: "pic" }, entry.picture && h("a", { href: "#/feature/" + entry.id, tabindex: "-1", "aria-hidden": "true" }, photo(entry.picture, "", "thumb"))),
    rowHead(featureLink(entry.id), entry.suspect && h("span", { class: "chip warn" }, "suspect"), entry.note && h("span", { class: "quiet block" }, clip(entry.note, 80))),
    cell(chips([...chosen, ...rest], 4)),
    hasWords && cell(h("span", { class: "words" }, (entry.positive || []).slice(0, 5).join(", "))),
    hasWords && cell(h("span", { class: "words" }, (entry.negative || []).slice(0, 5).join(", "))),
    numberCell(trustText(entry), isNumber(entry.r2) ? "median R\u00b2 " + fixed(entry.r2) : undefined),
    hasShare && numberCell(percent(entry.share, 0)));
}

function chips(all, most) {
  const weights = page.opposite ? all.filter(([, w]) => w > 0) : all; // for one of two classes is against the other
  return h("span", { class: "chips" }, weights.slice(0, most).map(([k, w]) =>
    h("a", { class: "chip " + (w > 0 ? "for" : "against"), href: "#/class/" + k }, (w > 0 ? "+ " : "\u2212 ") + className(k))),
  weights.length > most && h("span", { class: "quiet" }, " and " + number(weights.length - most) + " more"));
}

async function featurePage(id) {
  const entry = featureIndex.get(id);
  if (!entry) return unknownPage();
  const found = await part("f" + id);
  const at = page.features.indexOf(entry);
  const lime = ["positive", "negative"].some((side) => found.sides[side].prototypes.some((p) => p.lime && p.lime.map));
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/features" }, "Features"), neighbours("feature", at, page.features.length, (i) => page.features[i].id)),
    h("h1", {}, "Feature ", String(id)),
    note(entry.note),
    h("p", { class: "lead" }, chips(entry.weights, 12)),
    facts([
      ["classes", number(entry.weights.length)],
      ["largest weight", signed(entry.weights[0][1])],
      isNumber(entry.r2) && ["median R\u00b2", fixed(entry.r2), "how well the parts' effects add up to the feature's value"],
      entry.checked && ["explanations that passed every check", trustText(entry)],
      isNumber(entry.share) && ["selected in resamples", percent(entry.share, 0), "the least stable of its weights"],
      found.ablation && ["errors it dominates", number(found.ablation.errors_dominated)],
      found.ablation && ["removed: fixes / breaks", number(found.ablation.fixed) + " / " + number(found.ablation.broken)],
    ]),
    !entry.explained && absent("This feature is not explained: below are the samples of " + page.split + " that drive it to its extremes.", page.commands.explanations),
    cloudSection(found),
    lime && overlayControls(),
    tailSection(found.sides.positive, "positive", lime),
    tailSection(found.sides.negative, "negative", lime),
    visualizationSection(found),
    h("div", { class: "columns" },
      section("Weights", signedBars("Standardized weight of feature " + id + " for each class that uses it", entry.weights.slice(0, 30).map(([k, w]) => ({ head: classLink(k), value: w })), ["class", "weight"], { hideCaption: true })),
      section("Values", h("figure", { class: "chart" }, histogram(found.histogram, "Distribution of the feature over " + page.split + ", in standard deviations"),
        h("figcaption", {}, "over " + count(page.home.n, "sample") + " of " + page.split + ", in standard deviations of the training samples")),
        found.means.length > 0 && signedBars("Mean value over the samples of each class", found.means.map(([k, m]) => ({ head: classLink(k), value: m })), ["class", "mean"]))),
    wordTable(found),
    found.bias && section("Listed words", table("Share of the word list in the feature's clouds", ["side", ["share", "number"], "words"],
      found.bias.map((row) => [rowHead(row.side), numberCell(percent(row.share)), cell(row.matched.join(", "))]))),
    usesSection(id),
  ];
}

function tailSection(side, name, lime) {
  const title = name === "positive" ? "Highest values" : "Lowest values";
  if (!side.prototypes.length && !(side.sheets || []).length) return null;
  return section(title,
    side.prototypes.length > 0 && strip(...side.prototypes.map((prototype) => prototypeCard(prototype, lime))),
    (side.sheets || []).map((reference, i) => photo(reference, title + ", sheet " + (i + 1) + " of the explanations", "sheet")),
    trustTable(side.prototypes));
}

function prototypeCard(prototype, lime) {
  const label = "sample " + prototype.id + ", " + prototype.label + ", value " + signed(prototype.z) + " standard deviations";
  const caption = [h("b", {}, signed(prototype.z) + "\u202fsd"), " ", classIndex.has(prototype.label) ? classLink(prototype.label) : prototype.label];
  if (prototype.lime && prototype.lime.map) {
    const doubt = prototype.lime.flags && prototype.lime.flags.length > 0;
    return sampleCard(prototype, [...caption, doubt && h("span", { class: "chip warn", title: prototype.lime.flags.join("; ") }, "doubtful")],
      { body: overlay(prototype, label + "; superpixels tinted by effect, R squared " + fixed(prototype.lime.r2)) });
  }
  if (prototype.lime && prototype.lime.pieces) {
    return h("figure", { class: "sample textual" }, markedText(prototype.lime.pieces, prototype.lime.limit), h("figcaption", {}, caption, prototype.lime.flags && prototype.lime.flags.length > 0 && h("span", { class: "chip warn", title: prototype.lime.flags.join("; ") }, "doubtful")));
  }
  return sampleCard(prototype, caption, { alt: label });
}

// The checks behind the pictures: the same facts as a table.
function trustTable(prototypes) {
  const checked = prototypes.filter((p) => p.lime);
  if (!checked.length) return null;
  const strongestParts = (p) => p.lime.words ? p.lime.words.slice(0, 5).map(([w, e]) => w + " " + signed(e)).join(", ")
    : p.lime.effects.map((e, i) => [i, e]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 4).map(([i, e]) => "no. " + i + " " + signed(e)).join(", ");
  return h("details", {}, h("summary", {}, "Effects and checks"),
    table("Effects of the strongest parts, in standard deviations, and the checks of each explanation",
      ["sample", ["value", "number"], "strongest parts", ["R\u00b2", "number"], ["halves agree", "number"], ["without the strongest", "number"], ["predicted", "number"], ["random parts", "number"], "verdict"],
      checked.map((p) => [rowHead(sampleLink(p.id)), numberCell(signed(p.z)), cell(strongestParts(p)), numberCell(fixed(p.lime.r2)), numberCell(fixed(p.lime.split_half)), numberCell(signed(p.lime.measured)), numberCell(signed(p.lime.predicted)), numberCell(signed(p.lime.random_mean)),
        cell(p.lime.flags && p.lime.flags.length ? p.lime.flags.join("; ") : "passed every check")])));
}

function cloudSection(found) {
  const { positive, negative } = found.sides;
  if (!positive.words && !negative.words) return null;
  const top = Math.max(...[positive, negative].flatMap((side) => (side.words || []).map(([, mean]) => Math.abs(mean))));
  return section("Words", h("div", { class: "columns clouds" },
    h("div", {}, h("h3", {}, "raise it"), cloud(positive.words, top, "for", "Words that raise the feature")),
    h("div", {}, h("h3", {}, "lower it"), cloud(negative.words, top, "against", "Words that lower the feature"))),
    h("p", { class: "quiet" }, "Both clouds have one scale: the largest word moves the feature by " + fixed(top) + " standard deviations."));
}

function wordTable(found) {
  if (!found.table) return null;
  const size = Math.max(...found.table.map((row) => Math.abs(row[1])));
  return h("details", { class: "wordtable" }, h("summary", {}, "All words with their effects (" + number(found.table.length) + (found.table_size > found.table.length ? " of " + number(found.table_size) : "") + ")"),
    table("Mean effect of each word on the feature, in standard deviations, with 95% intervals", ["word", ["", "wide"], ["effect", "number"], ["texts", "number"], ["interval", "number"]],
      found.table.map(([word, mean, n, low, high]) => [rowHead(word), barCell(0, mean, -size, size), numberCell(signed(mean)), numberCell(number(n)), numberCell(signed(low) + " to " + signed(high))]), { class: "bars" }));
}

function visualizationSection(found) {
  const shown = Object.entries(found.sides).filter(([, side]) => side.visualization);
  if (!shown.length) return null;
  return section("Images made to drive it", strip(...shown.map(([name, side]) => {
    const v = side.visualization;
    const caption = [h("b", {}, signed(v.activation) + "\u202fsd"), " ", name === "positive" ? "highest" : "lowest", isNumber(v.percentile) && h("span", { class: "quiet" }, " beyond " + number(v.percentile) + "\u202f% of samples")];
    return h("figure", { class: "sample" }, v.picture ? photo(v.picture, "image optimized for the " + name + " side of the feature") : h("span", { class: "nopicture", role: "img", "aria-label": "no image" }),
      h("figcaption", {}, v.failed ? h("span", { class: "chip warn" }, "failed: " + v.failed) : caption));
  })));
}

function usesSection(id) {
  const examples = page.examples.filter((e) => e.cause === id);
  if (!examples.length) return null;
  const holder = strip();
  return section("Decisions it dominates", holder, more(examples, exampleCard, holder, 12));
}
