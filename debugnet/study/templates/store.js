"use strict";
// Answers in this browser's own database, one entry per answer.  A page goes on only after its write is committed, so that
// the next one finds it: localStorage hands writes on to the next page's process late, and sometimes not at all.

const study = document.body.dataset.study;
const TABLE = "answers";
const database = new Promise((resolve, reject) => {
  const opening = indexedDB.open("debugnet-study:" + study, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(TABLE);
  opening.onsuccess = () => resolve(opening.result);
  opening.onerror = () => reject(opening.error);
});
database.catch(() => {}); // whoever needs it says so

async function inTable(mode, work) {
  const transaction = (await database).transaction(TABLE, mode);
  const request = work(transaction.objectStore(TABLE));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

async function load(name) {
  try {
    return await inTable("readonly", (table) => table.get(name));
  } catch {
    return undefined;
  }
}
const loadAnswer = (task) => load("answer:" + task);
const loadWorker = async () => (await load("worker")) || "";

async function save(name, value) {
  try {
    await inTable("readwrite", (table) => table.put(value, name));
    return true;
  } catch {
    complain("This browser keeps no answers for pages from disk. Use another browser, or serve the folder from a web server.");
    return false;
  }
}

function complain(text) {
  const problem = document.getElementById("problem");
  problem.textContent = text;
  problem.hidden = !text;
}
