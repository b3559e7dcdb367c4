"""Write synthetic results and samples files in the harness's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

SEEDS = {"random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234, "fewshot_seed": 1234}


def row(
    task: str, question: int, value: float, *, metric: str = "acc", filter_name: str = "none", seed: int = 0
) -> dict[str, object]:
    """A row of a samples file, whose texts imitate the row's own syntax."""
    return {
        "doc_id": question,
        "doc": {"id": question, "problem": f'{question} + "1" = ? , "filter": ', "filter": "x"},
        "target": "7",
        "arguments": {"gen_args_0": {"arg_0": "{", "arg_1": {"until": []}}},
        "resps": [[f'<think>}}, "filter": "none", "acc": 1.0\n</think>{seed}']],
        "filtered_resps": ["7"],
        "filter": filter_name,
        "metrics": [metric, "thinking_tokens"],
        "doc_hash": sha256(f"{task.rpartition('_')[0]} {question}".encode()).hexdigest(),
        "prompt_hash": "0" * 64,
        "target_hash": "f" * 64,
        metric: value,
        "thinking_tokens": 13.0,
    }


def write_run(
    folder: Path,
    tasks: Mapping[str, Sequence[float]],
    *,
    seed: int = 7,
    method: str = "none",
    alloc: str = "uniform",
    sparsity: float = 0.0,
    achieved: float | None = None,
    day: int = 1,
    model: str = "tiny-reasoner",
    backend: str = "pruned-hf",
    kwargs: Mapping[str, object] | None = None,
    limit: int | None = None,
    has_samples: bool = True,
) -> Path:
    """Write a run whose metric is value i for question i of each task; return its results file."""
    folder.mkdir(parents=True, exist_ok=True)
    date = f"2026-01-{day:02}T10-00-00.{seed:06}"
    pruned = {"method": method, "alloc": alloc, "sparsity": sparsity if method != "none" else None, "calib_seed": 0}
    report = {"config": pruned, "achieved_sparsity": sparsity if achieved is None else achieved}
    arguments = {"pretrained": model, **{key: value for key, value in pruned.items() if value is not None}}
    config: dict[str, object] = {"model": backend, "model_args": arguments, "pruning": report, "thinking": "tiny"}
    if backend == "hf":
        config = {"model": "hf", "model_args": f"pretrained={model}"}
    content = {
        "results": {task: {"alias": task, **_metrics(values)} for task, values in tasks.items()},
        "configs": {
            task: {
                "task": task,
                "generation_kwargs": {
                    "thinking_token_budget": int(task.rpartition("_")[2]),
                    "seed": seed,
                    **(kwargs or {}),
                },
            }
            for task in tasks
        },
        "n-samples": {task: {"original": len(values), "effective": len(values)} for task, values in tasks.items()},
        "config": {**config, "limit": limit, **SEEDS},
        "date": 1.7e9 + 86400 * day + seed,
        "model_name": model,
    }
    path = folder / f"results_{date}.json"
    path.write_text(json.dumps(content))
    for task, values in tasks.items() if has_samples else ():
        rows = [row(task, question, float(value), seed=seed) for question, value in enumerate(values)]
        (folder / f"samples_{task}_{date}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def _metrics(values: Sequence[float]) -> dict[str, object]:
    correct = np.asarray(values, dtype=float)
    error = float(correct.std(ddof=1) / np.sqrt(len(correct))) if len(correct) > 1 else "N/A"
    return {
        "acc,none": float(correct.mean()), "acc_stderr,none": error,
        "thinking_tokens,none": 12.5, "budget_hit,none": 0.5, "no_answer,none": 0.25, "looping,none": 0.125,
        "loop_onset,none": 0.9, "rep-2,none": 0.375,
    }  # fmt: skip


def stop(path: Path, asked: int, of: int = 60, verdict: str = "drop") -> None:
    """Mark a run as one that a sweep stopped after some of its questions."""
    content = json.loads(path.read_text())
    entry = {"stopped_at": asked, "of": of, "verdict": verdict}
    content["early_stopping"] = {"rule": {}, "tasks": dict.fromkeys(content["results"], entry)}
    path.write_text(json.dumps(content))


def write_divergence(
    run: Path,
    folder: Path,
    *,
    kl: float = 0.1,
    flips: Sequence[int | None] = (None, 3, None, 0),
    fingerprint: str = "f",
) -> Path:
    """Give a run a fingerprint and write the divergence of its model, a question for each first flip, to a folder."""
    content = json.loads(run.read_text())
    content["config"]["pruning"]["fingerprint"] = fingerprint
    run.write_text(json.dumps(content))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "divergence.json"
    questions = [
        {"doc_hash": str(place), "tokens": 5, "kl": 5 * kl, "first_flip": flip} for place, flip in enumerate(flips)
    ]
    survive = flips.count(None) / len(flips)
    found = {"kl": kl, "kl_low": kl / 2, "kl_high": 2 * kl, "survive": survive, "questions": questions}
    path.write_text(json.dumps({"schema_version": 1, "config": {}, "fingerprint": fingerprint, **found}))
    return path


def answers(difficulty: np.ndarray, generator: np.random.Generator, samples: int = 1) -> np.ndarray:
    """Sample the metric of a model that answers question i correctly with the probability of value i."""
    return generator.binomial(samples, difficulty) / samples


def difficulties(questions: int, generator: np.random.Generator) -> np.ndarray:
    """Sample probabilities as in benchmarks: most questions nearly always or nearly never right."""
    return generator.beta(0.6, 0.3, size=questions)
