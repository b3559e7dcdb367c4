"""What `sweep --stop early` saves: tokens generated, and verdicts, of a sweep run whole and stopped early.

    python benchmarks/early_tokens.py [--config demo] [--equivalence 0.1] [--output DIR]

Runs the sweep in DIR/whole and, with --stop early, in DIR/early_MARGIN; cells that are done there are not run again.
The exit code is 1 if a cell has another verdict, or a question another text. Five minutes on one core.
benchmarks/collapsed.yaml has cells that collapse, which `demo` has not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))

from lm_eval_pruned.files import sha256_of_json
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.response_store import FILE, read_store
from lm_eval_pruned.results.leaderboard.entries import ALPHA, LeaderboardLine, build_entries
from lm_eval_pruned.results.records.reading import read_records
from lm_eval_pruned.sweeps.cell import Cell
from lm_eval_pruned.sweeps.grid import find_config, read_sweep
from lm_eval_pruned.sweeps.running import RESPONSES, RESULTS, cell_folder, stopped_words


class Generated(NamedTuple):
    """Texts by the hash of what they answer, and the tokens that all of them took to generate."""

    texts: dict[str, str]
    tokens: int


def generated(folder: Path) -> Generated:
    """Read a response store. A trace is generated once for all budgets, and so is the answer after its own end."""
    texts: dict[str, str] = {}
    thinking: dict[str, int] = {}
    answers: dict[tuple[str, int | None], int] = {}
    for _, request, response in read_store(folder / RESPONSES / FILE):
        texts[sha256_of_json(request)] = str(response)
        trace = sha256_of_json({name: value for name, value in request.items() if name != "budget"})
        thinking[trace] = max(thinking.get(trace, 0), response.thinking_tokens)
        answers[trace, _cut_at(response)] = response.answer_tokens
    return Generated(texts, sum(thinking.values()) + sum(answers.values()))


def _cut_at(response: Completion) -> int | None:
    return response.thinking_tokens if response.budget_hit else None


def verdict(lines: Sequence[LeaderboardLine]) -> str:
    """Return what a leaderboard says of a cell: a significant drop or gain in any of its lines, or neither."""
    found = [line for line in lines if line.p_holm is not None and line.p_holm <= ALPHA]
    ends = [(line.difference_low or 0.0) + (line.difference_high or 0.0) for line in found]
    return "no change" if not ends else "drop" if min(ends) < 0 else "gain"


def verdicts(cells: Sequence[Cell], output: Path) -> list[str]:
    """Return the verdict on each cell, from the leaderboard of all of them."""
    records, _ = read_records([cell_folder(output, cell) / RESULTS for cell in cells])
    entries = build_entries(records)
    labels = [
        {record.configuration.label for record in read_records([cell_folder(output, cell) / RESULTS]).records}
        for cell in cells
    ]
    return [verdict([entry.line for entry in entries if entry.line.run in label]) for label in labels]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="DIR", help="[a temporary folder]")
    parser.add_argument("--config", type=Path, default=Path("demo"))
    parser.add_argument("--equivalence", default="0.1")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        return compare(args.config, args.output or Path(folder), args.equivalence)


def compare(config: Path, output: Path, equivalence: str) -> int:
    """Run both sweeps, print what each cell took and what was found, and return the exit code."""
    whole, early = output / "whole", output / f"early_{equivalence}"
    command = [sys.executable, "-m", "lm_eval_pruned", "sweep", str(config), "--engine", "local", "--output"]
    subprocess.run([*command, str(whole)], check=True)
    subprocess.run([*command, str(early), "--stop", "early", "--equivalence", equivalence], check=True)

    cells = read_sweep(find_config(config)).cells
    is_same, total = True, [0, 0]
    for cell, *said in zip(cells, verdicts(cells, whole), verdicts(cells, early), strict=True):
        all_of, some = (generated(cell_folder(output, cell)) for output in (whole, early))
        total = [total[0] + all_of.tokens, total[1] + some.tokens]
        is_same &= said[0] == said[1] and some.texts.items() <= all_of.texts.items()
        share = some.tokens / all_of.tokens
        stopped = stopped_words(cell_folder(early, cell)) or "all questions"
        print(f"{cell.label}: {100 * share:.1f} % of {all_of.tokens:,} tokens; {said[0]}, early {said[1]}; {stopped}")
    share = total[1] / total[0]
    print(
        f"together: {100 * share:.1f} % of {total[0]:,} tokens; verdicts and texts {'equal' if is_same else 'DIFFER'}"
    )
    return int(not is_same)


if __name__ == "__main__":
    sys.exit(main())
