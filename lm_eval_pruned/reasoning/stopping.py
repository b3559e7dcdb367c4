"""Stop conditions: detect that a sequence has ended, by token ids where a stop text is one token, else by its text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from transformers import GenerationConfig, PreTrainedTokenizerBase

from lm_eval_pruned.reasoning.requests import Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class StopCondition:
    """The token ids that end a sequence, and the stop texts that span several tokens."""

    token_ids: frozenset[int]
    texts: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    @classmethod
    def build(
        cls,
        stop: Stop,
        *,
        end_tokens: Collection[int],
        added: Collection[int],
        encode: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
    ) -> StopCondition:
        """Sort stop texts into single tokens and longer texts.

        Args:
            stop: the stop texts.
            end_tokens: ids of all end-of-sequence tokens.
            added: ids of the tokenizer's added tokens: only these always stand for their text, as other tokens may be
                merged with their neighbours.
            encode: tokenizes a text without special tokens.
            decode: returns the text of ids.
        """
        token_ids, longer = set(end_tokens), []
        for text in stop.texts:
            ids = encode(text)
            if len(ids) == 1 and ids[0] in added:
                token_ids.add(ids[0])
            else:
                longer.append(text)
        return cls(token_ids=frozenset(token_ids), texts=tuple(longer), decode=decode)

    def is_met(self, ids: Sequence[int], *, start: int) -> bool:
        """Tell whether the last of `ids` ends a sequence whose new tokens begin at index `start`."""
        if ids[-1] in self.token_ids:
            return True
        # A text of n bytes spans at most n tokens; one more may begin with other text.
        return any(text in self.decode(ids[max(start, len(ids) - len(text.encode()) - 1) :]) for text in self.texts)

    def without_stop(self, ids: list[int]) -> list[int]:
        """Drop the tokens that ended a sequence, as whole tokens: one that also holds earlier text is dropped too."""
        if ids[-1] in self.token_ids:
            return ids[:-1]
        end = min(position for text in self.texts if (position := self.decode(ids).find(text)) >= 0)
        while ids and len(self.decode(ids)) > end:
            ids = ids[:-1]
        return ids


def end_tokens(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of all end-of-sequence tokens: those of the generation config and that of the tokenizer."""
    configured = config.eos_token_id if config is not None else None
    several = configured if isinstance(configured, Collection) else [configured]
    return frozenset(int(token) for token in [*several, tokenizer.eos_token_id] if token is not None)
