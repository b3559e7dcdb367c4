"""Answer extraction: the most explicit statement of an answer in a response, the last one of its kind, or None."""

from __future__ import annotations

from collections.abc import Iterator

from lm_eval_pruned.grading.answer_kinds import Extraction, Kind, check_kind
from lm_eval_pruned.grading.extract.choices import find_letter
from lm_eval_pruned.grading.extract.spans import find_boxes, find_json_answers, find_math, find_tagged, has_box
from lm_eval_pruned.grading.extract.statements import (
    find_after_hashes,
    find_amount,
    find_announced,
    find_bold_answers,
    find_declared,
    is_announced,
    is_short,
    strip_prose,
    unwrap,
)
from lm_eval_pruned.grading.limits import MAX_BARE_ANSWER_CHARACTERS, MAX_RESPONSE_CHARACTERS

_TAGS = ("think", "thinking", "thought")
THINKING_ENDS = (
    *(f"</{tag}>" for tag in _TAGS),
    *("<|im_start|>answer", "<|channel|>final<|message|>", "[/THINK]", "\u25c1/think\u25b7", "</seed:think>"),
    *("<channel|>", "<|END_THINKING|>", "<|inner_suffix|>", "[BEGIN FINAL RESPONSE]"),
)
THINKING_STARTS = (
    *(f"<{tag}>" for tag in _TAGS),
    *("<|im_start|>think", "<|channel|>analysis<|message|>", "[THINK]", "\u25c1think\u25b7", "<seed:think>"),
    *("<|channel>thought", "<|START_THINKING|>", "<|inner_prefix|>"),
)
TEXT_ENDS = (
    *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|return|>", "<end_of_turn>", "</s>"),
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)


def extract(response: str, kind: Kind = "math") -> str | None:
    r"""Return the answer that a response gives, or None if it gives none; `find_answer` also tells the stage.

    Raises:
        UnknownNameError: `kind` is neither "math" nor "choice".

    Example:
        >>> extract("A mole of gas expands, hence **(B)**.", "choice")
        'B'
    """
    found = find_answer(response, kind)
    return found.answer if found else None


def find_answer(response: str, kind: Kind = "math", finished: bool | None = None) -> Extraction | None:
    r"""Return the answer that a response gives and its stage, or None if it gives none. Takes linear time.

    For mathematics, the first of these kinds that occurs decides, and its last occurrence that is not empty counts:
    `\boxed{}`, `<answer>`, `"answer":`, `####` in the last line, a line such as "the answer is 5", "5 is the answer",
    bold text, mathematics, the only amount of money in the last line, a response that is only a short answer. For a
    choice, its letter. Thinking is skipped, and thinking that never ends holds no answer.

    Raises:
        UnknownNameError: `kind` is neither "math" nor "choice".

    Example:
        >>> find_answer(r"First \boxed{3}, no: \boxed{\frac{1}{2}}. Or \boxed{5")
        Extraction(answer='\\frac{1}{2}', stage='explicit')
    """
    check_kind(kind)
    text = strip_thinking(response[-MAX_RESPONSE_CHARACTERS:])
    if kind == "choice":
        return find_letter(text, finished)
    answer = next(filter(None, _find_mathematics(text)), None)
    return Extraction(answer, "explicit") if answer else None


def extract_list(response: str) -> str | None:
    r"""Return the boxes of the last line with boxes as one list, or None if that line has fewer than two.

    Example:
        >>> extract_list(r"So \boxed{7}, no:" + "\n" + r"\(x=\boxed{2}\) or \(x=\boxed{3}\).")
        '2, 3'
        >>> extract_list(r"\boxed{7}")
    """
    lines = strip_thinking(response[-MAX_RESPONSE_CHARACTERS:]).split("\n")
    last = next((found for line in reversed(lines) if (found := list(find_boxes(line)))), [])
    return ", ".join(reversed(last)) if len(last) > 1 else None


def strip_thinking(response: str) -> str:
    """Return the text after the last end of thinking, up to where thinking starts again or the text ends.

    Example:
        >>> strip_thinking("<think>5?</think>It is 6.<|im_end|>")
        'It is 6.'
    """
    start = max(response.rfind(marker) + len(marker) if marker in response else 0 for marker in THINKING_ENDS)
    ends = (response.find(marker, start) for marker in (*THINKING_STARTS, *TEXT_ENDS))
    return response[start : min((end for end in ends if end >= 0), default=None)].strip()


def _find_mathematics(text: str) -> Iterator[str]:
    yield from find_boxes(text)
    yield from map(strip_prose, find_tagged(text))
    yield from map(strip_prose, find_json_answers(text))
    yield from find_after_hashes(text)
    yield from filter(is_short, map(strip_prose, find_announced(text)))
    yield from map(unwrap, find_declared(text))
    yield from find_bold_answers(text)
    yield from map(unwrap, reversed(find_math(text)))
    yield from find_amount(text)
    if has_box(text) or is_announced(text):
        return
    if len(text) <= MAX_BARE_ANSWER_CHARACTERS and "\n" not in text and is_short(text):
        yield unwrap(text)
