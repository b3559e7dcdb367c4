"""Normal forms: examples, idempotence, redundant wrapping, nesting of any depth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_eval_pruned.grading.normalize.normalize import normalize

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "equal.jsonl").read_text().splitlines()]

LATEX = [
    *("\\frac", "\\dfrac", "\\sqrt", "\\text", "\\mbox", "\\left", "\\right.", "\\pi", "\\foo", "\\boxed", "\\!"),
    *("{", "}", "(", ")", "[", "]", "\\{", "\\}", "$", "\\$", "%", "^", "_", ",", ", ", " ", ".", "...", "=", "\\in"),
    *("1", "12", "234", "000", "a", "B", "xy", "XY", "\\text{m}", "^\\circ", "\\", "\\\\", "&", "**", "/", "\\,", '"'),
    *("\u00b2", "\u00bd", "\u221a", "\u0301", "\u0338", "\u00df", "\u0130", "\ufb01", "\u200b", "\u1100", "\u1161"),
    *("\u2088", "\ud800"),
]
answers = st.text(max_size=30) | st.lists(st.sampled_from(LATEX), max_size=14).map("".join)


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        (r"\left( 3, \dfrac{\pi}{2} \right]", r"(3, \frac{\pi}{2}]"),
        (r"\[ x^2_i \]", "x_{i}^{2}"),
        (r"\frac\pi2", r"\frac{\pi}{2}"),
        (r"\sqrt[3]2", r"\sqrt[3]{2}"),
        (r"x^\frac12", r"x^{\frac{1}{2}}"),
        (r"\text{Evelyn}", "evelyn"),
        (r"10\text{ m}", "10meter"),
        (r"\pi x", r"\pi x"),
        (r"\pi{x}", r"\pi x"),
        (r"\overline{AB}C", r"\overline{AB}C"),
        ("{1}{2}", "12"),
        ("1 2/3", "1 2/3"),
        ("1,2,3", "1, 2, 3"),
        ("((x+1))", "x+1"),
        ("(1)(2)", "(1)(2)"),
        ("**25**.", "25"),
        (r"5^{\circ}", r"5^{\circ}"),
        (r"40\%", r"40\%"),
        (r"\$5", r"\$5"),
        (r"\boxed{5}", "5"),
        ("\u0130", "\u0130"),
        ("", ""),
    ],
)
def test_normal_forms(answer: str, form: str) -> None:
    assert normalize(answer) == form


@settings(max_examples=300, deadline=None)
@given(answers)
@example("e$\u0301")
@example("\u1100{}\u1161")
@example("{{\\frac2}\u200b1}")
def test_normalisation_is_idempotent(answer: str) -> None:
    form = normalize(answer)
    assert normalize(form) == form


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["gold"])
def test_redundant_wrapping_changes_nothing(row: dict[str, str]) -> None:
    answer = row["answer"]
    form = normalize(answer)
    if "$" not in answer:
        assert normalize(f"${answer}$") == normalize(f"\\( {answer} \\)") == normalize(f"{{{answer}}}.") == form
    assert normalize(f"\u200b{answer}\u2069") == form


@pytest.mark.parametrize("unit", ["\\*", "&\\\\[4pt]", ", \\\\", "&\\text{", "\\emptyset\\choose *", ".\\ "])
def test_repeated_decoration_needs_a_bounded_number_of_passes(unit: str) -> None:
    form = normalize("{x=" + 500 * unit)
    assert normalize(form) == form


def test_deep_nesting_needs_no_recursion() -> None:
    depth = 20_000
    assert normalize("{" * depth + "x" + "}" * depth) == "x"
    assert normalize("(" * depth + "x" + ")" * depth) == "x"
    assert normalize("\\sqrt" * depth + " x") == "\\sqrt{" * depth + "x" + "}" * depth
    assert normalize("{" * depth + "x") == "x"
