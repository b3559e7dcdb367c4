"""Decoding with vLLM: what follows a row is asked for as soon as that is finished, and its prefix comes from a cache.

An engine batches as it goes, so that answers are written beside the thinking of others and kept as they are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.reasoning.progress import Progress
from lm_eval_pruned.reasoning.requests import Generated, Row, Stop, following, run_in_rounds
from lm_eval_pruned.reasoning.sampling import noise_key
from lm_eval_pruned.reasoning.stopping import StopWatch

# Sequences in an engine's hands, as a multiple of those it runs at once: it finds the next one when one is finished,
# and what follows a finished one does not queue behind all the others.
AHEAD = 1.25


@runtime_checkable
class Written(Protocol):
    """What vLLM wrote behind a prompt: `vllm.CompletionOutput`."""

    token_ids: Sequence[int]
    finish_reason: str | None


@runtime_checkable
class Output(Protocol):
    """The state of a request: `vllm.RequestOutput`."""

    request_id: str
    finished: bool
    outputs: Sequence[Written]


@runtime_checkable
class Engine(Protocol):
    """Of `vllm.LLMEngine` what is used here."""

    def add_request(self, request_id: str, prompt: object, params: object, *, lora_request: object) -> object:
        """Take a request."""

    def step(self) -> Sequence[Output]:
        """Write a token for every running sequence and return the requests that are finished."""

    def abort_request(self, request_ids: list[str]) -> None:
        """Drop requests."""


# Continues prompts of token ids with their sampling parameters, in one call for all of them.
Generate = Callable[[list[list[int]], list[object]], Sequence[Output]]


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMBackend:
    """Runs a causal language model of vLLM.

    `engine` runs at most `max_num_seqs` sequences at once; where it is None, replicas elsewhere continue all rows of a
    round through `generate`. `context` is in tokens, `end_tokens` end every row.
    """

    engine: Engine | None
    generate: Generate
    max_num_seqs: int
    tokenizer: PreTrainedTokenizerBase
    encode_text: Callable[..., list[int]]
    context: int
    end_tokens: frozenset[int]
    lora: object = None
    is_quiet: bool = False
    watches: dict[Stop, StopWatch] = field(default_factory=dict)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize, as the harness does where `special` tokens are wanted at the start."""
        return self.encode_text(text) if special else self.encode_text(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def run(self, rows: Sequence[Row]) -> None:
        """Continue every row and all that follows."""
        if self.engine is None:
            run_in_rounds(self._continue, rows)
        elif rows:
            with Progress.start([row.longest - len(row.ids) for row in rows], is_quiet=self.is_quiet) as progress:
                self._run(self.engine, rows, progress)

    def _run(self, engine: Engine, rows: Sequence[Row], progress: Progress) -> None:
        """Keep the engine supplied: with what follows a finished row first, and then with the longest."""
        capacity = max(1, int(AHEAD * self.max_num_seqs))
        names = map(str, count())
        waiting = sorted(enumerate(rows), key=lambda item: item[1].longest)
        running: dict[str, tuple[int, Row]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < capacity:
                    name, (root, row) = next(names), waiting.pop()
                    running[name] = root, row
                    prompt = {"type": "token", "prompt_token_ids": row.ids}
                    engine.add_request(name, prompt, self._params(row), lora_request=self.lora)
                for output in engine.step():
                    if output.finished:
                        root, row = running.pop(output.request_id)
                        after = following(row, self._generated(row, output))
                        waiting += [(root, one) for one in after]
                        progress.wrote(root, len(output.outputs[0].token_ids))
                        progress.opened(root, len(after) - 1)
        finally:
            # An error elsewhere, such as a full disk, leaves no work behind in an engine that lives on.
            engine.abort_request(list(running))

    def _continue(self, rows: Sequence[Row]) -> list[Generated]:
        outputs = self.generate([row.ids for row in rows], [self._params(row) for row in rows])
        return [self._generated(row, output) for row, output in zip(rows, outputs, strict=True)]

    def _params(self, row: Row) -> object:
        """Return what the row asks of vLLM; its noise depends on nothing but the row."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        watch = self._watch(row.stop)
        sampling = row.sampling
        return SamplingParams(
            max_tokens=row.room,
            min_tokens=min(row.least, row.room),
            stop=list(watch.texts),
            include_stop_str_in_output=True,
            stop_token_ids=sorted(watch.ids),
            # Those of the model are among ours.
            ignore_eos=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            # A row that goes on where another ended has its key; the same noise again would repeat its choices.
            seed=noise_key(row.key, len(row.ids)),
            detokenize=bool(watch.texts),
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _generated(self, row: Row, output: Output) -> Generated:
        """Cut what ended the row off what was generated."""
        (completion,) = output.outputs
        ids = list(completion.token_ids)
        if completion.finish_reason == "length":
            return Generated(ids, "length")
        if completion.finish_reason != "stop":
            raise EngineError(
                f"vLLM gave up a sequence of {len(row.ids)} tokens ({completion.finish_reason}): see its own lines. "
                "A smaller max_num_seqs or max_model_len needs less memory"
            )
        kept = self._watch(row.stop).without_stop(ids)
        return Generated(kept, "stop", ids[len(kept) :])

    def _watch(self, stop: Stop) -> StopWatch:
        if stop not in self.watches:
            self.watches[stop] = StopWatch.build(
                stop,
                end_tokens=self.end_tokens,
                added=self.tokenizer.added_tokens_decoder,
                encode=lambda text: self.encode(text, special=False),
                decode=self.decode,
            )
        return self.watches[stop]
