"use strict";
// Answers in this browser's own storage: one entry per study.

const study = document.body.dataset.study;
const place = "debugnet-study:" + study;

function load() {
  try {
    return JSON.parse(localStorage.getItem(place)) || { worker: "", answers: {} };
  } catch {
    return { worker: "", answers: {} };
  }
}

function save(state) {
  try {
    localStorage.setItem(place, JSON.stringify(state));
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
