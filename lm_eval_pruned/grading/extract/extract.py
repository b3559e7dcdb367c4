"""Answer extraction: the most explicit statement of an answer in a response, the last one of its kind, or None."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm_eval_pruned.grading.answer_kinds import Extraction, Kind, check_kind
from lm_eval_pruned.grading.extract.brackets import find_brackets
from lm_eval_pruned.grading.extract.choices import find_letter
from lm_eval_pruned.grading.extract.sentences import find_conclusion, find_withdrawn, is_cut, read_statement
from lm_eval_pruned.grading.extract.spans import find_boxes, find_json_answers, find_math, find_tagged, has_box
from lm_eval_pruned.grading.extract.statements import (
    CLOSING_TAG,
    count_words,
    find_announced,
    is_announced,
    is_short,
    unwrap,
)
from lm_eval_pruned.grading.limits import MAX_BARE_ANSWER_CHARACTERS, MAX_RESPONSE_CHARACTERS

_TAGS = r"(?:(?:[a-z]{1,9}[:_])?think(?:ing)?|thought|reasoning)>"
_THINKING_END = re.compile(
    rf"</{_TAGS}|\[/THINK\]|\u25c1/think\u25b7|<\|im_start\|>answer|<\|channel\|>final<\|message\|>|<\|end_of_thought\|>"
    r"|<channel\|>|<\|END_THINKING\|>|<\|inner_suffix\|>|\[BEGIN FINAL RESPONSE\]|assistantfinal"
)
# Thinking starts again, the text ends, or the next turn of a conversation begins.
_ANSWER_END = re.compile(
    rf"<{_TAGS}|\[THINK\]|\u25c1think\u25b7|<\|im_start\|>(?:think|user|system)|<\|channel\|>analysis<\|message\|>"
    r"|<\|channel>thought|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|inner_prefix\|>|<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>"
    r"|<\|return\|>|<end_of_turn>|</s>|<\uff5cend\u2581of\u2581sentence\uff5c>|<\|start_header_id\|>user"
    r"|<start_of_turn>user|<\|user\|>|\[INST\]|\Aanalysis(?=[A-Z])"
)
# The prompt, decoded together with the response and without its special tokens.
_PROMPT = re.compile(r"\A\s{0,9}(?:system|user)\s{0,3}\n[^\0]*(?<![a-z ])assistant\s{0,3}\n")
_TURN = re.compile(r"(?<=\S)\s{0,9}\n\s{0,9}(User|Human|[Qq]uestion|Problem|Q)(?: [0-9]{1,4})?\s?:")
# What evaluations append to thinking at its budget, and the answer that follows; "The answer is" may be a thought.
_FORCED = re.compile(r"\n\W{0,5}(?P<answer>(?i:therefore, the answer is|final answer:)[^\n]{1,200})\s{0,9}\Z")
# A letter alone was not a thought either, unless thinking stopped in a list of the options.
_FORCED_LETTER = re.compile(
    r"(?:\A|\n)(?!\W{0,5}[A-D][).:])[^\n]{0,500}[^\s:]\n(?P<answer>\W{0,5}[A-D][.*]{0,3})\s{0,9}\Z"
)
_BOX_TOKENS = re.compile(r"<\|begin_of_box\|>([^<]{1,200})<\|end_of_box\|>")
# "The final answer is: ####": what was announced never came.
_UNANNOUNCED = re.compile(r"\n[^\n.0-9]{0,60}####[\s*]{0,9}\Z")
# "A: 5", "=> 5": what a prompt with "Q:" and "A:" asks for.
_LEADING = re.compile(r"\A(?:A ?:|=>|[=\u2192\u21d2\u2234]) ?(?=\S)")
# GSM8K's own calculations in "48/2 = <<48/2=24>>24".
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
_BARE = re.compile(r"(?![0-9]{1,3}\. )(?:-?[0-9.]+(?!.*[.=])|\\(?![(\[])|[A-Za-z]\s?[=<>])")
# Code that never ends.
_OPEN_CODE = re.compile(r"[A-Za-z]{1,12}\s?\n")
_EMPHASIS = re.compile(r"(?<![\w*])\*\*([^*\n]{1,100})\*\*(?![\w*])")
# The only bold value, at the end of the first sentence, of which the others give details and conclude nothing.
_ANSWERED_FIRST = re.compile(
    r"\A[^*\n.]{1,200} (?:is|was|in) \*\*([^*\n]{1,60})\*\*[.,]"
    r"(?![^\0]*\b(?i:so|thus|then|therefore|hence|sum|total|get|gives?|there are|now)\b)[^*=]*\Z"
)


def extract(response: str, kind: Kind = "math") -> str | None:
    """Return the answer that a response gives, or None if it gives none; `find_answer` also tells the stage.

    Example:
        >>> extract("A mole of gas expands, hence **(B)**.", "choice")
        'B'
    """
    found = find_answer(response, kind)
    return found.answer if found else None


def find_answer(response: str, kind: Kind = "math", finished: bool | None = None) -> Extraction | None:
    r"""Return the answer that a response gives and its stage, or None if it gives none. Takes linear time.

    For mathematics, the first of these kinds that occurs decides, and its last occurrence that is not empty counts:
    `\boxed{}`, `<answer>`, `"answer":`, "the answer is 5" and `#### 5` are explicit. Otherwise, unless the response is
    cut, the conclusion of its last sentence counts, or its last formula. For a choice, its letter; for brackets, the
    last ones. Thinking is skipped, and thinking that never ends holds no answer, unless one was forced in a last line.

    Args:
        response: all that the model wrote.
        kind: what the answer is.
        finished: whether the model ended the response itself; None if unknown, and then one that stops in mid-sentence
            counts as cut.

    Raises:
        UnknownNameError: there is no such kind.

    Example:
        >>> find_answer(r"First \boxed{3}, no: \boxed{\frac{1}{2}}. Or \boxed{5")
        Extraction(answer='\\frac{1}{2}', stage='explicit')
    """
    check_kind(kind)
    response = _CALCULATION.sub("", response[-MAX_RESPONSE_CHARACTERS:])
    response = _BOX_TOKENS.sub(r"\\boxed{\1}", _PROMPT.sub("", response))
    find = {"choice": find_letter, "brackets": find_brackets, "math": find_value}[kind]
    # A base model goes on with the next question of its prompt.
    turn = _TURN.search(response)
    before = find(strip_thinking(response[: turn.start()]), True) if turn else None
    if before and turn and (before.stage == "explicit" or turn[1] in ("User", "Human")):
        return before
    answer = strip_thinking(response)
    whole = find(answer or _last_thought(response), finished)
    if not (before or whole or answer):
        forced = _FORCED.search(response) or (None if finished is False else _FORCED_LETTER.search(response))
        return find(forced["answer"].strip(), finished) if forced else None
    return whole if whole and whole.stage == "explicit" else before or whole


def strip_thinking(response: str) -> str:
    """Return the text after the last end of thinking, up to where thinking starts again or the text ends.

    Example:
        >>> strip_thinking("<think>5?</think>It is 6.<|im_end|>")
        'It is 6.'
    """
    start = max((end.end() for end in _THINKING_END.finditer(response)), default=0)
    end = _ANSWER_END.search(response, start)
    return response[start : end.start() if end else None].strip()


def _last_thought(response: str) -> str:
    """Return the last line of thinking that has ended if it has a box; nothing came after it."""
    end = next(reversed(list(_THINKING_END.finditer(response))), None)
    line = response[: end.start()].rstrip().rpartition("\n")[2] if end else ""
    return line if has_box(line) else ""


def find_value(text: str, finished: bool | None) -> Extraction | None:
    """Return the mathematical answer in one turn of a conversation, which has no thinking."""
    text = _LEADING.sub("", _UNANNOUNCED.sub("", text))
    was_cut = finished is False or (finished is None and is_cut(text))
    explicit = next(filter(None, _find_explicit(text, finished=finished, was_cut=was_cut)), None)
    if explicit:
        return Extraction(explicit, "explicit")
    blocks = text.split("```")
    if was_cut or (len(blocks) % 2 == 0 and _OPEN_CODE.match(blocks[-1])):
        return None
    late = next(filter(None, _find_late(text[find_withdrawn(text, goes_on=False) :].strip())), None)
    return Extraction(late, "sentence") if late else None


def _find_explicit(text: str, *, finished: bool | None, was_cut: bool) -> Iterator[str]:
    yield from find_boxes(text)
    for content in find_tagged(text):
        # Prose in a tag is working, which a sentence after the tag may conclude.
        yield ("" if is_short(content) else find_conclusion(text.rpartition("</answer>")[2])) or _read_statement(
            content
        )
    yield from map(_read_statement, find_json_answers(text))
    # Reasoning that was still going on has withdrawn what it announced before its last doubt.
    text = text[find_withdrawn(text, goes_on=was_cut) :]
    for line in find_announced(text):
        answer = read_statement(line)
        # At the very end of a text that was cut, a number may lack its last digits.
        is_whole = finished is not False or not text.endswith(answer)
        yield answer if is_whole and is_short(answer) else ""


def _find_late(text: str) -> Iterator[str]:
    is_line = len(text) <= MAX_BARE_ANSWER_CHARACTERS and "\n" not in text
    is_bare = is_line and is_short(text) and not has_box(text) and not is_announced(text)
    is_mathematics = _BARE.match(text) or (text.isascii() and not count_words(text))
    if is_bare and is_mathematics:
        yield unwrap(_EMPHASIS.sub(r"\1", text))
    if (first := _ANSWERED_FIRST.match(text)) and is_short(first[1]):
        yield unwrap(first[1])
    conclusion = find_conclusion(text)
    if conclusion is not None:
        yield conclusion
        return
    # A box here is empty: a template that was not filled in.
    yield from (unwrap(formula) for formula in reversed(find_math(text)) if not has_box(formula))
    if is_bare:
        yield unwrap(text)


def _read_statement(content: str) -> str:
    """Return the answer in a tag or a field: all of it or, if that is prose, what its last sentence concludes."""
    content = CLOSING_TAG.sub("", content)
    answer = read_statement(content)
    is_computed = "\n" in content or " x " in content or count_words(content) > 0
    is_chain = "=" in content and is_computed and not answer.startswith("\\")
    return answer if is_short(content) and not is_chain else find_conclusion(content) or answer
