"""Choice letters: a capital A to D that stands alone in a response and is not the article or one of several."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm_eval_pruned.grading.answer_kinds import Extraction
from lm_eval_pruned.grading.extract.spans import find_bold, find_boxes, find_json_answers, find_tagged
from lm_eval_pruned.grading.extract.statements import find_announced
from lm_eval_pruned.grading.limits import MAX_CHOICE_CHARACTERS

_DECORATION = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|operatorname|boxed|fbox|left|right)(?![A-Za-z])"
    r"|[*_`$\"{}]|\\[()\[\]!,]"
)
_NAMED = r"\s*(?:(?i:option|choice|letter)\s+)?['\u2018\u201c(\[]{0,2}\s?"
_WHOLE = re.compile(rf"{_NAMED}(?:([A-Da-d])\s?[)\].:'\u2019\u201d]{{0,2}}\s*|([A-D])[)\].:].*)", re.DOTALL)
_LEADING = re.compile(rf"{_NAMED}([A-D])(?![A-Za-z0-9_^]|['\u2019-][A-Za-z]|\s?=)")
_DECLARED = re.compile(
    r"\b(?:([A-D])|(?i:option|choice) \(?([a-d]))\)? (?:is|must be|seems|looks) "
    r"(?:the )?(?:only |most )?(?:correct|right|best|true|answer|plausible)\b"
    r"|\b([A-D])\)? it is\b"
)
_STANDALONE = re.compile(r"(?<![A-Za-z0-9_^\\\u2019\u00b0/=+-])([A-D])(?![A-Za-z0-9_^/]|['\u2019-][A-Za-z]|\s?[=+<>])")

# "A proton is ..." begins a sentence, whereas "A is ..." names the choice.
_ARTICLE = re.compile(r"A\s(?!(?:is|because|since|as|seems|must|would|and|or|fits|matches)\b)[a-z]")
# "A or B" and "(A), (B) and (D)" do not decide on one letter.
_SEVERAL = re.compile(
    r"\(?\b[A-D]\b\)?(?:\s?(?:,?\s(?:and|or|nor)\b|/|&)\s?\(?[A-D]\b\)?"
    r"|\s?,\s?\(?[A-D]\b\)?(?! (?:is|must|seems|looks)\b))+"
)
# The list of choices, one on each line, repeated from the question.
_CHOICES = re.compile(
    "".join(rf"^[ \t]{{0,9}}\(?{letter}[).:][^\n]{{0,{MAX_CHOICE_CHARACTERS}}}(?:\n|\Z)\n?" for letter in "ABCD"),
    re.MULTILINE,
)


def read_letter(content: str) -> str | None:
    r"""Read all of a short text as one letter, which the text of that choice may follow.

    Example:
        >>> read_letter(r"\text{(C)}"), read_letter("c"), read_letter("B) 5 m/s"), read_letter("Cu")
        ('C', 'C', 'B', None)
    """
    if len(content) > MAX_CHOICE_CHARACTERS:
        return None
    plain = _DECORATION.sub("", content).strip()
    match = None if _SEVERAL.match(plain) else _WHOLE.fullmatch(plain)
    return (match[1] or match[2]).upper() if match else None


def find_letter(text: str, finished: bool | None = None) -> Extraction | None:
    """Return the letter that a response decides on and its stage, or None.

    The most explicit place counts: a box, a tag, an announcement, bold text, or the last letter that stands alone.

    Example:
        >>> find_letter("I think a proton has too little charge, so the answer is (C).")
        Extraction(answer='C', stage='explicit')
    """
    letter = next(_letters(text), None)
    return Extraction(letter, "explicit") if letter else None


def _letters(text: str) -> Iterator[str]:
    for content in (*find_boxes(text), *find_tagged(text), *find_json_answers(text)):
        if letter := read_letter(content):
            yield letter
    for line in find_announced(text):
        plain = _plain(line)
        match = _LEADING.match(plain)
        if match and not _ARTICLE.match(plain, match.start(1)):
            yield match[1]
        elif letter := read_letter(line):
            yield letter
    for content in reversed(find_bold(text)):
        if letter := read_letter(content):
            yield letter
    plain = _plain(_CHOICES.sub("", text))
    bare = _WHOLE.fullmatch(plain)
    if bare and bare[1] and plain.strip(" .") != "a":
        yield bare[1].upper()
    yield from ((match[1] or match[2] or match[3]).upper() for match in reversed(list(_DECLARED.finditer(plain))))
    for match in reversed(list(_STANDALONE.finditer(plain))):
        if not _ARTICLE.match(plain, match.start(1)):
            yield match[1]


def _plain(text: str) -> str:
    return _SEVERAL.sub("", _DECORATION.sub("", text))
