"""Choice letters: the letter from A to D that a response chooses, and how surely; a stray capital is not a choice."""

from __future__ import annotations

import re
from itertools import islice

from lm_eval_pruned.grading.answer_kinds import Extraction
from lm_eval_pruned.grading.extract.choice_statements import find_chosen, is_denied
from lm_eval_pruned.grading.extract.sentences import find_withdrawn, is_cut
from lm_eval_pruned.grading.extract.spans import find_boxes, find_json_answers, find_tagged
from lm_eval_pruned.grading.limits import MAX_CHOICE_CHARACTERS, MAX_CHOICE_SPANS, MAX_CHOSEN_CHARACTERS

_FULL_WIDTH = str.maketrans("\uff08\uff09\uff1a\uff0c\uff1b\uff0e\u3010\u3011\u300c\u300d", "():,;.[][]")
_BOLD_LETTER = re.compile(r"(?<![*\w])(\*{1,3}|__|`)[(\[]?([A-D])[)\].]?\1(?![*\w])")
# "is **C. 5 eV**": an option with its text inside a sentence.
_BOLD_OPTION = re.compile(r"(?<=[a-z] )\*\*([A-D])[.):] (?=[^*\n]{1,200}\*\*)")
_DECORATION = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|operatorname|boxed|fbox|left|right)(?![A-Za-z])"
    r"|[*`$\"{}\u201c\u201d\u2705\u2714\ufe0f\U0001f449]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\\[()\[\]!,;]|^[ \t]{0,9}[>#]{1,6}(?=[ \t])",
    re.MULTILINE,
)
_OPENED = r"(?:(?i:the )?(?i:option|choice|letter|answer|statement)[ :]\s?)?[(\['\u2018]{0,3}\s?"
_WHOLE = re.compile(rf"{_OPENED}([A-Da-d])\s?[)\].:,'\u2019]{{0,3}}")
_WITH_TEXT = re.compile(
    rf"{_OPENED}(?:([A-D])(?:\s?[)\].:]|\s?[,\u3001](?!\s?[A-D]\b)|\s[-\u2013\u2014:(=]|\u2014)|([a-d])\s?[)\].:])\s{{0,3}}\S.*",
    re.DOTALL,
)
# An option on its own line, alone or with its text; a line that ends in a colon is a heading.
_OPTION = re.compile(
    r"[ \t]{0,9}(?:[-+\u2022][ \t]{1,3})?(?:(?i:option|choice) |(?:\u9009\u9879|\u9078\u9805) ?)?[(\[]{0,2}"
    r"(?:([A-D])|([a-d])(?=[).\]](?!.{60}))|([b-d])(?=[ \t]*$))"
    r"(?:[)\].:]{1,2}|(?=[ \t]*$)|[ \t][-\u2013\u2014])(?=\s|\Z|(?<=[):\]]))(?!.*:[ \t]*$)"
)
_LIST_OPENING = re.compile(
    r"(?i:\b(?:each|every|options|choices|statements|analy[sz]e|evaluate|consider|compare)\b.*:\s*)\Z"
)
_INLINE_LIST = re.compile(r".{0,300}?[\s(][Bb][).:]")
_AT_END = re.compile(
    r"(?:(?<!\bor)(?<!\band)(?<!\),)(?<!equation)(?<!part)(?<!step)(?<!figure)(?<!point)(?<!compound)(?<!reaction)"
    r" \((?:(?:[Oo]ption|[Cc]hoice) )?(?=[A-D]\))"
    # "After some thought, B", "Hmm... actually B.": a letter alone after a phrase.
    r"|(?:\b(?:After|Given|Considering|Based)\b[^\n.,]{1,80}(?<! [A-Z])(?=,)"
    r"|\b(?:actually|wait|[Nn]o(?=,)|i\.e\.)|\w{2}(?:\.{3}|\u2026))"
    r"[, ]{1,2}(?!\())\(?([A-D])\)?[.\s]{0,9}\Z"
)
# "A: B", "=> B": what a prompt with "Q:" and "A:" asks for.
_LEADING = re.compile(r"\A\s{0,9}(?:A:(?=\s?\(?[A-D]\)?\W{0,3}\Z)|=>|[\u2192\u21d2\u2234])\s?")
_LAST_LINE = re.compile(r"\n\s{0,9}[(\[]?([A-D])[)\].]{0,2}\s{0,9}\Z")
_LISTED = re.compile(r"^\W{0,9}([A-D])(?:[).:]|$)", re.MULTILINE)


def read_letter(content: str) -> str | None:
    r"""Read all of a short text as one letter, which the text of that choice may follow.

    Example:
        >>> read_letter(r"\text{(C)}"), read_letter("c"), read_letter("B - 5 m/s"), read_letter("Cu")
        ('C', 'C', 'B', None)
    """
    if len(content) > MAX_CHOICE_CHARACTERS:
        return None
    text = _plain(content).strip()
    match = _WHOLE.fullmatch(text) or _WITH_TEXT.fullmatch(text)
    return next(filter(None, match.groups())).upper() if match else None


def find_letter(text: str, finished: bool | None = None) -> Extraction | None:
    """Return the letter that a response chooses with its stage, or None if it chooses none or several.

    A box, a tag, a JSON field and a declared choice are explicit. Letters named in a sentence ("this matches (C)"), on
    a line of their own or at the end count only if the response is not cut.

    Args:
        text: response without its thinking.
        finished: whether the model ended its answer itself; None if that is not known.

    Example:
        >>> find_letter("I think a proton has too little charge, so the answer is (C).")
        Extraction(answer='C', stage='explicit')
        >>> find_letter("Vitamin C dissolves in water, whereas D needs fat.")
    """
    for content in islice((*find_boxes(text), *find_tagged(text), *find_json_answers(text)), MAX_CHOICE_SPANS):
        inner = _plain(content)
        stated = find_chosen(inner)
        if letter := read_letter(content) or (stated.letter if stated else _at_end(inner)):
            return Extraction(letter, "explicit")
    plain = _LEADING.sub("", _plain(text)).rstrip()[-MAX_CHOSEN_CHARACTERS:]
    stated = find_chosen(plain)
    if stated and stated.start < find_withdrawn(plain, goes_on=False):
        stated = None
    if stated and stated.letter and stated.stage == "explicit":
        # Reasoning that was still going on has withdrawn what it stated before its last doubt.
        may_go_on = finished is False or (finished is None and (is_cut(plain) or plain.endswith("?")))
        is_withdrawn = may_go_on and "\n" in plain[: stated.start] and find_withdrawn(plain, goes_on=True) > stated.end
        return None if is_withdrawn else Extraction(stated.letter, "explicit")
    if finished is False:
        return None
    if last := _LAST_LINE.search(plain, max(0, len(plain) - MAX_CHOICE_CHARACTERS)):
        # After "A. ..." and "B. ...", "C" goes on with a list of the options.
        goes_on = _LISTED.findall(plain, 0, last.start())[-1:] == [chr(ord(last[1]) - 1)]
        return None if goes_on else Extraction(last[1], "sentence")
    if stated and not stated.letter:
        return None
    # An option needs no full stop.
    is_complete = (stated and stated.end >= len(plain) - 2) or _OPTION.match(plain.rpartition("\n")[2])
    if finished is None and not is_complete and is_cut(plain):
        return None
    letter = stated.letter if stated else _on_own_line(plain) or _at_end(plain)
    return Extraction(letter, "sentence") if letter else None


def _on_own_line(plain: str) -> str | None:
    """Return the only letter on a line of its own, outside a list of options; lines without any text count first."""
    alone: list[tuple[str, bool]] = []
    run: list[tuple[str, bool]] = []
    before = ""
    for line in (*plain.split("\n"), ""):
        option = _OPTION.match(line)
        if option:
            letter = next(filter(None, option.groups())).upper()
            is_listed = letter == "A" and _INLINE_LIST.match(line, option.end())
            if not is_listed and not is_denied(line, option.end()):
                run.append((letter, option.end() == len(line.rstrip())))
            continue
        if len({letter for letter, _ in run}) == 1 and not _LIST_OPENING.search(before[-MAX_CHOICE_CHARACTERS:]):
            alone.append(run[-1])
        run, before = [], line if line.strip() else before
    for letters in ({letter for letter, is_bare in alone if is_bare}, {letter for letter, _ in alone}):
        if len(letters) == 1:
            return letters.pop()
    return None


def _at_end(plain: str) -> str | None:
    match = _AT_END.search(plain, max(0, len(plain) - MAX_CHOICE_CHARACTERS))
    return match[1] if match else None


def _plain(text: str) -> str:
    return _DECORATION.sub("", _BOLD_OPTION.sub(r"(\1) ", _BOLD_LETTER.sub(r"(\2)", text.translate(_FULL_WIDTH))))
