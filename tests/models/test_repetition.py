"""Loops, their onset and repeated n-grams against slow reference implementations."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.assets.tiny_reasoner.chains import sample_chain
from lm_eval_pruned.models.repetition import (
    LOOP_CHARACTERS,
    LOOP_REPEATS,
    LOOP_TAIL,
    loop_onset,
    loop_start,
    repeated_ngrams,
)


def slow_loop_start(text: str) -> int | None:
    """The definition in the docstring of `loop_start`, by trying every period."""
    tail = text[-LOOP_TAIL:]
    starts = []
    for period in range(1, len(tail)):
        length = period
        while length < len(tail) and tail[-length - 1] == tail[-length - 1 + period]:
            length += 1
        if length >= LOOP_REPEATS * period and length >= LOOP_CHARACTERS:
            if length == len(tail):
                while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
                    length += 1
            starts.append(len(text) - length)
    return min(starts, default=None)


@settings(max_examples=150, deadline=None)
@given(
    st.text("ab", max_size=20), st.text("ab", min_size=1, max_size=30), st.integers(1, 40), st.text("ab", max_size=5)
)
def test_loops_match_their_definition(before: str, block: str, repeats: int, after: str) -> None:
    text = before + block * repeats + after
    assert loop_start(text) == slow_loop_start(text)


@pytest.mark.parametrize(
    "text",
    [
        "Let me check. " * 8,
        "So far so good.\n" + "Wait, " * 20,
        "5=" * 40,
        "\n" * 100,
        "prefix " * 2000 + "x" * 80,
        ("A long paragraph that the model writes again and again. " * 8 + "Hmm.\n") * 4,
        "ok " + "the same sentence, " * 10 + "the same sen",
    ],
)
def test_degenerate_repetition_is_a_loop(text: str) -> None:
    assert loop_start(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "i=h*5=9*5=5;j=i+9=5+9=4;k=j*1=4*1=4;",
        "Let me check. " * 4,
        "The pattern is 0.142857142857142857142857142857",
        "\n".join(f"For n = {n} we get n + n = {2 * n}." for n in range(100)),
        "Wait, " * 50 + "the answer is 5.",
        "1000000000000000000000000000000",
        "| a | b |\n|-------------------|-------------------|\n",
    ],
)
def test_reasoning_is_not_a_loop(text: str) -> None:
    assert loop_start(text) is None


def test_arithmetic_chains_are_not_loops() -> None:
    rng = random.Random(0)
    assert not any(loop_start(sample_chain(rng, steps).reasoning) for steps in range(1, 21) for _ in range(20))


@pytest.mark.parametrize(
    ("before", "loop", "times"),
    [("", "x", 80), ("So.\n", "Wait, ", 20), ("ab", "z" * 50 + "y" * 200, 4), ("Begin:", "again and ", 3000)],
)
def test_a_loop_begins_where_its_first_round_does(before, loop, times):
    assert loop_start(before + loop * times) == len(before)


def test_a_loop_of_loops_begins_with_the_outer_one():
    outer = ("z" * 80 + ". ") * 5 + "z" * 80
    assert loop_start("So:" + outer) == slow_loop_start("So:" + outer) == len("So:")


def test_the_first_phase_that_loops_decides():
    loop = "no " * 40
    assert loop_onset(["", loop]) == 0
    assert loop_onset(["x" * 60, loop]) == pytest.approx(60 / 180)
    assert loop_onset([loop, loop]) == 0
    assert loop_onset([loop + "so yes", "5"]) == loop_onset(["", ""]) == 1


@given(st.lists(st.lists(st.sampled_from(["a", "b", "7", "+", "x1"]), max_size=30), max_size=3), st.integers(1, 4))
def test_repeated_ngrams_are_those_seen_before(phases, n):
    repeated = total = 0
    for words in phases:
        for start in range(len(words) - n + 1):
            earlier = [words[place : place + n] for place in range(start)]
            repeated += words[start : start + n] in earlier
            total += 1
    assert repeated_ngrams([" ".join(words) for words in phases], n) == pytest.approx(repeated / total if total else 0)


def test_words_are_cut_without_a_tokenizer():
    # i = h * 3 ; i = h * 4 ;: eight different pairs of eleven.
    assert repeated_ngrams(["i=h*3;i=h*4;"], 2) == pytest.approx(3 / 11)
    assert repeated_ngrams(["Wait, wait", "Wait, wait"], 2) == 0
