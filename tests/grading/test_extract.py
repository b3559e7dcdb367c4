"""Extraction of answers from responses: rows of cases, random and adversarial text."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.errors import UnknownNameError
from lm_eval_pruned.grading.extract.extract import extract, find_answer
from lm_eval_pruned.grading.limits import MAX_RESPONSE_CHARACTERS

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "extract.jsonl").read_text().splitlines()]

# Each is repeated to the longest response that is read; all of them have made some scanner take quadratic time.
HOSTILE = (
    *("{", "}", "\\boxed{", "\\boxed", "\\boxed 7", "\\fbox{1", "$", "$$", "$x$ and ", "\\(", "\\", "**", "**a", "* "),
    *("answer ", "answer is ", "answer of ", "answer:\n", "final answer\n", "<answer>", "</answer>", "<answer>1"),
    *(
        "(",
        "(A) ",
        "A or ",
        "A ",
        " ",
        "\n",
        ". ",
        "1.",
        "1,",
        "<think>",
        "</think>",
        "option ",
        "\nQ: ",
        "The sum is 5. ",
        ", or 5",
        "Wait ",
        "takes a ",
        "#### ",
        "\b",
        "\\boxed{1} or ",
        "answer is not 1 ",
        "\u00bd",
        "e\u0301",
    ),
)

pieces = st.lists(
    st.sampled_from([*HOSTILE, "25", "C", "a", "I", "\\frac", "=", "-"]) | st.text(max_size=3), max_size=20
)
texts = st.text(max_size=60) | pieces.map("".join)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}: {row['response'][:50]}")
def test_cases(row: dict[str, str]) -> None:
    assert extract(row["response"], row["kind"]) == row["expected"]  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_responses_take_linear_time(unit: str) -> None:
    response = (unit * MAX_RESPONSE_CHARACTERS)[:MAX_RESPONSE_CHARACTERS]
    start = process_time()
    extract(response, "math")
    extract(response, "choice")
    assert process_time() - start < 2


def test_only_the_end_of_a_long_response_is_read() -> None:
    assert extract("\\boxed{1}" + "." * MAX_RESPONSE_CHARACTERS) is None
    assert extract("." * MAX_RESPONSE_CHARACTERS + "\\boxed{1}") == "1"


@settings(max_examples=150, deadline=None)
@given(texts)
def test_random_text_gives_a_stripped_answer_or_none(text: str) -> None:
    answer = extract(text, "math")
    assert answer is None or answer == answer.strip() != ""
    assert extract(text, "choice") in {None, "A", "B", "C", "D"}


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab {}()$*<>/.\n", max_size=60), st.sampled_from(["7", "\\frac{1}{2}", "\\{1, 2\\}"]))
def test_the_last_box_wins_after_any_text(before: str, answer: str) -> None:
    assert extract(f"{before} \\boxed{{{answer}}}") == answer


@pytest.mark.parametrize(
    ("response", "of_unknown", "of_cut", "of_finished"),
    [
        ("So \\boxed{5}. To see why, we", "explicit", "explicit", "explicit"),
        ("The answer is 5. To see why, we", "explicit", "explicit", "explicit"),
        ("Perhaps the answer is 5. Wait, we", None, None, "explicit"),
        ("So the sum is 5.", "sentence", None, "sentence"),
        ("So we know that the sum is 5", None, None, "sentence"),
        ("So $x = 5$ and then", None, None, "sentence"),
        ("We add.\nx = 5", "sentence", None, "sentence"),
        ("I do not know.", None, None, None),
    ],
)
def test_only_explicit_answers_of_a_cut_response_count(
    response: str, of_unknown: str | None, of_cut: str | None, of_finished: str | None
) -> None:
    for finished, stage in ((None, of_unknown), (False, of_cut), (True, of_finished)):
        found = find_answer(response, finished=finished)
        assert (found.stage if found else None) == stage
        assert found is None or found.answer.removeprefix("x = ") == "5"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown kind 'maths': did you mean 'math'"):
        extract("5", "maths")  # type: ignore[arg-type]


def test_a_number_at_the_very_end_of_a_cut_response_may_lack_digits() -> None:
    loop = "\n#### 40\n#### 40\n#### 4"
    assert find_answer(loop, "math", finished=True) == ("4", "explicit")
    assert find_answer(loop, "math", finished=False) == ("40", "explicit")
