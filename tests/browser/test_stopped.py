"""The page of runs that a sweep stopped early: intervals and a mark in the table, and nothing drawn."""

from __future__ import annotations

from tests.browser.conftest import make_page
from tests.results.written_runs import stop, write_run

DASH, MINUS = "\u2013", "\u2212"
DENSE = {"t_tts_16": [1] * 60, "t_tts_32": [1] * 60}


def test_a_stopped_run_has_intervals_a_mark_and_no_point(browser, tmp_path):
    write_run(tmp_path / "runs", DENSE)
    stop(write_run(tmp_path / "runs", {task: [0] * 20 for task in DENSE}, method="wanda", sparsity=0.5, seed=8), 20)
    browser.open(make_page(tmp_path / "runs", tmp_path / "page.html"))
    cells = browser.texts("#table tbody tr .c-acc")
    stopped = [cell for cell in cells if "asked" in cell]
    assert len(stopped) == 3
    assert all(cell.startswith(f"0.000 {DASH} 0.") and cell.endswith("20 of 60 asked") for cell in stopped)
    changes = [cell for cell in browser.texts("#table tbody tr .c-difference") if "drop" in cell]
    assert len(changes) == 3
    assert all(cell.startswith(f"{MINUS}100.0 to {MINUS}") and cell.endswith("*drop") for cell in changes)
    assert len(browser.all("#table tbody .worse")) == 3
    assert browser.texts("#charts .note") == ["Not drawn: 1 run stopped early."]
    assert len(browser.all("#legend li")) == 1
    # Sorted, it stands below the run that is better.
    browser.run("document.querySelector('[data-sort=acc]').click()")
    found = ["asked" in cell for cell in browser.texts("#table tbody tr .c-acc")]
    assert sorted(found) in (found, found[::-1])
