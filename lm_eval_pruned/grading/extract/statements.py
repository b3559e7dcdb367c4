"""What a sentence says the answer is: the text behind "the answer is", less the reasons and the decoration."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm_eval_pruned.grading.extract.spans import bold, mathematics
from lm_eval_pruned.grading.limits import MAX_ANNOUNCEMENT_CHARACTERS, MAX_ANNOUNCEMENTS, MAX_DECLARED_CHARACTERS

# Repetitions are bounded and never overlap, so that matching stays linear on hostile text.
_ANCHOR = re.compile(
    r"(?<![^\W_])(?:answers?|ans\.?(?=\s?[:=])|(?:correct|right|best|final) (?:option|choice|result|statement|letter)"
    r"|antwort|r\u00e9ponse|respuesta|risposta|resposta|\u043e\u0442\u0432\u0435\u0442)"
    r"(?: (?:finale?|correct[ae]|corretta))?(?: (?:to|of|for|in|we|you|that) [^\n.:=]{0,60}?)?[\s*_]{0,20}"
    r"(?:[:=\uff1a]|\b(?:is|are|equals|(?:must|should|would) be|ist|lautet|est|es|\u00e8|\u00e9)\b)"
    r"[\s*_}]{0,20}(?:[:=]|(?:therefore|simply|donc|approximately|about|roughly|exactly)\b)?"
    # Chinese, Japanese and Korean.
    r"|(?:\u7b54\u6848(?:(?:\u5c31|\u5e94\u8be5)?[\u662f\u4e3a\u70ba]\s?[:\uff1a]?|\s?[:\uff1a])|\u7b54\u3048\u306f|\uc815\ub2f5\uc740)"
    r"|^[\s*_#]{0,20}(?:final )?answer[*_]{0,3}[ \t]{0,20}$",
    re.IGNORECASE | re.MULTILINE,
)
_REASON = re.compile(
    r"\.(?=\s+[A-Z$\\*]|\s*\Z)|\u3002|\s?\u3067\u3059|\uc785\ub2c8\ub2e4"
    r"|, (?:and |but |rather than )?not\b"
    r"|,? \(?(?:because|since|where|as required|as desired)\b"
    r"|(?: \(|, or )(?:about|approximately|roughly)\b"
)
# "not 14 but 15" takes back the first of the two.
_TAKEN_BACK = re.compile(r"\Anot\s[^\n]{1,60}?[\s,$)*]but\s(?:rather\s|instead\s)?", re.IGNORECASE)
_DECLARED = re.compile(r" (?:is|as) (?:the|our|my) (?:final |correct |required )?answer\b", re.IGNORECASE)
_BULLET = re.compile(r"> |[-\u2022] (?=[$\\*])")
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!(?:and|or)\b)[A-Za-z]{2,}")
# "their sum: $7$", "given by $7$": what is said of the answer in front of it.
_ABOUT = re.compile(r"[A-Za-z ]{2,40}(?::| by| to)\s*(?=\$|\\[(\[])")
_NUMERAL = re.compile(r"-?[0-9](?:[0-9.,/]*[0-9])?")
_FORMULA = re.compile(r"[\\^_=+*(){}<>|]|[A-Za-z][0-9]|[0-9][A-Za-z]")
_MONEY = re.compile(r"\\?\$[0-9][0-9,]{0,20}(?:\.[0-9]{1,4})?(?=[.,;:!?)]?(?:\s|\Z))")
_FIGURES = re.compile(r"(?![0-9]+\. )[^A-Za-z]|[^=]*=")
_DECORATION = "*_:# \t\n"
_HASHES = "#### "
_DISPLAYS = ("$$\n", "\\[")
_ENVIRONMENT = re.compile(r"\\begin\{((?:equation|align|aligned|gather|displaymath|math)\*?)\}")
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("***", "***"), ("**", "**"), ("`", "`"))

# With this many words a line is prose around its answer; with fewer they are the answer or its unit.
PROSE_WORDS = 3


def anchored(text: str) -> Iterator[str]:
    """Yield the rest of each line that announces an answer, last first; the next line where nothing is left of it.

    Example:
        >>> list(anchored("The answer is 4. Wait. **Final Answer:** 5"))
        ['5', '4. Wait. **Final Answer:** 5']
    """
    for anchor in reversed(list(_ANCHOR.finditer(text))[-MAX_ANNOUNCEMENTS:]):
        rest = _TAKEN_BACK.sub("", _first_line(text, anchor.end()), count=1)
        if rest:
            yield rest


def is_announced(text: str) -> bool:
    """Tell whether a text announces an answer, whether or not one follows."""
    return _ANCHOR.search(text) is not None


def hashed(text: str) -> Iterator[str]:
    r"""Yield what the last line says behind `####`, if that is an answer and no heading.

    Example:
        >>> list(hashed("So 4+4=8.\n#### 8")), list(hashed("#### Second step of the proof"))
        (['8'], [])
    """
    line = text.rpartition("\n")[2].strip()
    if line.startswith(_HASHES) and is_short(line.removeprefix(_HASHES)):
        yield line.removeprefix(_HASHES).strip()


def amounts(text: str) -> Iterator[str]:
    """Yield the only amount of money in the last line.

    Example:
        >>> list(amounts("The total cost is $45.50.")), list(amounts("She has $5 and gets $6."))
        (['$45.50'], [])
    """
    line = text.rpartition("\n")[2][-MAX_ANNOUNCEMENT_CHARACTERS:]
    found = _MONEY.findall(line)
    if len(found) == line.count("$") == 1:
        yield found[0]


def declared(text: str) -> Iterator[str]:
    """Yield the figures in front of "is the answer", last first.

    Example:
        >>> list(declared("We see that 25 is the answer. This is the answer to everything."))
        ['25']
    """
    for match in reversed(list(_DECLARED.finditer(text))[-MAX_ANNOUNCEMENTS:]):
        words = text[max(0, match.start() - MAX_DECLARED_CHARACTERS) : match.start()].split()
        if words and words[-1].count("$") != 1 and any(sign.isdigit() for sign in words[-1]):
            yield words[-1]


def is_short(text: str) -> bool:
    """Tell whether a text can be an answer and nothing else: a word, or figures and commands with hardly any words.

    Example:
        >>> is_short("5 square inches"), is_short("Evelyn"), is_short("I am not sure")
        (True, True, False)
    """
    words = len(_PROSE.findall(text))
    return words <= 1 or (words < PROSE_WORDS and any(sign.isdigit() or sign == "\\" for sign in text))


def tidy(line: str) -> str:
    """Reduce a sentence to its answer: cut reasons, then take mathematics, bold or the only number out of prose.

    Example:
        >>> tidy("$25$, since $20+5=25$. I hope it is correct.")
        '25'
        >>> tidy("There are 25 ways to do it."), tidy("27 cents.")
        ('25', '27 cents')
    """
    reason = _REASON.search(line)
    line = unwrap(line[: reason.start()] if reason else line)
    if (about := _ABOUT.match(line)) and len(spans := mathematics(line[about.end() :])) == 1:
        return spans[0]
    if len(_PROSE.findall(line)) < PROSE_WORDS:
        return line
    candidates = mathematics(line) or bold(line) or _only_number(line)
    return unwrap(candidates[0] if line.startswith(("$", "\\", "*")) else candidates[-1])


def bold_answers(text: str) -> Iterator[str]:
    r"""Yield what is short and bold, last first: anything at the end, elsewhere figures but no headings.

    Example:
        >>> list(bold_answers("**Step 1** gives **25**. So her name\nis **Evelyn**."))
        ['Evelyn', '25']
    """
    last_line = text.rstrip().rpartition("\n")[2]
    yield from map(unwrap, filter(is_short, bold(last_line)[-1:]))
    yield from (unwrap(span) for span in reversed(bold(text)) if is_short(span) and _FIGURES.match(span))


def unwrap(text: str) -> str:
    """Take off blanks, a final full stop and whole layers of dollar signs, maths brackets, stars or backticks.

    Example:
        >>> unwrap(" **$25$**. ")
        '25'
    """
    text = _trim(_BULLET.sub("", text.replace("**", "") if text.count("**") == 1 else text, count=1))
    if text.endswith("$") and text.count("$") == 1 and not text.endswith("\\$"):
        text = _trim(text[:-1])
    for opening, closing in _WRAPPERS * 2:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and opening not in inner:
            text = _trim(inner)
    return text


def _only_number(line: str) -> list[str]:
    """Find the one number of a line of plain words; a number inside a formula is only a part of it."""
    numerals = set(_NUMERAL.findall(line))
    return list(numerals) if len(numerals) == 1 and not _FORMULA.search(line) else [line]


def _trim(text: str) -> str:
    text = text.strip().strip("# \t\n").strip()
    return text.rstrip(".:;, ").rstrip() if not text.endswith(("...", "\\,", "\\:", "\\;")) else text


def _first_line(text: str, start: int) -> str:
    """Return what is left of the line at `start`, or the next line or displayed formula that is no decoration."""
    rest = text[start : start + MAX_ANNOUNCEMENT_CHARACTERS]
    environment = _ENVIRONMENT.match(rest.lstrip(_DECORATION))
    if environment:
        return rest.lstrip(_DECORATION)[environment.end() :].partition(f"\\end{{{environment[1]}}}")[0].strip()
    display = mathematics(rest) if rest.lstrip(_DECORATION).startswith(_DISPLAYS) else []
    lines = (line.strip() for line in rest.split("\n") if not line.startswith("```"))
    return display[0] if display else next((line for line in lines if line.strip(_DECORATION)), "")
