// The least contrast (WCAG 2.2) of each kind of visible text with the first background behind it.
const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = numbers(colour).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const isOpaque = (colour) => colour !== "transparent" && (numbers(colour)[3] ?? 1) > 0;
const behind = (node) => {
  for (let one = node; one; one = one.parentElement) {
    const { backgroundColor } = getComputedStyle(one);
    if (isOpaque(backgroundColor)) return backgroundColor;
  }
  return "rgb(255, 255, 255)";
};
const blend = (front, back, alpha) =>
  `rgb(${numbers(front).slice(0, 3).map((value, place) => alpha * value + (1 - alpha) * numbers(back)[place]).join(",")})`;
const found = {};
for (const node of document.querySelectorAll("body *")) {
  const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!hasText || !node.getClientRects().length || node.closest("script, style, noscript, option, .skip")) continue;
  const isDrawn = node instanceof SVGElement;
  const style = getComputedStyle(node);
  const cell = node.closest(".cell")?.querySelector("rect");
  const back = cell
    ? blend(getComputedStyle(cell).fill, behind(node), Number(getComputedStyle(cell).fillOpacity))
    : behind(node);
  const [light, dark] = [luminance(isDrawn ? style.fill : style.color), luminance(back)].sort((a, b) => b - a);
  const name = `${node.tagName.toLowerCase()}.${node.getAttribute("class") ?? ""} in ${node.parentElement.tagName} ${cell ? node.textContent : ""}`;
  found[name] = Math.min(found[name] ?? 99, (light + 0.05) / (dark + 0.05));
}
return found;
