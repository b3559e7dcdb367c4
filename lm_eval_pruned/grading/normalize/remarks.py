"""Words of an answer: remarks that do not change it, "and" and "or" between its parts, and numbers in words."""

from __future__ import annotations

import re
from fractions import Fraction

from lm_eval_pruned.grading.vocabulary import NUMBER_WORDS, ORDINALS, SCALES

_TEXT = r"(?:\\(?:text|mbox|textrm|mathrm)\s?\{)?"
_ANNOUNCEMENT = re.compile(
    rf"\s?{_TEXT}\s?(?:so |thus |hence )?(?:the )?(?:final |correct )?answer ?(?:is|[:=])[:= ]?\s?\}}?(?=.)",
    re.IGNORECASE,
)
_ADVERB = re.compile(
    rf"\s?{_TEXT}\s?(?:exactly|only|just|a total of|in total)(?:\s|\s?\}}\s?)(?=[\\$0-9-])", re.IGNORECASE
)
_REASON = re.compile(
    rf"(?:,| |\\[,; ]){_TEXT}\s?,?\s?(?:because|since|where|for (?:all|any|every|some))\s"
    r"|\\q?quad\s?\([^()]{0,40}[<>=\\][^()]{1,40}\)\Z"
)
# Words after a counted noun that say of what, how often or how many of all.
_DETAIL = re.compile(
    r"\A(?P<counted>\\?\$?-?[0-9][0-9.,/]*\s?(?:\\?[,; ]?\s?\\text\s?\{\s?)?[a-z]{2,20}) "
    r"(?:of|each|every|altogether|in total|in all|total|left|remaining|needed)(?: [a-z]{1,20}){0,6}"
    r"[.\s]*(?P<close>\}?)\s*\Z"
)
_REPETITION = re.compile(r"(?P<value>[0-9]{1,4})\s?(?:\\text\{)?\s?\((?P<words>[A-Za-z -]{2,60})\)\s?\}?")
_WORDS = re.compile(rf"\s?{_TEXT}(?P<words>[A-Za-z][A-Za-z -]{{1,80}})\}}?\s?")
# All of these have a word of three letters that is not a command, or a wide blank.
_REMARK = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3}|quad")
_WORD_BREAK = re.compile(r"[ -]+")
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4}
_PARTS |= {part + plural: size for size, part in enumerate(ORDINALS[2:], 3) for plural in ("", "s")}

# The pattern takes one blank at most: repetitions of adjacent blanks would try every split of a run.
_BLANKS = re.compile(r"\s+")
_CONJUNCTION = re.compile(r" ?,? ?\\(?:text|mbox|textrm|mathrm)\{ ?,? ?(and|or) ?\} ?| ?,? (and|or) ", re.IGNORECASE)
_TIGHT = re.compile(r"(?<=[0-9)\]}$])(and|or)(?=[0-9(\[\\$-])")
_INEQUALITY = re.compile(r"[<>\u2260\u2264\u2265\u2208]|\\(?:[lg](?:t|eq?|eqslant)|neq?|in|notin)(?![A-Za-z])")
# "And" and "or" in Chinese, unless they are a part of a longer word.
_CJK_CONJUNCTION = re.compile(r"(?<![\u4e00-\u9fff])[\u548c\u6216](?![\u4e00-\u9fff])")
_LOGIC = {"and": " \\land ", "or": " \\lor "}


def strip_remarks(text: str) -> str:
    r"""Remove words that announce, limit, explain or repeat an answer, and write a number in words in digits.

    Example:
        >>> strip_remarks(r"\text{The answer is } 5"), strip_remarks(r"x = 2, \text{ since } x > 0")
        ('5', 'x = 2')
        >>> strip_remarks("one hundred and twenty"), strip_remarks("7 (seven)"), strip_remarks(r"\text{two-thirds}")
        ('120', '7', '\\frac{2}{3}')
    """
    if not _REMARK.search(text):
        return text
    for opening in (_ANNOUNCEMENT, _ADVERB):
        if opened := opening.match(text):
            text = text[opened.end() :].lstrip()
    if (reason := _REASON.search(text)) and reason.start():
        text = text[: reason.start()].rstrip(" ,")
    text = _DETAIL.sub(r"\g<counted>\g<close>", text)
    repeated = _REPETITION.fullmatch(text)
    if repeated and read_number_words(repeated["words"]) == int(repeated["value"]):
        return repeated["value"]
    spelt = _WORDS.fullmatch(text)
    value = read_number_words(spelt["words"]) if spelt else None
    if value is None:
        return text
    return str(value) if value.denominator == 1 else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def normalize_conjunctions(text: str) -> str:
    r"""Write "and" and "or" as commas, but as `\land` and `\lor` if both sides are inequalities.

    Example:
        >>> normalize_conjunctions("x=2 or x=3"), normalize_conjunctions(r"0<x \text{ and } x\le 4")
        ('x=2, x=3', '0<x \\land x\\le 4')
    """
    if not text.isascii():
        text = _CJK_CONJUNCTION.sub(lambda word: " or " if word[0] == "\u6216" else " and ", text)
    folded = text.casefold()
    if "and" not in folded and "or" not in folded:
        return text
    pieces = _CONJUNCTION.split(_BLANKS.sub(" ", _TIGHT.sub(r" \1 ", text)))
    if len(pieces) == 1:
        return text
    segments = pieces[::3]
    are_inequalities = [_INEQUALITY.search(segment) is not None for segment in segments]
    joined = segments[0]
    for index, segment in enumerate(segments[1:]):
        word = pieces[3 * index + 1] or pieces[3 * index + 2]
        is_logic = are_inequalities[index] and are_inequalities[index + 1]
        joined += (_LOGIC[word.casefold()] if is_logic else ", ") + segment
    return joined


def read_number_words(words: str) -> Fraction | None:
    """Read a number in words, at most trillions and with at most one fraction, or return None.

    Example:
        >>> read_number_words("negative two"), read_number_words("two thousand and five"), read_number_words("a dog")
        (Fraction(-2, 1), Fraction(2005, 1), None)
    """
    sign, *rest = _WORD_BREAK.split(words.strip().casefold())
    negative = sign in ("negative", "minus")
    total = part = 0
    names = rest if negative else [sign, *rest]
    size = _PARTS.get(names[-1]) if len(names) > 1 else None
    before = "and"
    for name in names[:-1] if size else names:
        if name in NUMBER_WORDS and (before in ("and", *SCALES) or (part % 100 >= 20 and part % 10 == 0)):
            part += NUMBER_WORDS[name]
        elif name == "hundred" and 0 < part < 10:
            part *= 100
        elif name in SCALES and name != "hundred" and part:
            total, part = total + part * 10 ** SCALES[name], 0
        elif name != "and" or before not in SCALES:
            return None
        before = name
    if before == "and":
        return None
    return Fraction(-total - part if negative else total + part, size or 1)
