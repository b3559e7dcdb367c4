// Numbers as text: shares, points, and metrics of any size.

function fixed(value, digits) {
  return value === null ? NONE : value.toFixed(digits).replace("-", "−");
}

// A metric in its own unit: perplexities reach millions, and losses may be tiny or negative.
function plain(value) {
  if (value === null) return NONE;
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(2).replace("e+", "e").replaceAll("-", "−");
  if (size >= 1000) return Math.round(value).toLocaleString("en").replace("-", "−");
  return fixed(value, size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

// Two significant digits of a number that may be far below 1.
function small(value) {
  if (value === null) return NONE;
  const text = value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
  return text.replaceAll("-", "−");
}

function score(line, value) {
  return line.share ? fixed(value, 3) : plain(value);
}

function signed(value, text) {
  return (value > 0 ? "+" : "") + text;
}

// A difference: in points between shares, else in the metric's own unit.
function change(line, value) {
  return signed(value, line.share ? fixed(100 * value, 1) : plain(value));
}

function percent(value) {
  return value === null ? NONE : `${fixed(100 * value, value > 0 && value < 0.1 ? 1 : 0)} %`;
}

function pText(p) {
  return p === null ? NONE : p < 0.001 ? "< 0.001" : fixed(p, 3);
}
