"""Tests of grading wait for a worker once: on a busy machine the first pairs would be timeouts."""

from __future__ import annotations

import pytest

from lm_eval_pruned.grading.limits import WORKER_START_DEADLINE
from lm_eval_pruned.grading.symbolic import pool


@pytest.fixture(scope="session", autouse=True)
def _worker() -> None:
    pool.ask("1", "2", deadline=WORKER_START_DEADLINE)
