"""Normal form of an answer: answers that differ only in how they are typed become the same string."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.limits import MAX_NORMALIZE_PASSES
from lm_eval_pruned.grading.normalize.latex import normalize_latex
from lm_eval_pruned.grading.normalize.typed_math import restore_backslashes
from lm_eval_pruned.grading.normalize.unicode import normalize_characters
from lm_eval_pruned.grading.normalize.unit_spelling import normalize_units
from lm_eval_pruned.grading.normalize.unit_table import PLAIN, WORDS
from lm_eval_pruned.grading.vocabulary import LONGEST_PRODUCT, TYPED_COMMANDS, TYPED_SYMBOLS

_WRAPPING = '*`" \t\n\u2713\u2714\u2705'
_ENDING = _WRAPPING + ".,;?"
_BEFORE_ANSWER = re.compile(r"[:.;][ \t]+")
_DOTS_AFTER_NUMBER = re.compile(r"(?P<number>-?[0-9]{1,40})(?:\.\.\.|\u2026)")

_WORD = re.compile(r"(?<!\\)(?<![^\W\d_])[^\W\d_]{2,}|\A[A-Za-z]\Z")
_BRACKET_OR_RUN = re.compile(r"(?P<open>\(|\[|\\\{)|(?P<close>\)|\]|\\\})|(?P<run>[0-9][0-9., ]*/?)")
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?:\.[0-9]+)?")
# A form without letters, blanks and commas cannot change in another pass.
_SETTLED = re.compile(r"(?:[0-9+\-/^{}]|\\sqrt(?=\{)|\\frac(?=\{[^{}]{0,99}\}\{))*")
_SHORT_WORDS = WORDS.keys() | set(map(str.casefold, PLAIN)) | TYPED_COMMANDS.keys() | {"am", "pm", "and", "or", "if"}
_TIGHT_COMMA = re.compile(r",(?=[^ ])")


def normalize(answer: str) -> str:
    r"""Return the normal form of an answer; a normal form is its own normal form.

    Brackets, units, bases and the contents of `\text{...}` remain. Words become lower case, variables in expressions
    keep their case. Blanks are removed except between the two parts of `1 2/3`.

    Example:
        >>> normalize(r"$\left[ 0, \dfrac12 \right)$.")
        '[0, \\frac{1}{2})'
        >>> normalize(r"\text{Evelyn}"), normalize("1{,}234,567"), normalize("(x+1)")
        ('evelyn', '1234567', 'x+1')
        >>> normalize("AB"), normalize("AB + 2ab"), normalize("5 km")
        ('ab', 'AB+2ab', '5kilometer')
    """
    if answer.isascii() and answer.isdigit():
        return answer
    for _ in range(MAX_NORMALIZE_PASSES):
        form = _normalize_once(answer)
        if form == answer or _SETTLED.fullmatch(form):
            return form
        answer = form
    return answer


def _normalize_once(answer: str) -> str:
    text = normalize_latex(
        normalize_units(_strip_decoration(normalize_characters(restore_backslashes(answer))))
    ).rstrip(_ENDING)
    text = _TIGHT_COMMA.sub(", ", _join_thousands(text))
    folded = text if text.isascii() and text.islower() else _WORD.sub(_fold_word, text)
    return _strip_outer_parentheses(folded)


def fold_words(form: str) -> str:
    """Lower-case everything that may be a word, for a form that is text rather than mathematics."""
    return _WORD.sub(lambda word: word[0].casefold(), form)


def _fold_word(word: re.Match[str]) -> str:
    """Lower-case a word; a few letters are a word as a whole member, and variables within an expression."""
    folded = word[0].casefold()
    if word[0] in TYPED_SYMBOLS:
        # Lambda is another letter than lambda.
        return word[0]
    if len(folded) > LONGEST_PRODUCT or folded in _SHORT_WORDS:
        return folded
    start, end = word.span()
    begins = start == 0 or word.string.startswith((":", ";"), start - 1) or word.string.startswith(", ", start - 2)
    ends = end == len(word.string) or word.string[end] in ",:;"
    return folded if begins and ends else word[0]


def _strip_decoration(text: str) -> str:
    text = text.strip(_WRAPPING)
    if text[:1] == text[-1:] == "'":
        text = text[1:-1]
    if text[:1] in (":", ".", ";") and (start := _BEFORE_ANSWER.match(text)):
        text = text[start.end() :]
    if text[-1:] in (".", "\u2026") and (trailing := _DOTS_AFTER_NUMBER.fullmatch(text)):
        text = trailing["number"]
    while (len(text) - len(text.rstrip("\\"))) % 2:
        # The blank of a control space was stripped with the others.
        text = text[:-1].strip(_WRAPPING)
    return text[:-1].strip(_WRAPPING) if text[-2:] in ("*.", "`.", '".') else text


def _join_thousands(text: str) -> str:
    """Join `1,234,567` and `1 234 567`; in brackets, a comma without a blank joins only next to one with a blank."""
    if "," not in text and " " not in text:
        return text
    pieces, depth, done = [], 0, 0
    for match in _BRACKET_OR_RUN.finditer(text):
        if match["run"] is None:
            depth += 1 if match["open"] else -1
        elif depth <= 0 or (", " in match["run"] and "," in match["run"].replace(", ", "")):
            members = match["run"].split(", ")
            joined = [re.sub("[ ,]", "", member) if _GROUPED.fullmatch(member) else member for member in members]
            pieces += [text[done : match.start()], ", ".join(joined)]
            done = match.end()
    return "".join(pieces) + text[done:]


def _strip_outer_parentheses(text: str) -> str:
    """Unwrap `(x+1)` and `(C)`; with a comma or semicolon inside they are a tuple or an interval."""
    most = min(len(text) - len(text.lstrip("(")), len(text) - len(text.rstrip(")")))
    if not most or "," in text or ";" in text:
        return text
    depth = lowest = most
    for character in text[most:-most]:
        depth += (character == "(") - (character == ")")
        lowest = min(lowest, depth)
    layers = min(most, lowest)
    return text[layers:-layers] if layers > 0 and depth == most else text
