"""Rounds: one run of the harness that asks more and more questions of a loaded model until a verdict is certain.

All runs ask in one order, that of `doc_hash`, the SHA-256 that the harness writes of every question. It has nothing to
do with answers, and it is the same for all models.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, NamedTuple, TypeAlias

from lm_eval.utils import handle_non_serializable

from lm_eval_pruned.errors import EngineError

# Rows of samples by task, those of all rounds so far.
Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, object]]]


class Decision(NamedTuple):
    """The tasks that need more questions with the number to have asked of each, and what the results file says.

    The report is about all tasks, and is that of the file if none needs more.
    """

    ask: Mapping[str, int]
    report: Mapping[str, object]


# Called after every round.
Decide: TypeAlias = Callable[[Rows], Decision]

# Questions of the first round.
FIRST = 16
# Arguments of the harness's `evaluate` that a round sets or reads.
_NEEDED = ("task_dict", "limit", "samples", "log_samples", "bootstrap_iters", "write_out")


def hashed_order(documents: Sequence[object]) -> list[int]:
    """Return the indices of questions in the order in which they are asked, that of their `doc_hash`."""
    hashes = [
        hashlib.sha256(
            json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False).encode()
        ).hexdigest()
        for document in documents
    ]
    return sorted(range(len(hashes)), key=lambda index: (hashes[index], index))


@contextmanager
def asking_in_rounds(decide: Decide) -> Iterator[None]:
    """Within the block, let the harness's `evaluate` ask in rounds, and report what was asked when it stops.

    The model stays loaded, and needs a response store: the last call of the harness, which reports, asks all questions
    of all rounds again. If that is every question, the report is that of an ordinary run.

    Args:
        decide: called after every round.

    Raises:
        EngineError: this version of the harness cannot ask for chosen questions.
    """
    from lm_eval import evaluator

    original = evaluator.evaluate
    signature = inspect.signature(original)
    missing = [name for name in _NEEDED if name not in signature.parameters]
    if missing:
        raise EngineError(
            f"this version of lm_eval cannot ask in rounds, since its evaluate does not take {', '.join(missing)}: "
            "leave out --stop early"
        )

    @functools.wraps(original)
    def evaluate(*args: object, **kwargs: object) -> object:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return _evaluate(original, call.arguments, decide)

    # Patch: docs/harness-hook.md.
    evaluator.evaluate = evaluate
    try:
        yield
    finally:
        evaluator.evaluate = original


def _evaluate(original: Callable[..., Any], arguments: Mapping[str, Any], decide: Decide) -> object:
    orders = {
        name: hashed_order(list(task.eval_docs)[: _count(len(task.eval_docs), arguments["limit"])])
        for name, task in _tasks(arguments["task_dict"])
    }
    rows: dict[str, list[Mapping[str, object]]] = {name: [] for name in orders}
    asked = dict.fromkeys(orders, 0)
    quiet = {"limit": None, "log_samples": True, "bootstrap_iters": 0, "write_out": False}
    decision = Decision(dict.fromkeys(orders, FIRST), {})
    while new := {name: part for name, end in decision.ask.items() if (part := orders[name][asked[name] : end])}:
        # A task that needs no more is asked a question whose response is stored: without any, it would be asked all.
        samples = {name: sorted(new.get(name) or order[:1]) for name, order in orders.items()}
        results = original(**{**arguments, **quiet, "samples": samples})
        for name, indices in new.items():
            rows[name] += results["samples"][name]
            asked[name] += len(indices)
        decision = decide(rows)
    if all(asked[name] == len(order) for name, order in orders.items()):
        return original(**arguments)
    chosen = {name: sorted(order[: asked[name]]) for name, order in orders.items()}
    return {**original(**{**arguments, "limit": None, "samples": chosen}), "early_stopping": decision.report}


def _count(questions: int, limit: float | None) -> int:
    """Return how many questions a limit, a number or a share of them, leaves; as in the harness."""
    if limit is None:
        return questions
    return min(questions, ceil(questions * limit) if limit < 1 else int(limit))


def _tasks(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the task of every leaf: versions of the harness nest them differently."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _tasks(value)
        elif hasattr(type(value), "eval_docs"):
            yield str(name), value
