// The columns of the table: what a cell says, what it is sorted by, and what its head means.
// `cell` returns the main text and a smaller one below it.

const isKnown = (value) => value !== null && value !== undefined && value !== "" && !Number.isNaN(value);

const COLUMNS = [
  {
    id: "model", title: "Model", value: (line) => line.run.model, has: (line) => HAS_MODELS || line.run.published,
    cell: (line) => [modelNode(line.run), sourceName(line.run)],
    about: "The model that was evaluated. Of a path the end is shown, and all of it on hover or tap.",
  },
  {
    id: "method", title: "Method", value: (line) => methodName(line.run), cell: methodCell,
    has: (line) => !HAS_MODELS || line.run.method !== "dense" || line.run.settings || line.run.others,
    about: "How it was pruned, dense if it was not, unknown if no pruning report is found; below it the allocation and the settings that tell runs apart.",
  },
  {
    id: "amount", title: "Sparsity", number: true, value: (line) => line.sparsity ?? Number.parseFloat(line.run.amount),
    has: (line) => line.run.amount || line.sparsity,
    cell: (line) => [line.run.amount || NONE, line.sparsity ? `${fixed(100 * line.sparsity, 1)} % zero` : ""],
    about: "The sparsity asked for, and the share of the prunable weights that is zero.",
  },
  {
    id: "task", title: "Task", value: (line) => benchmarkName(line), cell: taskCell,
    about: "The task, and below it its metric, if that is not acc, and its filter. ↓: lower is better. Where nobody " +
      "knows the metric's direction, nothing is coloured.",
  },
  {
    id: "budget", title: "Budget", number: true, value: (line) => (line.area ? Infinity : line.budget),
    cell: (line) => [line.area ? "area" : fixed(line.budget, 0)],
    about: "Thinking budget in tokens. area: accuracy averaged over the whole curve, against log2 of the budget.",
  },
  {
    id: "acc", title: scoreTitle, number: true, value: (line) => line.acc ?? middle(line.low, line.high), cell: scoreCell,
    about: "Mean of the metric; ± is its standard deviation over seeds. Below it the 95 % interval over questions. A run " +
      "that a sweep stopped early has no mean, but an interval that holds whenever one stops; below it the questions asked.",
  },
  {
    id: "difference", title: differenceTitle, number: true, cell: differenceCell,
    value: (line) => line.difference ?? middle(line.difference_low, line.difference_high),
    has: (line) => line.difference !== null || line.difference_low !== null || line.why_not_compared,
    about: "Difference to the dense or chosen run on the same questions, in points for shares, and its 95 % interval. " +
      "* and green (better) or red (worse): significant. why?: the reason why nothing is compared.",
  },
  {
    id: "changed", title: "Lost, won", number: true, value: (line) => line.lost, cell: changedCell,
    about: "−: questions that became worse, +: better (lower and higher, if the direction is unknown). A button shows " +
      "them. Below: questions that are wrong in both runs, with different answers.",
  },
  {
    id: "p", title: "p (Holm)", number: true, value: (line) => line.p_holm, cell: (line) => [pText(line.p_holm)],
    about: `Two-sided paired test, corrected by Holm over all lines; significant below ${DATA.alpha}.`,
  },
  {
    id: "detectable", title: "Detectable", number: true, value: (line) => line.detectable, cell: detectableCell,
    about: "The least change for the worse that would have been found 4 times in 5.",
  },
  {
    id: "kl", title: "KL", number: true, value: (line) => line.kl,
    cell: (line) => [small(line.kl), range(line.kl_low, line.kl_high, small)],
    about: "KL(dense || pruned) in nats a token along the dense model's responses, with its 95 % interval by question: " +
      `${DATA.meaning}.`,
  },
  {
    id: "survive", title: "Survive", number: true, value: (line) => line.survive,
    cell: (line) => [percent(line.survive), range(line.survive_low, line.survive_high, percent)],
    about: `Share of the dense model's responses in which no argmax changed, with its 95 % interval: ${DATA.meaning}.`,
  },
  {
    id: "thinking", title: "Thinking", number: true, value: (line) => line.thinking_tokens,
    cell: (line) => [fixed(line.thinking_tokens, 1)], about: "Thinking tokens used, mean.",
  },
  share("cut", "Cut", "budget_hit", "Thinking that the budget cut, as a share and as a count of questions."),
  share("unclosed", "Unclosed", "thinking_eos", "Thinking that an end-of-sequence token ended in place of its marker."),
  share("answer-cut", "Answer cut", "answer_cut", "Answers that were cut at their greatest length (max_gen_toks)."),
  share("empty", "Empty", "no_answer", "Responses without an answer."),
  share("looping", "Looping", "looping", "Responses in degenerate repetition."),
  detail("onset", "Onset", "loop_onset", "Share of a response before its loop begins; 1 for responses without one."),
  detail("rep-2", "rep-2", "rep_2", "Share of pairs of words that occurred before in the same phase of a response."),
  detail("rep-3", "rep-3", "rep_3", "Share of triples of words that occurred before in the same phase of a response."),
  {
    id: "finished", title: "Finished", number: true, value: (line) => line.finished,
    cell: (line) => [percent(line.finished), isKnown(line.acc_finished) ? `${score(line, line.acc_finished)} right` : ""],
    about: "Responses that were not cut and give an answer, as a share; below it the accuracy among them.",
  },
  {
    id: "questions", title: "Questions", number: true, value: (line) => line.questions, cell: questionsCell,
    has: (line) => isKnown(line.questions) || line.shots || line.limit || line.seeds > 1 || line.note,
    about: "Number of questions; below it few-shot examples, limit (the first questions, or the share of them, that " +
      "was asked), seeds, and repetitions that gave the same responses.",
  },
];

const [FIGURES, SMALL] = [["acc", "difference"], matchMedia("(max-width: 640px)")];

function knownColumns(lines) {
  return COLUMNS.filter((column) => lines.some(column.has ?? ((line) => isKnown(column.value(line)))));
}

// Columns that say nothing of these lines are left out, and details until they are asked for. On a small screen the
// figures come first, and the first column says what they are about.
function columnsOf(lines) {
  const isShown = (column) => !column.detail || state.columns === "all" || state.sort === column.id;
  const known = knownColumns(lines).filter(isShown);
  if (!SMALL.matches) return known;
  const isFigure = (column) => FIGURES.includes(column.id);
  const [first, ...others] = known;
  return [first, ...others.filter(isFigure), ...others.filter((column) => !isFigure(column))];
}

function titleOf(column, lines) {
  return typeof column.title === "string" ? column.title : column.title(lines);
}

function scoreTitle(lines) {
  return lines.every((line) => line.share && line.higher_is_better !== false) ? "Accuracy" : "Score";
}

const isAgainstDense = (line) => !line.reference || line.reference.split(" · ").includes("dense");

function differenceTitle(lines) {
  return lines.every(isAgainstDense) ? "vs dense" : "vs reference";
}

function share(id, title, name, about) {
  const cell = (line) => {
    const value = line[name];
    return [percent(value), value === null || line.questions === null ? "" : fixed(value * line.questions, 0)];
  };
  return { id, title, number: true, value: (line) => line[name], cell, about };
}

function range(low, high, text) {
  return low === null || high === null ? "" : `${text(low)} – ${text(high)}`;
}

function detail(id, title, name, about) {
  const cell = (line) => [fixed(line[name], 2)];
  return { id, title, number: true, detail: true, value: (line) => line[name], cell, about };
}

function methodCell(line) {
  const { run } = line;
  const more = [run.alloc, run.others, run.settings, HAS_MODELS ? "" : sourceName(run)].filter((word) => word);
  return [html("strong", {}, run.method), more.length ? html("span", {}, ...broken(more.join(" · "))) : ""];
}

function taskCell(line) {
  const more = [benchmarkName(line).slice(line.benchmark.length + 3), directionWords(line)];
  return [html("bdi", { class: "name" }, ...broken(line.benchmark)), html("span", {}, ...broken(more.filter((x) => x).join(" · ")))];
}

function scoreCell(line) {
  if (isStopped(line)) return [range(line.low, line.high, (end) => score(line, end)), `${line.stopped_at} of ${line.stopped_of} asked`];
  const spread = line.std === null ? "" : ` ± ${score(line, line.std)}`;
  return [score(line, line.acc) + spread, line.low === null ? "" : `${score(line, line.low)} – ${score(line, line.high)}`];
}

function differenceCell(line) {
  if (line.why_not_compared) return [whyButton(line)];
  const isOpen = line.difference_low === null || line.difference_high === null;
  const ends = isOpen ? "" : `${change(line, line.difference_low)} to ${change(line, line.difference_high)}`;
  const size = line.difference ?? middle(line.difference_low, line.difference_high);
  if (size === null) return [NONE];
  const mark = isSignificant(line) ? html("span", { class: "mark", title: "significant" }, "*") : "";
  const better = isSignificant(line) ? isBetter(line, size) : null;
  const main = html("span", { class: better === null ? null : better ? "better" : "worse" });
  main.append(line.difference === null ? ends : change(line, line.difference), mark);
  if (line.reference) explain(main, [`against ${line.reference}`]);
  return [main, line.difference === null ? line.verdict : ends];
}

function whyButton(line) {
  const label = `Not compared: ${line.why_not_compared}`;
  const button = html("button", { type: "button", class: "why", "aria-label": label }, "why?");
  explain(button, ["Not compared", line.why_not_compared]);
  return button;
}

function detectableCell(line) {
  if (line.difference === null) return [NONE];
  if (line.detectable === null) return ["none"];
  if (line.higher_is_better === null) return [`±${change(line, line.detectable).slice(1)}`];
  return [change(line, line.higher_is_better ? -line.detectable : line.detectable)];
}

function questionsCell(line) {
  const more = [
    line.shots ? `${line.shots}-shot` : "", line.limit ? `limit ${line.limit}` : "",
    line.seeds > 1 ? `${line.seeds} seeds` : "", line.note,
  ];
  return [fixed(line.questions, 0), more.filter((word) => word).join(", ")];
}

function changedCell(line) {
  if (line.lost === null) return [NONE];
  const churn = isKnown(line.churn) ? `${fixed(line.churn * line.questions, 0)} wrong anew` : "";
  if (!line.lost && !line.won) return ["0", churn];
  const text = `−${line.lost}, +${line.won}`;
  if (!DATA.changes[line.index]) return [text, churn];
  const [worse, better] = sideNames(line);
  const label = `Show questions changed: ${line.lost} ${worse}, ${line.won} ${better}, ${runName(line.run)}, ${line.task}`;
  return [html("button", { type: "button", "data-line": line.index, "aria-label": label }, text), churn];
}

function sideNames(line) {
  return line.higher_is_better === null ? ["lower", "higher"] : ["lost", "won"];
}
