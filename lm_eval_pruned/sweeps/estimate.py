"""Estimate tokens, memory and time of a cell from its settings and the model's config, without reading weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
import yaml
from transformers import PreTrainedModel

from lm_eval_pruned.config import PruneConfig, field_names
from lm_eval_pruned.errors import MissingDataError
from lm_eval_pruned.model_args import parse_model_args
from lm_eval_pruned.paths import tasks_folder
from lm_eval_pruned.planning.architecture import read_architecture
from lm_eval_pruned.planning.memory import peak_memory_bytes
from lm_eval_pruned.planning.work import phases
from lm_eval_pruned.pruning.calibration.source import CheckpointInfo
from lm_eval_pruned.pruning.checkpoint.meta_model import build_meta_model, stored_dtype
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions, resolve_pretrained
from lm_eval_pruned.pruning.model.flops import Work, seconds, total
from lm_eval_pruned.sweeps.cell import Cell
from lm_eval_pruned.sweeps.divergence import is_diverging
from lm_eval_pruned.sweeps.recipes import resolved

# Questions of the benchmarks that ship with the package, by folder name.
QUESTIONS = {
    "aime24": 30,
    "amc23": 40,
    "gpqa_diamond": 198,
    "math500": 500,
    "arith": 192,
    "parens": 198,
    "tiny": 200,
}

# Tokens of an answer after the thinking, unless max_gen_toks is smaller, as it is in the files of these tasks.
ANSWER_TOKENS = 700
ANSWER_ROOMS = {"arith": 256, "parens": 256, "tiny": 32}
# Memory of Python, PyTorch, transformers and the harness.
PROCESS_BYTES = 1.2e9
# Bytes per weight where the config cannot be read: bfloat16.
ITEMSIZE = 2


class Speed(NamedTuple):
    """Assumed rates of a device per second: pruning operations, decoding in weights x tokens, bytes loaded."""

    work: Work
    decoding: Mapping[str, float]
    loaded_bytes: float

    def tokens(self, backend: str, weights: float) -> float:
        """Return the tokens a second that a backend decodes of a model with so many weights."""
        return self.decoding.get(backend, self.decoding["pruned-hf"]) / weights


# Not measured. A step of 80 rows of 2,000 tokens reads 15 GB of weights and 25 GB of keys and values, in 46 ms at the
# 0.86 TB/s of a card of 48 GB: 1,700 tokens a second; at 3.35 TB/s, and with the rows for which 80 GB have room, 8,000.
# vLLM is put between these. transformers, which waits for launches and for the longest rows, is put at half of that.
GPU = Speed(Work(1e14, 2e13, 1e11, 1e9, 1e7, 1e11), {"pruned-vllm": 2e13, "pruned-hf": 1e13}, 1e9)
CPU = Speed(Work(5e10, 5e10, 5e8, 2e7, 1e6, 1e9), {"pruned-hf": 2e9}, 1e9)
# Starting the harness and reading its tasks.
START_SECONDS = 10.0

ASSUMPTIONS = (
    "every question thinks to its largest budget, once for all budgets of a group, and each answer takes "
    f"{ANSWER_TOKENS} tokens or its room; of a model of 8 billion weights, a GPU decodes "
    f"{GPU.tokens('pruned-vllm', 8e9):,.0f} tokens a second with pruned-vllm and "
    f"{GPU.tokens('pruned-hf', 8e9):,.0f} with pruned-hf, a CPU {CPU.tokens('pruned-hf', 8e9):.2g} (computed, not "
    "measured); memory is that of weights and pruning, without key/value caches; masks that are already kept are not "
    "counted as free; a divergence is two prefills of the longest responses"
)


class CellEstimate(NamedTuple):
    """Tokens to generate, bytes for weights and pruning, seconds; None where unknown."""

    tokens: float | None
    memory: float | None
    seconds: float | None


class _ModelCost(NamedTuple):
    weights: float
    memory: float
    pruning_seconds: float


def estimate(cell: Cell) -> CellEstimate:
    """Estimate one cell."""
    tokens = _tokens(cell)
    model = _model(cell)
    if model is None:
        return CellEstimate(tokens, None, None)
    speed = GPU if cell.resources.gpus else CPU
    rate = speed.tokens(cell.backend, model.weights) * (cell.resources.gpus or 1)
    decoding = None if tokens is None else tokens / rate
    if decoding is None:
        return CellEstimate(tokens, model.memory, None)
    duration = START_SECONDS + model.pruning_seconds + decoding + _divergence_seconds(cell, model.weights, speed)
    return CellEstimate(tokens, model.memory, duration)


def _divergence_seconds(cell: Cell, weights: float, speed: Speed) -> float:
    """Return the time of a divergence after the run: two operations per weight and token, for two models."""
    if not is_diverging(cell):
        return 0.0
    traces = _tokens(replace(cell, model_args={**cell.model_args, "share_traces": True})) or 0
    prefills = seconds(Work(matmul_flops=2 * 2 * weights * traces), speed.work)
    return START_SECONDS + weights * ITEMSIZE / speed.loaded_bytes + prefills


def memory_request(cell: Cell) -> int:
    """Return the bytes of main memory that a cell requests; weights on a GPU pass through it too."""
    if cell.resources.memory_gb is not None:
        return int(cell.resources.memory_gb * 1e9)
    model = _model(cell)
    return int(PROCESS_BYTES + (0 if model is None else model.memory))


class TaskSize(NamedTuple):
    """Budgets and number of questions of a benchmark that ships with the package."""

    budgets: tuple[int, ...]
    questions: int


@cache
def read_task(name: str) -> tuple[TaskSize, ...]:
    """Return the sizes of the benchmarks in a task or group; () for the harness's own tasks.

    Example:
        >>> read_task("aime24_tts")
        (TaskSize(budgets=(512, 1024, 2048, 4096, 8192), questions=30),)
    """
    path = next(tasks_folder().rglob(f"{name}.yaml"), None)
    if path is None:
        return ()
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "thinking_token_budget" in content:
        return (TaskSize((int(content["thinking_token_budget"]),), QUESTIONS[path.parent.name]),)
    members = [size for member in content["task"] for size in read_task(member)]
    if path.parent == tasks_folder():
        return tuple(members)
    return (TaskSize(tuple(sorted(budget for size in members for budget in size.budgets)), members[0].questions),)


def _tokens(cell: Cell) -> int | None:
    tasks = read_task(cell.task)
    if not tasks:
        return None
    answer = min(ANSWER_TOKENS, _number(cell.gen_kwargs.get("max_gen_toks"), ANSWER_TOKENS))
    answer = min(answer, ANSWER_ROOMS.get(cell.task.partition("_tts")[0], answer))
    samples = _number(cell.metadata.get("num_samples"), 1)
    shares = str(cell.model_args.get("share_traces", True)).lower() == "true"
    return sum(
        _asked(cell, task) * samples * ((max if shares else sum)(task.budgets) + answer * len(task.budgets))
        for task in tasks
    )


def _asked(cell: Cell, task: TaskSize) -> int:
    if cell.limit is None:
        return task.questions
    return min(task.questions, int(cell.limit if cell.limit >= 1 else cell.limit * task.questions))


def _number(given: object, default: int) -> int:
    return given if isinstance(given, int) else default


def _model(cell: Cell) -> _ModelCost | None:
    """Return the cost of the cell's model from its config, or else from the number of weights stated in the sweep."""
    ours = field_names(PruneConfig)
    arguments = tuple(sorted((name, value) for name, value in cell.model_args.items() if name in ours))
    dtype = str(cell.model_args.get("dtype", "auto"))
    cost = _cost_from_config(cell.model, arguments, dtype, bool(cell.resources.gpus), cell.weights is not None)
    if cost is None and cell.weights is not None:
        return _ModelCost(cell.weights, cell.weights * ITEMSIZE, cell.weights * ITEMSIZE / GPU.loaded_bytes)
    return cost


@cache
def _cost_from_config(
    pretrained: str, arguments: Sequence[tuple[str, object]], dtype: str, on_gpu: bool, is_offline: bool
) -> _ModelCost | None:
    recipe = resolved(parse_model_args(dict(arguments), parent=()).prune)
    source = resolve_pretrained(pretrained)
    model = _outline(source, is_offline)
    if model is None:
        return None
    chosen = stored_dtype(model.config) if dtype == "auto" else getattr(torch, dtype)
    architecture = read_architecture(recipe, model, chosen, whole=True)
    windows = recipe.calibration_source(source).shape(CheckpointInfo.of(model.config))
    speed = GPU if on_gpu else CPU
    size = architecture.weights * architecture.itemsize
    return _ModelCost(
        weights=architecture.weights,
        memory=sum(peak_memory_bytes(recipe, architecture, windows).values()),
        pruning_seconds=seconds(total(phases(recipe, architecture, windows).values()), speed.work)
        + size / speed.loaded_bytes,
    )


@cache
def _outline(source: str, is_offline: bool) -> PreTrainedModel | None:
    """Return the model without weights, or None if its config cannot be read; cached, so the hub is asked once."""
    try:
        return build_meta_model(source, LoadOptions(local_files_only=is_offline))
    except MissingDataError:
        return None


def estimate_lines(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield a table of the cells with their estimates, the total and the assumptions."""
    estimates = [estimate(cell) for cell in cells]
    yield f"{'id':<16} {'tokens':>13} {'memory':>9} {'time':>9} {'GPU-hours':>9}  cell"
    for cell, one in zip(cells, estimates, strict=True):
        yield f"{cell.id} {_row(one, _gpu_hours([cell], [one]))}  {cell.label}"
    together = CellEstimate(_sum(one.tokens for one in estimates), None, _sum(one.seconds for one in estimates))
    yield f"{'together':<16} {_row(together, _gpu_hours(cells, estimates))}  {len(cells)} cells"
    unknown = sorted({cell.model for cell, one in zip(cells, estimates, strict=True) if one.memory is None})
    if unknown:
        yield f"?: no config of {', '.join(unknown)} can be read here; give its number of weights in the sweep"
    yield f"assumed: {ASSUMPTIONS}"


def _row(one: CellEstimate, gpu_hours: float | None) -> str:
    tokens = "?" if one.tokens is None else f"{one.tokens:,.0f}"
    size = "" if one.memory is None else f"{one.memory / 1e9:.2f} GB"
    duration = "?" if one.seconds is None else f"{one.seconds / 60:,.1f} min"
    hours = "?" if gpu_hours is None else f"{gpu_hours:,.2f}"
    return f"{tokens:>13} {size:>9} {duration:>9} {hours:>9}"


def _gpu_hours(cells: Iterable[Cell], estimates: Iterable[CellEstimate]) -> float | None:
    pairs = zip(cells, estimates, strict=True)
    return _sum(None if one.seconds is None else one.seconds / 3600 * cell.resources.gpus for cell, one in pairs)


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)
