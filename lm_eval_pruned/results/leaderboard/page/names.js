// Names of models, runs and benchmarks: short where that is clear, broken between their words alone.

// A name from right to left does not turn around what stands beside it.
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const isolated = (text) => (RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text);

const partsOf = (model) => model.split("/").filter((part) => part);
const MODELS = [...new Set(DATA.runs.map((run) => run.model))];
const SHORT = new Map(MODELS.map((model) => [model, shortened(model)]));

// Of a path the last two parts, or as many as tell it from the others.
function shortened(model) {
  const parts = partsOf(model);
  const others = MODELS.filter((other) => other !== model).map(partsOf);
  for (let count = 2; count < parts.length; count += 1) {
    const tail = parts.slice(-count).join("/");
    if (!others.some((other) => other.slice(-count).join("/") === tail)) return `…/${tail}`;
  }
  return model;
}

// The model of a run, where it does not go without saying.
function modelName(run) {
  return HAS_MODELS || run.published ? isolated(SHORT.get(run.model)) : "";
}

function sourceName(run) {
  return run.published ? `published: ${isolated(run.source)}` : "";
}

function methodName(run) {
  return [run.method, run.alloc, run.amount, run.others, run.settings].filter((word) => word).join(" ");
}

function runName(run) {
  return [modelName(run), methodName(run), sourceName(run)].filter((word) => word).join(" · ");
}

const metricName = (line) => line.metric.replace("area of ", "");

function benchmarkName(line) {
  const metric = metricName(line);
  return [line.benchmark, metric === "acc" ? "" : metric, line.filter === "none" ? "" : line.filter]
    .filter((word) => word)
    .join(" · ");
}

function budgetName(line) {
  return line.area ? "area" : line.budget === null ? "" : `budget ${line.budget}`;
}

// Text that may be broken after / - _ and nowhere else inside a word.
function broken(text) {
  return text.split(/(?<=[/\\_-])/).flatMap((part, place) => (place ? [html("wbr"), part] : [part]));
}

// A model with its owner in a softer colour; what is left out of a path is said on hover and tap.
function modelNode(run) {
  const short = SHORT.get(run.model);
  const end = short.lastIndexOf("/", short.length - 2) + 1;
  const owner = end ? [html("span", { class: "owner" }, ...broken(short.slice(0, end))), html("wbr")] : [];
  const node = html("bdi", { class: "name", title: run.model }, ...owner, ...broken(short.slice(end)));
  if (short !== run.model) explain(node, [run.model]);
  return node;
}
