"""Stop conditions: detect that a sequence has ended, by token ids where a stop text is one token, else by its text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lm_eval_pruned.reasoning.detection import TEMPLATE_ERRORS
from lm_eval_pruned.reasoning.requests import Stop

# Special tokens that end a text or a turn in every model that has them.
TEXT_ENDS = (
    *(
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_turn|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    *("<end_of_turn>", "<turn|>", "<eos>", "</s>", "<|return|>", "<|call|>", "<|end|>", "[|endofturn|]", "<seed:eos>"),
    "<｜end▁of▁sentence｜>",
)

_ANSWER = "0b1f8e60-answer"


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
        """Return whether the last of `ids` ends a sequence whose new tokens begin at index `start`."""
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


def end_tokens(tokenizer: PreTrainedTokenizerBase, *configs: object) -> frozenset[int]:
    """Return the ids of all tokens that end a text or a turn.

    These are the tokens that the configs (a generation config, a model's config) and the tokenizer name, the one with
    which the chat template ends a turn of the assistant, and those that end texts in all models that have them: a
    checkpoint often names only one of two that its model writes.
    """
    named = [getattr(config, "eos_token_id", None) for config in (tokenizer, *configs)]
    ids = {token for one in named for token in (one if isinstance(one, Collection) else [one]) if token is not None}
    special = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
    ends = {*TEXT_ENDS, _turn_end(tokenizer, special)}
    return frozenset(map(int, ids)) | {special[end] for end in ends & special.keys()}


def _turn_end(tokenizer: PreTrainedTokenizerBase, special: Collection[str]) -> str:
    """Return the special token that the chat template writes after a turn of the assistant, or ""."""
    if not tokenizer.chat_template:
        return ""
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": _ANSWER}]
    try:
        after = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition(_ANSWER)[2].lstrip()
    except TEMPLATE_ERRORS:
        return ""
    return max((token for token in special if token and after.startswith(token)), key=len, default="")
