"""Accuracy and speed of our grading and of math-verify on the same pairs of answers.

    python benchmarks/grading.py [--peer .venv-math-verify] [--timeout 10] [--output table.md]

The pairs are tests/cases/{equal,pairs}.jsonl and the golds of MATH-500 (math500.jsonl in the folder LM_EVAL_PRUNED_DATA
or ../shared/data), each with other spellings of itself and with the gold of another problem. math-verify lives in a
virtual environment of its own, which the first run creates. It gets both answers as `$...$` and runs with its default
settings in a process that is replaced if a pair exceeds the timeout. Both graders are warmed up first. All pairs are
judged three times and the best time of a pair counts; our cache of verdicts is cleared before each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from lm_eval_pruned.grading import verify
from lm_eval_pruned.grading.verdict import clear_cached_verdicts

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "cases"
PEER = "math-verify[antlr4_13_2]"

WARM_UP = (("4", "5"), ("2x", "x+x"), (r"\sin 2a", r"2\sin a\cos a"), ("(1,2)", "[1,2]"), (r"\{3\}", "x=3"))

# The machine is shared, so the best of several times is the least disturbed one; slow pairs are timed once.
PASSES = 3
WORTH_REPEATING_MS = 100

PEER_PROGRAM = r"""
import json, logging, sys, time
from importlib.metadata import version
from math_verify import parse, verify
logging.disable(logging.CRITICAL)
dollars = lambda answer: answer if answer.startswith(("$", "\\(", "\\[")) else f"${answer}$"
replies, sys.stdout = sys.stdout, sys.stderr
print(json.dumps(version("math-verify")), file=replies, flush=True)
for line in sys.stdin:
    gold, answer = json.loads(line)
    begin = time.perf_counter()
    try:
        correct = bool(verify(parse(dollars(gold)), parse(dollars(answer))))
    except Exception:
        correct = False
    print(json.dumps([correct, (time.perf_counter() - begin) * 1000]), file=replies, flush=True)
"""


class Pair(NamedTuple):
    """Two answers and whether they are the same."""

    category: str
    gold: str
    answer: str
    correct: bool


class Outcome(NamedTuple):
    """The verdict of a grader on a pair, and its time in milliseconds."""

    correct: bool
    ms: float


Judge = Callable[[str, str], Outcome]


def case_pairs() -> Iterator[Pair]:
    for name in ("equal", "pairs"):
        for line in (CASES / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            yield Pair(row.get("category", "equal.jsonl"), row["gold"], row["answer"], row["correct"])


def gold_pairs(file: Path) -> Iterator[Pair]:
    golds = list(dict.fromkeys(json.loads(line)["answer"] for line in file.read_text().splitlines()))
    for index, gold in enumerate(golds):
        yield Pair("MATH-500, boxed", gold, f"\\boxed{{{gold}}}", correct=True)
        spaced = re.sub("([=+])", r" \1 ", gold)
        yield Pair("MATH-500, blanks", gold, f"$ {spaced} $", correct=True)
        if gold.count("(") == gold.count(")") > 0 and not re.search(r"\\left|[\[\]]", gold):
            sized = gold.replace("(", "\\left(").replace(")", "\\right)")
            yield Pair("MATH-500, \\left \\right", gold, sized, correct=True)
        if "\\frac" in gold:
            yield Pair("MATH-500, \\dfrac", gold, gold.replace("\\frac", "\\dfrac"), correct=True)
        yield Pair("MATH-500, of another problem", gold, golds[index - 1], correct=False)


def ours(gold: str, answer: str) -> Outcome:
    clear_cached_verdicts()
    begin = time.perf_counter()
    correct = verify(gold, answer).correct
    return Outcome(correct, (time.perf_counter() - begin) * 1000)


class Peer:
    """math-verify in its own process and virtual environment."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self._python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        self._timeout = timeout
        if not self._python.exists():
            venv.create(folder, with_pip=True)
            subprocess.run([self._python, "-m", "pip", "install", "--quiet", PEER], check=True)
        self._start()

    def __call__(self, gold: str, answer: str) -> Outcome:
        """Judge one pair; a pair that exceeds the timeout counts as not equal."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([gold, answer]) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], self._timeout)[0]:
            self.stop()
            self._start()
            return Outcome(correct=False, ms=self._timeout * 1000)
        return Outcome(*json.loads(self._process.stdout.readline()))

    def _start(self) -> None:
        command = [self._python, "-c", PEER_PROGRAM]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout
        self.version = json.loads(self._process.stdout.readline())
        for gold, answer in WARM_UP:
            self(gold, answer)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def counts(pairs: list[Pair], outcomes: list[Outcome]) -> str:
    """Return `right | wrong accepted / right refused`."""
    accepted = sum(outcome.correct and not pair.correct for pair, outcome in zip(pairs, outcomes, strict=True))
    refused = sum(pair.correct and not outcome.correct for pair, outcome in zip(pairs, outcomes, strict=True))
    return f"{len(pairs) - accepted - refused} | {accepted} / {refused}"


def tables(pairs: list[Pair], outcomes: dict[str, list[Outcome]]) -> Iterator[str]:
    yield (
        "| category | pairs | "
        + " | ".join(f"{name}: right | wrong accepted / right refused" for name in outcomes)
        + " |"
    )
    yield "|---" * (2 + 2 * len(outcomes)) + "|"
    for category in dict.fromkeys(pair.category for pair in pairs):
        places = [place for place, pair in enumerate(pairs) if pair.category == category]
        of_category = [pairs[place] for place in places]
        cells = (counts(of_category, [given[place] for place in places]) for given in outcomes.values())
        yield f"| {category} | {len(places)} | " + " | ".join(cells) + " |"
    yield f"| **all** | {len(pairs)} | " + " | ".join(counts(pairs, given) for given in outcomes.values()) + " |"
    yield ""
    yield "| grader | median ms | p99 ms | longest ms | pairs a second |"
    yield "|---|---|---|---|---|"
    rates = []
    for name, given in outcomes.items():
        times = [outcome.ms for outcome in given]
        rates.append(1000 * len(times) / sum(times))
        p99 = quantiles(times, n=100)[-1]
        yield f"| {name} | {median(times):.3f} | {p99:.1f} | {max(times):.0f} | {rates[-1]:.0f} |"
    yield ""
    yield f"Throughput of ours: {rates[0] / rates[1]:.1f} times that of math-verify."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-math-verify", help="its virtual environment")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds that math-verify may take a pair")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    args = parser.parse_args()
    pairs = list(case_pairs())
    data = Path(os.environ.get("LM_EVAL_PRUNED_DATA", ROOT.parent / "shared" / "data")) / "math500.jsonl"
    if data.exists():
        pairs += gold_pairs(data)
    else:
        print(f"no {data}: the golds of MATH-500 are left out", file=sys.stderr)
    pairs = list({pair[1:3]: pair for pair in pairs}.values())
    peer = Peer(args.peer, args.timeout)
    judges: dict[str, Judge] = {"ours": ours, f"math-verify {peer.version}": peer}
    for gold, answer in WARM_UP:
        ours(gold, answer)
    outcomes = {name: [Outcome(correct=False, ms=WORTH_REPEATING_MS)] * len(pairs) for name in judges}
    # In turns, so that a busy machine slows both down alike.
    for turn in range(PASSES):
        for place, pair in enumerate(pairs):
            for name, judge in judges.items():
                before = outcomes[name][place]
                if not turn:
                    outcomes[name][place] = judge(pair.gold, pair.answer)
                elif before.ms < WORTH_REPEATING_MS:
                    outcomes[name][place] = Outcome(before.correct, min(before.ms, judge(pair.gold, pair.answer).ms))
    peer.stop()
    text = "\n".join(tables(pairs, outcomes))
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
