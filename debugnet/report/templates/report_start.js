// Routes, navigation, theme.

const routes = {
  "": ["Home", homePage],
  features: ["Features", featuresPage],
  classes: ["Classes", classesPage],
  pairs: ["Pairs", pairsPage],
  errors: ["Errors", errorsPage],
  examples: ["Samples", examplesPage],
  counterfactuals: ["Counterfactuals", counterfactualsPage],
  edits: ["Edits and audits", editsPage],
  compare: ["Compare", comparePage],
  method: ["Method", methodPage],
};
const single = { feature: ["features", featurePage], class: ["classes", classPage], example: ["examples", examplePage] };
const present = {
  pairs: page.pairs, errors: page.errors, counterfactuals: page.counterfactuals.length, edits: page.edits.length, compare: page.compare.length,
};

function unknownPage() {
  return [h("h1", {}, "Not in this report"), h("p", {}, "There is no such page here. ", h("a", { href: "#/" }, "Home"))];
}

function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  return { name, id, query: new URLSearchParams(query || "") };
}

function replaceQuery(name, state) {
  if (parse(location.hash).name !== name) return;
  const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value !== "" && value !== "all" && value !== "any"));
  const text = query.toString();
  history.replaceState(null, "", "#/" + name + (text ? "?" + text : ""));
}

function navigation() {
  document.getElementById("nav").replaceChildren(h("ul", {}, Object.entries(routes).map(([name, [title]]) =>
    h("li", {}, h("a", { href: "#/" + name, data: { route: name }, class: name in present && !present[name] ? "empty" : undefined }, title)))));
}

let visit = 0;

async function show(first) {
  const { name, id, query } = parse(location.hash);
  const mine = ++visit;
  canvases.clear();
  const chosen = Object.hasOwn(single, name) ? single[name] : null;
  const known = chosen || (Object.hasOwn(routes, name) ? routes[name] : null);
  const content = !known ? unknownPage() : chosen ? await chosen[1](/^\d+$/.test(id || "") ? +id : -1) : await known[1](query);
  if (mine !== visit) return;
  const main = document.getElementById("main");
  main.replaceChildren(...content.flat(3).filter((child) => child instanceof Node));
  const heading = main.querySelector("h1");
  document.title = [...new Set([heading.textContent, page.title, "debugnet"])].join(" \u00b7 ");
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.route === (chosen ? chosen[0] : name)) link.setAttribute("aria-current", chosen ? "true" : "page");
    else link.removeAttribute("aria-current");
  }
  if (!first) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function stored(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch {
    return null; // a browser may forbid storage to pages from disk
  }
  return value;
}

function themeControl() {
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  const chosen = stored("debugnet-theme") || "auto";
  apply(chosen);
  const choice = h("select", { id: "theme-choice", onchange: (event) => { apply(event.target.value); stored("debugnet-theme", event.target.value); } },
    [["auto", "as the system"], ["light", "light"], ["dark", "dark"]].map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  document.getElementById("theme").replaceChildren(h("label", { for: "theme-choice" }, "Colours"), choice);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
navigation();
themeControl();
globalThis.addEventListener("hashchange", () => during(show(false)));
during(show(true)).then(() => { document.documentElement.dataset.opened = String(Math.round(performance.now())); });
