// Accuracy against thinking, given and used: two plots a benchmark, one line a run, one legend for all of them.

// Colours come again with other dashes. Unless others are chosen, each comes twice; so many benchmarks are drawn.
const COLOURS = 8;
const RUNS_DRAWN = 2 * COLOURS;
const BENCHMARKS_DRAWN = 8;
const BANDS_DRAWN = 8;
const [SIDE_STEP, SIDE_ROOM] = [4, 24];
// Points closer than this, in pixels, are one place; the curves that meet there stand this far apart.
const SAME = 2;
const [APART, APART_ROOM] = [7, 42];
const [DASH, SHORT_DASH] = [12, 6];
const AXES = {
  budget: { label: "thinking budget (tokens)", value: (line) => line.budget },
  thinking_tokens: { label: "thinking tokens used (mean)", value: (line) => line.thinking_tokens },
};

// The dense run of each model first, then ours, then published ones.
const ORDER = DATA.runs.map((_, id) => id).sort((a, b) => {
  const rank = (id) => Number(DATA.runs[id].published) * 2 + Number(DATA.runs[id].method !== "dense");
  return rank(a) - rank(b) || compareTexts(runName(DATA.runs[a]), runName(DATA.runs[b]));
});
const isDense = (id) => DATA.runs[id].method === "dense";
const [DENSE_RUNS, OTHER_RUNS] = [ORDER.filter(isDense), ORDER.filter((id) => !isDense(id))];

function seriesClass(id) {
  const place = OTHER_RUNS.indexOf(id);
  const colour = isDense(id) ? "dense" : `c${place % COLOURS}`;
  const dash = (isDense(id) ? DENSE_RUNS.indexOf(id) : Math.floor(place / COLOURS)) % 3;
  return `series ${colour} d${dash}${DATA.runs[id].published ? " published" : ""}`;
}

// A run that was stopped early has intervals, and no mean to draw.
function curveLines() {
  return filtered("budget").filter((line) => !line.area && line.budget > 0 && !isStopped(line));
}

function drawnRuns(lines) {
  const present = new Set(lines.map((line) => line.id));
  if (state.runs) {
    const chosen = new Set(state.runs.split("."));
    return new Set([...present].filter((id) => chosen.has(String(id))));
  }
  return new Set(ORDER.filter((id) => present.has(id)).slice(0, RUNS_DRAWN));
}

function marker(x, y, run) {
  if (run.published) return svg("path", { class: "point", d: `M${x},${y - 5.5}l5.5,5.5l-5.5,5.5l-5.5,-5.5z` });
  return svg("circle", { class: "point", cx: x, cy: y, r: 4 });
}

function showLegend(lines, drawn) {
  const present = new Set(lines.map((line) => line.id));
  const items = ORDER.filter((id) => present.has(id)).map((id) => {
    const run = DATA.runs[id];
    const swatch = svg(
      "svg", { width: 30, height: 14, class: seriesClass(id), "aria-hidden": "true" },
      svg("line", { class: "line", x1: 1, x2: 29, y1: 7, y2: 7 }), marker(15, 7, run),
    );
    const attributes = { type: "button", "data-run": id, "aria-pressed": String(drawn.has(id)) };
    return html("li", {}, html("button", attributes, swatch, html("span", {}, ...broken(runName(run)))));
  });
  find("legend").replaceChildren(...items);
  find("legend-count").textContent =
    items.length > RUNS_DRAWN ? `${drawn.size} of ${items.length} runs are drawn; the list scrolls, and a name turns its run on or off.` : "";
}

const scoreName = (line) => (line.share && metricName(line) === "acc" ? "accuracy" : metricName(line));

function pointText(line) {
  const interval = line.low === null ? "" : ` (${score(line, line.low)} to ${score(line, line.high)})`;
  const texts = [runName(line.run), `${benchmarkName(line)}, budget ${line.budget}`];
  texts.push(`${scoreName(line)} ${score(line, line.acc)}${interval}`);
  if (line.thinking_tokens !== null) texts.push(`${fixed(line.thinking_tokens, 1)} thinking tokens`);
  if (line.difference !== null) {
    const reference = isAgainstDense(line) ? "dense" : line.reference;
    const size = `${change(line, line.difference)}${line.share ? " points" : ""}`;
    texts.push(`${size} to ${reference}${isSignificant(line) ? ", significant" : ""}`);
  }
  if (line.why_not_compared) texts.push(`not compared: ${line.why_not_compared}`);
  return texts;
}

// Only one point of a plot can be reached by Tab; arrows go on from there.
function walk(event, curves) {
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const step = steps[event.key];
  const row = curves.findIndex((curve) => curve.includes(event.target));
  if (!step || row < 0) return;
  event.preventDefault();
  const next = curves[Math.min(curves.length - 1, Math.max(0, row + step[0]))];
  const column = curves[row].indexOf(event.target) + step[1];
  const target = next[Math.min(next.length - 1, Math.max(0, column))];
  event.target.setAttribute("tabindex", "-1");
  target.setAttribute("tabindex", "0");
  target.focus();
}

// Places in a plot and the curves that meet there, each curve once: `at` finds the place of a point.
function findPlaces(curves, x, y) {
  const places = [];
  const at = new Map();
  curves.forEach((curve, number) => {
    for (const line of curve) {
      let place = places.find((one) => Math.abs(one.x - x(line)) <= SAME && Math.abs(one.y - y(line)) <= SAME);
      if (!place) places.push((place = { x: x(line), y: y(line), curves: [] }));
      if (!place.curves.includes(number)) place.curves.push(number);
      at.set(line, place);
    }
  });
  return at;
}

// Runs that agree would hide each other: at the same place their points stand side by side.
function aside(place, number, axis, count) {
  const met = place.curves;
  if (met.length > 1) return (met.indexOf(number) - (met.length - 1) / 2) * Math.min(APART, APART_ROOM / met.length);
  return axis === "budget" ? (number - (count - 1) / 2) * Math.min(SIDE_STEP, SIDE_ROOM / count) : 0;
}

// Curves by the segments that they share: each of n gets every n-th dash there, so that all of them are seen.
function sharedSegments(curves, at) {
  const shared = new Map();
  curves.forEach((curve, number) => {
    for (let place = 1; place < curve.length; place += 1) {
      const ends = shared.get(at.get(curve[place - 1])) ?? new Map();
      shared.set(at.get(curve[place - 1]), ends.set(at.get(curve[place]), [...(ends.get(at.get(curve[place])) ?? []), number]));
    }
  });
  return (from, to) => shared.get(at.get(from)).get(at.get(to));
}

function drawLine(curve, number, place, met) {
  const pieces = [];
  let run = [curve[0]];
  const finish = () => pieces.push(svg("polyline", { class: "line", points: run.map((line) => place(line, line.acc)).join(" ") }));
  for (const [index, line] of curve.slice(1).entries()) {
    const all = met(curve[index], line);
    if (all.length === 1) {
      run.push(line);
      continue;
    }
    if (run.length > 1) finish();
    const dash = all.length > 3 ? SHORT_DASH : DASH;
    const piece = svg("polyline", { class: "line shared", points: [curve[index], line].map((end) => place(end, end.acc)).join(" ") });
    piece.style.strokeDasharray = `${dash} ${dash * (all.length - 1)}`;
    piece.style.strokeDashoffset = String(-dash * all.indexOf(number));
    pieces.push(piece);
    run = [line];
  }
  if (run.length > 1 || !pieces.length) finish();
  return pieces;
}

function drawPlot(given, axis, name, width) {
  const { label, value } = AXES[axis];
  const curves = given.map((curve) => [...curve].sort((a, b) => value(a) - value(b)));
  const all = curves.flat();
  const [one] = all;
  const metric = scoreName(one);
  const { root, x, y } = plot({
    width, label, xs: all.map(value), ys: all.flatMap((line) => [line.acc, line.low ?? line.acc, line.high ?? line.acc]),
    isShare: all.every((line) => line.share), title: `${name}: ${metric} against ${label}`,
    metric: [metric.length > 40 ? `${metric.slice(0, 40)}…` : metric, directionWords(one)].filter((word) => word).join(" · "),
  });
  const nodes = [];
  const hasBands = curves.filter((curve) => curve.some((line) => line.low !== null)).length <= BANDS_DRAWN;
  const at = findPlaces(curves, (line) => x(value(line)), (line) => y(line.acc));
  const met = sharedSegments(curves, at);
  const groups = curves.map((curve, number) => {
    const across = (line) => x(value(line)) + aside(at.get(line), number, axis, curves.length);
    const place = (line, height) => `${across(line).toFixed(1)},${y(height).toFixed(1)}`;
    const sure = curve.filter((line) => line.low !== null);
    const edge = [...sure.map((line) => place(line, line.high)), ...sure.map((line) => place(line, line.low)).reverse()];
    const dots = curve.map((line) => {
      const dot = marker(across(line), y(line.acc), line.run);
      const texts = pointText(line);
      build(dot, { tabindex: "-1", role: "img", "aria-label": texts.join(", ") }, []);
      explain(dot, texts);
      return dot;
    });
    nodes.push(dots);
    return svg(
      "g", { class: seriesClass(curve[0].id), "data-run": curve[0].id },
      sure.length > 1 && hasBands ? svg("polygon", { class: "band", points: edge.join(" ") }) : null,
      ...drawLine(curve, number, place, met), ...dots,
    );
  });
  // The dense run is drawn last, above those that are held against it.
  root.append(...groups.reverse());
  nodes[0][0].setAttribute("tabindex", "0");
  root.addEventListener("keydown", (event) => walk(event, nodes));
  return root;
}

function drawBenchmark(name, lines) {
  const curves = ORDER.map((id) => lines.filter((line) => line.id === id)).filter((curve) => curve.length);
  const room = find("charts").clientWidth;
  const width = room >= 720 ? Math.min(680, Math.floor((room - 24) / 2)) : room;
  const plots = Object.keys(AXES).flatMap((axis) => {
    const known = curves.map((curve) => curve.filter((line) => AXES[axis].value(line) > 0));
    const drawable = known.filter((curve) => curve.length);
    return drawable.length ? [drawPlot(drawable, axis, name, width)] : [];
  });
  return html("figure", {}, html("figcaption", {}, name), html("div", { class: "pair" }, ...plots));
}

function showCharts() {
  find("curves").hidden = !LINES.some((line) => !line.area && line.budget > 0);
  const lines = curveLines();
  const drawn = drawnRuns(lines);
  showLegend(lines, drawn);
  const groups = new Map();
  for (const line of lines.filter((one) => drawn.has(one.id))) {
    const name = benchmarkName(line);
    groups.set(name, [...(groups.get(name) ?? []), line]);
  }
  const figures = [...groups].slice(0, BENCHMARKS_DRAWN).map(([name, group]) => drawBenchmark(name, group));
  const left = groups.size - BENCHMARKS_DRAWN;
  if (left > 0) figures.push(html("p", { class: "note" }, `${left} more benchmarks: choose one above.`));
  const stopped = new Set(filtered("budget").filter(isStopped).map((line) => line.id)).size;
  if (stopped) figures.push(html("p", { class: "note" }, `Not drawn: ${stopped} ${stopped > 1 ? "runs" : "run"} stopped early.`));
  if (!groups.size) figures.push(html("p", { class: "note" }, "No run with a thinking budget is chosen."));
  find("charts").replaceChildren(...figures);
}

function toggleRun(id) {
  const drawn = drawnRuns(curveLines());
  if (drawn.has(id)) drawn.delete(id);
  else drawn.add(id);
  // None is something to choose too.
  writeState({ runs: [...drawn].sort((a, b) => a - b).join(".") || "none" });
  showCharts();
  document.querySelector(`#legend [data-run="${id}"]`).focus();
}
