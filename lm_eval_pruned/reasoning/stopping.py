"""Stopping: whether a row has come to its end, by token where a stop text is one token and by text where it is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from transformers import GenerationConfig, PreTrainedTokenizerBase

from lm_eval_pruned.reasoning.requests import Stop

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWatch:
    """The tokens that end a row, and the texts of several tokens that do."""

    ids: frozenset[int]
    texts: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    @classmethod
    def build(
        cls,
        stop: Stop,
        *,
        end_tokens: Collection[int],
        added: Collection[int],
        encode: Encode,
        decode: Callable[[Sequence[int]], str],
    ) -> StopWatch:
        """Sort the stop texts into single tokens, which must be `added` ones to stand for their text, and the rest."""
        single, longer = set(end_tokens), []
        for text in stop.texts:
            ids = encode(text)
            if len(ids) == 1 and ids[0] in added:
                single.add(ids[0])
            else:
                longer.append(text)
        return cls(ids=frozenset(single), texts=tuple(longer), decode=decode)

    def ended(self, ids: Sequence[int], *, start: int) -> bool:
        """Tell whether the last of these tokens ends a row whose new tokens begin at `start`."""
        if ids[-1] in self.ids:
            return True
        # A text of n bytes spans at most n tokens; one more may hold what stands before it.
        return any(text in self.decode(ids[max(start, len(ids) - len(text.encode()) - 1) :]) for text in self.texts)

    def without_stop(self, ids: list[int]) -> list[int]:
        """Drop the tokens that ended the row, whole tokens only: one that also holds earlier text goes too."""
        if ids[-1] in self.ids:
            return ids[:-1]
        end = min(position for text in self.texts if (position := self.decode(ids).find(text)) >= 0)
        while ids and len(self.decode(ids)) > end:
            ids = ids[:-1]
        return ids


def end_tokens(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return every token that ends a sequence: those of the generation config and that of the tokenizer."""
    configured = config.eos_token_id if config is not None else None
    several = configured if isinstance(configured, Collection) else [configured]
    return frozenset(int(token) for token in [*several, tokenizer.eos_token_id] if token is not None)
