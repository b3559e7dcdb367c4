// What is chosen on the page lives in the part of its address behind #, so that a view can be sent on.

const DEFAULTS = {
  sort: "", down: "", q: "", model: "", benchmark: "", method: "", alloc: "", amount: "", budget: "",
  runs: "", comparison: "", side: "", theme: "", columns: "",
};
const state = { ...DEFAULTS };

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(DEFAULTS)) state[name] = given.get(name) ?? DEFAULTS[name];
}

function writeState(changed) {
  Object.assign(state, changed);
  const chosen = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
}

// Which of the lines the filters let through. A curve needs all its budgets, so charts ask without that one.
const FILTERS = {
  benchmark: { title: "Task", value: (line) => line.benchmark },
  model: { title: "Model", value: (line) => line.run.model },
  method: { title: "Method", value: (line) => line.run.method },
  alloc: { title: "Allocation", value: (line) => line.run.alloc || "none" },
  amount: { title: "Sparsity", value: (line) => line.run.amount || "none" },
  budget: { title: "Budget", value: (line) => (line.area ? "area" : String(line.budget ?? "none")) },
};

const searched = new Map();

function haystack(line) {
  if (!searched.has(line)) {
    const asked = [line.shots ? `${line.shots}-shot` : "", line.limit ? `limit ${line.limit}` : ""];
    const words = [line.task, line.metric, line.filter, line.budget ?? "", line.area ? "area" : "", line.run.model, ...asked];
    searched.set(line, `${words.join(" ")} ${runName(line.run)}`.toLowerCase());
  }
  return searched.get(line);
}

function filtered(without = "") {
  const chosen = Object.entries(FILTERS).filter(([name]) => name !== without && state[name]);
  const words = state.q.toLowerCase().split(/\s+/).filter((word) => word);
  return LINES.filter(
    (line) =>
      chosen.every(([name, filter]) => filter.value(line) === state[name]) &&
      words.every((word) => haystack(line).includes(word)),
  );
}

function showFilters() {
  const fields = Object.entries(FILTERS).map(([name, filter]) => {
    const values = [...new Set(LINES.map(filter.value))].sort(compareTexts);
    const options = values.map((value) => html("option", { value, selected: value === state[name] }, value));
    const select = html("select", { name }, html("option", { value: "" }, "all"), ...options);
    return values.length > 1 || state[name] ? html("label", {}, filter.title, select) : null;
  });
  const search = html("input", { type: "search", name: "q", value: state.q, autocomplete: "off", spellcheck: "false" });
  const reset = html("button", { type: "reset" }, "Reset");
  find("filters").replaceChildren(html("label", { class: "wide" }, "Search", search), ...fields.filter((x) => x), reset);
}
