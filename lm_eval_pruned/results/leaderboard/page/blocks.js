// Where the zeros are: one strip a run, one cell a block of the decoder.

const STRIPS_DRAWN = 40;
const CELL_HEIGHT = 26;
const NAME_WIDTH = 230;
const LETTER_WIDTH = 7;

function stripRuns() {
  // Seeds, tasks and settings share their model: one strip for each way of pruning it.
  const strips = new Map();
  for (const { run } of filtered("budget")) {
    const name = [modelName(run), [run.method, run.alloc, run.amount, run.others].filter(Boolean).join(" ")];
    const key = name.filter(Boolean).join(" · ");
    if (run.blocks.some((block) => block[2] > 0)) strips.set(key, run.blocks);
  }
  return [...strips].sort(([a], [b]) => compareTexts(a, b));
}

function drawStrip(name, blocks, room, top, isWide) {
  const left = isWide ? NAME_WIDTH : 0;
  const down = isWide ? top : top + 20;
  const width = Math.min(72, (room - left) / blocks.length);
  const label = svg("text", { class: "label", x: 0, y: isWide ? top + 15 : top + 14 }, name);
  const cells = blocks.map(([attn, mlp, achieved], index) => {
    const x = left + index * width;
    const box = svg("rect", { x, y: down, width: Math.max(1, width - 2), height: CELL_HEIGHT - 4, rx: 2 });
    // Never so dark that its number cannot be read, unless all is gone.
    box.style.fillOpacity = String(achieved === 1 ? 1 : 0.06 + 0.44 * achieved);
    const what = achieved === 1 ? "the whole block is gone" : `${percent(achieved)} zero`;
    const texts = [`${name}, block ${index}`, what, `target: attention ${percent(attn)}, MLP ${percent(mlp)}`];
    const text = achieved === 1 ? "gone" : fixed(100 * achieved, 0);
    const dark = achieved === 1 ? " inverse" : "";
    const inside = { class: `value${dark}`, x: x + width / 2 - 1, y: down + 15, "text-anchor": "middle" };
    const cell = svg("g", { class: "cell", role: "img", tabindex: index ? "-1" : "0", "aria-label": texts.join(", ") }, box);
    if (width >= 36) cell.append(svg("text", inside, text));
    explain(cell, texts);
    return cell;
  });
  const root = svg("g", { role: "group", "aria-label": name }, label, ...cells);
  root.addEventListener("keydown", (event) => walk(event, [cells]));
  return root;
}

function showBlocks() {
  const strips = stripRuns();
  find("blocks-section").hidden = !strips.length;
  const room = find("blocks").clientWidth;
  const shown = strips.slice(0, STRIPS_DRAWN);
  // Beside its cells a name has this much room, above them all there is.
  const isWide = room >= 640 && shown.every(([name]) => name.length * LETTER_WIDTH <= NAME_WIDTH);
  const height = CELL_HEIGHT + (isWide ? 4 : 26);
  const drawn = shown.map(([name, blocks], row) => drawStrip(name, blocks, room, row * height, isWide));
  const size = { width: room, height: shown.length * height, viewBox: `0 0 ${room} ${shown.length * height}` };
  const left = strips.length - shown.length;
  const note = left > 0 ? html("p", { class: "note" }, `${left} more runs: filter to see them.`) : "";
  find("blocks").replaceChildren(svg("svg", { ...size, class: "strips", role: "group", "aria-labelledby": "blocks-title" }, ...drawn), note);
}
