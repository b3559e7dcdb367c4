// Questions one by one: those that a run lost against dense, and those it won.

const [QUESTION, NEW, OLD, OWN, DENSE] = [0, 1, 2, 3, 4];

function comparisons() {
  return filtered().filter((line) => DATA.changes[line.index]);
}

function comparisonName(line) {
  return `${benchmarkName(line)}${line.budget === null ? "" : `, budget ${line.budget}`}: ${runName(line.run)}`;
}

// How a question went: right or wrong if the metric is a share, else its value.
function outcome(line, value) {
  if (!line.share || line.higher_is_better !== true) return [`${metricName(line)} ${score(line, value)}`, null];
  if (value === 1) return ["right", "better"];
  return value === 0 ? ["wrong", "worse"] : [`${percent(value)} right over all seeds and samples`, null];
}

function showResponse(title, place, [went, shownAs]) {
  const [text, answer] = place < 0 ? ["(its samples file does not have it)", ""] : DATA.responses[place];
  return html(
    "div", { class: "response" },
    html("h4", {}, `${title}: `, html("span", { class: shownAs }, went)),
    html("p", {}, "Answer: ", answer ? html("code", {}, answer) : html("em", {}, "none")),
    html("pre", { tabindex: "0", "aria-label": `${title}, response` }, text || "(no text)"),
  );
}

const isLoss = (line, given) => given[NEW] < given[OLD] === (line.higher_is_better !== false);

function showChange(line, change) {
  const [question, gold] = DATA.questions[change[QUESTION]];
  const isLost = isLoss(line, change);
  const shownAs = line.higher_is_better === null ? "" : isLost ? "worse" : "better";
  const [own, other] = isAgainstDense(line) ? ["Pruned", "Dense"] : [runName(line.run), line.reference];
  return html(
    "details", {},
    html(
      "summary", {},
      html("span", { class: `badge ${shownAs}` }, sideNames(line)[isLost ? 0 : 1]),
      html("span", { class: "asked" }, question.slice(0, 300) || "(its samples file does not have it)"),
      html("span", { class: "gold" }, "gold ", html("code", {}, gold.slice(0, 40))),
    ),
    html("p", { class: "question" }, question),
    html("p", {}, "Gold: ", html("code", {}, gold)),
    html(
      "div", { class: "pair" }, showResponse(own, change[OWN], outcome(line, change[NEW])),
      showResponse(other, change[DENSE], outcome(line, change[OLD])),
    ),
  );
}

function showQuestions() {
  const lines = comparisons();
  const worst = lines.reduce((most, line) => (most && most.lost >= line.lost ? most : line), undefined);
  const chosen = lines.find((line) => String(line.index) === state.comparison) ?? worst;
  const options = lines.map((line) => html("option", { value: line.index, selected: line === chosen }, comparisonName(line)));
  find("comparison").replaceChildren(...options);
  find("side").value = state.side;
  find("questions-choice").hidden = !lines.length;
  find("questions-note").textContent =
    `The largest changes of each comparison are kept in this page, with the first response of the newest run each. ` +
    `Texts above ${DATA.characters.toLocaleString("en")} characters have lost their middle.`;
  if (!chosen) {
    find("questions-count").textContent = "No question of the chosen runs changed, or no samples were logged.";
    find("changes").replaceChildren();
    return;
  }
  const kept = DATA.changes[chosen.index];
  const shown = kept.filter((change) => !state.side || isLoss(chosen, change) === (state.side === "lost"));
  const [worse, better] = sideNames(chosen);
  find("questions-count").textContent =
    `${chosen.lost} ${worse} and ${chosen.won} ${better} of ${chosen.questions} questions; ${shown.length} shown.` +
    (isAgainstDense(chosen) ? "" : ` Compared with ${chosen.reference}.`);
  find("changes").replaceChildren(...shown.map((change) => showChange(chosen, change)));
}

function openComparison(index) {
  writeState({ comparison: String(index), side: "" });
  showQuestions();
  find("questions").scrollIntoView();
  find("questions").focus({ preventScroll: true });
}
