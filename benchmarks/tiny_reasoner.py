"""Measure what pruning does to the bundled model: its curve dense, pruned, and without each of its blocks.

    python benchmarks/tiny_reasoner.py

prints one line for each configuration with the accuracy on `tiny_tts` at each budget. About three minutes on two cores.
"""

from __future__ import annotations

import logging

import lm_eval
from torch import nn

from lm_eval_pruned.models.hf import PrunedHFLM

BUDGETS = (16, 32, 64, 128, 256)
PRUNED = [("none", None), *((method, share) for method in ("magnitude", "wanda") for share in (0.1, 0.2, 0.5, 0.7))]


def curve(model: PrunedHFLM) -> list[float]:
    results = lm_eval.simple_evaluate(model=model, tasks=["tiny_tts"], bootstrap_iters=0, log_samples=False)["results"]
    return [results[f"tiny_tts_{budget}"]["acc,none"] for budget in BUDGETS]


def without_block(index: int) -> PrunedHFLM:
    wrapped = PrunedHFLM("tiny-reasoner", batch_size=64)
    decoder = wrapped.model.model
    decoder.layers = nn.ModuleList(block for number, block in enumerate(decoder.layers) if number != index)
    for number, block in enumerate(decoder.layers):
        block.self_attn.layer_idx = number
    decoder.config.num_hidden_layers = len(decoder.layers)
    decoder.config.layer_types = decoder.config.layer_types[: len(decoder.layers)]
    return wrapped


def main() -> None:
    logging.disable(logging.WARNING)
    print(f"{'configuration':<20}" + "".join(f"{budget:>8}" for budget in BUDGETS))
    for method, sparsity in PRUNED:
        arguments = {} if sparsity is None else {"method": method, "sparsity": sparsity}
        accuracies = curve(PrunedHFLM("tiny-reasoner", batch_size=64, **arguments))
        name = "dense" if sparsity is None else f"{method} {sparsity}"
        print(f"{name:<20}" + "".join(f"{accuracy:>8.3f}" for accuracy in accuracies), flush=True)
    blocks = PrunedHFLM("tiny-reasoner").model.config.num_hidden_layers
    for index in range(blocks):
        print(
            f"{f'without block {index}':<20}" + "".join(f"{value:>8.3f}" for value in curve(without_block(index))),
            flush=True,
        )


if __name__ == "__main__":
    main()
