"""An audit of our grading: the verdicts of another grader beside ours, where they differ, and how often."""

from __future__ import annotations

import json
from collections import Counter
from typing import TextIO

from lm_eval_pruned.commands.grade_rows import GradedRow, as_line
from lm_eval_pruned.commands.math_verify import MathVerify, PeerVerdict
from lm_eval_pruned.errors import unknown_name
from lm_eval_pruned.grading.verdict import Verdict

GRADERS = ("math-verify",)
# Each row is in one of these groups. An undecided row is one in which a grader finds nothing that it can compare.
AGREE, OURS, THEIRS, UNDECIDED = "agree", "right only by ours", "right only by theirs", "both undecided"
GROUPS = (AGREE, OURS, THEIRS, UNDECIDED)

# Characters of a gold answer, of an answer, and of the end of a response that are printed.
_SHOWN = 100
_SHOWN_END = 200


def check_grader(name: str) -> None:
    """Refuse the name of a grader that we cannot ask.

    Raises:
        UnknownNameError: there is no such grader.
    """
    if name not in GRADERS:
        raise unknown_name("audit", name, GRADERS)


def group(ours: Verdict, theirs: PeerVerdict) -> str:
    """Return the group of a row.

    Example:
        >>> undecided = Verdict(correct=False, status="no_answer", reason="", extracted=None)
        >>> group(undecided, PeerVerdict(True, "ok", "5")), group(undecided, PeerVerdict(False, "no_answer"))
        ('right only by theirs', 'both undecided')
    """
    if ours.correct != theirs.correct:
        return OURS if ours.correct else THEIRS
    return UNDECIDED if ours.status != "ok" and theirs.status != "ok" else AGREE


class Audit:
    """Asks math-verify about each graded row, prints the rows on which it differs from ours, and counts the groups."""

    def __init__(self, peer: MathVerify, stream: TextIO) -> None:
        self._peer = peer
        self._stream = stream
        self._number = 0
        self.groups: Counter[str] = Counter()

    def add(self, graded: GradedRow) -> bytes:
        """Return the output row with the field `audit`; a row that cannot be read is left as it is."""
        self._number += 1
        if not graded.is_read:
            return graded.line
        row = json.loads(graded.line)
        golds = [str(gold) for gold in (row["gold"] if isinstance(row["gold"], list) else [row["gold"]])]
        is_response = "response" in row
        text = str(row["response" if is_response else "answer"])
        theirs = self._peer.judge(golds, text, row.get("kind", "math"), is_response=is_response)
        which = group(graded.verdict, theirs)
        self.groups[which] += 1
        if which in {OURS, THEIRS}:
            end = text if is_response else ""
            self._stream.write(side_by_side(self._number, golds, graded.verdict, theirs, end))
        row["audit"] = {
            "grader": f"math-verify {self._peer.version}",
            "extracted": theirs.extracted,
            "correct": theirs.correct,
            "status": theirs.status,
            "group": which,
        }
        return as_line(row)

    def rates(self) -> str:
        """Return the numbers and the shares of the groups."""
        total = self.groups.total()
        shares = ", ".join(f"{self.groups[name]} {name} ({self.groups[name] / max(total, 1):.1%})" for name in GROUPS)
        return f"{total} rows against math-verify {self._peer.version}: {shares}"


def side_by_side(number: int, golds: list[str], ours: Verdict, theirs: PeerVerdict, response: str) -> str:
    r"""Return what two graders say about a row.

    Example:
        >>> ours = Verdict(correct=True, status="ok", reason="same number", extracted="0.5")
        >>> print(side_by_side(3, ["1/2"], ours, PeerVerdict(False, "ok", "5"), "So it is 0.5."), end="")
        row 3: gold 1/2
          ours:        right, 0.5 (same number)
          math-verify: wrong, 5 (ok)
          response ends: So it is 0.5.
    """
    lines = [f"row {number}: gold {_short(' | '.join(golds), _SHOWN)}"]
    for name, verdict, why in (("ours:       ", ours, ours.reason), ("math-verify:", theirs, theirs.status)):
        found = "no answer" if verdict.extracted is None else _short(verdict.extracted, _SHOWN)
        lines.append(f"  {name} {'right' if verdict.correct else 'wrong'}, {found} ({why})")
    if response:
        lines.append(f"  response ends: {_short(response[-_SHOWN_END:], _SHOWN_END)}")
    return "\n".join(lines) + "\n"


def _short(text: str, length: int) -> str:
    """Return a text as one line of bounded length, in which no character can act on a terminal."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    return line if len(line) <= length else line[:length] + "..."
