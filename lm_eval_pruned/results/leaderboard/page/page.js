// What happens when: the page is drawn from its state, and every control changes the state first.

function showTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const theme = ["dark", "light"].includes(state.theme) ? state.theme : system;
  document.documentElement.dataset.theme = theme;
  find("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

function showWords() {
  const measured = DATA.runs.filter((run) => !run.published).length;
  const published = DATA.runs.length - measured;
  const models = [...new Set(DATA.runs.map((run) => run.model))];
  const parts = [models.length > 3 ? `${models.length} models` : models.join(", "), `${measured} configurations`];
  if (published) parts.push(`${published} published`);
  find("summary").textContent = parts.join(" · ");
  find("made").textContent = `Made by lm-eval-pruned ${DATA.version}. docs/results.md says how each figure is computed.`;
  find("legend-text").textContent =
    `Small print: 95 % intervals over questions, counts, settings. Differences are on the same questions, * where ` +
    `p < ${DATA.alpha} after Holm's correction over all lines. A column's head says what it means, and sorts.` +
    (LINES.some((line) => line.kl !== null) ? ` KL and Survive say ${DATA.meaning}.` : "");
}

function showRows() {
  rowsShown = CHUNK;
  showTable();
}

function showResults() {
  showRows();
  showCharts();
  showQuestions();
  showBlocks();
  showMaps();
}

function showAll() {
  showTheme();
  showFilters();
  showResults();
}

let typing = 0;

function listen() {
  find("filters").addEventListener("input", (event) => {
    writeState({ [event.target.name]: event.target.value });
    clearTimeout(typing);
    typing = setTimeout(showResults, event.target.name === "q" ? 150 : 0);
  });
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  find("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    const names = [...Object.keys(FILTERS), "q", "runs", "comparison", "side"];
    writeState(Object.fromEntries(names.map((name) => [name, ""])));
    showFilters();
    showResults();
    find("filters").querySelector("[type=reset]").focus();
  });
  find("table").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.sort) sortBy(button.dataset.sort);
    else if (button?.dataset.line) openComparison(Number(button.dataset.line));
  });
  find("details").addEventListener("click", () => {
    writeState({ columns: state.columns === "all" ? "" : "all" });
    showTable();
  });
  find("more").addEventListener("click", () => {
    rowsShown += CHUNK;
    showTable();
  });
  find("legend").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) toggleRun(Number(button.dataset.run));
  });
  for (const name of ["comparison", "side"]) {
    find(name).addEventListener("change", (event) => {
      writeState({ [name]: event.target.value });
      showQuestions();
    });
  }
  find("theme").addEventListener("click", () => {
    writeState({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" });
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  addEventListener("hashchange", () => {
    readState();
    showAll();
  });
  addEventListener("keydown", (event) => event.key === "Escape" && hideTooltip());
  addEventListener("pointerdown", (event) => explained && !explained.contains(event.target) && hideTooltip());
  find("table-box").addEventListener("scroll", announceScroll, { passive: true });
  SMALL.addEventListener("change", showTable);
  addEventListener("scroll", placeTooltip, { passive: true });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) {
      width = innerWidth;
      showCharts();
      showBlocks();
      showMaps();
      announceScroll();
    }
  });
}

readState();
showWords();
listen();
showAll();
