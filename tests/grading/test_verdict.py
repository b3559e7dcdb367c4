"""Verdicts: statuses, forms, times, the cache, and lists of boxes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.errors import UnknownNameError
from lm_eval_pruned.grading import Verdict, grade, verify
from lm_eval_pruned.grading import verdict as verdict_module
from lm_eval_pruned.grading.equal import Equality
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS, MAX_CACHED_CHARACTERS
from tests.grading.test_extract import texts


@pytest.mark.parametrize(
    ("verdict", "correct", "status", "extracted"),
    [
        (grade("204", r"\boxed{204}"), True, "ok", "204"),
        (grade("204", r"\boxed{205}"), False, "ok", "205"),
        (grade("204", "I give up now."), False, "no_answer", None),
        (grade("204", "</think>"), False, "no_answer", None),
        (grade("204", r"\boxed{\,}"), False, "unparsed", "\\,"),
        (grade("204", r"\boxed{$}"), False, "no_answer", None),
        (grade("C", "So it is (C).", "choice"), True, "ok", "C"),
        (grade("(C)", "So it is (D).", "choice"), False, "ok", "D"),
        (grade("C", "No idea.", "choice"), False, "no_answer", None),
        (grade("carbon", "So it is (C).", "choice"), False, "unparsed", "C"),
        (verify("204", "204.0"), True, "ok", "204.0"),
        (verify("204", "  "), False, "no_answer", None),
        (verify("204", "1" * (MAX_ANSWER_CHARACTERS + 1)), False, "unparsed", "1" * (MAX_ANSWER_CHARACTERS + 1)),
        (verify("B", r"\text{(b)}", "choice"), True, "ok", r"\text{(b)}"),
        (verify("B", "about five", "choice"), False, "unparsed", "about five"),
    ],
)
def test_verdicts(verdict: Verdict, correct: bool, status: str, extracted: str | None) -> None:
    assert (verdict.correct, verdict.status, verdict.extracted) == (correct, status, extracted)
    assert verdict.reason


@settings(max_examples=150, deadline=None)
@given(texts, texts, st.sampled_from(["math", "choice", "brackets"]))
def test_no_text_raises_and_only_a_decision_is_correct(gold: str, response: str, kind: str) -> None:
    for verdict in (grade(gold, response, kind), verify(gold, response, kind)):  # type: ignore[arg-type]
        assert verdict.status == "ok" or not verdict.correct
        assert (verdict.status == "no_answer") == (verdict.extracted is None)


@pytest.mark.parametrize("judge", [grade, verify])
def test_an_unknown_kind_is_refused(judge: object) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kind 'letter'.*Known: brackets, choice, math"):
        judge("A", "A", "letter")  # type: ignore[operator]


def test_a_verdict_cannot_be_changed() -> None:
    verdict = verify("1", "1")
    names = ["correct", "status", "reason", "extracted", "gold_form", "answer_form", "stage", "milliseconds"]
    assert [field.name for field in fields(Verdict)] == names
    with pytest.raises(FrozenInstanceError):
        verdict.correct = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("verdict", "forms"),
    [
        (verify(r"\dfrac12", "{0.50}."), (r"\frac{1}{2}", "0.50")),
        (grade("x = 2 or x = 3", r"\boxed{3}, \boxed{2}"), ("x=2, x=3", "3, 2")),
        (verify("(c)", "D) five", "choice"), ("C", "D")),
        (verify("(c)", "five", "choice"), ("C", None)),
        (grade("7", "No idea at all."), (None, None)),
        (verify("7", "7", mode="hendrycks"), (None, None)),
    ],
)
def test_a_verdict_shows_what_was_compared(verdict: Verdict, forms: tuple[str | None, str | None]) -> None:
    assert (verdict.gold_form, verdict.answer_form) == forms


def test_time_is_measured_and_does_not_count_in_comparisons() -> None:
    calculus = verify(r"\int_0^1 46x\,dx", "23")
    again = verify(r"\int_0^1 46x\,dx", "23")
    assert calculus.correct
    assert again.milliseconds < calculus.milliseconds / 2
    assert calculus.milliseconds > verify("1", "2").milliseconds > 0
    assert calculus.milliseconds != again.milliseconds
    assert (calculus, hash(calculus), repr(calculus)) == (again, hash(again), repr(again))
    assert grade("1", "x" * 100_000).milliseconds > verify("1", "2").milliseconds
    assert verify("1", "2", mode="s1").milliseconds > 0
    assert grade("1", "no answer", mode="s1").milliseconds > 0


def test_importing_grading_loads_no_heavy_package() -> None:
    code = "import sys, lm_eval_pruned.grading; print({'torch', 'sympy', 'lm_eval', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_joined_boxes_are_a_list():
    response = "Trying \\boxed{9} first.\nHence $x=\\boxed{2}$ or $x=\\boxed{-3}$."
    assert grade("-3, 2", response).correct
    assert grade("-3, 2", response).extracted == "2, -3"
    assert not grade("-3", response).correct
    assert not grade("2, 9", response).correct
    assert not grade("(2, -3)", response).correct
    assert grade("x<0 or x>4", r"Hence \boxed{x>4} or \boxed{x<0}.").correct


def test_verdicts_are_cached_and_timeouts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter(
        [Equality(False, "not decided in time", "timeout"), Equality(True, "decided"), Equality(False, "asked again")]
    )
    monkeypatch.setattr(verdict_module, "equal_forms", lambda *_: next(outcomes))
    reasons = [verify("a pair of its own", "51").reason for _ in range(3)]
    assert reasons == ["not decided in time", "decided", "decided"]
    assert verify("51", "a pair of its own").reason == "asked again"
    verdict_module.clear_cached_verdicts()


def test_long_answers_are_not_cached() -> None:
    size = verdict_module._judge.cache_info().currsize
    verify("7", "x" * MAX_CACHED_CHARACTERS)
    assert verdict_module._judge.cache_info().currsize == size
