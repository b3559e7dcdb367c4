"""Completions: the text of a response with its thinking, its answer, token counts and finish reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

ThinkingFinish = Literal["closed", "eos", "budget"]
AnswerFinish = Literal["stop", "length", "none"]


class Thinking(NamedTuple):
    """The first phase of a response: its text, its tokens, and whether its marker, an eos or the budget ended it."""

    text: str
    tokens: int
    finish: ThinkingFinish


class Answer(NamedTuple):
    """The second phase of a response; a finish of "none" says that the answer is part of the thinking."""

    text: str
    tokens: int
    finish: AnswerFinish


class Completion(str):
    """A response as a string, so that the harness can store it: all text after the prompt, with both phases as fields.

    Counts are in tokens. `thinking_finish` says whether thinking was closed by its marker, ended at an end-of-sequence
    token, or was cut at the budget; `answer_finish` whether the answer stopped by itself, was cut at `max_gen_toks`, or
    is part of the thinking.
    """

    # The names are those of the fields in the response store.
    __slots__ = ("answer", "answer_finish", "answer_tokens", "thinking", "thinking_finish", "thinking_tokens")

    thinking: str
    answer: str
    thinking_tokens: int
    answer_tokens: int
    thinking_finish: ThinkingFinish
    answer_finish: AnswerFinish

    @classmethod
    def build(cls, text: str, *, thinking: Thinking, answer: Answer) -> Completion:
        """Attach both phases to the whole text of a response."""
        completion = cls(text)
        completion.thinking, completion.thinking_tokens, completion.thinking_finish = thinking
        completion.answer, completion.answer_tokens, completion.answer_finish = answer
        return completion

    @property
    def budget_hit(self) -> bool:
        """Whether thinking was cut at the budget."""
        return self.thinking_finish == "budget"

    @property
    def answer_cut(self) -> bool:
        """Whether the answer was cut at `max_gen_toks`."""
        return self.answer_finish == "length"

    def as_dict(self) -> dict[str, object]:
        """Return text and fields as JSON values; `from_dict` is the inverse."""
        return {"text": str(self)} | {name: getattr(self, name) for name in sorted(self.__slots__)}

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Completion:
        """Return the completion that `as_dict` was called on.

        Raises:
            TypeError: a field is missing or unknown.
        """
        if content.keys() != {"text", *cls.__slots__}:
            raise TypeError(f"a completion has the fields text, {', '.join(cls.__slots__)}, not {', '.join(content)}")
        completion = cls(content["text"])
        for name in cls.__slots__:
            setattr(completion, name, content[name])
        return completion
