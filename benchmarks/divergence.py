"""What `lm-eval-pruned diverge` costs and holds in memory, and how it ranks damaged models of known accuracy.

    python benchmarks/divergence.py [cost] [memory] [ranking]

- cost: the bundled model over 40 random traces, against two plain prefills of the same padded batches, interleaved.
- memory: what a trace of 8,192 tokens adds to the peak at a vocabulary of 151,936 words, in a process of its own.
- ranking: nine damaged tiny-reasoners, KL along the dense model's traces and accuracy on `tiny_tts_256`, with
  Spearman's rank correlation, and how much narrower the interval of KL is, each relative to its value. Five minutes.
"""

from __future__ import annotations

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import lm_eval
import numpy as np
import torch
from lm_eval.loggers import EvaluationTracker
from scipy.stats import spearmanr
from timing import ratio, warm_in_turns
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.divergence.head import divide
from lm_eval_pruned.divergence.measure import dense_traces, diverge
from lm_eval_pruned.divergence.traces import TokenTrace, batches, offsets
from lm_eval_pruned.models.diverge import diverge_pretrained
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.results.divergence.summary import Changes, kl_interval, rates
from lm_eval_pruned.results.statistics.intervals import difference_interval

ROUNDS = 5
VOCABULARY, TOKENS = 151_936, 8_192
TASK = "tiny_tts_256"
DAMAGED = [
    {"method": "magnitude", "sparsity": 0.2},
    *({"method": method, "sparsity": share} for share in (0.5, 0.7) for method in ("magnitude", "wanda")),
    *({"method": "shortgpt", "blocks": str(block)} for block in (2, 3, 4)),
    {"method": "wanda", "sparsity": 0.2},
]


def random_traces(count: int, tokens: int, vocabulary: int) -> list[TokenTrace]:
    ids = torch.randint(vocabulary, (count, tokens), generator=torch.Generator().manual_seed(0))
    return [
        TokenTrace(question=str(index), ids=tuple(row.tolist()), start=tokens // 3, thinking=tokens // 2)
        for index, row in enumerate(ids)
    ]


def cost() -> None:
    model = AutoModelForCausalLM.from_pretrained(bundled_folder()).eval()
    traces = random_traces(40, 150, 264)
    parts = divide(model, torch.tensor([traces[0].ids]))

    @torch.no_grad()
    def prefill() -> None:
        for _ in range(2):
            for batch in batches(traces):
                model(input_ids=torch.tensor([traces[index].ids for index in batch]), use_cache=False)

    times = warm_in_turns({"ours": lambda: diverge(parts, dense_traces(parts, traces)), "peer": prefill}, ROUNDS)
    print(f"cost: {ratio(times['ours'], times['peer']):.2f} times two plain prefills ({ROUNDS} rounds)")


def memory() -> None:
    done = subprocess.run([sys.executable, __file__, "memory-inside"], check=True, capture_output=True, text=True)
    print(done.stdout, end="")


def memory_inside() -> None:
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=TOKENS,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    traces = random_traces(1, TOKENS, VOCABULARY)
    parts = divide(model, torch.tensor([traces[0].ids[:64]]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    diverge(parts, dense_traces(parts, traces))
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"memory: {added:,.0f} MiB more at the peak ({TOKENS:,} tokens, {VOCABULARY:,} words; limit 1,024 MiB)")


def correct(model: PrunedHFLM, folder: Path | None = None) -> np.ndarray:
    """Return the outcome of each question; with a folder, the samples are written to it."""
    tracker = EvaluationTracker(output_path=str(folder)) if folder else None
    found = lm_eval.simple_evaluate(model=model, tasks=[TASK], bootstrap_iters=0, log_samples=True)
    samples = found["samples"][TASK]
    if tracker:
        tracker.save_results_aggregated(results=found, samples=found["samples"])
        tracker.save_results_samples(task_name=TASK, samples=samples)
    return np.array([sample["acc"] for sample in samples])


def ranking() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dense = correct(PrunedHFLM("tiny-reasoner", batch_size=64), Path(folder))
        accuracies, changes = [], []
        print(f"{'damage':<24}{'accuracy':>9}{'lost, 95 %':>18}{'KL':>10}{'95 %':>22}{'survive':>9}{'narrower':>10}")
        for settings in DAMAGED:
            outcome = correct(PrunedHFLM("tiny-reasoner", batch_size=64, **settings))
            found = diverge_pretrained(
                "tiny-reasoner", resolve(PruneConfig(**settings)), RunConfig(), LoadOptions(), [Path(folder)]
            )
            one = Changes(
                kl=found.divergences.kl,
                flipped=found.divergences.flipped,
                offsets=offsets(found.traces),
                thinking=np.array([trace.thinking for trace in found.traces]),
                questions=[trace.question for trace in found.traces],
            )
            kl, _, survive = rates(one)
            interval, lost = kl_interval(one), difference_interval(dense - outcome, bounded=True)
            loss = (dense - outcome).mean()
            narrower = (lost.high - lost.low) / loss / ((interval.high - interval.low) / kl) if loss else np.inf
            accuracies.append(outcome.mean())
            changes.append((kl, survive))
            print(
                f"{' '.join(map(str, settings.values())):<24}{outcome.mean():>9.3f}"
                f"{f'{lost.low:.3f} to {lost.high:.3f}':>18}{kl:>10.3g}"
                f"{f'{interval.low:.3g} to {interval.high:.3g}':>22}{survive:>9.3f}{narrower:>10.1f}",
                flush=True,
            )
        kls, survivals = zip(*changes, strict=True)
        print(f"Spearman with accuracy: KL {spearmanr(kls, accuracies)[0]:.3f}, ", end="")
        print(f"survive {spearmanr(survivals, accuracies)[0]:.3f}")


def main() -> None:
    parts = {"cost": cost, "memory": memory, "ranking": ranking, "memory-inside": memory_inside}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all by default")
    logging.disable(logging.WARNING)
    for name in parser.parse_args().parts or ("cost", "memory", "ranking"):
        parts[name]()


if __name__ == "__main__":
    main()
