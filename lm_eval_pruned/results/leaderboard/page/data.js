"use strict";

// What the page shows, and the few ways to build elements from it. Text of models goes into text nodes only.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LINES = DATA.lines.map((row, index) => ({
  ...Object.fromEntries(DATA.columns.map((name, column) => [name, row[column]])),
  index,
}));
for (const line of LINES) {
  line.id = line.run;
  line.run = DATA.runs[line.id];
}
const HAS_MODELS = new Set(DATA.runs.filter((run) => !run.published).map((run) => run.model)).size > 1;
const NONE = "–";

function find(id) {
  return document.getElementById(id);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function html(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

// Text in order, with the numbers in it as numbers: 0.02 before 0.1, and that before 2.
function compareTexts(one, other) {
  const [left, right] = [one, other].map((text) => text.split(/(\d+(?:\.\d+)?)/));
  for (let place = 0; place < Math.min(left.length, right.length); place += 1) {
    const order = place % 2 ? left[place] - right[place] : left[place].localeCompare(right[place], "en");
    if (order) return order;
  }
  return left.length - right.length;
}

function isSignificant(line) {
  return line.p_holm !== null && line.p_holm < DATA.alpha;
}

// Whether a sweep stopped asking before the end.
function isStopped(line) {
  return line.stopped_at !== null;
}

function middle(low, high) {
  return low === null || high === null ? null : (low + high) / 2;
}

// Whether a change is for the better; null where nobody knows.
function isBetter(line, change) {
  return line.higher_is_better === null || !change ? null : change > 0 === line.higher_is_better;
}

function directionWords(line) {
  if (line.higher_is_better === true) return "";
  return line.higher_is_better === false ? "↓ lower is better" : "direction unknown";
}
