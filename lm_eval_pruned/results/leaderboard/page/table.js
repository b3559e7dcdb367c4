// The table: sorted by the button in a column's head, its rows put on the page some at a time.

const CHUNK = 200;
let rowsShown = CHUNK;
let headShown = "";

function compareValues(one, other) {
  // What is not known stands last, whichever way is sorted.
  if (!isKnown(one) || !isKnown(other)) return isKnown(other) - isKnown(one);
  const way = state.down ? -1 : 1;
  return way * (typeof one === "string" ? compareTexts(one, other) : one - other || 0);
}

function sorted(lines) {
  const column = COLUMNS.find((one) => one.id === state.sort);
  return column ? [...lines].sort((a, b) => compareValues(column.value(a), column.value(b))) : lines;
}

// Made anew only if its columns change: a head that was pressed keeps the focus.
function showHead(columns, lines) {
  const titles = columns.map((column) => titleOf(column, lines));
  if (titles.join() === headShown) return;
  headShown = titles.join();
  const cells = columns.map((column, place) => {
    const attributes = { type: "button", "data-sort": column.id, "aria-describedby": `about-${column.id}` };
    const button = html("button", attributes, titles[place]);
    explain(button, [titles[place], column.about]);
    return html("th", { scope: "col", class: column.number ? "number" : null }, button);
  });
  document.querySelector("#table thead tr").replaceChildren(...cells);
  const meanings = columns.flatMap((column, place) => [
    html("dt", {}, titles[place]), html("dd", { id: `about-${column.id}` }, column.about),
  ]);
  find("meanings").replaceChildren(...meanings, html("dt", {}, NONE), html("dd", {}, "Not known, or not applicable."));
}

// What the first column adds where the others are out of sight.
function narrowText(line, first) {
  const { run } = line;
  const method = first.id === "model" ? methodName(run) : [run.alloc, run.amount].filter((word) => word).join(" ");
  const texts = [method === "dense" ? "" : method, benchmarkName(line), budgetName(line)];
  return html("small", { class: "narrow" }, ...broken(texts.filter((word) => word).join(" · ")));
}

function showRow(columns) {
  return (line, place, lines) => {
    const cells = columns.map((column, place) => {
      const [main, more] = column.cell(line);
      const classes = [column.number ? "number" : "text", `c-${column.id}`].join(" ");
      const children = [main, place ? null : narrowText(line, column), more ? html("small", {}, more) : null];
      return place ? html("td", { class: classes }, ...children) : html("th", { class: classes, scope: "row" }, ...children);
    });
    // In the order of the leaderboard, each benchmark and budget is a group.
    const before = lines[place - 1];
    const isFirst = !state.sort && before && (before.task !== line.task || before.budget !== line.budget);
    const kinds = [line.run.published ? "published" : "", isFirst ? "first" : ""].filter((kind) => kind);
    return html("tr", { class: kinds.join(" ") || null }, ...cells);
  };
}

function showTable() {
  const lines = sorted(filtered());
  const columns = columnsOf(lines.length ? lines : LINES);
  showHead(columns, lines);
  for (const head of document.querySelectorAll("#table thead th")) {
    const isSorted = head.firstChild.dataset.sort === state.sort;
    head.setAttribute("aria-sort", !isSorted ? "none" : state.down ? "descending" : "ascending");
  }
  document.querySelector("#table tbody").replaceChildren(...lines.slice(0, rowsShown).map(showRow(columns)));
  const left = lines.length - rowsShown;
  const column = columns.find((one) => one.id === state.sort);
  find("count").textContent = `${Math.min(rowsShown, lines.length)} of ${lines.length} lines` +
    (lines.length < LINES.length ? `, ${LINES.length} without filters` : "") +
    (column ? `, sorted by ${titleOf(column, lines)}, ${state.down ? "descending" : "ascending"}` : "");
  find("more").hidden = left <= 0;
  find("more").textContent = `Show ${Math.min(left, CHUNK)} more of ${left}`;
  showReasons(lines);
  offerDetails(lines.length ? lines : LINES);
  announceScroll();
}

function offerDetails(lines) {
  const titles = knownColumns(lines).filter((column) => column.detail).map((column) => titleOf(column, lines));
  find("details").hidden = !titles.length;
  find("details").textContent = `${state.columns === "all" ? "Hide" : "Show"} ${titles.join(", ")}`;
}

// Why lines are not compared, each reason once: a touch screen has no hover.
function showReasons(lines) {
  const counts = new Map();
  for (const { why_not_compared: why } of lines) if (why) counts.set(why, (counts.get(why) ?? 0) + 1);
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  find("not-compared").hidden = !total;
  find("not-compared").firstElementChild.textContent = `Why ${total} line${total === 1 ? " is" : "s are"} not compared`;
  const items = [...counts].sort((a, b) => b[1] - a[1]).map(([why, count]) => html("li", {}, `${count}: ${why}`));
  find("reasons").replaceChildren(...items);
}

// Where the table is wider than its box, the edges say so, and a sentence names what is out of sight.
function announceScroll() {
  const box = find("table-box");
  const edge = box.getBoundingClientRect().left + box.clientWidth;
  const heads = [...document.querySelectorAll("#table thead th")];
  const hidden = heads.filter((head) => head.getBoundingClientRect().right > edge + 1).map((head) => head.textContent);
  const isWide = box.scrollWidth > box.clientWidth + 1;
  find("table-frame").classList.toggle("more-right", isWide && box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  find("table-frame").classList.toggle("more-left", isWide && box.scrollLeft > 0);
  find("scroll-note").hidden = !isWide;
  if (isWide && !box.scrollLeft) find("scroll-note").textContent = `Scroll the table sideways (→) for: ${hidden.join(", ")}.`;
}

function sortBy(id) {
  // Numbers are first asked for from the largest down, or from the best; a third press gives back the order of the
  // leaderboard.
  const column = COLUMNS.find((one) => one.id === id);
  const isLowerBetter = FIGURES.includes(id) && filtered().every((line) => line.higher_is_better === false);
  const first = column.number && !isLowerBetter ? "1" : "";
  if (state.sort !== id) writeState({ sort: id, down: first });
  else if (state.down === first) writeState({ down: first ? "" : "1" });
  else writeState({ sort: "", down: "" });
  showTable();
}
