// Where a model hurts: one strip for each sparsity and part, one cell a block, coloured by the logarithm of its KL.

function mapStrips(cells) {
  const positive = cells.map(([, , , kl]) => kl).filter((kl) => kl > 0).map(Math.log);
  const [low, high] = [Math.min(...positive), Math.max(...positive)];
  const depth = (kl) => (kl > 0 && high > low ? (Math.log(kl) - low) / (high - low) : 0);
  const strips = new Map();
  for (const [block, part, sparsity, kl] of cells) {
    const name = `${percent(sparsity)} · ${part}`;
    if (!strips.has(name)) strips.set(name, []);
    strips.get(name)[block] = {
      texts: [`block ${block}`, `KL ${small(kl)} nats a token`], text: small(kl), opacity: 0.06 + 0.44 * depth(kl), inverse: false,
    };
  }
  const width = Math.max(...[...strips.values()].map((row) => row.length));
  const none = (block) => ({ texts: [`block ${block}`, "nothing to prune"], text: NONE, opacity: 0, inverse: false });
  return [...strips].map(([name, row]) => [name, Array.from({ length: width }, (_, block) => row[block] ?? none(block))]);
}

function showMaps() {
  find("maps-section").hidden = !DATA.maps.length;
  find("maps-note").textContent =
    "KL(dense || pruned), nats a token, of pruning one part of one block alone; the columns are the blocks, and " +
    `the stronger the colour, the more changes. This measures ${DATA.meaning}.`;
  const room = find("maps").clientWidth;
  const figures = DATA.maps.map(({ model, method, cells }) => {
    const name = `${model} · ${method}`;
    return html("figure", {}, html("figcaption", {}, name), drawStrips(mapStrips(cells), room, { "aria-label": name }));
  });
  find("maps").replaceChildren(...figures);
}
