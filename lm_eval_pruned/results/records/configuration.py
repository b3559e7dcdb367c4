"""Configurations: the settings of a run that decide its answers, without its seeds, taken from a results file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple, get_args

from lm_eval_pruned.config import BlockMethod, PruneConfig, RunConfig, UnitMethod
from lm_eval_pruned.results.limits import MAX_BUDGET, ZEROS_OF_A_DENSE_MODEL
from lm_eval_pruned.results.records.identity import backend, run_model
from lm_eval_pruned.results.records.run_settings import Settings, as_settings, as_text, is_seed, model_args, section

# The pruning of a model that has zeros and comes without a method: their fraction.
ZEROS = "zeros"
# The method of a run whose model may have been pruned or not.
UNKNOWN = "unknown"
# Model arguments that decide where and how fast a model runs, and its name, which is a field of its own.
HARDWARE = frozenset(
    {
        *("pretrained", "device", "gpus", "parallelize", "device_map_option", "offload_folder"),
        *("batch_size", "max_batch_size", "num_concurrent", "swap_space", "enforce_eager"),
        *("max_memory_per_gpu", "max_cpu_memory", "gpu_memory_utilization"),
        *("tensor_parallel_size", "data_parallel_size", "pipeline_parallel_size"),
        *("artifacts", "responses", "share_traces"),
    }
)
# The first is an alias that only a command line gives, the second may come from a task too: the alias wins over it.
_BUDGETS = ("max_tokens_thinking", "thinking_token_budget")
# The version of a task; baselines written before it counted do not have it.
VERSION = "version"
# The names of our tasks: benchmark, and budget.
TTS = re.compile(r"(.+_tts)_(\d+)")
_PROMPTING = ("system_instruction", "chat_template_sha", "fewshot_as_multiturn")
# Labels of configurations without an allocation. By name, since a baseline holds nothing but the settings.
_WITHOUT_ALLOCATION = ("dense", UNKNOWN, *get_args(UnitMethod), *get_args(BlockMethod))
# How many generated questions are shown solved, and how they are written.
_GENERATED = ("examples", "form")
# Settings that a run may have; those of a model type come on top.
SETTINGS = frozenset(
    {
        *("backend", "limit", *_PROMPTING),
        *("do_sample", "temperature", "top_p", "top_k", "min_p", "until", "max_gen_toks", "thinking_token_budget"),
        *("num_fewshot", "num_samples", VERSION, *_GENERATED),
        *("dtype", "revision", "tokenizer", "max_length", "add_bos_token"),
        *(name for name in asdict(RunConfig()) if name not in HARDWARE),
    }
)
_PRUNING_DEFAULTS = asdict(PruneConfig())
_RUN_DEFAULTS = asdict(RunConfig())


class Words(NamedTuple):
    """A pruning in words: method, allocation, amount, and other settings that differ from their defaults; or ""."""

    method: str
    alloc: str
    amount: str
    others: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Which model, how it was pruned (empty if dense; method UNKNOWN if it may be either), and how it was asked.

    `settings` include the harness's model type as `backend`, and `limit` where only the first questions were asked.
    `evidence` tells apart models that have the same name.
    """

    model: str
    pruning: Settings
    settings: Settings
    evidence: Settings = ()

    @property
    def is_pruned(self) -> bool:
        """Whether the model is known to be pruned."""
        return bool(self.pruning) and not self.is_unknown

    @property
    def is_unknown(self) -> bool:
        """Whether the model may have been pruned or not."""
        return ("method", UNKNOWN) in self.pruning

    @property
    def words(self) -> Words:
        """How the model was pruned, in words."""
        given = dict(self.pruning)
        if ZEROS in given:
            return Words(f"{given[ZEROS]} % zero, no method given", "", "", "")
        method, amount = given.pop("method", "?" if given else "dense"), given.pop("sparsity", "")
        if blocks := given.pop("num_blocks", ""):
            amount = f"{blocks} block{'s' * (blocks != '1')}"
        if named := given.pop("blocks", ""):
            amount = f"block{'s' * ('+' in named)} {named}"
        alloc = given.pop("alloc", "" if method in _WITHOUT_ALLOCATION else "uniform")
        # The method decides what `auto` stood for, and these two where they prune.
        given.pop("compare", None)
        if method in get_args(UnitMethod):
            given.pop("scope", None)
        return Words(method, alloc, amount, " ".join(f"{name}={value}" for name, value in given.items()))

    @property
    def label(self) -> str:
        """How the model was pruned, in a few words on one line."""
        return " ".join(word for word in self.words if word)


def run_configuration(content: Mapping[str, object]) -> Configuration:
    """Return the configuration that all tasks of a results file share."""
    config = section(content, "config")
    arguments = model_args(config)
    report = section(config, "pruning")
    pruned = section(report, "config")
    own = set(_PRUNING_DEFAULTS) if pruned else set()
    thinking = config.get("thinking")
    settings = {
        **{
            key: value
            for key, value in arguments.items()
            if key not in HARDWARE | own and value != _RUN_DEFAULTS.get(key, HARDWARE)
        },
        "backend": backend(content),
        **({"thinking": thinking} if thinking else {}),
        "limit": config.get("limit"),
        **{key: content.get(key) for key in _PROMPTING},
    }
    model = run_model(content)
    return Configuration(
        model=model.name,
        pruning=report_settings(report),
        settings=as_settings(settings),
        evidence=model.evidence,
    )


def other_configuration(
    name: str, report: Mapping[str, object], settings: Settings, *, model_sha: object = None
) -> Configuration:
    """Return the configuration of a run of another tool.

    Args:
        name: of the model, as its file has it.
        report: pruning report of its checkpoint; empty for a model as published.
        settings: how it was asked.
        model_sha: commit of the hub, None if unknown.
    """
    model = run_model({"config": {"model_args": {"pretrained": name}, "pruning": report, "model_sha": model_sha}})
    return Configuration(model=model.name, pruning=report_settings(report), settings=settings, evidence=model.evidence)


def report_seeds(report: Mapping[str, object]) -> dict[str, object]:
    """Return the seeds of a pruning."""
    return {name: value for name, value in section(report, "config").items() if is_seed(name)}


def report_settings(report: Mapping[str, object]) -> Settings:
    """Return the settings in a pruning report, or the percentage of zeros that nothing explains; () if it is dense."""
    pruned, achieved = section(report, "config"), report.get("achieved_sparsity")
    if pruned.get("method", "none") != "none":
        return as_settings({key: value for key, value in pruned.items() if value != _PRUNING_DEFAULTS.get(key)})
    is_zero = isinstance(achieved, float | int) and achieved > ZEROS_OF_A_DENSE_MODEL
    return as_settings({ZEROS: f"{100 * achieved:.3g}"} if is_zero else {})  # type: ignore[operator]


def task_settings(content: Mapping[str, object], task: str) -> Settings:
    """Return how one task was asked: few-shot examples, samples, decoding, and a budget that is not a number."""
    given = section(section(content, "configs"), task)
    decoding = section(given, "generation_kwargs")
    # Our tasks draw samples by repeating the question.
    repeats = section(given, "metadata").get("num_samples") or given.get("repeats")
    return as_settings(
        {
            **{key: value for key, value in decoding.items() if key not in _BUDGETS},
            "thinking_token_budget": budget if _tokens(budget := _budget(content, task)) is None else None,
            "num_fewshot": section(content, "n-shot").get(task) or given.get("num_fewshot"),
            "num_samples": repeats if repeats != 1 else None,
            VERSION: task_version(content, task),
            **{name: section(given, "metadata").get(name) or None for name in _GENERATED},
        }
    )


def task_version(content: Mapping[str, object], task: str) -> str | None:
    """Return the version of one task or group, which changes with its prompts and scoring; None where it has none."""
    metadata = section(section(section(content, "configs"), task), "metadata")
    given = metadata.get(VERSION, section(content, "versions").get(task))
    return f"{given:g}" if isinstance(given, int | float) and not isinstance(given, bool) else None


def task_shots(content: Mapping[str, object], task: str) -> str:
    """Return the number of few-shot examples of one task as text, or "" where the file does not say."""
    given = (section(content, "n-shot").get(task), section(section(content, "configs"), task).get("num_fewshot"))
    return next((str(shots) for shots in given if isinstance(shots, int)), "")


def task_budget(content: Mapping[str, object], task: str) -> int | None:
    """Return the thinking budget of one task in tokens; None for `auto`, which differs from prompt to prompt."""
    budget = _budget(content, task)
    named = TTS.fullmatch(task)
    return int(named[2]) if budget is None and named else _tokens(budget)


def run_seeds(content: Mapping[str, object]) -> Settings:
    """Return the seeds that all tasks of a results file share."""
    config = section(content, "config")
    sections = (config, model_args(config), section(section(config, "pruning"), "config"))
    return as_text({key: value for given in sections for key, value in given.items() if is_seed(key)})


def task_seeds(content: Mapping[str, object], task: str) -> Settings:
    """Return the seeds of the decoding of one task."""
    decoding = section(section(section(content, "configs"), task), "generation_kwargs")
    return as_text({key: value for key, value in decoding.items() if is_seed(key)})


def _budget(content: Mapping[str, object], task: str) -> object:
    decoding = section(section(section(content, "configs"), task), "generation_kwargs")
    return next((decoding[name] for name in _BUDGETS if decoding.get(name) is not None), None)


def _tokens(budget: object) -> int | None:
    return budget if isinstance(budget, int) and 0 <= budget <= MAX_BUDGET else None
