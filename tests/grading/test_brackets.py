"""Missing brackets: where a response gives them, and that only the same ones in the same order are right."""

from __future__ import annotations

import pytest

from lm_eval_pruned.grading import grade, verify
from lm_eval_pruned.grading.answer_kinds import kind_of

GOLD = "] ) }"


@pytest.mark.parametrize(
    "response",
    [
        *("] ) }", "])}", "]\n)\n}", "], ), }", "`] ) }`.", "<think>( [</think>\n\n])}", "<answer>])}</answer>"),
        "The answer is ])} (three brackets).",
        "I close [ with ], ( with ) and { with }.\n\n**Answer:** `])}`",
        r"So it is $\boxed{])\}}$.",
        r"\boxed{\text{])}}}",
        # The whole sequence, whose last opening bracket is the question's last one.
        "{ ( ) ( [ ] ) }",
        # A base model goes on with the next question.
        "] ) }\n\nQuestion: Close: ( (\nAnswer: ) )",
    ],
)
def test_missing_brackets_are_found(response):
    verdict = grade(GOLD, response, "brackets", finished=True)
    assert (verdict.correct, verdict.status) == (True, "ok")


@pytest.mark.parametrize(
    "response",
    [") ] }", "] ] }", "] )", "] ) } )", "( ] ) }", "] ) } ( )", "{ ( [ ] } )", "The answer is ] ), and not } ] ) }."],
)
def test_other_brackets_are_wrong(response):
    verdict = grade(GOLD, response, "brackets", finished=True)
    assert (verdict.correct, verdict.status) == (False, "ok")


@pytest.mark.parametrize("response", ["", "I do not know (sorry).", "<think>] ) }"])
def test_no_brackets_are_no_answer(response):
    assert grade(GOLD, response, "brackets", finished=True).status == "no_answer"


def test_a_response_that_was_cut_counts_only_with_a_box():
    assert grade(GOLD, "] ) }", "brackets", finished=False).status == "no_answer"
    assert grade(GOLD, r"\boxed{] ) }}, as", "brackets", finished=False).correct


def test_an_extracted_answer_is_compared_without_blanks():
    assert verify(GOLD, "])}", "brackets").correct
    assert not verify(GOLD, "])", "brackets").correct
    assert [kind_of(gold) for gold in (GOLD, "C", "[1]", "()", "")] == ["brackets", "choice", "math", "math", "math"]
