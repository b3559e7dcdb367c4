"""Diverge on vLLM: the largest log-probabilities of prompts, of an engine of each model, dense and pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams, TokensPrompt
from vllm.logprobs import Logprob
from vllm.v1.engine.exceptions import EngineDeadError

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.divergence.largest import Largest, compare_largest
from lm_eval_pruned.divergence.traces import TokenTrace
from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.models.diverge import Diverged, read_for, warn_if_unlikely, written_by
from lm_eval_pruned.models.prune_checkpoint import check_pretrained
from lm_eval_pruned.models.vllm.compatibility import stop_engine
from lm_eval_pruned.models.vllm.model import PrunedVLLM
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import Recipe

# Traces in one call of the engine, whose log-probabilities are Python objects until they are arrays.
_TRACES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMSettings:
    """How vLLM runs: the number of largest log-probabilities, and arguments of the engine."""

    largest: int
    engine: Mapping[str, object]


def diverge_on_vllm(
    pretrained: str,
    recipe: Recipe,
    run: RunConfig,
    options: LoadOptions,
    places: Sequence[Path],
    settings: VLLMSettings,
) -> Diverged:
    """Start an engine of the dense model, then one of the pruned model, and compare them along traces.

    KL is a lower bound, from the log-probabilities that are among the largest of both.

    Raises:
        EngineError: vLLM does not start, or ends.
        PrunedEvalError: something is wrong with the settings, the traces, the model or the calibration data.
    """
    checked = check_pretrained(pretrained, recipe, options)
    read = read_for(checked, run, places)
    arguments = engine_arguments(run, options, settings)
    dense = PrunedVLLM(pretrained, **arguments)
    try:
        traces = written_by(read, dense.report.fingerprint)
        before = largest_logprobs(dense, traces, settings.largest, name="dense")
    finally:
        stop_engine(dense.model)
    pruned = PrunedVLLM(pretrained, **arguments, **given(recipe.config))
    try:
        after = largest_logprobs(pruned, traces, settings.largest, name=recipe.config.method)
    finally:
        stop_engine(pruned.model)
    divergences = compare_largest(before, after)
    warn_if_unlikely(divergences)
    return Diverged(traces, divergences, read.budgets, pruned.report, pruned.tokenizer)


def engine_arguments(run: RunConfig, options: LoadOptions, settings: VLLMSettings) -> dict[str, object]:
    """Return the `model_args` that both engines share."""
    return {
        "dtype": options.dtype,
        "revision": options.revision,
        **({"subfolder": options.subfolder} if options.subfolder else {}),
        "trust_remote_code": options.trust_remote_code,
        "thinking": run.thinking,
        "artifacts": run.artifacts,
        "max_logprobs": settings.largest,
        **settings.engine,
    }


def given(config: PruneConfig) -> dict[str, object]:
    """Return the settings of a pruning that differ from their defaults."""
    return {field.name: value for field in fields(config) if (value := getattr(config, field.name)) != field.default}


def largest_logprobs(model: PrunedVLLM, traces: Sequence[TokenTrace], count: int, *, name: str) -> Largest:
    """Return the largest log-probabilities before each token of the responses; `name` is that of the progress bar."""
    params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=count, detokenize=False)
    rows: list[_Token] = []
    with progress_bar(sum(trace.tokens for trace in traces), desc=name, unit="token") as bar:
        for start in range(0, len(traces), _TRACES):
            batch = traces[start : start + _TRACES]
            prompts = [TokensPrompt(prompt_token_ids=list(trace.ids)) for trace in batch]
            try:
                outputs = model.model.generate(prompts, params, use_tqdm=False)
            # Memory for log-probabilities of prompts is not part of what vLLM reserves when it starts.
            except (RuntimeError, EngineDeadError) as error:
                raise EngineError(
                    f"vLLM ended while it computed log-probabilities ({error}): its own lines say why. Where memory "
                    "is short, lower gpu_memory_utilization or max_num_batched_tokens with --engine_args"
                ) from error
            for trace, output in zip(batch, outputs, strict=True):
                rows += _of_output(trace, output.prompt_logprobs, count)
                bar.update(trace.tokens)
    return Largest(
        ids=np.stack([row.ids for row in rows]),
        logps=np.stack([row.logps for row in rows]),
        following=np.array([row.following for row in rows], dtype=np.float32),
    )


class _Token(NamedTuple):
    """The largest log-probabilities before one token [k], and its own."""

    ids: NDArray[np.int32]
    logps: NDArray[np.float32]
    following: float


def _of_output(trace: TokenTrace, logprobs: Sequence[Mapping[int, Logprob] | None], count: int) -> Iterator[_Token]:
    """Yield the largest log-probabilities before each token of a response."""
    for token, found in zip(trace.ids[trace.start :], logprobs[trace.start :], strict=True):
        assert found is not None, "only the first token of a prompt has none"
        # The token that follows is among them even if it is not one of the largest.
        ordered = sorted(found.items(), key=lambda item: -item[1].logprob)[:count]
        yield _Token(
            np.array([one for one, _ in ordered], dtype=np.int32),
            np.array([one.logprob for _, one in ordered], dtype=np.float32),
            found[token].logprob,
        )
