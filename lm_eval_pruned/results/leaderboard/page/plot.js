// A plot: two axes in an SVG, and the one tooltip of the page.

const MARGIN = { top: 12, right: 16, bottom: 44, left: 46 };
const PLOT_HEIGHT = 320;

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

function accuracyTicks(low, high) {
  const step = high - low > 0.5 ? 0.2 : high - low > 0.2 ? 0.1 : 0.05;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k += 1) ticks.push(k * step);
  return ticks;
}

// Axes for values x > 0, on a scale of log2, and y; returns where a value lies beside the SVG to draw in.
function plot({ width, xs, ys, label, title }) {
  const [low, high] = [Math.min(...xs) / 1.08, Math.max(...xs) * 1.08];
  const [bottom, top] = [Math.max(0, Math.min(...ys) - 0.03), Math.min(1, Math.max(...ys) + 0.03)];
  const [right, base] = [width - MARGIN.right, PLOT_HEIGHT - MARGIN.bottom];
  const across = scale(Math.log2(low), Math.log2(high), MARGIN.left, right);
  const x = (value) => across(Math.log2(value));
  const y = scale(bottom, top, base, MARGIN.top);
  const grid = accuracyTicks(bottom, top).flatMap((tick) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }),
    svg("text", { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(2)),
  ]);
  const doubled = powers(low, high, right - MARGIN.left);
  // Between two powers of two, one value tells where the plot is.
  const ticks = (doubled.length ? doubled : [Math.round(Math.max(...xs))]).flatMap((tick) => [
    svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: base, y2: base + 5 }),
    svg("text", { class: "tick", x: x(tick), y: base + 19, "text-anchor": "middle" }, String(tick)),
  ]);
  const axis = svg("line", { class: "axis", x1: MARGIN.left, x2: right, y1: base, y2: base });
  const middle = (MARGIN.left + right) / 2;
  const name = svg("text", { class: "label", x: middle, y: PLOT_HEIGHT - 6, "text-anchor": "middle" }, label);
  const frame = { viewBox: `0 0 ${width} ${PLOT_HEIGHT}`, width, height: PLOT_HEIGHT, role: "group", "aria-label": title };
  return { root: svg("svg", frame, svg("g", { "aria-hidden": "true" }, ...grid, ...ticks, axis, name)), x, y };
}

let explained = null;

// Beside the node it explains, and inside the window; it goes along when the page scrolls.
function placeTooltip() {
  if (!explained) return;
  const node = explained.getBoundingClientRect();
  const { width, height } = find("tooltip").getBoundingClientRect();
  const left = node.right + 10 + width > innerWidth - 8 ? node.left - 10 - width : node.right + 10;
  const top = (node.top + node.bottom - height) / 2;
  find("tooltip").style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  find("tooltip").style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
}

function showTooltip(node, lines) {
  find("tooltip").replaceChildren(...lines.map((text, place) => html(place ? "div" : "strong", {}, text)));
  find("tooltip").hidden = false;
  explained = node;
  placeTooltip();
}

function hideTooltip() {
  find("tooltip").hidden = true;
  explained = null;
}

function explain(node, lines) {
  for (const event of ["pointerenter", "focus"]) node.addEventListener(event, () => showTooltip(node, lines));
  for (const event of ["pointerleave", "blur"]) node.addEventListener(event, hideTooltip);
}
