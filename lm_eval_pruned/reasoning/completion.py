"""A completion: the text of a response together with the account of how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ThinkingFinish = Literal["closed", "eos", "budget"]
AnswerFinish = Literal["stop", "length", "none"]


class Completion(str):
    """A response with its accounting; as a string it is the whole text behind the prompt, so the harness stores it.

    `thinking` and `answer` are its parts; counts are in tokens. `thinking_finish` says whether thinking was closed by
    its marker, left off at an end-of-sequence token, or cut at the budget; `answer_finish` whether the answer stopped
    by itself or used up its room, or whether there was none because the thinking holds it.
    """

    __slots__ = ("answer", "answer_finish", "answer_tokens", "thinking", "thinking_finish", "thinking_tokens")

    thinking: str
    answer: str
    thinking_tokens: int
    answer_tokens: int
    thinking_finish: ThinkingFinish
    answer_finish: AnswerFinish

    @classmethod
    def build(
        cls,
        text: str,
        *,
        thinking: str,
        answer: str,
        thinking_tokens: int,
        answer_tokens: int,
        thinking_finish: ThinkingFinish,
        answer_finish: AnswerFinish,
    ) -> Completion:
        """Attach the accounting to a text."""
        completion = cls(text)
        completion.thinking, completion.answer = thinking, answer
        completion.thinking_tokens, completion.answer_tokens = thinking_tokens, answer_tokens
        completion.thinking_finish, completion.answer_finish = thinking_finish, answer_finish
        return completion

    @property
    def budget_hit(self) -> bool:
        """Whether thinking was cut at the budget."""
        return self.thinking_finish == "budget"

    @property
    def answer_cut(self) -> bool:
        """Whether the answer used up its room."""
        return self.answer_finish == "length"

    def as_dict(self) -> dict[str, object]:
        """Return text and account as what JSON can hold; `Completion.build(**it)` makes it again."""
        return {"text": str(self)} | {name: getattr(self, name) for name in sorted(self.__slots__)}

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Completion:
        """Make again what `as_dict` has written.

        Raises:
            TypeError: a field is missing, or one too many.
        """
        return cls.build(**content)  # type: ignore[arg-type]
