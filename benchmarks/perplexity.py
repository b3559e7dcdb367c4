"""Measure what pruning costs in perplexity: SmolLM2-135M on held-out English prose, by method and sparsity.

    python benchmarks/perplexity.py [--windows 12] [--seqlen 256]

prints one line for each method and allocation. About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import copy
import logging

import torch
from prose import perplexity, prose
from smollm2 import temporary_smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_pruned import PruneConfig, prune_model

SPARSITIES = (0.1, 0.2, 0.5)
RECIPES = [
    *((method, "uniform") for method in ("magnitude", "wanda", "sparsegpt")),
    *(("wanda", alloc) for alloc in ("owl", "layerif", "alphapruning", "dlp")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--seqlen", type=int, default=256)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with temporary_smollm2() as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        calibration = prose(tokenizer, samples=args.windows, seqlen=args.seqlen)
        held_out = prose(tokenizer, samples=args.windows, seqlen=args.seqlen, held_out=True)
        base = perplexity(dense, held_out)
        print(f"perplexity of the dense model: {base:.2f}; of a pruned one, times that:")
        print(f"{'':<22}" + "".join(f"{f'{sparsity:.0%}':>8}" for sparsity in SPARSITIES))
        for method, alloc in RECIPES:
            costs = []
            for sparsity in SPARSITIES:
                pruned = copy.deepcopy(dense)
                prune_model(pruned, PruneConfig(method=method, alloc=alloc, sparsity=sparsity), calibration)
                costs.append(perplexity(pruned, held_out) / base)
            print(f"{f'{method} {alloc}':<22}" + "".join(f"{cost:>8.3f}" for cost in costs), flush=True)


if __name__ == "__main__":
    main()
