"""`python -m tests.architectures.table` tries every family and writes docs/architectures.md."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import transformers

from tests.architectures.checks import SETTINGS, Family, Outcome, try_setting
from tests.architectures.families import NOT_BUILT, class_name, families

DOCUMENT = Path(__file__).parents[2] / "docs" / "architectures.md"
Outcomes = Mapping[str, Outcome]


def try_family(name: str) -> Outcomes:
    """Try every setting on one family; {"": outcome} where no tiny model of it can be built."""
    if name in NOT_BUILT:
        return {"": Outcome("not built", NOT_BUILT[name])}
    try:
        family = Family.of(name)
    except Exception as error:
        return {"": Outcome("not built", f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")}
    outcomes = {}
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[setting] = try_setting(family, setting, Path(folder))
    return outcomes


def row(name: str, outcomes: Outcomes) -> str:
    """Return the line of the table for one family."""
    if "" in outcomes:
        return f"| `{name}` | {class_name(name)} | not built | {outcomes[''].detail} |"
    other: dict[Outcome, list[str]] = {}
    for setting, outcome in outcomes.items():
        if outcome.status != "right":
            other.setdefault(outcome, []).append(setting)
    right = len(outcomes) - sum(map(len, other.values()))
    why = "; ".join(f"{', '.join(names)} {outcome.status}: {outcome.detail}" for outcome, names in other.items())
    return f"| `{name}` | {class_name(name)} | {right} of {len(outcomes)} | {why.replace('|', '/')} |"


def summary(results: Mapping[str, Outcomes]) -> str:
    """Return the sentence with the counts."""
    built = [outcomes for outcomes in results.values() if "" not in outcomes]
    statuses = [{outcome.status for outcome in outcomes.values()} for outcomes in built]
    wrong = sum(bool(found & {"wrong", "crashed"}) for found in statuses)
    return (
        f"{len(results)} model types, {len(built)} of them built: {statuses.count({'right'})} right with all "
        f"{len(SETTINGS)} settings, {statuses.count({'right', 'refused'})} right where they are not refused, "
        f"{statuses.count({'refused'})} refused with every setting, {wrong} wrong."
    )


def document(results: Mapping[str, Outcomes]) -> str:
    """Return the page."""
    head = (Path(__file__).parent / "architectures.md").read_text(encoding="utf-8")
    rows = "\n".join(row(name, outcomes) for name, outcomes in results.items())
    return (
        head.format(
            version=transformers.__version__, torch=torch.__version__.partition("+")[0], summary=summary(results)
        )
        + rows
        + "\n"
    )


def quiet() -> None:
    """Leave only errors on the terminal."""
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)


def main() -> None:
    names = families()
    with ProcessPoolExecutor(initializer=quiet) as pool:
        results = dict(zip(names, pool.map(try_family, names), strict=True))
    DOCUMENT.write_text(document(results), encoding="utf-8")
    print(summary(results))


if __name__ == "__main__":
    main()
