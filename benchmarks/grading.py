"""Accuracy and speed of our grading and of math-verify on the same answers and the same responses.

    python benchmarks/grading.py [--cases FILE.jsonl ...] [--peer .venv-math-verify] [--timeout 10] [--output table.md]

The pairs are tests/cases/{equal,pairs}.jsonl and the golds of MATH-500 (math500.jsonl in the folder LM_EVAL_PRUNED_DATA
or ../shared/data), each with other spellings of itself and with the gold of another problem. math-verify lives in a
virtual environment of its own, which the first run creates. It gets both answers as `$...$` and runs with its default
settings in a process that is replaced if a pair exceeds the timeout. Both graders are warmed up first. All pairs are
judged three times and the best time of a pair counts; our cache of verdicts is cleared before each.

`--cases` adds rows of others (by default those of LM_EVAL_PRUNED_CASES, paths separated by `:`): {"gold", "expected",
"answer" or "response", "kind", "source", "finished", "expected_status"}, of which the last four are optional. Answers
join the pairs. Responses are graded whole and cut in half: half a response should be credited only if it states its
answer before it goes on. `expected_status` marks a row in which there is nothing to decide.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import grading_responses
from grading_responses import Response

from lm_eval_pruned.commands.math_verify import MathVerify
from lm_eval_pruned.grading import verify
from lm_eval_pruned.grading.verdict import clear_cached_verdicts

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "cases"
PEER = "math-verify[antlr4_13_2]"

WARM_UP = (("4", "5"), ("2x", "x+x"), (r"\sin 2a", r"2\sin a\cos a"), ("(1,2)", "[1,2]"), (r"\{3\}", "x=3"))

# The machine is shared, so the best of several times is the least disturbed one; slow pairs are timed once.
PASSES = 3
WORTH_REPEATING_MS = 100
# What the reason of a verdict says if our own reader left it to sympy.
SECOND_OPINION = "sympy"


class Pair(NamedTuple):
    """Two answers and whether they are the same."""

    category: str
    gold: str
    answer: str
    correct: bool
    kind: str = "math"


class Outcome(NamedTuple):
    """The verdict of a grader on a pair, its time in milliseconds, and its reason."""

    correct: bool
    ms: float
    reason: str = ""


Judge = Callable[[Pair], Outcome]


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


def rows_of_others(files: list[Path]) -> tuple[list[Pair], list[Response]]:
    """Return the answers and the responses of the files; one that is absent is left out with a line on stderr."""
    pairs, responses = [], []
    for file in files:
        if not file.exists():
            print(f"no {file}: its rows are left out", file=sys.stderr)
            continue
        for line in file.read_text().splitlines():
            row = json.loads(line)
            kind = row.get("kind", "math")
            source = f"{file.stem}: {row.get('source', kind).partition(':')[0]}"
            if "response" in row:
                decided = row.get("expected_status", "ok") == "ok"
                labels = (row["expected"], decided, row.get("finished"))
                responses.append(Response(source, row["gold"], row["response"], kind, *labels))
            else:
                pairs.append(Pair(file.stem, row["gold"], row["answer"], row["expected"], kind))
    return pairs, responses


def ours(pair: Pair) -> Outcome:
    clear_cached_verdicts()
    begin = time.perf_counter()
    verdict = verify(pair.gold, pair.answer, "choice" if pair.kind == "choice" else "math")
    return Outcome(verdict.correct, (time.perf_counter() - begin) * 1000, verdict.reason)


def of_peer(peer: MathVerify) -> Judge:
    def judge(pair: Pair) -> Outcome:
        verdict = peer.judge([pair.gold], pair.answer, pair.kind, is_response=False)
        return Outcome(verdict.correct, verdict.milliseconds, verdict.status)

    return judge


def peer_python(folder: Path) -> Path:
    """Return the interpreter of the virtual environment with math-verify, which is made if it is missing."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


def judged(pairs: list[Pair], judges: dict[str, Judge]) -> dict[str, list[Outcome]]:
    """Judge all pairs, in turns, so that a busy machine slows both graders down alike."""
    for gold, answer in WARM_UP:
        for judge in judges.values():
            judge(Pair("", gold, answer, correct=True))
    outcomes = {name: [judge(pair) for pair in pairs] for name, judge in judges.items()}
    for _ in range(1, PASSES):
        for place, pair in enumerate(pairs):
            for name, judge in judges.items():
                before = outcomes[name][place]
                if before.ms < WORTH_REPEATING_MS:
                    outcomes[name][place] = before._replace(ms=min(before.ms, judge(pair).ms))
    return outcomes


def counts(pairs: list[Pair], outcomes: list[Outcome]) -> str:
    """Return `right | wrong accepted / right refused`."""
    accepted = sum(outcome.correct and not pair.correct for pair, outcome in zip(pairs, outcomes, strict=True))
    refused = sum(pair.correct and not outcome.correct for pair, outcome in zip(pairs, outcomes, strict=True))
    return f"{len(pairs) - accepted - refused} | {accepted} / {refused}"


def tables(pairs: list[Pair], outcomes: dict[str, list[Outcome]]) -> Iterator[str]:
    names = " | ".join(f"{name}: right | wrong accepted / right refused" for name in outcomes)
    yield f"| category | pairs | {names} |"
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
    yield from second_opinion(pairs, outcomes["ours"])


def second_opinion(pairs: list[Pair], outcomes: list[Outcome]) -> Iterator[str]:
    """Yield how many verdicts of ours come from sympy, of which categories, and what they cost."""
    asked = [place for place, outcome in enumerate(outcomes) if SECOND_OPINION in outcome.reason]
    times = [outcomes[place].ms for place in asked]
    share = sum(times) / sum(outcome.ms for outcome in outcomes)
    yield ""
    yield (
        f"Second opinion: {len(asked)} of {len(pairs)} verdicts ({len(asked) / len(pairs):.1%}) come from sympy, with "
        f"{share:.1%} of the time, median {median(times or [0.0]):.1f} ms, longest {max(times, default=0.0):.0f} ms; "
        f"{counts([pairs[place] for place in asked], [outcomes[place] for place in asked])} right | wrong accepted / "
        "right refused."
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    named = [Path(path) for path in os.environ.get("LM_EVAL_PRUNED_CASES", "").split(":") if path]
    parser.add_argument("--cases", type=Path, nargs="*", default=named, help="files with rows of others")
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-math-verify", help="its virtual environment")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds that math-verify may take a pair")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    pairs = list(case_pairs())
    data = Path(os.environ.get("LM_EVAL_PRUNED_DATA", ROOT.parent / "shared" / "data")) / "math500.jsonl"
    if data.exists():
        pairs += gold_pairs(data)
    else:
        print(f"no {data}: the golds of MATH-500 are left out", file=sys.stderr)
    of_others, responses = rows_of_others(args.cases)
    pairs = list({pair[1:3]: pair for pair in [*pairs, *of_others]}.values())
    with MathVerify(peer_python(args.peer), args.timeout) as peer:
        name = f"math-verify {peer.version}"
        lines = list(tables(pairs, judged(pairs, {"ours": ours, name: of_peer(peer)})))
        if responses:
            graders = {"ours": grading_responses.ours, name: grading_responses.of_peer(peer)}
            lines += ["", *grading_responses.tables(responses, graders)]
    text = "\n".join(lines)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
