"""Generated benchmark questions: right answers, the same ones everywhere, and solved examples in front."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
import sympy

from lm_eval_pruned.errors import ArgumentError, UnknownNameError
from lm_eval_pruned.models.documents import load_documents
from lm_eval_pruned.models.generated import GENERATED, generate

ARITHMETIC, BRACKETS = "lm_eval_pruned/arithmetic", "lm_eval_pruned/brackets"
SEEDED = random.Random
PAIRS = {"(": ")", "[": "]", "{": "}"}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS = {name: value for value, name in enumerate(NAMES)}


class OnlyRandom:
    """The one method of `random.Random` that gives the same numbers with every version of Python."""

    def __init__(self, seed: int) -> None:
        self.random = SEEDED(seed).random


def solve_words(question: str) -> int:
    start, *steps = question.removesuffix(". What is the result?").replace(" and ", ", ").split(", ")
    value = NUMBERS[start.removeprefix("Start with ")]
    for step in steps:
        verb, number = step.rsplit(" ", 1)
        operand = NUMBERS[number]
        value = {"add": value + operand, "subtract": value - operand, "multiply by": value * operand}[verb]
    return value


def test_answers_are_right():
    for row in generate(ARITHMETIC, 0):
        expression = row["question"].removeprefix("What is ").removesuffix("?")
        value = solve_words(row["question"]) if row["form"] == "words" else sympy.sympify(expression)
        assert str(value) == row["answer"], row


def test_the_answer_closes_what_is_open_and_no_sequence_is_nested_deeper():
    rows = generate(BRACKETS, 0)
    assert len({row["question"] for row in rows}) == len(rows) == 198
    assert [row["nesting"] for row in rows] == [*range(2, 13)] * 18
    for row in rows:
        shown, opened, deepest = row["question"].rpartition(": ")[2].split(), [], 0
        for bracket in shown:
            if bracket in PAIRS:
                opened.append(PAIRS[bracket])
            else:
                assert opened.pop() == bracket, row
            deepest = max(deepest, len(opened))
        assert (" ".join(reversed(opened)), deepest) == (row["answer"], row["nesting"]), row
        # So a whole sequence that is written out ends with the answer, and begins with nothing of it.
        assert shown[-1] in PAIRS


def test_chains_come_in_one_form_too():
    rows = generate(ARITHMETIC, 0, form="assignments")
    assert len({row["question"] for row in rows}) == 192
    for row in rows:
        values = {}
        *steps, asked = row["question"].split(";")
        for step in steps:
            name, expression = step.split("=")
            values[name] = int(sympy.sympify(expression, locals=values)) % 10
        assert str(values[asked[0]]) == row["answer"], row


def test_lengths_and_forms_are_balanced_and_no_question_repeats():
    rows = generate(ARITHMETIC, 0)
    assert len({row["question"] for row in rows}) == len(rows) == 192
    counts = {(row["steps"], row["form"]): 0 for row in rows}
    for row in rows:
        counts[row["steps"], row["form"]] += 1
    assert counts == {(steps, form): 6 for steps in range(1, 17) for form in ("digits", "words")}
    # The first questions, which `--limit` asks, are of all lengths.
    assert [row["steps"] for row in rows[:16]] == list(range(1, 17))


@pytest.mark.parametrize("path", GENERATED)
def test_questions_stay_as_they_are(path, monkeypatch):
    monkeypatch.setattr(random, "Random", OnlyRandom)
    text = json.dumps(generate(path, 3), sort_keys=True)
    assert (
        hashlib.sha256(text.encode()).hexdigest()[:16]
        == {ARITHMETIC: "ca8c8464a20f81a9", BRACKETS: "8301306043f2678b"}[path]
    )


@pytest.mark.parametrize("path", GENERATED)
def test_examples_are_solved_and_not_asked(path):
    rows = load_documents(path, None, split="test", local=None, examples=3)
    first = rows[0]["prompt"]
    assert first.count("\nAnswer:") == 4
    assert first.endswith(f"Question: {rows[0]['question']}\nAnswer:")
    asked = set(rows["question"])
    assert not asked & {line.removeprefix("Question: ") for line in first.splitlines()[:-2]}
    assert [row["question"] for row in generate(path, 0)] == rows["question"][:]


@pytest.mark.parametrize("examples", [-1, 17, 1.0, True, "4", None])
def test_a_wrong_number_of_examples_is_refused(examples):
    with pytest.raises(ArgumentError, match="is not a whole number from 0 to 16"):
        generate(ARITHMETIC, examples)


def test_a_wrong_form_is_refused():
    with pytest.raises(UnknownNameError, match="unknown form 'digit': did you mean 'digits'"):
        generate(ARITHMETIC, form="digit")
    with pytest.raises(ArgumentError, match="form is not an option of lm_eval_pruned/brackets"):
        generate(BRACKETS, form="digits")


def test_other_questions_have_no_examples():
    with pytest.raises(ArgumentError, match=r"examples=2 is for generated questions .* leave it out"):
        load_documents("tiny-reasoner", None, split="test", local=None, examples=2)
