"""Marked spans in a response (boxes, tags, JSON fields, mathematics), each kind found in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm_eval_pruned.grading.limits import MAX_SPAN_CHARACTERS
from lm_eval_pruned.grading.normalize.braces import match_braces_in

# "\b" read as an escape by whatever stored the text is a backspace.
# A damaged model loses the backslash before "boxed{".
_BOX = re.compile(
    r"(?:(?:\\|\\?\x08)(?:(?<=\x08)oxed|box(?:ed)?|fbox|framebox)(?![A-Za-z])|(?<![\\A-Za-z])boxed(?=\{))[ \t]*"
)
# The content of a box whose brace was lost: up to the end of the line, a tag or the next box.
_BROKEN = re.compile(
    r"\{\s{0,3}(-?(?:[$0-9]|\\[df]?frac|\\sqrt)[^\n<>]{0,60}?)(?:\s{0,3}</|<\||>?[ \t]{0,3}\n|>\Z|\s{0,3}\\boxed)"
)
_CLOSING_TAG = re.compile(r"\s{0,3}</")
# The sign belongs to the box, unless it subtracts the box from something.
_NEGATIVE = re.compile(r"(?:[=:$]|\\[(\[]|\b(?:is|are))\s{0,3}[-\u2212]\s?\\?\Z")
_APPROXIMATELY = re.compile(
    r"[\s$,.)\]\\]{0,9}(?:\\approx|\u2248|(?:or )?(?:about|approximately|roughly) )[\s$(\[\\]{0,9}"
)
# Boxes joined by a comma, "and" or "or" are one list, with or without names: only a list equals them.
_JOINED = re.compile(
    r"[\s$)\]\\]{0,9}(?:,|[.,]?[\s$\\]{0,4}(?:\\text\{)?\s?\b(?:or|and)\b)(?:\s?(?:or|and)\b)?[\s}$(\[\\]{0,9}(?:[A-Za-z]\s?=\s?)?"
)
_REJECTED = re.compile(r"(?:\bnot|\binstead of|\brather than)[\s$(\[\\]{1,9}\Z", re.IGNORECASE)
# Without braces, a box holds a number, a command or one letter; anything longer is prose about boxes.
_UNBRACED = re.compile(r"[^\s{}$0-9]{0,9}[0-9][^\s{}$]{0,40}|\\[^\s$]{1,40}|[A-Za-z](?![A-Za-z])")
# A box with only a question mark or dots is a template that was not filled in.
_SAYS_SOMETHING = re.compile(r"[^\W_]|\\")
_TAG = re.compile(r"<\s?(/?)\s?(?:final_)?answer\s?>|(?-i:\[(/?)ANSWER\])", re.IGNORECASE)
_FIELD = re.compile(
    r'"(?:final[_ ]?)?answer(?:_choice|_letter)?"\s{0,9}:\s{0,9}'
    r'(?:"(?P<string>[^"\n]{0,300})"|(?P<bare>[^\s"{}\[\],]{1,100}))',
    re.IGNORECASE,
)
_DELIMITER = re.compile(r"\\[()\[\]]|\$\$|\$|\\.", re.DOTALL)
_JOINT = re.compile(r"\s*(?:,|,?\s?(?:and|or))\s*")
# "$2x=6$ and $x=3$": the second equation is solved for a name of the first.
_SOLVED = re.compile(r"([A-Za-z])\s?=")
_CLOSERS = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]"}


def find_boxes(text: str) -> Iterator[str]:
    r"""Yield the contents of `\boxed{...}`, `\fbox{...}` and `\boxed 7`, the last one first.

    A box that never closes ends with its line, and is skipped at the end of the text. A box that only approximates the
    box before it is yielded after that one.

    Example:
        >>> list(find_boxes(r"\boxed{\frac{1}{2}}, then \boxed 7 and \boxed{8"))
        ['7', '\\frac{1}{2}']
    """
    partners = match_braces_in(text)
    contents: list[str] = []
    end = 0
    for box in _BOX.finditer(text):
        start = box.end()
        unbraced = _UNBRACED.match(text, start)
        broken = None if start in partners else _BROKEN.match(text, start)
        if start in partners:
            content, stop = _span(text, start + 1, partners[start]), partners[start] + 1
            content = _CLOSING_TAG.split(content, maxsplit=1)[0]
        elif broken:
            content, stop = broken[1] + "}" * (broken[1].count("{") - broken[1].count("}")), broken.end(1)
        elif unbraced:
            content, stop = unbraced[0], unbraced.end()
        else:
            continue
        is_rejected = contents and _REJECTED.search(text, max(0, box.start() - 30), box.start())
        if is_rejected or not _SAYS_SOMETHING.search(content):
            continue
        if contents and _JOINED.fullmatch(text, end, box.start()):
            contents[-1] += f", {content}" if content != contents[-1] else ""
            end = stop
            continue
        if _NEGATIVE.search(text, max(0, box.start() - 12), box.start()) and not set(content) & set("+-,"):
            content = f"-{content}"
        approximate = contents and _APPROXIMATELY.fullmatch(text, end, box.start())
        contents.insert(len(contents) - bool(approximate), content)
        end = stop
    yield from reversed(contents)


def has_box(text: str) -> bool:
    """Return whether a text has a box, even an empty one."""
    return _BOX.search(text) is not None


def find_tagged(text: str) -> Iterator[str]:
    """Yield the contents of `<answer>...</answer>`, the last one first; a tag that never closes ends with its line.

    Example:
        >>> list(find_tagged("<answer> 5 </answer> or <answer>6"))
        ['6', '5']
    """
    end: int | None = None
    for tag in reversed(list(_TAG.finditer(text))):
        if tag[1] or tag[2]:
            end = tag.start()
            continue
        if end is None:
            end = text.find("\n", tag.end(), tag.end() + MAX_SPAN_CHARACTERS)
            # Working that never came to an end, unlike an answer before noise.
            end = len(text) if end < 0 or "=" in text[tag.end() : end] else end
        yield _span(text, tag.end(), end)
        end = None


def find_json_answers(text: str) -> Iterator[str]:
    r"""Yield the values of `"answer": ...` in JSON, strings and others, the last one first.

    Example:
        >>> list(find_json_answers('{"answer": "\\frac{1}{2}"} {"final_answer": 5}'))
        ['5', '\\frac{1}{2}']
    """
    for field in reversed(list(_FIELD.finditer(text))):
        yield field["bare"] or field["string"].replace("\\\\", "\\").strip()


def find_math(text: str) -> list[str]:
    r"""Return the contents of `$...$`, `$$...$$`, `\(...\)` and `\[...\]` in order.

    Neighbours joined by a comma, "and" or "or" form one list. Amounts of dollars are not mathematics.

    Example:
        >>> find_math(r"It costs $5 and $6, so \(x=1\); $y$ and $z$")
        ['x=1', 'y, z']
    """
    lists: list[list[str]] = []
    opened: re.Match[str] | None = None
    end = 0
    for delimiter in _DELIMITER.finditer(text):
        if opened and delimiter[0] == _CLOSERS[opened[0]] and not _is_money(text, opened, delimiter):
            content = text[opened.end() : delimiter.start()].strip()
            if content and lists and _JOINT.fullmatch(text, end, opened.start()):
                solved, before = _SOLVED.match(content), lists[-1][-1]
                is_step = solved and "=" in before and solved[1] in before and not _SOLVED.match(before)
                lists[-1] = [*lists[-1][: -1 if is_step else None], content]
            elif content:
                lists.append([content])
            opened, end = None, delimiter.end()
        elif delimiter[0] in _CLOSERS:
            opened = delimiter
    return [", ".join(members) for members in lists]


def _is_money(text: str, opened: re.Match[str], closed: re.Match[str]) -> bool:
    """Return whether dollar signs mean money, by pandoc's rule: no blank before a closing sign, no digit after it.

    Unlike in pandoc, `$ x $` is mathematics.
    """
    padded = text[opened.end()].isspace()
    blank = text[closed.start() - 1].isspace()
    return closed[0] == "$" and ((blank and not padded) or text[closed.end() : closed.end() + 1].isdigit())


def _span(text: str, start: int, end: int) -> str:
    return text[start:end].strip() if end - start <= MAX_SPAN_CHARACTERS else ""
