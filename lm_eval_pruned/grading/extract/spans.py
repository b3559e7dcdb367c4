"""Where an answer stands in a text: boxes, tags, bold and mathematics, each found in one pass without backtracking."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lm_eval_pruned.grading.limits import MAX_SPAN_CHARACTERS
from lm_eval_pruned.grading.normalize.braces import match_braces_in

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])[ \t]*")
_APPROXIMATELY = re.compile(
    r"[\s$,.)\]\\]{0,9}(?:\\approx|\u2248|(?:or |about |approximately |roughly ){1,2})[\s$(\[\\]{0,9}"
)
# Without braces a box holds a number, a command or one letter; anything longer is prose about boxes.
_UNBRACED = re.compile(r"[^\s{}$0-9]{0,9}[0-9][^\s{}$]{0,40}|\\[^\s$]{1,40}|[A-Za-z](?![A-Za-z])")
# A box that holds a question mark or three dots is one that was to be filled.
_SAYS_SOMETHING = re.compile(r"[^\W_]|\\")
_TAG = re.compile(r"<(/?)(?:final_)?answer>|(?-i:\[(/?)ANSWER\])", re.IGNORECASE)
_FIELD = re.compile(
    r'"(?:final[_ ]?)?answer"\s{0,9}:\s{0,9}(?:"(?P<string>[^"\n]{0,300})"|(?P<bare>[^\s"{}\[\],]{1,100}))',
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*(?!\s?:)")
_DELIMITER = re.compile(r"\\[()\[\]]|\$\$|\$|\\.", re.DOTALL)
_JOINT = re.compile(r"\s*(?:,|,?\s?(?:and|or))\s*")
_CLOSERS = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]"}


def boxes(text: str) -> Iterator[str]:
    r"""Yield the contents of `\boxed{...}`, `\fbox{...}` and `\boxed 7`, last first; one that never closes is none.

    A box that only approximates the one in front of it comes behind that one.

    Example:
        >>> list(boxes(r"\boxed{\frac{1}{2}}, then \boxed 7 and \boxed{8"))
        ['7', '\\frac{1}{2}']
    """
    partners = match_braces_in(text)
    contents: list[str] = []
    end = 0
    for box in _BOX.finditer(text):
        start = box.end()
        unbraced = _UNBRACED.match(text, start)
        if start in partners:
            content, stop = _span(text, start + 1, partners[start]), partners[start] + 1
        elif unbraced:
            content, stop = unbraced[0], unbraced.end()
        else:
            continue
        if not _SAYS_SOMETHING.search(content):
            continue
        approximate = contents and _APPROXIMATELY.fullmatch(text, end, box.start())
        contents.insert(len(contents) - bool(approximate), content)
        end = stop
    yield from reversed(contents)


def has_box(text: str) -> bool:
    """Tell whether a text has a box, if only an empty one."""
    return _BOX.search(text) is not None


def tagged(text: str) -> Iterator[str]:
    """Yield the contents of `<answer>...</answer>`, last first; a tag that never closes reaches to the end of its line.

    Example:
        >>> list(tagged("<answer> 5 </answer> or <answer>6"))
        ['6', '5']
    """
    end: int | None = None
    for tag in reversed(list(_TAG.finditer(text))):
        if tag[1] or tag[2]:
            end = tag.start()
            continue
        if end is None:
            end = text.find("\n", tag.end(), tag.end() + MAX_SPAN_CHARACTERS)
        yield _span(text, tag.end(), end if end >= 0 else len(text))
        end = None


def fields(text: str) -> Iterator[str]:
    r"""Yield the values of `"answer": ...` in JSON, last first, whether they are strings or not.

    Example:
        >>> list(fields('{"answer": "\\frac{1}{2}"} {"final_answer": 5}'))
        ['5', '\\frac{1}{2}']
    """
    for field in reversed(list(_FIELD.finditer(text))):
        yield field["bare"] or field["string"].replace("\\\\", "\\").strip()


def bold(text: str) -> list[str]:
    """Return the contents of `**...**` in order, headings that end in a colon left out.

    Example:
        >>> bold("**Step 1:** so **25** it is")
        ['25']
    """
    return [span for span in (match[1].strip() for match in _BOLD.finditer(text)) if span and not span.endswith(":")]


def mathematics(text: str) -> list[str]:
    r"""Return the contents of `$...$`, `$$...$$`, `\(...\)` and `\[...\]` in order.

    Neighbours joined by a comma, "and" or "or" are members of one list; amounts of dollars are no spans.

    Example:
        >>> mathematics(r"It costs $5 and $6, so \(x=1\); $y$ and $z$")
        ['x=1', 'y, z']
    """
    lists: list[list[str]] = []
    opened: re.Match[str] | None = None
    end = 0
    for delimiter in _DELIMITER.finditer(text):
        if opened and delimiter[0] == _CLOSERS[opened[0]] and not _is_money(text, opened, delimiter):
            content = text[opened.end() : delimiter.start()].strip()
            if content and lists and _JOINT.fullmatch(text, end, opened.start()):
                lists[-1].append(content)
            elif content:
                lists.append([content])
            opened, end = None, delimiter.end()
        elif delimiter[0] in _CLOSERS:
            opened = delimiter
    return [", ".join(members) for members in lists]


def _is_money(text: str, opened: re.Match[str], closed: re.Match[str]) -> bool:
    """Apply pandoc's rule, but for `$ x $`: before a closing dollar sign is no blank, and behind it no digit."""
    padded = text[opened.end()].isspace()
    blank = text[closed.start() - 1].isspace()
    return closed[0] == "$" and ((blank and not padded) or text[closed.end() : closed.end() + 1].isdigit())


def _span(text: str, start: int, end: int) -> str:
    return text[start:end].strip() if end - start <= MAX_SPAN_CHARACTERS else ""
