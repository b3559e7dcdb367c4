// The one tooltip of the page: on hover, on focus and on tap.

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
  for (const event of ["pointerenter", "focus", "click"]) node.addEventListener(event, () => showTooltip(node, lines));
  // A finger leaves the screen at once: what it tapped on stays explained until the next tap.
  node.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hideTooltip());
  node.addEventListener("blur", hideTooltip);
}
