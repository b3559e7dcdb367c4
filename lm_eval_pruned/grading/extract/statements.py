"""Announcements of an answer ("the answer is", `####`), and the shape of a bare answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm_eval_pruned.grading.extract.spans import find_math
from lm_eval_pruned.grading.limits import MAX_ANNOUNCEMENT_CHARACTERS, MAX_ANNOUNCEMENTS
from lm_eval_pruned.grading.normalize.remarks import read_number_words

# "Answer" in languages that end a statement with a colon or a verb.
FOREIGN_ANSWER = (
    r"antwort|r\u00e9ponse|respuesta|risposta|resposta|antwoord|odpowied\u017a(?: to)?|cevap|jawaban|gabarito"
    r"|jibu|\u0111\u00e1p (?:\u00e1n|s\u1ed1)|c\u00e2u tr\u1ea3 l\u1eddi|\u043e\u0442\u0432\u0435\u0442"
)
# Repetitions are bounded and never overlap, so that matching takes linear time on adversarial text.
_ANNOUNCEMENT = re.compile(
    r"(?<![^\W_])(?:(?<!if the )answers?|ans\.?(?=\s?[:=]| is\b)"
    r"|(?:correct|right|best|final) (?:option|choice|result|statement|letter)"
    rf"|{FOREIGN_ANSWER})"
    r"(?: (?:finale?|correct[ae]|corretta|\u0111\u00fang|akhir|yang benar))?(?: ?\([^()\n]{1,40}\))?"
    r"(?: (?:to|of|for|in|we|you|that) [^\n.:=$\\]{0,60}?)?"
    r"[\s*_]{0,20}"
    r"(?:[:=\uff1a](?<!\\=)|\b(?:comes out to be|turns out to be|is|are|equals"
    r"|(?:must|should|would) be|ist|lautet|est|es|\u00e8|\u00e9|l\u00e0|adalah)\b)"
    r"[\s*_}]{0,20}(?:[:=]|(?:therefore|simply|donc|approximately|about|roughly|exactly)\b)?"
    r"|final answer (?=-?[0-9])|^[\s*_#]{0,20}final[*_]{0,3} ?:(?=[^\n]{1,100}\s{0,9}\Z)"
    # Arabic; Chinese, Japanese and Korean.
    r"|(?:\u0627\u0644\u0625\u062c\u0627\u0628\u0629|\u0627\u0644\u062c\u0648\u0627\u0628)"
    r"(?: [\u0621-\u064a]{2,9}){0,2}(?: ?:|(?= [0-9$\\]))"
    r"|(?:\u7b54\u6848(?=[0-9])|\u7b54\u6848(?:(?:\u5c31|\u5e94\u8be5)?[\u662f\u4e3a\u70ba]\s?[:\uff1a]?|\s?[:\uff1a])|\u7b54\u3048\u306f|\uc815\ub2f5\uc740)"
    r"|^[\s*_#]{0,20}(?:final )?answer[*_]{0,3}[ \t]{0,20}$"
    # GSM8K's own marker before a number, and no heading.
    r"|#### ?(?=[^\n#]{0,200}[0-9])(?![^\n#]{0,200}#)",
    re.IGNORECASE | re.MULTILINE,
)
# "She has #### 15 eggs left.": in a sentence, only the number is marked.
_MARKED_NUMBER = re.compile(
    r"(?<=[^\s#*] )#### ?-?\\?\$?[0-9](?:[0-9,.]{0,30}[0-9])?%?"
    r"(?=(?:/[a-z]{1,20})? (?!(?:and|or|to|[a-z]{1,4}illion|thousand|dozen)\b)[A-Za-z])"
)
# "not 14 but 15" withdraws the first of the two.
_RETRACTION = re.compile(r"\Anot\s[^\n]{1,60}?[\s,$)*]but\s(?:rather\s|instead\s)?", re.IGNORECASE)
# Small words before a value say how sure, how late or how exact it is, and nothing about it.
_LEAD = re.compile(
    r"[\s,:]{0,3}(?:(?!(?:not|negative|minus)\b)[a-z]{2,15}[\s,:]{1,3}){1,6}(?=[*`$\\(+.0-9-]|[A-Za-z]\s?=)"
)
# "our answer is correct" judges an answer and does not state one.
_JUDGEMENT = re.compile(
    r"[\s*_]*(?:not |indeed |also |probably )?(?:correct|right|wrong|incorrect|different|the same|unique|reasonable|"
    r"valid|consistent|clear|unclear|confirmed|verified|(?-i:true|false)|in|not|still unknown|unknown)\b",
    re.IGNORECASE,
)
CLOSING_TAG = re.compile(r"\s*(?:<\s?/|\[/)\s?(?:final_)?answer.*\Z", re.IGNORECASE | re.DOTALL)
# A box whose closing brace ended the generation and was removed.
_OPEN_BOX = re.compile(r"\A(?:\\\(|\$)?\s?\\boxed\{(?=[^{}]*\Z)")
_BULLET = re.compile(r"\A\s{0,9}(?:> |[-\u2022] (?=[$*]|\\[(\[]))")
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!(?:and|or)\b)[A-Za-z]{2,}")
_TITLE = re.compile(r"(?:[Tt]he )?[A-Z][a-z]{1,20}(?: [A-Z][a-z]{1,20}){0,2}")
_DECORATION = "*_:# \t\n"
# "<p>", "<number>": HTML, or a template that was not filled in.
_MARKUP = re.compile(r"</?[a-z]{1,12}/?>")
_BRACKETED = re.compile(r"<(-?\$?[0-9][0-9.,/]{0,20}%?)>")
_DISPLAYS = ("$$\n", "\\[")
_ENVIRONMENT = re.compile(r"\\begin\{((?:equation|align|aligned|gather|displaymath|math)\*?)\}")
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("***", "***"), ("**", "**"), ("`", "`"))

# A line with this many words is prose around its answer; with fewer, they are the answer or its unit.
PROSE_WORDS = 3


def find_announced(text: str) -> Iterator[str]:
    """Yield what follows each announcement of an answer, the last one first.

    That is the rest of the line or, if nothing is left of it, the next line.

    Example:
        >>> list(find_announced("The answer is 4. Wait. **Final Answer:** 5"))
        ['5', '4. Wait. **Final Answer:** 5']
    """
    text = _MARKED_NUMBER.sub(r"\g<0>\n", text)
    for announcement in reversed(list(_ANNOUNCEMENT.finditer(text))[-MAX_ANNOUNCEMENTS:]):
        rest = _RETRACTION.sub("", _first_line(text, announcement.end()), count=1)
        rest = _OPEN_BOX.sub("", CLOSING_TAG.sub("", rest))
        if rest and not _JUDGEMENT.match(rest):
            yield rest


def strip_lead(rest: str) -> str:
    """Remove the small words before a value.

    Example:
        >>> strip_lead("indeed, in fact, 5."), strip_lead("negative 5")
        ('5.', 'negative 5')
    """
    return _LEAD.sub("", rest, count=1) if _LEAD.match(rest) else rest


def count_words(text: str) -> int:
    """Count the words of a text; one letter is a name, and a command is not a word."""
    return len(_PROSE.findall(text))


def is_announced(text: str) -> bool:
    """Return whether a text announces an answer, even if none follows."""
    return _ANNOUNCEMENT.search(text) is not None


def is_short(text: str) -> bool:
    """Return whether a text can be a bare answer: one word, a name, or figures and commands with hardly any words.

    Example:
        >>> is_short("5 square inches"), is_short("Evelyn"), is_short("I am not sure")
        (True, True, False)
    """
    words = len(_PROSE.findall(text))
    has_value = any(character.isdigit() or character == "\\" for character in text)
    is_name = _TITLE.fullmatch(text) is not None
    return words <= 1 or (words < PROSE_WORDS and has_value) or is_name or read_number_words(text) is not None


def unwrap(text: str) -> str:
    """Remove blanks, a final full stop and whole layers of dollar signs, maths brackets, stars or backticks.

    Example:
        >>> unwrap(" **$25$**. ")
        '25'
    """
    text = _BRACKETED.sub(r"\1", _MARKUP.sub("", text))
    text = _trim(_BULLET.sub("", text.replace("**", "") if text.count("**") == 1 else text, count=1))
    if text.endswith("$") and text.count("$") == 1 and not text.endswith("\\$"):
        text = _trim(text[:-1])
    for opening, closing in _WRAPPERS * 2:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and opening not in inner:
            text = _trim(inner)
    return text


def _trim(text: str) -> str:
    text = text.strip().strip("# \t\n").strip()
    return text.rstrip(".:;, ").rstrip() if not text.endswith(("...", "\\,", "\\:", "\\;")) else text


def _first_line(text: str, start: int) -> str:
    """Return the rest of the line at `start` or, if it is only decoration, the next line or displayed formula."""
    rest = text[start : start + MAX_ANNOUNCEMENT_CHARACTERS]
    environment = _ENVIRONMENT.match(rest.lstrip(_DECORATION))
    if environment:
        return rest.lstrip(_DECORATION)[environment.end() :].partition(f"\\end{{{environment[1]}}}")[0].strip()
    display = find_math(rest) if rest.lstrip(_DECORATION).startswith(_DISPLAYS) else []
    lines = (line.strip() for line in rest.split("\n") if not line.startswith("```"))
    return display[0] if display else next((line for line in lines if _MARKUP.sub("", line).strip(_DECORATION)), "")
