"""Statements that choose a letter ("the answer is (C)", "I'd go with B", "option D is correct"), in order of force."""

from __future__ import annotations

import re
from typing import NamedTuple

from lm_eval_pruned.grading.answer_kinds import Stage
from lm_eval_pruned.grading.extract.statements import FOREIGN_ANSWER
from lm_eval_pruned.grading.limits import MAX_ANNOUNCEMENTS

# Repetitions are bounded, so that matching takes linear time on adversarial text.
_NAME = (
    r"(?i:option|choice|letter|statement|answer|alternative|claim|antwort|r\u00e9ponse|opci\u00f3n|respuesta|letra|alternativa|op\u00e7\u00e3o"
    r"|\u9009\u9879|\u9078\u9805)"
)
_LABEL = rf"(?:(?:the )?{_NAME} ?[:#]?\s{{0,2}}){{1,2}}"
# Words between a verb and its letter, whatever they are, except those that deny it or begin a reason.
_NOT_THEN = rf"(?:not?|never|neither|because|since|than|from|the|{_NAME})\b"
_WORDS = rf"(?:(?!{_NOT_THEN})[a-z\u00df-\u00ff]{{2,12}}[ ,]{{1,2}}){{0,3}}"
_LETTER = (
    r"[(\[<'\u2018]{0,3}\s?(?<![A-Za-z0-9])(?P<letter>[A-J]{1,9}|[a-d](?=\s?[)\].,:;!>]|\s{0,3}(?:\n|\Z)))"
    r"(?![A-Za-z0-9_^/])"
)
_CHOICE = rf"[\s:=>.\u2026-]{{0,6}}{_WORDS}(?P<label>{_LABEL})?{_LETTER}"
_MARKED = rf"[\s:=>]{{0,4}}{_WORDS}(?P<label>{_LABEL}|(?=[(\[])){_LETTER}"
_ALONE = r"(?<![A-Za-z0-9'\u2019_=+/-])"
_SUBJECT = rf"{_ALONE}(?:{_NAME} )?\(?{_ALONE}(?P<letter>[A-D]|(?<=ption )[a-d])(?![A-Za-z0-9_^])\)?"
_END = r"(?=[)\].'\u2019]{0,3}\s?(?:[.,;!]{1,3}(?:\s|\Z)|\n|\Z))"
_REASONED = rf"(?={_END}|[)\]]{{0,2}}(?::| \(| (?:because|since|here|for|over|rather|instead|as|which|with)\b))"
_VERB = r"\b(?:is|are|be|was|ist|lautet|est|serait|es|\u00e8|\u00e9(?: a)?|l\u00e0|adalah|remains)\b"
# A colon after other words may head a list of the options, unless the letter is in its line.
_IS = rf"(?:['\u2019]s\b|(?:,? [^\s.:=?]{{1,60}}){{0,24}}?(?:\s?{_VERB}|\s?[:=](?!\s{{0,5}}\n)))"
_BE = (
    r" (?:is|must be|has to be|should be|would be|seems|looks|appears|remains|stands out as)(?: to be)?"
    r"(?: [a-z]+ly| thus)?"
)
_RIGHT = (
    r"(?:correct|right|best|true|untrue|incorrect|false|accurate|valid|plausible|appropriate|suitable|reasonable"
    r"|consistent|likely|logical|fitting|probable)"
)
_SORT = rf"(?i:{_RIGHT}|wrong|only|exception|closest|odd one out|option|choice|statement|match|selection|pick|guess"
_SORT += r"|conclusion|solution|final|verdict)"
_I = (
    r"(?:\A|[\n.;:!,]\s{0,2}|\b(?:I|we|you|I['\u2019](?:d|ll|m)|am|would|should|will|must|can|so|thus|hence|therefore|and"
    r"|let['\u2019]s|going to|have to) )"
)
_CHOOSE = (
    r"(?:choose|choosing|chose|select(?:ed)?|pick(?:ed)?|(?:go(?:ing)?|went) with|(?:opt(?:ed)?|voted?) for"
    r"|settled? (?:on|for)|lean(?:ing)? towards?|guess|finali[sz]ed?|say|think|believe|answer)\b"
)
_CONCLUDING = r"(?:so|thus|hence|therefore|consequently|finally|accordingly|conclusion|summary|overall)"
_IT_IS = r"(?:it|that|this)(?:['\u2019]s| is| must be| has to be| should be| would be)"
_CJK_RIGHT = r"\u662f?(?:\u6b63\u786e|\u6b63\u78ba|\u5bf9\u7684)"
_CJK_ANSWER = (
    r"\u7b54\u6848|\u6b63\u786e\u9009\u9879|\u6b63\u78ba\u9078\u9805|\u6b63\u89e3|\u7b54\u3048|\uc815\ub2f5|\u0627\u0644\u0625\u062c\u0627\u0628\u0629|\u0627\u0644\u062c\u0648\u0627\u0628"
    r"|(?:\u6b63\u786e|\u6b63\u78ba|\u9519\u8bef|\u932f\u8aa4|\u7b26\u5408)\u7684"
)


def _compile(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(map(re.compile, patterns))


# A list of the options from A, or "A:" before an answer.
_LIST = (
    r"A(?::|(?:[)\].]{1,2}| [-\u2013\u2014(]) ?[^\s)\].]"
    r"(?:[^\n]*\Z|[^\0]*\n\s{0,9}[(\[]?B(?:[)\].:]| [(\u2013\u2014-])))"
)
# "C", or "C. 5 eV" but not "C. elegans" or "B. F. Skinner", in the first line: a prompt may end with "Answer:".
_FIRST_LINE = (
    rf"\A(?:(?:(?:A|La|The) )?{_NAME} |(?i:probably|definitely|likely) )?[(\['\u2018]?(?!{_LIST})"
    r"(?P<letter>[A-D])(?:[)\].,!'\u2019]{0,2}[ \t]{0,9}(?:\n(?!\s{0,9}[(\[]?[A-D](?:[)\].:]|\n|\Z))|\Z)"
    r"|(?:[)\]][.:]?|:|\.(?=[ \t]{1,3}(?![A-Z]\.)(?:[^\sa-z]|.{1,40}\n))| [-\u2013\u2014(]|,? (?=because\b))"
    r"(?=[ \t)]{0,3}[^\s=])"
    r"(?!.*\b(?:incorrect|wrong|false)\b|.*:\s{0,3}\n))"
)
# "The answer is C", "Final choice: C".
_ANSWER = _compile(
    _FIRST_LINE,
    rf"(?<![^\W_])(?i:(?<!wrong )(?<!incorrect )(?<!other )(?<!if the )answers?(?! ?(?:choices|options))"
    rf"|ans\.?(?=\s?[:=]| is\b)|final (?:choice|option|decision|pick|selection|verdict)"
    rf"|(?:result|letter)(?=\s?:\s{{0,3}}\(?[a-d]\)?[.!]?\s{{0,9}}(?:\n|\Z))|alternativa correta|{FOREIGN_ANSWER})"
    rf"(?:{_IS}|\s?[:=-]|(?=\s\(?[A-D]\)?\.?\s{{0,9}}(?:\n|\Z))){_CHOICE}",
    rf"(?:{_CJK_ANSWER})[^\nA-Da-d\u3002\u4e0d]{{0,16}}?{_CHOICE}",
)
# "The closest option is C", "I choose C", "so C.", "C is the best choice", "making C) 5 eV the answer".
_CHOSEN = _compile(
    rf"\b(?<!other )(?<!first )(?<!each )(?<!every ){_SORT}\b(?! (?:options|choices|answers|statements|ones))"
    rf"{_IS}{_CHOICE}",
    rf"(?i:{_I}{_CHOOSE}){_CHOICE}{_REASONED}",
    rf"(?:\u9009|\u9078)(?:\u62e9|\u64c7)?(?![\u9879\u9805]){_CHOICE}",
    rf"(?<![^\W_])(?i:{_CONCLUDING},?(?: {_IT_IS})?|{_IT_IS}|(?:leaves|leaving)(?: us)?(?: with)?)\b,?{_CHOICE}{_END}",
    rf"{_SUBJECT}(?:[).:] [^\n.:=]{{1,40}}?| \([^()\n]{{1,40}}\))??"
    rf"(?: it is\b|(?:{_BE})? (?:the|our|my) (?:[a-z]+ ){{0,3}}(?:answer|option|choice|one|{_RIGHT}|exception)\b)",
    rf"\b(?i:only) {_SUBJECT} [a-z]{{2,}}s\b",
    rf"(?i:{_CONCLUDING})\b[,:]? (?:(?i:{_NAME}) |(?=\()){_SUBJECT} [a-z]+",
)
# "This matches (C)", "(C) is correct", "Option C best explains the data", "5 eV (option C)".
_NAMED = _compile(
    rf"\b(?i:match(?:es)?|corresponds? to|consistent with|agrees? with|aligns? with|fits?|supports?|points? to"
    rf"|leads? (?:us )?to|gives|yields|described (?:by|in)|represented by|closest to|namely"
    rf"|is|are|be|ist|est)\b{_MARKED}",
    rf"\b(?i:match(?:es)?|corresponds? to|points? to|gives){_CHOICE}{_END}",
    rf"(?:\u9009\u9879|\u9078\u9805)?{_SUBJECT}\s?(?:\u9009?\u9879|\u9078?\u9805)?{_CJK_RIGHT}",
    rf"{_SUBJECT}(?:{_BE} (?:more |most |the most )?{_RIGHT}\b|: ?(?i:correct|right)\b| makes (?:the )?most sense"
    r"| [a-z]+ best\b| (?:best|(?!in)[a-z]+ly) [a-z]{3,})",
    rf"[(,]\s?(?P<label>{_NAME} ){_LETTER}{_END}",
)
# "The answer is not listed", "none of the options is right": a statement that chooses no letter.
_NONE = re.compile(
    r"\b(?i:(?:answer|option|choice)s?[ :=]{1,3}(?:is |was |appears to be |seems to be )?"
    r"(?:(?:not|n['\u2019]t) (?:listed|provided|given|among|available|present|included|in the|one of|any of)"
    r"|none of|unknown|undetermined|cannot be)"
    r"|(?<![).:] )none of (?:the|these|those) (?:above|given|provided|listed|available|answers?|options?|choices?)"
    r"|(?:no|not a single) (?:correct|right|valid|given|listed) (?:answer|option|choice)"
    r"|(?:cannot|can['\u2019]t|unable to) (?:determine|choose|decide|select|definitively choose))\b"
)
# What follows a letter and shows that it was not chosen, that it stands beside others, or that it is no letter.
_DENIED = re.compile(
    r"[)\]'\u2019]{0,2}(?:\s(?:(?:is|was|does|do|can|would|could|must|should|seems|has)(?:n['\u2019]t| (?:also )?not\b"
    r"| (?:also )?(?:be )?(?:incorrect|wrong|false|eliminated|ruled|excluded|impossible|too|out|invalid|unlikely)\b)"
    r"|cannot\b|fails\b|violates\b|contradicts\b|ignores\b)|\s?[?]|\s?(?:\u4e0d|\u9519|\u932f|\u6392\u9664))"
)
_OTHER = r"(?:also |either |option |choice |possibly |maybe |perhaps )?\(?[A-D]\b\)?"
# "(A) or (C)", "A, B", "(A) 5 eV or (C) 6 eV".
_BESIDE = re.compile(
    r"[)\]]?\s?(?:,?\s(?:and|or|nor|und|oder|et|ou|o|y)\s|,|\u3001|/|&|[-\u2013]|\u548c|\u6216)\s?"
    rf"{_OTHER}(?![A-Za-z0-9_'\u2019])(?!\s?[=+])"
    r"(?! (?:is|are|was|would|has|does|do|fails?|can|cannot|must|seems|looks|violates?)\b)"
    r"|[)\].:]{0,2}[^\n.!]{0,200}?(?:, [A-D][.:] | or (?:[a-z]{1,12} ){0,2}(?:\([A-D]\)|[A-D][).:] ))"
    r"|[)\]] (?:(?!(?:because|since|as|while|but|whereas|so|for|is|are)\b)[^\s.]{1,20} ){0,8}and \([A-D]\)"
)
# "A proton is ..." begins a sentence, whereas "A is ..." names the choice.
_ARTICLE = re.compile(
    r" (?!(?:is|because|since|as|seems|must|would|and|or|fits|matches|for|due|which|here|in|with|by)\b)[a-z]"
)
# "If A is right", "neither A nor B", "the answer cannot be C", "it may be C".
_DOUBTED = re.compile(
    r"(?i:(?:\b(?:nor|neither|if|whether|or|why|when|unless|suppose|assuming|could|might|may|how|cannot|not)\b|n['\u2019]t\b)"
    rf"(?: (?:(?!is\b|are\b)[a-z]{{1,9}}|{_NAME})){{0,2}}[\s(:]{{1,3}})\Z"
)
_DOUBT_CHARACTERS = 40
_EXCLUDED = re.compile(
    r"(?i:\bnot|cannot be|can['\u2019]t be|neither|eliminat\w{1,5}|rul\w{1,3} out|exclud\w{1,3})"
    rf"(?: either| options| choices)? \(?([A-D])\)?(?: nor |,\s?){_OTHER}(?:,? (?:and|or|nor) |,\s?)"
    rf"{_OTHER}(?![A-Za-z0-9])"
)


class Statement(NamedTuple):
    """A statement of a choice: where its letter stands, the letter (None if it decides on none) and the stage."""

    start: int
    end: int
    letter: str | None
    stage: Stage = "explicit"


def find_chosen(text: str) -> Statement | None:
    """Return the last of the most forceful statements of a choice, or a later one where that one decides nothing.

    Example:
        >>> find_chosen("The answer is A. Option D is correct for gases only.").letter
        'A'
        >>> find_chosen("The answer is A or B. I choose (B).").letter
        'B'
    """
    last: Statement | None = None
    for patterns in (_ANSWER, _CHOSEN, _NAMED):
        matches = [match for pattern in patterns for match in list(pattern.finditer(text))[-MAX_ANNOUNCEMENTS:]]
        found = [statement for match in matches if (statement := _read(text, match))]
        if patterns is _ANSWER:
            found += _find_remaining(text)
        elif patterns is _CHOSEN:
            found += [Statement(*match.span(), None) for match in _NONE.finditer(text)]
        else:
            # The weakest statements count only if they agree.
            found = [one._replace(stage="sentence") for one in found if len({one.letter for one in found}) == 1]
        later = [one for one in found if last is None or one.start > last.start]
        last = max(later, default=last)
        if last and last.letter:
            break
    return last


def is_denied(text: str, end: int) -> bool:
    """Return whether the letter that ends at a place is said to be wrong there.

    Example:
        >>> is_denied("(A) is incorrect.", 2), is_denied("(A) is correct.", 2)
        (True, False)
    """
    return _DENIED.match(text, end) is not None


def _read(text: str, match: re.Match[str]) -> Statement | None:
    """Read a match: its letter, none if several letters are named, or nothing if the letter is not chosen."""
    start, end = match.span("letter")
    letter = match["letter"].upper()
    if is_denied(text, end):
        return None
    is_doubted = _DOUBTED.search(text, max(0, start - _DOUBT_CHARACTERS), start)
    is_bare = (
        not match["label"] and text[start - 1 : start] not in ("(", "[") if "label" in match.re.groupindex else False
    )
    if is_doubted or (is_bare and letter == "A" and _ARTICLE.match(text, end)):
        return None
    is_one = letter in set("ABCD") and not _BESIDE.match(text, end)
    return Statement(start, end, letter if is_one else None)


def _find_remaining(text: str) -> list[Statement]:
    """Return the fourth letter wherever the three others are excluded."""
    found = [(match, set("ABCD") - set(re.findall(r"\b[A-D]\b", match[0]))) for match in _EXCLUDED.finditer(text)]
    return [Statement(*match.span(), letters.pop()) for match, letters in found if len(letters) == 1]
