// A plot: two axes in an SVG.

const MARGIN = { top: 28, right: 16, bottom: 44, left: 46 };
const PLOT_HEIGHT = 336;
const DIGIT_WIDTH = 7;
// Metrics above zero whose largest value is so many times the smallest are drawn on a logarithmic scale.
const WIDE_RANGE = 20;

function scale(low, high, from, to) {
  const width = high - low || 1;
  return (value) => from + ((value - low) / width) * (to - from);
}

// Ticks at powers of two, thinned until their labels fit.
function powers(low, high, room) {
  const first = Math.ceil(Math.log2(low) - 1e-9);
  const last = Math.floor(Math.log2(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / Math.max(1, Math.floor(room / 48))));
  return Array.from({ length: Math.max(0, Math.floor((last - first) / step) + 1) }, (_, k) => 2 ** (first + k * step));
}

// At most seven ticks, 1, 2 or 5 times a power of ten apart.
function linearTicks(low, high) {
  const rough = (high - low) / 6 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * (1 - 1e-9));
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) ticks.push(k * step || 0);
  return ticks.map((value) => ({ value, text: tickText(value, digits) }));
}

function logarithmicTicks(low, high) {
  const decades = Math.log10(high / low);
  const factors = decades < 2 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / 7));
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    if (power % every === 0) ticks.push(...factors.map((factor) => factor * 10 ** power));
  }
  const inside = ticks.filter((value) => value >= low && value <= high);
  return inside.map((value) => ({ value, text: tickText(value, Math.max(0, -Math.floor(Math.log10(value) + 1e-9))) }));
}

function tickText(value, digits) {
  if (Math.abs(value) >= 1e6 || digits > 4) return plain(value);
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace("-", "−");
}

// The axis of a metric: a share stays between 0 and 1, a perplexity may span orders of magnitude.
function metricAxis(ys, isShare) {
  const [least, most] = [Math.min(...ys), Math.max(...ys)];
  if (isShare) return { low: Math.max(0, least - 0.03), high: Math.min(1, most + 0.03), warp: (y) => y, ticks: linearTicks };
  if (least > 0 && most / least > WIDE_RANGE) {
    return { low: least / 1.2, high: most * 1.2, warp: Math.log10, ticks: logarithmicTicks };
  }
  const room = 0.06 * (most - least || Math.abs(most) || 1);
  return { low: least - room, high: most + room, warp: (y) => y, ticks: linearTicks };
}

// Axes for values x > 0, on a scale of log2, and y; returns where a value lies beside the SVG to draw in.
function plot({ width, xs, ys, isShare, label, metric, title }) {
  const [low, high] = [Math.min(...xs) / 1.08, Math.max(...xs) * 1.08];
  const axisY = metricAxis(ys, isShare);
  const marks = axisY.ticks(axisY.low, axisY.high);
  const left = Math.max(MARGIN.left, 14 + DIGIT_WIDTH * Math.max(0, ...marks.map(({ text }) => text.length)));
  const [right, base] = [width - MARGIN.right, PLOT_HEIGHT - MARGIN.bottom];
  const across = scale(Math.log2(low), Math.log2(high), left, right);
  const x = (value) => across(Math.log2(value));
  const up = scale(axisY.warp(axisY.low), axisY.warp(axisY.high), base, MARGIN.top);
  const y = (value) => up(axisY.warp(value));
  const grid = marks.flatMap(({ value, text }) => [
    svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick", x: left - 8, y: y(value) + 4, "text-anchor": "end" }, text),
  ]);
  const doubled = powers(low, high, right - left);
  // Between two powers of two, one value tells where the plot is.
  const ticks = (doubled.length ? doubled : [Math.round(Math.max(...xs))]).flatMap((tick) => [
    svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: base, y2: base + 5 }),
    svg("text", { class: "tick", x: x(tick), y: base + 19, "text-anchor": "middle" }, String(tick)),
  ]);
  const axis = svg("line", { class: "axis", x1: left, x2: right, y1: base, y2: base });
  const name = svg("text", { class: "label", x: (left + right) / 2, y: PLOT_HEIGHT - 6, "text-anchor": "middle" }, label);
  const above = svg("text", { class: "tick", x: 0, y: 12 }, metric);
  const frame = { viewBox: `0 0 ${width} ${PLOT_HEIGHT}`, width, height: PLOT_HEIGHT, role: "group", "aria-label": title };
  return { root: svg("svg", frame, svg("g", { "aria-hidden": "true" }, above, ...grid, ...ticks, axis, name)), x, y };
}
