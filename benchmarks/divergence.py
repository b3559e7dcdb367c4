"""What `lm-eval-pruned diverge` costs and holds in memory, and how it ranks damaged models of known accuracy.

    python benchmarks/divergence.py [cost] [memory] [ranking]

- cost: the bundled model over 40 random traces, against two plain prefills of the same padded batches, interleaved.
- memory: what a trace of 8,192 tokens adds to the peak at a vocabulary of 151,936 words, in a process of its own.
- ranking: 30 prunings of tiny-reasoner, KL along the dense model's traces and accuracy on `tiny_tts_256`, with
  Spearman's rank correlation, how much narrower the interval of KL is than that of the accuracy lost, each relative to
  its value, and the picture in docs. Ten minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import lm_eval
import numpy as np
import torch
from lm_eval.loggers import EvaluationTracker
from matplotlib.figure import Figure
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
from lm_eval_pruned.results.statistics.intervals import difference_interval, mean_interval
from lm_eval_pruned.results.statistics.ratio import ratio_interval

ROUNDS = 5
VOCABULARY, TOKENS = 151_936, 8_192
TASK = "tiny_tts_256"
# Every second one of 200, which are sorted by length.
QUESTIONS = list(range(0, 200, 2))
SPARSITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
# Every kind of pruning with its marker in the picture.
MARKERS = {"magnitude": "o", "wanda": "s", "sparsegpt": "^", "N:M": "D", "blocks": "X"}
CONFIGURATIONS = [
    *({"method": method, "sparsity": share} for method in ("magnitude", "wanda", "sparsegpt") for share in SPARSITIES),
    *({"method": method, "pattern": pattern} for method in ("magnitude", "wanda") for pattern in ("2:4", "4:8")),
    *({"method": "shortgpt", "blocks": blocks} for blocks in ("0", "1", "2", "3", "4", "2+3", "3+4", "2-4")),
]
# Configurations that lose at most this much accuracy are near the baseline.
NEAR = 0.05
RESAMPLES = 2_000
PICTURE = Path(__file__).parents[1] / "docs" / "divergence.png"


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
    found = lm_eval.simple_evaluate(
        model=model, tasks=[TASK], samples={TASK: QUESTIONS}, bootstrap_iters=0, log_samples=True
    )
    samples = found["samples"][TASK]
    if tracker:
        tracker.save_results_aggregated(results=found, samples=found["samples"])
        tracker.save_results_samples(task_name=TASK, samples=samples)
    return np.array([sample["acc"] for sample in samples])


class Row(NamedTuple):
    """One configuration: outcomes, KL and tokens of each question [questions], and which traces survive."""

    settings: dict[str, object]
    correct: np.ndarray
    kl: np.ndarray
    tokens: np.ndarray
    survives: np.ndarray

    @property
    def kind(self) -> str:
        """Its key in MARKERS."""
        return (
            "blocks" if "blocks" in self.settings else "N:M" if "pattern" in self.settings else self.settings["method"]
        )


def measured(settings: dict[str, object], traces: Path, order: list[str]) -> Row:
    """Ask all questions of a pruned model, and put the dense model's traces through it."""
    outcome = correct(PrunedHFLM("tiny-reasoner", batch_size=100, **settings))
    found = diverge_pretrained("tiny-reasoner", resolve(PruneConfig(**settings)), RunConfig(), LoadOptions(), [traces])
    begins = offsets(found.traces)
    kl, flips = (np.add.reduceat(values, begins[:-1]) for values in (found.divergences.kl, found.divergences.flipped))
    # Traces in the order in which questions are asked.
    places = np.argsort([order.index(trace.question) for trace in found.traces])
    return Row(settings, outcome, kl[places], np.diff(begins)[places], (flips == 0)[places])


def ranking() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dense = correct(PrunedHFLM("tiny-reasoner", batch_size=100), Path(folder))
        order = [json.loads(line)["doc_hash"] for line in next(Path(folder).rglob("samples_*")).open()]
        rows = []
        print(f"{'pruning':<18}{'accuracy':>9}{'lost, 95 %':>20}{'KL':>9}{'95 %':>19}{'survive':>9}{'narrower':>10}")
        for settings in CONFIGURATIONS:
            rows.append(measured(settings, Path(folder), order))
            print(line_of(rows[-1], dense), flush=True)
    near = [row for row in rows if dense.mean() - row.correct.mean() <= NEAR]
    for name, chosen in ((f"all {len(rows)}", rows), (f"the {len(near)} that lose at most {NEAR:g}", near)):
        print(f"Spearman with accuracy, {name}: {spearman_words(chosen)}")
    draw(rows, dense.mean())


def line_of(row: Row, dense: np.ndarray) -> str:
    interval, lost = ratio_interval(row.kl, row.tokens), difference_interval(dense - row.correct, bounded=True)
    loss, kl = (dense - row.correct).mean(), row.kl.sum() / row.tokens.sum()
    narrower = f"{(lost.high - lost.low) / loss / ((interval.high - interval.low) / kl):.1f}" if loss > 0 else "-"
    return (
        f"{' '.join(map(str, row.settings.values())):<18}{row.correct.mean():>9.3f}"
        f"{f'{lost.low:.3f} to {lost.high:.3f}':>20}{kl:>9.2g}{f'{interval.low:.2g} to {interval.high:.2g}':>19}"
        f"{row.survives.mean():>9.3f}{narrower:>10}"
    )


def spearman_words(rows: list[Row]) -> str:
    """Return Spearman's rank correlation of KL and of survival with accuracy, with intervals over questions."""
    correct, kl, tokens, survives = (np.array([getattr(row, name) for row in rows]) for name in Row._fields[1:])
    drawn = np.random.default_rng(0).integers(correct.shape[1], size=(RESAMPLES, correct.shape[1]))

    def of(chosen: np.ndarray) -> tuple[float, float]:
        accuracy = correct[:, chosen].mean(1)
        rates = kl[:, chosen].sum(1) / tokens[:, chosen].sum(1), survives[:, chosen].mean(1)
        return tuple(spearmanr(rate, accuracy)[0] for rate in rates)

    ends = np.nanquantile([of(chosen) for chosen in drawn], [0.025, 0.975], axis=0).T
    values = of(np.arange(correct.shape[1]))
    return ", ".join(
        f"{name} {value:.3f} ({low:.3f} to {high:.3f})"
        for name, value, (low, high) in zip(("KL", "survive"), values, ends, strict=True)
    )


def draw(rows: list[Row], dense: float) -> None:
    """Draw accuracy against KL and against survival."""
    figure = Figure(figsize=(9, 3.8), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2, sharey=True)
    for kind, marker in MARKERS.items():
        chosen = [row for row in rows if row.kind == kind]
        accuracy = np.array([row.correct.mean() for row in chosen])
        ends = np.array([mean_interval(row.correct) for row in chosen]).T
        reach = np.maximum(np.abs(ends - accuracy), 0)
        kl = [row.kl.sum() / row.tokens.sum() for row in chosen]
        for axes, values in ((left, kl), (right, [row.survives.mean() for row in chosen])):
            axes.errorbar(values, accuracy, reach, fmt=marker, markersize=5, elinewidth=0.8, capsize=2, label=kind)
    for axes, name in ((left, "KL(dense || pruned), nats a token"), (right, "traces that survive")):
        axes.axhline(dense, color="0.6", linewidth=0.8, linestyle="--")
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    left.set_xscale("log")
    left.set_ylabel(f"accuracy, {TASK}")
    left.legend(frameon=False, fontsize="small")
    figure.suptitle(
        f"{len(rows)} prunings of tiny-reasoner; bars are 95 % intervals", x=0.01, ha="left", fontsize="medium"
    )
    figure.savefig(PICTURE)


def main() -> None:
    parts = {"cost": cost, "memory": memory, "ranking": ranking, "memory-inside": memory_inside}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all by default")
    logging.disable(logging.WARNING)
    for name in parser.parse_args().parts or ("cost", "memory", "ranking"):
        parts[name]()


if __name__ == "__main__":
    main()
