"""Tokenization for a backend: encode, decode, and a cache of compiled stop conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from lm_eval_pruned.reasoning.requests import Stop
from lm_eval_pruned.reasoning.stopping import StopCondition


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizingBackend:
    """Base class of the backends: tokenization, the same for transformers and vLLM.

    Attributes:
        tokenizer: decodes.
        encode_text: tokenizes as the harness does; with `add_special_tokens=False` it adds nothing at the start.
        stop_conditions: compiled conditions, by stop texts and end-of-sequence tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    encode_text: Callable[..., list[int]]
    stop_conditions: dict[tuple[Stop, frozenset[int]], StopCondition] = field(
        default_factory=dict, compare=False, repr=False
    )

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize; `special` adds what the harness adds at the start of a text."""
        return self.encode_text(text) if special else self.encode_text(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def stop_condition(self, stop: Stop, end_tokens: frozenset[int]) -> StopCondition:
        """Return the stop condition for stop texts and end-of-sequence tokens."""
        key = (stop, end_tokens)
        if key not in self.stop_conditions:
            self.stop_conditions[key] = StopCondition.build(
                stop,
                end_tokens=end_tokens,
                added=self.tokenizer.added_tokens_decoder,
                encode=lambda text: self.encode(text, special=False),
                decode=self.decode,
            )
        return self.stop_conditions[key]
