"""A configuration is everything of a run that decides its answers, except its seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.results.settings import Settings, as_settings, is_seed, model_args, section, written

# Arguments of models that say where and how fast they run, and the name, which stands by itself.
_HARDWARE = frozenset(
    {
        *("pretrained", "device", "gpus", "parallelize", "device_map_option", "offload_folder"),
        *("batch_size", "max_batch_size", "num_concurrent", "swap_space", "enforce_eager"),
        *("max_memory_per_gpu", "max_cpu_memory", "gpu_memory_utilization"),
        *("tensor_parallel_size", "data_parallel_size", "pipeline_parallel_size"),
        *("artifacts", "responses", "share_traces"),
    }
)
_BUDGETS = frozenset({"thinking_token_budget", "max_tokens_thinking"})
_PROMPTING = ("system_instruction", "chat_template_sha", "fewshot_as_multiturn")
_PRUNING_DEFAULTS = asdict(PruneConfig())
_RUN_DEFAULTS = asdict(RunConfig())


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Which model, how it was pruned (empty: dense), and how it was asked.

    `settings` hold the harness's model type as `backend`, and `limit` where only the first questions were asked.
    """

    model: str
    pruning: Settings
    settings: Settings

    @property
    def label(self) -> str:
        """How it was pruned, in a few words: method, allocation, how much, and what else is not the default."""
        given = dict(self.pruning)
        if not given:
            return "dense"
        method, amount = given.pop("method", "?"), given.pop("sparsity", "")
        blocks = given.pop("num_blocks", "")
        alloc = given.pop("alloc", "" if method == "shortgpt" else "uniform")
        # What `auto` stood for follows from the method.
        given.pop("compare", None)
        words = [method, alloc, amount, f"{blocks} blocks" if blocks else ""]
        return " ".join([word for word in words if word] + [f"{name}={value}" for name, value in given.items()])


def run_configuration(content: Mapping[str, object]) -> Configuration:
    """Return the configuration of a results file, as far as all its tasks share it."""
    config = section(content, "config")
    arguments = model_args(config)
    pruned = section(section(config, "pruning"), "config")
    is_dense = pruned.get("method", "none") == "none"
    pruning = {} if is_dense else {key: value for key, value in pruned.items() if value != _PRUNING_DEFAULTS.get(key)}
    own = set(_PRUNING_DEFAULTS) if pruned else set()
    thinking = config.get("thinking")
    settings = {
        **{
            key: value
            for key, value in arguments.items()
            if key not in _HARDWARE | own and value != _RUN_DEFAULTS.get(key, _HARDWARE)
        },
        "backend": config.get("model"),
        **({"thinking": thinking} if thinking else {}),
        "limit": config.get("limit"),
        **{key: content.get(key) for key in _PROMPTING},
    }
    name = content.get("model_name") or arguments.get("pretrained") or config.get("model") or "?"
    return Configuration(model=str(name), pruning=as_settings(pruning), settings=as_settings(settings))


def task_settings(content: Mapping[str, object], task: str) -> Settings:
    """Return how one task of a results file was asked: shots, samples, and the decoding apart from its budget."""
    given = section(section(content, "configs"), task)
    decoding = section(given, "generation_kwargs")
    # Our tasks draw samples by repeating the question.
    repeats = section(given, "metadata").get("num_samples") or given.get("repeats")
    return as_settings(
        {
            **{key: value for key, value in decoding.items() if key not in _BUDGETS},
            "num_fewshot": section(content, "n-shot").get(task) or given.get("num_fewshot"),
            "num_samples": repeats if repeats != 1 else None,
        }
    )


def run_seeds(content: Mapping[str, object]) -> Settings:
    """Return the seeds that all tasks of a results file share."""
    config = section(content, "config")
    places = (config, model_args(config), section(section(config, "pruning"), "config"))
    return written({key: value for place in places for key, value in place.items() if is_seed(key)})


def task_seeds(content: Mapping[str, object], task: str) -> Settings:
    """Return the seeds of the decoding of one task."""
    decoding = section(section(section(content, "configs"), task), "generation_kwargs")
    return written({key: value for key, value in decoding.items() if is_seed(key)})
