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

// One cell a block: its texts, its number, the opacity of its fill, and whether the number needs the inverse ink.
function stripCells(blocks) {
  return blocks.map(([attn, mlp, achieved], index) => {
    const what = achieved === 1 ? "the whole block is gone" : `${percent(achieved)} zero`;
    return {
      texts: [`block ${index}`, what, `target: attention ${percent(attn)}, MLP ${percent(mlp)}`],
      text: achieved === 1 ? "gone" : fixed(100 * achieved, 0),
      // Never so dark that its number cannot be read, unless all is gone.
      opacity: achieved === 1 ? 1 : 0.06 + 0.44 * achieved,
      inverse: achieved === 1,
    };
  });
}

function drawStrip(name, cells, room, top, isWide) {
  const left = isWide ? NAME_WIDTH : 0;
  const down = isWide ? top : top + 20;
  const width = Math.min(72, (room - left) / cells.length);
  const label = svg("text", { class: "label", x: 0, y: isWide ? top + 15 : top + 14 }, name);
  const drawn = cells.map(({ texts, text, opacity, inverse }, index) => {
    const x = left + index * width;
    const box = svg("rect", { x, y: down, width: Math.max(1, width - 2), height: CELL_HEIGHT - 4, rx: 2 });
    box.style.fillOpacity = String(opacity);
    const named = [`${name}, ${texts[0]}`, ...texts.slice(1)];
    const inside = { class: `value${inverse ? " inverse" : ""}`, x: x + width / 2 - 1, y: down + 15, "text-anchor": "middle" };
    const cell = svg("g", { class: "cell", role: "img", tabindex: index ? "-1" : "0", "aria-label": named.join(", ") }, box);
    if (width >= 36) cell.append(svg("text", inside, text));
    explain(cell, named);
    return cell;
  });
  const root = svg("g", { role: "group", "aria-label": name }, label, ...drawn);
  root.addEventListener("keydown", (event) => walk(event, [drawn]));
  return root;
}

// Strips below one another, [name, cells] each.
function drawStrips(strips, room, attributes) {
  // Beside its cells a name has this much room, above them all there is.
  const isWide = room >= 640 && strips.every(([name]) => name.length * LETTER_WIDTH <= NAME_WIDTH);
  const height = CELL_HEIGHT + (isWide ? 4 : 26);
  const drawn = strips.map(([name, cells], row) => drawStrip(name, cells, room, row * height, isWide));
  const size = { width: room, height: strips.length * height, viewBox: `0 0 ${room} ${strips.length * height}` };
  return svg("svg", { ...size, class: "strips", role: "group", ...attributes }, ...drawn);
}

function showBlocks() {
  const strips = stripRuns();
  find("blocks-section").hidden = !strips.length;
  const shown = strips.slice(0, STRIPS_DRAWN).map(([name, blocks]) => [name, stripCells(blocks)]);
  const left = strips.length - shown.length;
  const note = left > 0 ? html("p", { class: "note" }, `${left} more runs: filter to see them.`) : "";
  const drawn = drawStrips(shown, find("blocks").clientWidth, { "aria-labelledby": "blocks-title" });
  find("blocks").replaceChildren(drawn, note);
}
