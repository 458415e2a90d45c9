"use strict";
// Answers in this browser's own storage, one entry per answer: a second window, or a page whose writes another process
// of the browser has not passed on yet, then never overwrites an answer with the state it read before.

const study = document.body.dataset.study;
const keyOf = (name) => "debugnet-study:" + study + ":" + name;

function load(name) {
  try {
    return JSON.parse(localStorage.getItem(keyOf(name)));
  } catch {
    return null;
  }
}
const loadAnswer = (task) => load("answer:" + task);
const loadWorker = () => load("worker") || "";

function save(name, value) {
  try {
    localStorage.setItem(keyOf(name), JSON.stringify(value));
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
