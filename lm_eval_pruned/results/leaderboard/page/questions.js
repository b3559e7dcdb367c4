// Questions one by one: those that a run lost against dense, and those it won.

const [QUESTION, NEW, OLD, OWN, DENSE] = [0, 1, 2, 3, 4];

function comparisons() {
  return filtered().filter((line) => DATA.changes[line.index]);
}

function comparisonName(line) {
  return `${benchmarkName(line)}${line.budget === null ? "" : `, budget ${line.budget}`}: ${runName(line.run)}`;
}

function showResponse(title, place, correct) {
  const [text, answer] = place < 0 ? ["(its samples file does not have it)", ""] : DATA.responses[place];
  const rightness = correct === 1 ? "right" : correct === 0 ? "wrong" : `${percent(correct)} right over all seeds and samples`;
  const shownAs = correct === 1 ? "better" : correct === 0 ? "worse" : "";
  return html(
    "div", { class: "response" },
    html("h4", {}, `${title}: `, html("span", { class: shownAs }, rightness)),
    html("p", {}, "Answer: ", answer ? html("code", {}, answer) : html("em", {}, "none")),
    html("pre", { tabindex: "0", "aria-label": `${title}, response` }, text || "(no text)"),
  );
}

function showChange(change) {
  const [question, gold] = DATA.questions[change[QUESTION]];
  const isLost = change[NEW] < change[OLD];
  return html(
    "details", {},
    html(
      "summary", {},
      html("span", { class: `badge ${isLost ? "worse" : "better"}` }, isLost ? "lost" : "won"),
      html("span", { class: "asked" }, question.slice(0, 300) || "(its samples file does not have it)"),
      html("span", { class: "gold" }, "gold ", html("code", {}, gold.slice(0, 40))),
    ),
    html("p", { class: "question" }, question),
    html("p", {}, "Gold: ", html("code", {}, gold)),
    html("div", { class: "pair" }, showResponse("Pruned", change[OWN], change[NEW]), showResponse("Dense", change[DENSE], change[OLD])),
  );
}

function showQuestions() {
  const lines = comparisons();
  const worst = lines.reduce((most, line) => (most && most.lost >= line.lost ? most : line), undefined);
  const chosen = lines.find((line) => String(line.index) === state.comparison) ?? worst;
  const options = lines.map((line) => html("option", { value: line.index, selected: line === chosen }, comparisonName(line)));
  find("comparison").replaceChildren(...options);
  find("side").value = state.side;
  find("questions-note").textContent =
    `The largest changes of each comparison are kept in this page, with the first response of the newest run each. ` +
    `Texts above ${DATA.characters.toLocaleString("en")} characters have lost their middle.`;
  if (!chosen) {
    find("questions-count").textContent = "No question of the chosen runs changed, or no samples were logged.";
    find("changes").replaceChildren();
    return;
  }
  const kept = DATA.changes[chosen.index];
  const shown = kept.filter((change) => !state.side || (change[NEW] < change[OLD]) === (state.side === "lost"));
  find("questions-count").textContent =
    `${chosen.lost} lost and ${chosen.won} won of ${chosen.questions} questions; ${shown.length} shown.`;
  find("changes").replaceChildren(...shown.map(showChange));
}

function openComparison(index) {
  writeState({ comparison: String(index), side: "" });
  showQuestions();
  find("questions").scrollIntoView();
  find("questions").focus({ preventScroll: true });
}
