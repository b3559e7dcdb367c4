"""Tests of verdicts are patient with the sympy worker, since a busy machine would make some of them timeouts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from lm_eval_pruned.grading import equal
from lm_eval_pruned.grading.limits import WORKER_DEADLINE, WORKER_START_DEADLINE
from lm_eval_pruned.grading.symbolic import worker


@pytest.fixture(scope="session", autouse=True)
def _patient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equal, "ask", partial(worker.ask, deadline=5 * WORKER_DEADLINE, patience=WORKER_START_DEADLINE))
        yield
