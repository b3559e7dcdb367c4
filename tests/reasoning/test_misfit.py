"""A run whose thinking format does not fit its model is told so, with counts."""

from __future__ import annotations

import pytest

from lm_eval_pruned.reasoning.completion import Answer, Completion, Thinking, ThinkingFinish
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.misfit import describe_closed, describe_misfit


def response(thinking: str, finish: ThinkingFinish, answer: str = "\\boxed{5}") -> Completion:
    return Completion.build(thinking + answer, thinking=Thinking(thinking, 9, finish), answer=Answer(answer, 3, "stop"))


BOXED = response("so \\boxed{5}", "eos", "")
CLOSED = response("so 5", "closed")
CUT = response("so 5 and", "budget")


def test_thoughts_that_end_with_a_boxed_answer_are_counted():
    text = describe_misfit([BOXED] * 7 + [CUT] * 2 + [CLOSED], FORMATS["qwen3"])
    assert text is not None
    for part in (
        "of 10 thoughts 1 were closed with '</think>'",
        "2 were cut",
        "7 ended",
        "7 of these",
        "7 answers are empty",
    ):
        assert part in text
    assert all(name in text for name in ("thinking=none", "thinking_start", "pruning"))


@pytest.mark.parametrize(
    ("name", "responses"),
    [
        ("qwen3", [CLOSED] * 9 + [BOXED]),
        ("qwen3", [CUT] * 9 + [BOXED]),
        ("qwen3", [CUT] * 10),
        ("none", [response("so \\boxed{5}", "eos", "so \\boxed{5}")] * 10),
        ("none", [CUT] * 10),
        ("deepseek-r1", [response("<think>", "closed"), *[CLOSED] * 9]),
        ("harmony", [CLOSED] * 10),
        ("qwen3", [BOXED]),
        ("qwen3", []),
    ],
)
def test_a_run_that_fits_is_not_warned_of(name, responses):
    assert describe_misfit(responses, FORMATS[name]) is None


@pytest.mark.parametrize(
    ("name", "text", "advice"),
    [
        ("none", "<think>\nso 5\n</think>\n5", "thinking=deepseek-r1, qwen3 or think"),
        ("none", "so 5\n</think>\n5", "thinking=deepseek-r1, qwen3 or think"),
        ("qwen3", "[THINK]so[/THINK]5", "thinking=mistral"),
        ("think", "<|channel|>analysis<|message|>so", "thinking=harmony"),
    ],
)
def test_markers_of_another_format_name_it(name, text, advice):
    found = describe_misfit([response(text, "eos")] * 3 + [CUT], FORMATS[name])
    assert found is not None
    assert found.startswith("3 of 4 responses hold")
    assert advice in found


def test_empty_answers_are_told():
    assert "9 answers are empty" in str(
        describe_misfit([response("so", "closed", "\n")] * 9 + [CLOSED], FORMATS["think"])
    )


def test_closed_thinking_is_told():
    assert describe_closed(["", "<think>"]) is None
    assert str(describe_closed([None, None, ""])).startswith("2 of 3 prompts end with closed thinking")
