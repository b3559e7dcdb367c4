"""Questions as the harness asks them, under several budgets."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval.api.instance import Instance

from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.reasoning.completion import Completion


def ask(model: PrunedHFLM, problems: Sequence[str], budgets: Sequence[int], **kwargs: object) -> list[Completion]:
    requests = [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(problem, {"thinking_token_budget": budget, "max_gen_toks": 32, **kwargs}),
            idx=0,
        )
        for budget in budgets
        for problem in problems
    ]
    return model.generate_until(requests)
