"""Backend that generates with vLLM: rows that follow are submitted at once and find their prefix in vLLM's cache.

An engine batches continuously, so answers are generated alongside the thinking of others and stored when they finish.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol, runtime_checkable

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.reasoning.backends.limits import QUEUE_FACTOR
from lm_eval_pruned.reasoning.backends.tokenizing import TokenizingBackend
from lm_eval_pruned.reasoning.progress import Progress
from lm_eval_pruned.reasoning.requests import Generated, Row, finish_row, run_in_rounds
from lm_eval_pruned.reasoning.sampling import derive_seed


@runtime_checkable
class CompletionOutput(Protocol):
    """What vLLM generated after a prompt: `vllm.CompletionOutput`."""

    token_ids: Sequence[int]
    finish_reason: str | None


@runtime_checkable
class RequestOutput(Protocol):
    """The state of a request: `vllm.RequestOutput`."""

    request_id: str
    finished: bool
    outputs: Sequence[CompletionOutput]


@runtime_checkable
class Engine(Protocol):
    """The methods of `vllm.LLMEngine` that the backend calls."""

    def add_request(self, request_id: str, prompt: object, params: object, *, lora_request: object) -> object:
        """Queue a request: its prompt as token ids, with vLLM's sampling parameters."""

    def step(self) -> Sequence[RequestOutput]:
        """Generate a token for every running sequence and return the requests that are finished."""

    def abort_request(self, request_ids: list[str]) -> None:
        """Remove requests from the queue and from the running batch."""


# Continues prompts of token ids with their sampling parameters, in one call for all of them.
Generate = Callable[[list[list[int]], list[object]], Sequence[RequestOutput]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMBackend(TokenizingBackend):
    """Runs a causal language model of vLLM.

    Attributes:
        engine: the engine, or None if data-parallel replicas run the rows through `generate`, a round at a time.
        generate: generates with the replicas.
        max_num_seqs: most sequences that the engine runs at once.
        context: the longest sequence, in tokens.
        end_tokens: ids of all end-of-sequence tokens.
        lora: the adapter, or None.
        is_quiet: whether to hide the progress bar.
    """

    engine: Engine | None
    generate: Generate
    max_num_seqs: int
    context: int
    end_tokens: frozenset[int]
    lora: object = None
    is_quiet: bool = False

    def run(self, rows: Sequence[Row]) -> None:
        """Continue every row and all that follow."""
        if self.engine is None:
            run_in_rounds(self._continue, rows)
        elif rows:
            with Progress.start(rows, is_quiet=self.is_quiet) as progress:
                self._run(self.engine, rows, progress)

    def _run(self, engine: Engine, rows: Sequence[Row], progress: Progress) -> None:
        """Submit rows to the engine and collect their tokens: follow-ups of finished rows first, then the longest."""
        capacity = max(1, int(QUEUE_FACTOR * self.max_num_seqs))
        request_ids = map(str, count())
        waiting = sorted(enumerate(rows), key=lambda item: item[1].max_length)
        running: dict[str, tuple[int, Row]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < capacity:
                    request_id, (root, row) = next(request_ids), waiting.pop()
                    running[request_id] = root, row
                    prompt = {"type": "token", "prompt_token_ids": row.ids}
                    engine.add_request(request_id, prompt, self._params(row), lora_request=self.lora)
                for output in engine.step():
                    if output.finished:
                        root, row = running.pop(output.request_id)
                        following = finish_row(row, self._generated(row, output))
                        waiting += [(root, new) for new in following]
                        progress.add_tokens(root, len(output.outputs[0].token_ids))
                        progress.add_sequences(root, len(following) - 1)
                progress.tick()
        finally:
            # The engine outlives an error elsewhere, such as a full disk: leave no requests in it.
            engine.abort_request(list(running))

    def _continue(self, rows: Sequence[Row]) -> list[Generated]:
        outputs = self.generate([row.ids for row in rows], [self._params(row) for row in rows])
        return [self._generated(row, output) for row, output in zip(rows, outputs, strict=True)]

    def _params(self, row: Row) -> object:
        """Return vLLM's sampling parameters of a row; their seed depends on nothing but the row."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        condition = self.stop_condition(row.stop, self.end_tokens)
        sampling = row.sampling
        return SamplingParams(
            max_tokens=row.max_new_tokens,
            min_tokens=min(row.min_new_tokens, row.max_new_tokens),
            stop=list(condition.texts),
            include_stop_str_in_output=True,
            stop_token_ids=sorted(condition.token_ids),
            # The model's end-of-sequence tokens are among the stop tokens.
            ignore_eos=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            # A row that continues another has its seed: with the length, the two do not repeat the same noise. Greedy
            # rows draw nothing, and vLLM takes slower paths where a seed is given.
            seed=derive_seed(row.seed, len(row.ids)) if sampling.is_random else None,
            detokenize=bool(condition.texts),
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _generated(self, row: Row, output: RequestOutput) -> Generated:
        """Split what was generated into its tokens and those that stopped it."""
        (completion,) = output.outputs
        ids = list(completion.token_ids)
        if completion.finish_reason == "length":
            return Generated(ids, "length")
        if completion.finish_reason != "stop":
            raise EngineError(
                f"vLLM gave up a sequence of {len(row.ids)} tokens ({completion.finish_reason}): see its own lines. "
                "A smaller max_num_seqs or max_model_len needs less memory"
            )
        without_stop = self.stop_condition(row.stop, self.end_tokens).without_stop(ids)
        return Generated(without_stop, "stop", ids[len(without_stop) :])
