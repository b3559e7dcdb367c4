"""A heat map of where a model hurts: KL of pruning one part of one block at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lm_eval_pruned.errors import MissingPackageError
from lm_eval_pruned.results.divergence.summary import MEANING

# With more blocks than this, numbers in the cells would overlap.
_MOST_NUMBERED = 40
_DARK = 0.55

# A cell of `map.json`.
Cell = Mapping[str, float | int | str]


def grid(cells: Sequence[Cell], sparsity: float) -> tuple[list[str], NDArray[np.float64]]:
    """Return the parts and the KL [blocks parts] at one sparsity, NaN where a block lacks a part.

    Example:
        >>> grid([{"block": 1, "part": "mlp", "sparsity": 0.5, "kl": 0.2}], 0.5)
        (['mlp'], array([[nan],
               [0.2]]))
    """
    chosen = [cell for cell in cells if cell["sparsity"] == sparsity]
    parts = list(dict.fromkeys(str(cell["part"]) for cell in chosen))
    values = np.full((max(int(cell["block"]) for cell in chosen) + 1, len(parts)), np.nan)
    for cell in chosen:
        values[int(cell["block"]), parts.index(str(cell["part"]))] = float(cell["kl"])
    return parts, values


def map_lines(cells: Sequence[Cell]) -> list[str]:
    """Return the plain text of a map: KL by block and part for each sparsity, and the blocks by their sum."""
    lines: list[str] = []
    for sparsity in dict.fromkeys(float(cell["sparsity"]) for cell in cells):
        parts, values = grid(cells, sparsity)
        width = max(11, *(len(part) + 2 for part in parts))
        lines += [f"sparsity {sparsity:g}, nats a token", "  block" + "".join(f"{part:>{width}}" for part in parts)]
        lines += [
            f"{block:>7}" + "".join(f"{'-' if np.isnan(value) else format(value, '.3g'):>{width}}" for value in row)
            for block, row in enumerate(values)
        ]
        order = np.argsort(-np.nansum(values, axis=1), kind="stable")
        lines.append("  most changed: " + " > ".join(map(str, order[:8])) + (" > ..." if len(order) > 8 else ""))
    return [*lines, f"This measures {MEANING}."]


def draw_map(cells: Sequence[Cell], path: Path, *, title: str) -> None:
    """Draw a heat map into a PNG, one panel for each sparsity, with a logarithmic scale that they share.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("drawing needs matplotlib: pip install 'lm-eval-pruned[plot]'") from None
    sparsities = list(dict.fromkeys(float(cell["sparsity"]) for cell in cells))
    grids = [grid(cells, sparsity) for sparsity in sparsities]
    parts, blocks = len(grids[0][0]), len(grids[0][1])
    everything = np.concatenate([values.ravel() for _, values in grids])
    positive = everything[everything > 0]
    # Rounding leaves nothing else where a part changes nothing.
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (1e-9, 1.0)
    scale = LogNorm(low, max(high, low * 10))
    width = 1.6 + len(grids) * (0.9 + 0.75 * parts)
    figure = Figure(figsize=(max(width, 5.5), 1.6 + min(0.34 * blocks, 14)), layout="constrained", dpi=120)
    panels = figure.subplots(1, len(grids), sharey=True, squeeze=False)[0]
    for axes, sparsity, (names, values) in zip(panels, sparsities, grids, strict=True):
        image = axes.imshow(np.clip(values, low, None), norm=scale, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(names)), names, rotation=0 if parts <= 2 else 90, fontsize="small")
        axes.set_title(f"sparsity {sparsity:g}", loc="left", fontsize="medium")
        for (block, part), value in np.ndenumerate(values):
            if blocks <= _MOST_NUMBERED and not np.isnan(value):
                ink = "black" if scale(max(value, low)) > _DARK else "white"
                axes.text(part, block, f"{value:.2g}", ha="center", va="center", color=ink, fontsize=7)
    panels[0].set_ylabel("block")
    figure.colorbar(image, ax=list(panels), label="KL(dense || pruned), nats a token")
    # A file name may contain dollar signs, which do not start mathematics.
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", parse_math=False)
    figure.supxlabel(MEANING, fontsize="x-small", color="0.35")
    figure.savefig(path)
