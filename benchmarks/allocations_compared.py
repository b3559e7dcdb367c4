"""Every allocation at every sparsity, question by question and window by window, with a paired test of `search`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import lm_eval
import numpy as np
import torch
from numpy.typing import NDArray
from prose import prose
from smollm2 import temporary_smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.divergence.head import divide
from lm_eval_pruned.divergence.kl import compare
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.results.statistics.paired import paired_test

OTHERS = ("uniform", "owl", "dlp", "alphapruning", "arithmetic", "layerif")
SPARSITIES = (0.1, 0.2, 0.5, 0.6, 0.7)
TASK = "tiny_tts_256"
# What two cores do in minutes; published calibration has 128 windows of 2,048 tokens.
SAMPLES, UNSEEN, SEQLEN = 16, 32, 256

Floats = NDArray[np.float64]


class Measured(NamedTuple):
    """What a pruned model does on each question or window, by name of the measure, and processor seconds of pruning."""

    values: Mapping[str, Floats]
    seconds: float


class Measure(NamedTuple):
    """A number of a pruned model: whether more of it is better, and how its mean over questions is printed."""

    is_gain: bool
    show: Callable[[float], str]


MEASURES = {
    "accuracy": Measure(True, lambda mean: f"{mean:.3f}"),
    "KL": Measure(False, lambda mean: f"{mean:.4f}" if mean < 0.1 else f"{mean:.3f}"),
    "perplexity": Measure(False, lambda mean: f"{np.exp(mean):.1f}"),
}


def tiny(method: str, sparsities: Sequence[float], others: Sequence[str]) -> None:
    """Print accuracies of tiny-reasoner on 200 questions that no calibration window holds."""
    print(f"tiny-reasoner, method={method}, {TASK}")
    wanda, dense = (_loaded(method=name, sparsity=0.5)[1] for name in ("wanda", "magnitude"))
    compared(partial(_asked, method), sparsities, others, one_calibration=wanda - dense)


def _loaded(**settings: object) -> tuple[PrunedHFLM, float]:
    begin = time.process_time()
    model = PrunedHFLM("tiny-reasoner", batch_size=100, artifacts="off", **settings)
    return model, time.process_time() - begin


def _asked(method: str, alloc: str, sparsity: float) -> Measured:
    model, seconds = _loaded(method=method, alloc=alloc, sparsity=sparsity)
    found = lm_eval.simple_evaluate(model=model, tasks=[TASK], bootstrap_iters=0, log_samples=True)
    outcomes = [float(sample["acc"]) for sample in found["samples"][TASK]]
    return Measured({"accuracy": np.array(outcomes)}, seconds)


def smollm2(sparsities: Sequence[float], others: Sequence[str]) -> None:
    """Print KL and perplexity of SmolLM2-135M-Instruct, pruned by Wanda, on prose that it was not calibrated on."""
    print(f"SmolLM2-135M in bfloat16, method=wanda, {SAMPLES} windows of {SEQLEN} tokens, {UNSEEN} unseen ones")
    with temporary_smollm2() as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        calibration = prose(tokenizer, samples=SAMPLES, seqlen=SEQLEN)
        unseen = prose(tokenizer, samples=UNSEEN, seqlen=SEQLEN, held_out=True)
        parts = divide(dense, unseen[:1, :64])
        with torch.no_grad():
            states = [parts.states(window[None])[0, :-1] for window in unseen]
        compared(partial(_read, dense, calibration, unseen, states), sparsities, others)


def _read(
    dense: PreTrainedModel,
    calibration: torch.Tensor,
    unseen: torch.Tensor,
    states: Sequence[torch.Tensor],
    alloc: str,
    sparsity: float,
) -> Measured:
    pruned = copy.deepcopy(dense)
    begin = time.process_time()
    prune_model(pruned, PruneConfig(method="wanda", alloc=alloc, sparsity=sparsity), calibration)
    seconds = time.process_time() - begin
    parts, kl, loss = divide(pruned, unseen[:1, :64]), [], []
    with torch.no_grad():
        for window, before in zip(unseen, states, strict=True):
            after = parts.logits(parts.states(window[None])[0, :-1])
            kl.append(float(compare(parts.logits(before), after, window[1:]).kl.mean()))
            loss.append(float(torch.nn.functional.cross_entropy(after.float(), window[1:])))
    return Measured({"KL": np.array(kl), "perplexity": np.array(loss)}, seconds)


def compared(
    measure: Callable[[str, float], Measured],
    sparsities: Sequence[float],
    others: Sequence[str],
    one_calibration: float | None = None,
) -> None:
    """Print a row for each sparsity and measure, with `search` against the best other allocation.

    Args:
        measure: prunes with an allocation to a sparsity.
        sparsities: the rows.
        others: the allocations besides `search`, `uniform` among them.
        one_calibration: processor seconds of calibrating Wanda once; those of pruning uniformly if not given.
    """
    print("| sparsity | | " + " | ".join([*others, "search"]) + " | search against the best other | its cost |")
    print("|---" * (len(others) + 5) + "|")
    for sparsity in sparsities:
        found = {alloc: measure(alloc, sparsity) for alloc in (*others, "search")}
        cost = found["search"].seconds - found["uniform"].seconds
        times = f"{cost / (one_calibration or found['uniform'].seconds):.1f}"
        for name in found["search"].values:
            print(f"| {sparsity:.0%} | {name} | {row(name, {alloc: one.values[name] for alloc, one in found.items()})}"
                  f" | {times} |", flush=True)  # fmt: skip


def row(name: str, values: Mapping[str, Floats]) -> str:
    """Return the means of one measure, and the paired test of `search` against the best other allocation."""
    kind = MEASURES[name]
    sign = 1 if kind.is_gain else -1
    best = max(values.keys() - {"search"}, key=lambda alloc: (sign * values[alloc].mean(), alloc))
    gains = sign * (values["search"] - values[best])
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    p = paired_test(gains, "two-sided").p
    return " | ".join(
        [*(kind.show(float(one.mean())) for one in values.values()), f"{best}: {won} won, {lost} lost, p = {p:.2g}"]
    )
