const worker = document.getElementById("worker");
const links = [...document.querySelectorAll(".tasks a")];

async function refresh() {
  const answers = await Promise.all(links.map((link) => loadAnswer(link.dataset.task)));
  const done = answers.filter(Boolean);
  links.forEach((link, number) => {
    const given = answers[number];
    link.className = given ? (given.choice ? "answered" : "blank") : "";
    link.setAttribute("aria-label", link.textContent + (given ? (given.choice ? ", answered" : ", left blank") : ", open"));
  });
  document.getElementById("progress").textContent = done.length + " of " + links.length + " tasks answered";
  const open = links.find((link, number) => !answers[number]);
  const start = document.getElementById("start");
  start.href = (open || links[0]).getAttribute("href");
  start.textContent = done.length ? (open ? "Go on" : "Look again") : "Start";
}

let saving = Promise.resolve();
worker.addEventListener("input", () => {
  saving = save("worker", worker.value.trim());
});
for (const link of [...links, document.getElementById("start")]) {
  link.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab: this page stays
    event.preventDefault();
    await saving;
    location.href = link.href;
  });
}

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

async function sheet() {
  const name = worker.value.trim();
  if (!name) {
    complain("Write your name or number first: answers without one cannot be counted.");
    worker.focus();
    return null;
  }
  complain("");
  return { study, kind: document.body.dataset.kind, worker: name, answers: (await Promise.all(links.map((link) => loadAnswer(link.dataset.task)))).filter(Boolean) };
}
const fileName = (worker, ending) => "answers_" + study + "_" + worker.replace(/[^A-Za-z0-9-]+/g, "_") + ending;

document.getElementById("json").addEventListener("click", async () => {
  const found = await sheet();
  if (found) download(fileName(found.worker, ".json"), "application/json", JSON.stringify(found, null, 1));
});
document.getElementById("csv").addEventListener("click", async () => {
  const found = await sheet();
  if (!found) return;
  const columns = ["task", "worker", "choice", "confidence", "description", "part_1", "part_2"];
  const quote = (value) => (/[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value);
  const lines = found.answers.map((a) => columns.map((c) => quote(c === "worker" ? found.worker : a[c] || "")).join(","));
  download(fileName(found.worker, ".csv"), "text/csv", [columns.join(","), ...lines].join("\n") + "\n");
});
async function begin() {
  worker.value = await loadWorker();
  await refresh();
  document.documentElement.dataset.ready = "true";
}
begin();
addEventListener("pageshow", refresh);
setInterval(refresh, 1000); // another window may be answering
