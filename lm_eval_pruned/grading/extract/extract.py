"""What a response gives as its answer: the most explicit statement in it, the last of its kind, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from lm_eval_pruned.grading.answer_kinds import Kind, check_kind
from lm_eval_pruned.grading.extract.choices import find_letter
from lm_eval_pruned.grading.extract.spans import boxes, fields, has_box, mathematics, tagged
from lm_eval_pruned.grading.extract.statements import (
    amounts,
    anchored,
    bold_answers,
    declared,
    hashed,
    is_announced,
    is_short,
    tidy,
    unwrap,
)
from lm_eval_pruned.grading.limits import MAX_BARE_ANSWER_CHARACTERS, MAX_RESPONSE_CHARACTERS

_TAGS = ("think", "thinking", "thought")
THINKING_ENDS = (
    *(f"</{tag}>" for tag in _TAGS),
    *("<|im_start|>answer", "<|channel|>final<|message|>", "[/THINK]", "\u25c1/think\u25b7"),
)
THINKING_STARTS = (
    *(f"<{tag}>" for tag in _TAGS),
    *("<|im_start|>think", "<|channel|>analysis<|message|>", "[THINK]", "\u25c1think\u25b7"),
)
TEXT_ENDS = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|return|>", "<end_of_turn>", "</s>"),
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)


def extract(response: str, kind: Kind = "math") -> str | None:
    r"""Return the answer a response gives, or None where it gives none.

    For mathematics, the last non-empty of the first kind found: `\boxed{}`, `<answer>`, `"answer":`, `####` in the last
    line, a line such as "the answer is 5", bold, mathematics, the only amount of money of the last line, a response
    that is nothing but a short answer. For a choice, its letter.
    Thinking is skipped, and thinking that never ends holds no answer. Linear time.

    Raises:
        UnknownNameError: `kind` is neither "math" nor "choice".

    Example:
        >>> extract(r"First \boxed{3}, no: \boxed{\frac{1}{2}}. Or \boxed{5", "math")
        '\\frac{1}{2}'
        >>> extract("A mole of gas expands, hence **(B)**.", "choice")
        'B'
    """
    check_kind(kind)
    text = answer_part(response[-MAX_RESPONSE_CHARACTERS:])
    return find_letter(text) if kind == "choice" else next(filter(None, _find_mathematics(text)), None)


def extract_list(response: str) -> str | None:
    r"""Return the boxes of the last line that has any as one list, or None where it has fewer than two.

    Example:
        >>> extract_list(r"So \boxed{7}, no:" + "\n" + r"\(x=\boxed{2}\) or \(x=\boxed{3}\).")
        '2, 3'
        >>> extract_list(r"\boxed{7}")
    """
    lines = answer_part(response[-MAX_RESPONSE_CHARACTERS:]).split("\n")
    last = next((found for line in reversed(lines) if (found := list(boxes(line)))), [])
    return ", ".join(reversed(last)) if len(last) > 1 else None


def answer_part(response: str) -> str:
    """Return what follows the last end of thinking, up to where thinking starts again or the text ends.

    Example:
        >>> answer_part("<think>5?</think>It is 6.<|im_end|>")
        'It is 6.'
    """
    start = max(response.rfind(marker) + len(marker) if marker in response else 0 for marker in THINKING_ENDS)
    ends = (response.find(marker, start) for marker in (*THINKING_STARTS, *TEXT_ENDS))
    return response[start : min((end for end in ends if end >= 0), default=None)].strip()


def _find_mathematics(text: str) -> Iterator[str]:
    yield from boxes(text)
    yield from map(tidy, tagged(text))
    yield from map(tidy, fields(text))
    yield from hashed(text)
    yield from filter(is_short, map(tidy, anchored(text)))
    yield from map(unwrap, declared(text))
    yield from bold_answers(text)
    yield from map(unwrap, reversed(mathematics(text)))
    yield from amounts(text)
    if has_box(text) or is_announced(text):
        return
    if len(text) <= MAX_BARE_ANSWER_CHARACTERS and "\n" not in text and is_short(text):
        yield unwrap(text)
