"""Cost of pruning and budgets on vLLM: engine start, plain generation, and five budgets against one.

    .venv-vllm/bin/python benchmarks/vllm_engine.py [--rounds 5]

The peer is the harness's own `vllm` model in the same run, in turns: first the start of SmolLM2-135M in a new process,
with masks made before, then plain greedy generation by two engines side by side. Last tiny-reasoner on all 200
questions of `tiny_tts`. Prints medians of ratios within a round; takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from budgets import BUDGETS, PROBLEMS, requests
from lm_eval.api.instance import Instance
from smollm2 import temporary_smollm2
from timing import ratio, warm_in_turns

from lm_eval_pruned.models.vllm.compatibility import harness_class, stop_engine
from lm_eval_pruned.models.vllm.model import PrunedVLLM
from lm_eval_pruned.reasoning.backends.vllm import VLLMBackend

# `pruned-vllm` turns chunked prefill off on a CPU: so does its peer.
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024, "enable_chunked_prefill": False}
ROWS, TOKENS = 64, 64


def load_model(kind: str, folder: str, artifacts: str, **pruning: object) -> object:
    if kind == "vllm":
        return harness_class()(folder, **ENGINE)
    return PrunedVLLM(folder, artifacts=artifacts, **ENGINE, **pruning)


def wanda_arguments(artifacts: str) -> dict[str, object]:
    windows = Path(artifacts, "windows.npy")
    if not windows.exists():
        np.save(windows, np.random.default_rng(0).integers(0, 40_000, (8, 128)))
    return {"method": "wanda", "sparsity": 0.2, "calib": str(windows)}


def measure_starts(folder: str, artifacts: str, rounds: int) -> None:
    """Time whole processes that start an engine and exit: imports, loading, warm-up."""

    def start(kind: str) -> None:
        command = [sys.executable, __file__, "--start", kind, folder, artifacts]
        subprocess.run(command, check=True, capture_output=True)

    seconds = warm_in_turns({kind: lambda kind=kind: start(kind) for kind in ("vllm", "pruned-vllm")}, rounds)
    print(f"start of an engine in a new process, SmolLM2-135M, {rounds} rounds")
    print(
        f"  vllm {median(seconds['vllm']):.1f} s, pruned-vllm with masks {median(seconds['pruned-vllm']):.1f} s: "
        f"{ratio(seconds['pruned-vllm'], seconds['vllm']):.2f} x"
    )


def measure_plain_generation(folder: str, artifacts: str, rounds: int) -> None:
    engines = {kind: load_model(kind, folder, artifacts) for kind in ("vllm", "pruned-vllm")}
    until = {"until": ["<never>"], "max_gen_toks": TOKENS, "do_sample": False}
    texts = [f"The number {number} is special because" for number in range(ROWS)]
    asked = [
        Instance(request_type="generate_until", doc={}, arguments=(text, {**until}), idx=0, task_name="", doc_id=0)
        for text in texts
    ]
    works = {kind: lambda lm=lm: lm.generate_until(asked, disable_tqdm=True) for kind, lm in engines.items()}
    seconds = warm_in_turns(works, rounds)
    print(f"plain generation, {ROWS} rows of {TOKENS} tokens, {rounds} rounds")
    print(
        f"  vllm {median(seconds['vllm']):.1f} s, pruned-vllm {median(seconds['pruned-vllm']):.1f} s: throughput "
        f"{ratio(seconds['vllm'], seconds['pruned-vllm']):.2f} x"
    )
    for engine in engines.values():
        stop_engine(engine.model)


def measure_five_budgets(rounds: int) -> None:
    tokens = [0]
    generated = VLLMBackend._generated

    def count(backend: VLLMBackend, row: object, output: object) -> object:
        tokens[0] += len(output.outputs[0].token_ids)
        return generated(backend, row, output)

    VLLMBackend._generated = count
    engine = PrunedVLLM("tiny-reasoner", **ENGINE)
    counts: dict[str, int] = {}

    def generate(name: str, budgets: Sequence[int]) -> None:
        # An earlier round's prefixes would make this one faster.
        engine.model.reset_prefix_cache()
        tokens[0] = 0
        engine.generate_until(requests(PROBLEMS, budgets), disable_tqdm=True)
        counts[name] = tokens[0]

    named = {"the largest budget alone": BUDGETS[-1:], "five budgets": BUDGETS}
    seconds = warm_in_turns(
        {name: lambda name=name, b=budgets: generate(name, b) for name, budgets in named.items()}, rounds
    )
    largest, _ = named
    print(f"{len(PROBLEMS)} questions of tiny_tts, {rounds} rounds")
    for name, measured in seconds.items():
        print(
            f"  {name:<28}{counts[name]:>8} tokens {counts[name] / counts[largest]:6.2f} x"
            f"{median(measured):>9.2f} s {ratio(measured, seconds[largest]):6.2f} x the largest alone"
        )
    VLLMBackend._generated = generated
    stop_engine(engine.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--start", nargs=3, metavar=("KIND", "MODEL", "ARTIFACTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if args.start:
        kind, folder, artifacts = args.start
        stop_engine(load_model(kind, folder, artifacts, **wanda_arguments(artifacts)).model)
        return
    with temporary_smollm2() as folder, TemporaryDirectory() as artifacts:
        measure_starts(str(folder), artifacts, args.rounds)
        measure_plain_generation(str(folder), artifacts, args.rounds)
    measure_five_budgets(args.rounds)


if __name__ == "__main__":
    main()
