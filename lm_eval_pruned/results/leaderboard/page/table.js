// The table: sorted by the button in a column's head, its rows put on the page some at a time.

const CHUNK = 200;
let rowsShown = CHUNK;

const COLUMNS = [
  { id: "method", title: "Method", value: (line) => `${line.run.method} ${runName(line.run)}`, cell: methodCell },
  { id: "alloc", title: "Allocation", value: (line) => line.run.alloc, cell: (line) => [line.run.alloc || "–"] },
  {
    id: "amount", title: "Sparsity", number: true, value: (line) => line.sparsity ?? Number.parseFloat(line.run.amount),
    cell: (line) => [line.run.amount || "–", line.sparsity ? `${fixed(100 * line.sparsity, 1)} % zero` : ""],
  },
  {
    id: "task", title: "Task", value: (line) => benchmarkName(line),
    cell: (line) => [line.benchmark, benchmarkName(line).slice(line.benchmark.length + 3)],
  },
  {
    id: "budget", title: "Budget", number: true, value: (line) => (line.area ? Infinity : line.budget),
    cell: (line) => [line.area ? "area" : fixed(line.budget, 0)],
  },
  { id: "acc", title: "Accuracy", number: true, value: (line) => line.acc, cell: accuracyCell },
  { id: "difference", title: "vs dense", number: true, value: (line) => line.difference, cell: differenceCell },
  { id: "p", title: "p (Holm)", number: true, value: (line) => line.p_holm, cell: (line) => [pText(line.p_holm)] },
  {
    id: "detectable", title: "Detectable", number: true, value: (line) => line.detectable,
    cell: (line) => [line.difference === null ? "–" : line.detectable === null ? "none" : points(-line.detectable)],
  },
  {
    id: "thinking", title: "Thinking", number: true, value: (line) => line.thinking_tokens,
    cell: (line) => [fixed(line.thinking_tokens, 1)],
  },
  { id: "cut", title: "Cut", number: true, value: (line) => line.budget_hit, cell: (line) => share(line, "budget_hit") },
  { id: "empty", title: "Empty", number: true, value: (line) => line.no_answer, cell: (line) => share(line, "no_answer") },
  { id: "looping", title: "Looping", number: true, value: (line) => line.looping, cell: (line) => share(line, "looping") },
  {
    id: "questions", title: "Questions", number: true, value: (line) => line.questions,
    cell: (line) => [fixed(line.questions, 0), line.seeds > 1 ? `${line.seeds} seeds` : ""],
  },
  { id: "changed", title: "Lost, won", number: true, value: (line) => line.lost, cell: changedCell },
];

function methodCell(line) {
  const { run } = line;
  const more = [modelName(run), run.others, run.settings, run.published ? `published: ${run.source}` : ""];
  const name = html("strong", {}, run.method);
  // Where the table scrolls sideways, this column stays and has to say which run it is.
  const narrow = html("small", { class: "narrow" }, [run.alloc, run.amount].filter((word) => word).join(" "));
  return [html("div", {}, name, narrow), more.filter((word) => word).join(" · ")];
}

function accuracyCell(line) {
  const spread = line.std === null ? "" : ` ± ${fixed(line.std, 3)}`;
  return [fixed(line.acc, 3) + spread, line.low === null ? "" : `${fixed(line.low, 3)} – ${fixed(line.high, 3)}`];
}

function differenceCell(line) {
  if (line.difference === null) return ["–"];
  const mark = isSignificant(line) ? html("span", { class: "mark", title: "significant" }, "*") : "";
  const size = html("span", { class: isSignificant(line) ? (line.difference < 0 ? "worse" : "better") : "" });
  size.append(points(line.difference), mark);
  return [size, `${points(line.difference_low)} to ${points(line.difference_high)}`];
}

function pText(p) {
  return p === null ? "–" : p < 0.001 ? "< 0.001" : fixed(p, 3);
}

function share(line, name) {
  const value = line[name];
  return [percent(value), value === null || line.questions === null ? "" : fixed(value * line.questions, 0)];
}

function changedCell(line) {
  if (line.lost === null) return ["–"];
  if (!line.lost && !line.won) return ["0"];
  const text = `−${line.lost}, +${line.won}`;
  if (!DATA.changes[line.index]) return [text];
  const label = `Show questions changed: ${line.lost} lost, ${line.won} won, ${runName(line.run)}, ${line.task}`;
  return [html("button", { type: "button", "data-line": line.index, "aria-label": label }, text)];
}

function compareValues(one, other) {
  // What is not known stands last, whichever way is sorted.
  const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);
  if (isMissing(one) || isMissing(other)) return isMissing(one) - isMissing(other);
  const way = state.down ? -1 : 1;
  return way * (typeof one === "string" ? compareTexts(one, other) : one - other || 0);
}

function sorted(lines) {
  const column = COLUMNS.find((one) => one.id === state.sort);
  return column ? [...lines].sort((a, b) => compareValues(column.value(a), column.value(b))) : lines;
}

function showHead() {
  const cells = COLUMNS.map((column) => {
    const button = html("button", { type: "button", "data-sort": column.id }, column.title);
    return html("th", { scope: "col", class: column.number ? "number" : null }, button);
  });
  document.querySelector("#table thead tr").replaceChildren(...cells);
}

function showRow(line, place, lines) {
  const cells = COLUMNS.map((column, place) => {
    const [main, more] = column.cell(line);
    const kind = column.number ? "number" : null;
    const attributes = place ? { class: kind } : { class: kind, scope: "row" };
    return html(place ? "td" : "th", attributes, main, more ? html("small", {}, more) : null);
  });
  // In the order of the leaderboard, each benchmark and budget is a group.
  const before = lines[place - 1];
  const isFirst = !state.sort && before && (before.task !== line.task || before.budget !== line.budget);
  const kinds = [line.run.published ? "published" : "", isFirst ? "first" : ""].filter((kind) => kind);
  return html("tr", { class: kinds.join(" ") || null }, ...cells);
}

function showTable() {
  const lines = sorted(filtered());
  for (const head of document.querySelectorAll("#table thead th")) {
    const isSorted = head.firstChild.dataset.sort === state.sort;
    head.setAttribute("aria-sort", !isSorted ? "none" : state.down ? "descending" : "ascending");
  }
  document.querySelector("#table tbody").replaceChildren(...lines.slice(0, rowsShown).map(showRow));
  const left = lines.length - rowsShown;
  find("count").textContent = `${Math.min(rowsShown, lines.length)} of ${lines.length} lines` +
    (lines.length < LINES.length ? `, ${LINES.length} without filters` : "");
  find("more").hidden = left <= 0;
  find("more").textContent = `Show ${Math.min(left, CHUNK)} more of ${left}`;
}

function sortBy(id) {
  // Numbers are first asked for from the largest down; a third press gives back the order of the leaderboard.
  const column = COLUMNS.find((one) => one.id === id);
  const first = column.number ? "1" : "";
  if (state.sort !== id) writeState({ sort: id, down: first });
  else if (state.down === first) writeState({ down: first ? "" : "1" });
  else writeState({ sort: "", down: "" });
  showTable();
}
