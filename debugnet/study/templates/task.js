const form = document.getElementById("answer");
const { task, next, post } = document.body.dataset;
const fields = ["choice", "confidence", "description", "part_1", "part_2"];

async function restore() {
  const given = await loadAnswer(task);
  if (!given) return;
  for (const name of fields) {
    const field = form.elements[name];
    if (field !== undefined && field !== null && given[name] !== undefined) field.value = given[name];
  }
  document.getElementById("saved").textContent = given.choice ? "answered" : "left blank";
}

async function keep(blank) {
  const data = new FormData(form);
  const answer = { task };
  for (const name of fields) answer[name] = blank ? "" : String(data.get(name) || "");
  if (!blank && !answer.choice) return complain("Choose an answer first, or leave the task blank.");
  if (!blank && answer.confidence === "") return complain("Say how sure you are.");
  if (await save("answer:" + task, answer)) location.href = next;
}

// On a crowd platform the page's address names the worker, and the form is posted.
const address = new URLSearchParams(location.search);
form.elements.assignmentId.value = address.get("assignmentId") || "";
form.addEventListener("submit", (event) => {
  if (post) return;
  event.preventDefault();
  keep(false);
});
document.getElementById("skip").addEventListener("click", () => {
  if (!post) return keep(true);
  for (const name of fields) for (const field of form.querySelectorAll("[name=" + name + "]")) field.checked = false;
  form.submit();
});
async function begin() {
  form.elements.worker.value = address.get("workerId") || address.get("PROLIFIC_PID") || (await loadWorker());
  if (!post) await restore();
  document.documentElement.dataset.ready = "true";
}
begin();
