"""Write the leaderboard of the runs in some folders, as a table or a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_pruned.results.leaderboard.entries import build_entries
from lm_eval_pruned.results.leaderboard.page.content import page_content
from lm_eval_pruned.results.leaderboard.page.document import render_page
from lm_eval_pruned.results.leaderboard.page.texts import Extract
from lm_eval_pruned.results.leaderboard.published import Published
from lm_eval_pruned.results.leaderboard.tables import FORMATS
from lm_eval_pruned.results.output import write_text
from lm_eval_pruned.results.records.divergences import read_maps, with_divergences
from lm_eval_pruned.results.records.reading import read_records


class Written(NamedTuple):
    """What was written: the file, its numbers of lines and runs, and a sentence for each file that was skipped."""

    output: Path
    lines: int
    runs: int
    problems: list[str]


def write(
    places: Sequence[Path],
    output: Path,
    *,
    extract: Extract,
    published: Iterable[Published] = (),
    against: str | None = None,
) -> Written:
    """Read, compare and write; the ending of `output` decides the format.

    Args:
        places: folders with results of lm_eval, or results files.
        output: file to write, .html or one of FORMATS.
        extract: finds the answer in a response, for the page.
        published: figures to show next to the measured ones.
        against: label of the run that all others are compared with; None for the dense run of each model.

    Raises:
        PrunedEvalError: nothing can be read, or the file cannot be written.
    """
    found, problems = read_records(places)
    records, skipped = with_divergences(found, places)
    entries = build_entries(records, published, against=against)
    if output.suffix == ".html":
        text = render_page(page_content(entries, records, extract, read_maps(places)))
    else:
        text = FORMATS[output.suffix]([entry.line for entry in entries])
    write_text(output, text)
    return Written(output, len(entries), len(records), problems + skipped)
