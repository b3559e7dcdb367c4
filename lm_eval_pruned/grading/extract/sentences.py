"""The conclusion of a sentence in plain words: what follows its verb or equals sign, or its only number."""

from __future__ import annotations

import re

from lm_eval_pruned.grading.extract.spans import find_math, has_box
from lm_eval_pruned.grading.extract.statements import PROSE_WORDS, count_words, is_short, strip_lead, unwrap
from lm_eval_pruned.grading.limits import MAX_ANNOUNCEMENT_CHARACTERS, MAX_BARE_ANSWER_CHARACTERS
from lm_eval_pruned.grading.normalize.remarks import read_number_words

# Sentences at the end among which the conclusion is looked for: remarks and pleasantries may follow it.
_CLOSING_SENTENCES = 4
_CLOSING_CHARACTERS = 1500
# Verbs and equals signs of a sentence after which its value is looked for, the last one first.
_CLOSING_VERBS = 6
_SENTENCE = re.compile(r"(?<=[.!?\u3002])(?<!\b[A-Z]\.)\s+(?=[A-Z$\\*(<])|\n{1,9}")
_MATH = re.compile(r"\$\$[^$]{1,400}\$\$|\$[^$\n]{1,400}\$(?![0-9])|\\\([^\n]{1,400}?\\\)|\\\[[^\0]{1,400}?\\\]")
_VERB = re.compile(
    r"(?<![A-Za-z])(?:is|are|was|were|be|equals?(?: to)?|becomes?|gives?(?: us)?|yields?|(?<!to )(?<!can )makes?|gets?"
    r"|obtain|have|has|find|(?:conclude|get|find) that|ends? up with|can|will|would|should|must|could|needs?"
    r"|takes?|costs?)(?![A-Za-z])"
    r"|[=\u2248]|(?<![0-9]):|:(?![0-9])|=>|\u21d2|\u2192"
)
# What may follow a value and is no part of it: a reason, another form of it, the end of a Chinese or Japanese sentence.
_REASON = re.compile(
    r"\u3002|\uff0c(?![0-9])|\s?\u3067\u3059|\u3068\u306a\u308a\u307e\u3059|\uc785\ub2c8\ub2e4|,? or,? equivalently\b"
    r"|(?<!\band)(?<!\bbut),? \(?(?:because|since|where|as required|as desired)\b"
    r"|[,;|]? \(?(?i:confidence)\b(?! in\b)"
    r"|, (?:which(?! (?:means|gives|implies|yields|makes|leaves))|not|(?:and|but) not|rather than)\b"
    r"|(?<=[a-z]{3}) \((?=[0-9. ]{1,12}[-+*/=\u00d7x][^(),]{1,30}\)\W{0,3}\Z)| \(or (?=[^()]{1,40}\)\W{0,3}\Z)"
    r"|(?<!\bis)(?<!\bare)(?<!\bwas)(?<!\bof)\s+(?:\(|, or )?(?:about|approximately|roughly) \(?"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# "Maria saved $15", with few words and yet a sentence.
_CLAUSE = re.compile(r"[A-Z][a-z]{1,20} [a-z]{2,20} \\?\$?[0-9][0-9.,]{0,20}\Z")
# "their sum: $7$": words that describe what follows.
_DESCRIPTION = re.compile(r"[A-Za-z ]{2,40}: ")
_VALUE = re.compile(
    r"\s*(?:[A-Za-z]{1,15}\s){0,5}?\s?"
    r"(-?(?:US)?\\?\$?\s?-?(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)(?:(?: [0-9]+)?[/:][0-9]+)?"
    r"(?:\s?(?:\\?%|(?:thousand|million|billion|dozen)\b)|\u00b0)?)"
    r"(?=[\s.,;:!?)\u2019]|\Z|-[a-z]|[A-Za-z]{1,3}\b)"
)
_NUMBER = re.compile(r"(?<![\w.\\^_{])(?:\\(?=\$))?-?\$?[0-9](?:[0-9.,/:]*[0-9])?%?")
_FORMULA = re.compile(r"[\^_=]|\\(?!\$)")
_CLOSED_FORMULA = re.compile(r"(?<![\\$])\$(?![\s$])[^$\n]{1,400}(?<![\s$\\])\$(?![0-9$])")
_MONEY = re.compile(r"(?<!\$)\\?\$ ?(?=\.?[0-9][0-9,.]*(?:[\s.,;:!?)/*-]|\Z))")
# "He pays 5$ in total": the first dollar sign of a line, after a number, opens no formula.
_AMOUNT = re.compile(r"\A([^$]*[0-9])\\?\$(?=[\s.,;:!?)]|\Z)")
_MATHEMATICAL = re.compile(r"[0-9\\]")
_DIGIT = re.compile(r"[0-9\0]")
# "10 pounds minus 3 pounds, or 7 pounds", "48 plus 18 dollars, which is 66 dollars"
_APPOSITION = re.compile(
    r"[0-9][^,]{0,60}, (?:or|which is|making) \$?([0-9][0-9,.]*[0-9]|[0-9])(?=[\s.,]|\Z)(?![.,][0-9])"
)
# "37 is the largest prime factor of 999": a number is described by what follows the verb.
_DESCRIBED = re.compile(
    r"(?:\A|[\s,:(])(?:\$|\\\()?(-?\\?\$?[0-9](?:[0-9,.]*[0-9])?)(?:\$|\\\))? (?:is|are|was|were)(?= (?:the|an?|our) )"
)
# "He had 3 apples and ate 1, so 2 remain."
_CONSEQUENCE = re.compile(r",? (?:so|thus|hence|therefore|leaving|(?:and )?finally) ")
# "There are 9 ways to choose 2 of them": the first number counts, unless another clause follows.
_THERE_ARE = re.compile(
    r"\b[Tt]here (?:is|are|was|were|will be|would be|remains?) (?:(?:still|only|exactly|also|a|total|of) ){0,4}"
    r"(?:\$|\\\()?(?P<count>[0-9][0-9,.]{0,20}(?=\s|[$\\])|[a-z][a-z-]{1,12}(?: [a-z]{2,9}){0,5}(?= ))(?! [-+*/x] )"
    r"[^,=;:]*(?:, [^0-9=\\$]*)?\Z"
)
_COURTESY = re.compile(
    r"[*_\s]*(?:I hope|Hope (?:this|that|it)|Let me know|Feel free|Please (?:let|feel)|(?:Do|Would) you|Is there any"
    r"|(?:Note(?: that\b|:)|This (?:matches|agrees|confirms|assumes|makes sense)\b)"
    r"(?!.*\b(?:so|thus|hence|therefore|which|total|sum)\b)|If you (?:have|need|want)|Thank)"
)
_EMPHASIS = re.compile(r"\*{2,3}|__")
_NAME = re.compile(r"(?:[A-Z][a-z]{1,20})(?: [A-Z][a-z]{1,20})?")
# "Express $5^3$ as an integer.": the question once more, unless the sentence has a value.
_TASK = re.compile(
    r"(?i:let(?:'s| us) )?(?i:find|express|compute|evaluate|determine|calculate|simplify|solve)\b[^=:\n]*\Z"
)
_GIVES_UP = re.compile(
    r"(?i:\b(?:do not|don't|cannot|can't|could not|unable to)\b[^.]{0,40}"
    r"\b(?:know|determine|solve|sure|find|say|answer)"
    r"|\bnot sure\b|\bno idea\b)|\?\s*\Z"
)
_DOUBT = re.compile(r"\b(?:Wait|But|Alternatively|However|Hmm|Let me (?:check|verify|see|double))\b")
# "Wait, that is wrong.": what was stated before is no answer, even in a response that has ended.
_TAKEN_BACK = re.compile(
    r"\. No, (?=[(\\$A-D0-9])|(?i:\bno,? wait\b"
    r"|\b(?:wait|no|hmm|oops|sorry|actually)[,.!]{1,3} (?:that|it)(?:['\u2019]s| is) (?:wrong|(?:in|not )correct)[.,!])"
)
# "The equation has no solution.", "The domain is all real numbers."
_WITHOUT_VALUE = re.compile(
    r"\A(?!(?:But )?(?i:for|if|when|at|case)\b)[^0-9=<>]*?"
    r"\b(no (?:real |integer )?solutions?|all real numbers|does not exist|undefined)[.!]?\Z"
)
_ENDED = re.compile(r"[.!?\u3002)\]}$%*`>\"'\u2019\u201d\u00b0\u00b2\u00b3!]\Z")
_OPEN = re.compile(
    r"[=+*/<,:(\[{\\^_-]\Z|\b(?:and|or|the|of|is|are|to|a|that|with|for|by|so|we|let|if|then)\Z", re.IGNORECASE
)
# "so 11 in total": words after the number show that a response of one sentence is complete without a full stop.
_CONCLUDED = re.compile(r"\b(?i:so|thus|hence|therefore)\b[^\n0-9]{0,40}[0-9][^\s=+*/]{0,20}( [a-z]{2,15}){1,3}\Z")
# A last line with more words needs a full stop: "So x = 5" is complete, "This means that the number is 5" may go on.
_WORDS_WITHOUT_STOP = 4


def is_cut(text: str) -> bool:
    r"""Return whether a text stops in the middle of a sentence or of a formula.

    Example:
        >>> is_cut("Then we add the other two and so"), is_cut("So $x = "), is_cut("x = 5"), is_cut("It is 5.")
        (True, True, False, False)
    """
    text = _MONEY.sub("", _CLOSED_FORMULA.sub("(0)", text)).rstrip().rstrip("*_`") or "."
    before, _, last = (line.rstrip() for line in text[-_CLOSING_CHARACTERS:].rpartition("\n"))
    if _OPEN.search(last[-20:]) or last.count("{") > last.count("}") or _AMOUNT.sub(r"\1", last).count("$") % 2:
        return True
    if text.count("\\[") > text.count("\\]") or text.count("\\(") > text.count("\\)") or text.count("$$") % 2:
        return True
    # Lines of this response may all lack their full stops.
    without_stops = before and not _ENDED.search(before) and _NUMBER.search(last[-12:])
    if before and not _ENDED.search(text) and not _MATHEMATICAL.search(last):
        return count_words(last) > 0
    if len(text) <= MAX_BARE_ANSWER_CHARACTERS and len(_SENTENCE.split(text)) == 1 and _CONCLUDED.search(last):
        return False
    return not _ENDED.search(text) and not without_stops and count_words(_MATH.sub("", last)) >= _WORDS_WITHOUT_STOP


def find_withdrawn(text: str, *, goes_on: bool) -> int:
    """Return up to where a text withdraws what it states: "that is wrong" or, if it would have gone on, "Wait"."""
    return max((one.end() for one in (_DOUBT if goes_on else _TAKEN_BACK).finditer(text)), default=0)


def find_conclusion(text: str) -> str | None:
    r"""Return what the last sentence of a text concludes, or one of the few sentences before it.

    It is empty if one of them says that there is no answer, asks or sets a task, and None if none concludes anything.

    Example:
        >>> find_conclusion("We add. Therefore, the degree of $f(x)$ is 3."), find_conclusion("There are 9 ways.")
        ('3', '9')
    """
    split = _SENTENCE.split(text[-_CLOSING_CHARACTERS:])
    sentences = [one for one in split if one.strip(" *_#`-\t") and not _COURTESY.match(one)]
    for sentence in reversed(sentences[-_CLOSING_SENTENCES:]):
        if _GIVES_UP.search(sentence) or _TASK.match(sentence):
            return ""
        # A box here is empty: a template that was not filled in.
        if not has_box(sentence) and (answer := conclude(sentence)):
            return answer
    return None


def read_statement(text: str) -> str:
    r"""Return the value at the beginning of a text that is announced as an answer: its first sentence, without prose.

    Example:
        >>> read_statement("$25$, since $20+5=25$. I hope it is correct."), read_statement("27 cents.")
        ('25', '27 cents')
        >>> read_statement("There are 25 ways to do it.")
        '25'
    """
    sentence = _SENTENCE_END.split(text, maxsplit=1)[0]
    reason = _find_reason(_hide(sentence))
    value = sentence[: reason.start()] if reason else sentence
    answer = unwrap(strip_lead(value))
    if is_short(answer) and not _DESCRIPTION.match(answer) and not _CLAUSE.match(answer):
        return answer
    begins = not text[:1].isalpha() and "=" not in _hide(value)
    return (_read_value(value) if begins else None) or conclude(sentence) or answer


def conclude(sentence: str) -> str | None:
    r"""Return the value that one sentence concludes, or None if it concludes none.

    Example:
        >>> conclude(r"The remainder, given that $k=4$, is 3"), conclude(r"So \(x = 5\) since \(2x = 10\).")
        ('3', 'x = 5')
    """
    line = _EMPHASIS.sub("", sentence).strip()[-MAX_ANNOUNCEMENT_CHARACTERS:]
    hidden = _hide(line)
    apposition = next((one for one in _APPOSITION.finditer(hidden) if not _DIGIT.search(hidden, one.end())), None)
    if apposition:
        return str(apposition[1])
    reason = _find_reason(hidden)
    if reason:
        line, hidden = line[: reason.start()], hidden[: reason.start()]
    if consequence := next(reversed(list(_CONSEQUENCE.finditer(hidden))), None):
        number = _only_number(hidden[consequence.end() :])
        if answer := number or conclude(line[consequence.end() :]):
            return answer
    if counted := _find_count(line):
        return counted
    # What follows the last verb wins over a formula of the subject.
    verbs = list(_VERB.finditer(hidden))[-_CLOSING_VERBS:]
    described = _DESCRIBED.search(line)
    if described and verbs and described.end() == verbs[-1].end():
        return described[1]
    for verb in reversed(verbs):
        if answer := _read_value(line[verb.end() :]):
            return answer
    if formulas := find_math(line):
        return unwrap(formulas[-1])
    if without := _WITHOUT_VALUE.search(line):
        return without[1]
    if (number := _only_number(hidden)) and not re.match(r"\s*(?:Step |#|[0-9]+[.)] )", line):
        return number
    bare = unwrap(line)
    return bare if any(map(str.isdigit, bare)) and count_words(bare) <= 1 and "=" not in bare else None


def _find_count(line: str) -> str | None:
    """Return how many things there are."""
    there_are = _THERE_ARE.search(line)
    if not there_are:
        return None
    words = there_are["count"].split(" ")
    counts = (" ".join(words[:length]) for length in range(len(words), 0, -1))
    return next((one for one in counts if one[0].isdigit() or read_number_words(one) is not None), None)


def _only_number(hidden: str) -> str | None:
    numbers = {number.rstrip(".,") for number in _NUMBER.findall(hidden)}
    return str(numbers.pop()) if len(numbers) == 1 and "\0" not in hidden and not _FORMULA.search(hidden) else None


def _read_value(rest: str) -> str | None:
    """Return the value at the beginning of what follows a verb, or its only formula."""
    rest = strip_lead(rest).lstrip(" ,").strip()
    formula = _MATH.match(rest)
    if formula:
        spans = find_math(rest)
        return unwrap(spans[0]) if spans else None
    plain = unwrap(rest)
    number = _VALUE.match(rest)
    if number and not re.search(r"[0-9\\=^]", rest[number.end() :]):
        return number[1].strip()
    if _MATHEMATICAL.search(plain) and is_short(plain) and not (number and count_words(plain)):
        return plain
    if _NAME.fullmatch(plain) or read_number_words(plain) is not None:
        return plain
    if number and count_words(rest[: number.end() + 12]):
        return number[1].strip()
    spans = find_math(rest)
    return unwrap(spans[-1]) if len(spans) == 1 and count_words(rest) < 2 * PROSE_WORDS else None


def _find_reason(hidden: str) -> re.Match[str] | None:
    """Return the first reason that a sentence gives for what is before it, if that has a value."""
    reasons = (one for one in _REASON.finditer(hidden) if one.start())
    is_bound = {"w", "\uff0c", "("}
    found = (one for one in reasons if one[0].lstrip(", ")[:1] not in is_bound or _DIGIT.search(hidden, 0, one.start()))
    return next(found, None)


def _hide(line: str) -> str:
    """Blank out formulas, so that no verb or equals sign is found in them."""
    return _MATH.sub(lambda found: "\0" * len(found[0]), line)
