"""Plot the sparsity of every decoder block; attention and MLP separately if they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.errors import MissingPackageError
from lm_eval_pruned.pruning.artifacts.report import BlockReport
from lm_eval_pruned.pruning.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Blue and vermilion of Okabe and Ito's palette, distinguishable by colour-blind readers; markers differ for print.
_BLUE, _VERMILION = "#0072B2", "#D55E00"

# With more blocks than this, large markers would touch.
_FEW_BLOCKS = 40
_TICKS = 9


def draw_allocation(blocks: Sequence[BlockReport], path: Path, *, title: str) -> None:
    """Plot the target sparsity of each block into a PNG; dropped blocks are hatched bars.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError("drawing needs matplotlib: pip install 'lm-eval-pruned[plot]'") from None
    figure = Figure(figsize=(6, 2.5), layout="constrained", dpi=120)
    axes = figure.subplots()
    draw_blocks(axes, blocks)
    # A file name may contain dollar signs, which do not start mathematics.
    axes.set_title(title, loc="left", fontsize="medium", parse_math=False)
    axes.set_ylabel("sparsity")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderpad=0, fontsize="small")
    figure.savefig(path)


def title_of(config: Mapping[str, object], target: float) -> str:
    """Return a title made of the effective settings and the target sparsity of a report or a plan.

    Example:
        >>> title_of({"method": "wanda", "alloc": "lists/mine.json"}, 0.25)
        'wanda, mine.json, sparsity 0.25'
    """
    method = str(config["method"])
    reshapes = method in METHODS and METHODS[method].reshapes
    alloc = [] if reshapes else [Path(str(config["alloc"])).name]
    return ", ".join([method, *alloc, f"sparsity {target:.4g}"])


def draw_blocks(axes: Axes, blocks: Sequence[BlockReport]) -> None:
    """Plot the sparsities into `axes`, with legend labels if there is more than one line."""
    from matplotlib.ticker import MaxNLocator

    dropped = [block.index for block in blocks if block.attn == block.mlp == 1]
    remaining = [block for block in blocks if block.index not in dropped]
    indices, attention, mlp = ([getattr(block, name) for block in remaining] for name in ("index", "attn", "mlp"))
    size = 5.0 if len(blocks) <= _FEW_BLOCKS else 3.5

    def line(sparsities: Sequence[float], color: str, marker: str, *, label: str | None, over: int) -> None:
        # Not clipped, since a sparsity of 0 lies on the edge. The upper line is smaller, so that both show.
        axes.plot(
            indices, sparsities, color=color, marker=marker, markersize=size - over, linewidth=1.5 - over / 2,
            label=label, zorder=3 + over, clip_on=False,
        )  # fmt: skip

    if attention != mlp:
        line(attention, _BLUE, "o", label="attention", over=1)
        line(mlp, _VERMILION, "s", label="MLP", over=0)
    else:
        line(attention, _BLUE, "o", label=None, over=1)
    if dropped:
        axes.bar(dropped, 1, width=0.8, color="0.8", edgecolor="0.4", hatch="////", linewidth=0.5, label="dropped")
    top = 1.0 if dropped else max(1.15 * max([*attention, *mlp]), 0.05)
    axes.set(xlabel="block", xlim=(-0.6, len(blocks) - 0.4), ylim=(0, top))
    axes.set_xticks(range(0, len(blocks), _tick_step(len(blocks))))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _tick_step(blocks: int) -> int:
    """Return the smallest round distance between labelled blocks that does not crowd the axis."""
    return next((step for step in (1, 2, 4, 5, 8, 10, 20) if blocks <= _TICKS * step), -(-blocks // _TICKS))
