"""Helpers for tests: ask a model questions under several budgets, and count stored responses."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from packaging.version import Version

from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.reasoning.completion import Completion

needs_metadata = pytest.mark.skipif(
    Version(version("lm-eval")) < Version("0.4.12"), reason="this harness hands no metadata to tasks of Python"
)


def ask(model: PrunedHFLM, problems: Sequence[str], budgets: Sequence[int], **kwargs: object) -> list[Completion]:
    """Ask every problem under every budget, as the harness does."""
    requests = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(problem, {"thinking_token_budget": budget, "max_gen_toks": 32, **kwargs}),
            idx=0,
            task_name="",
            doc_id=0,
        )
        for budget in budgets
        for problem in problems
    ]
    return model.generate_until(requests)


def stored(path: Path) -> int:
    """Count the responses in a store while other processes may write to it."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM responses").fetchone()[0]
        except sqlite3.OperationalError:
            # The file exists before its table.
            return 0
