"""Grading modes: properties of every mode, and agreement with the graders that they reproduce."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_pruned.errors import UnknownNameError
from lm_eval_pruned.grading.answer_kinds import Kind
from lm_eval_pruned.grading.equal import equal
from lm_eval_pruned.grading.limits import MAX_ANSWER_CHARACTERS
from lm_eval_pruned.grading.modes import MODES, grade, hendrycks, minerva, prm800k, s1, verify
from lm_eval_pruned.grading.modes.typed import strip_group_commas, type_answer
from tests.grading.test_extract import HOSTILE

OTHERS = [name for name in MODES if name != "default"]
# The comparison of each mode, without the bound on length that `verify` checks first.
EQUAL = {
    "default": equal,
    "hendrycks": hendrycks.equal,
    "minerva": minerva.equal,
    "prm800k": prm800k.equal,
    "s1": s1.equal,
}
LENGTH = 100_000

PIECES = ["\\frac", "\\sqrt", "\\text{", "\\boxed{", "{", "}", "1", "2", ",", "=", "/", " ", "$", ".", "\n", "cm", "\\"]
answers = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def extract_in(name: str, response: str, kind: Kind = "math") -> str | None:
    found = MODES[name].find(response, kind, None)
    return found.answer if found else None


@pytest.fixture(scope="module")
def rows(data_folder: Path) -> list[dict[str, object]]:
    names = ["math500", "aime24", "amc23"]
    return [json.loads(line) for name in names for line in (data_folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def golds(rows: list[dict[str, object]]) -> list[str]:
    return [str(row["answer"]) for row in rows]


def variants(gold: str) -> Iterator[str]:
    yield from (gold, f"${gold}$", f"x={gold}", f"abc={gold}", f".{gold}", f"{gold}\\text{{ cm}}", f"{gold}^\\circ")
    yield from (gold.replace("frac", "dfrac"), gold.replace("{", "").replace("}", ""), gold[1:], gold[:-1])
    yield from (f"{gold}\\%", f"{gold}/2", f"\\text{{ {gold}}}\\text{{ cm}}", f"{gold}\\sqrt", f"{gold}\\frac1")


def test_the_modes() -> None:
    assert set(MODES) == {"default", "hendrycks", "minerva", "prm800k", "s1"}
    for mode in MODES.values():
        assert mode.summary.endswith(".")
        assert len(mode.summary) < 100


@pytest.mark.parametrize("name", MODES)
class TestEveryMode:
    def test_every_gold_equals_itself(self, name: str, golds: list[str]) -> None:
        assert [gold for gold in golds if not EQUAL[name](gold, gold)] == []

    def test_every_gold_is_found_and_right(self, name: str, golds: list[str]) -> None:
        form = (
            "Final Answer: The final answer is ${}$. I hope it is correct."
            if name == "minerva"
            else "So \\boxed{{{}}}."
        )
        for gold in golds:
            assert verify(gold, extract_in(name, form.format(gold)), mode=name).correct, gold

    def test_other_numbers_are_wrong(self, name: str) -> None:
        for gold, answer in [("204", "205"), ("\\frac{1}{2}", "\\frac{1}{3}"), ("(1,2)", "(2,1)"), ("-5", "5")]:
            assert not EQUAL[name](gold, answer)

    @pytest.mark.parametrize("unit", [*HOSTILE, "\\frac", "\\sqrt", "\\text{", "1,234", "^ ", "cm ", "1 ", "Answer:"])
    def test_hostile_text_is_judged_in_time(self, name: str, unit: str) -> None:
        text = (unit * LENGTH)[:LENGTH]
        start = process_time()
        extract_in(name, text)
        verify(text[: MAX_ANSWER_CHARACTERS - 1], f"{text[: MAX_ANSWER_CHARACTERS - 1]}1", mode=name)
        assert process_time() - start < 2


@pytest.mark.parametrize("name", MODES)
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["7", "C", "\\frac{1}{2}"]), answers)
def test_grading_is_extracting_and_verifying(name: str, gold: str, response: str) -> None:
    for kind in get_args(Kind):
        graded = replace(grade(gold, response, kind, mode=name), stage=None)
        assert graded == verify(gold, extract_in(name, response, kind), kind, mode=name)


@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=60, deadline=None)
@given(answers, answers)
def test_no_text_raises_and_order_does_not_matter(name: str, gold: str, answer: str) -> None:
    verdict = verify(gold, extract_in(name, answer), mode=name)
    assert verdict.reason
    assert verdict.status in {"ok", "no_answer", "unparsed"}
    assert EQUAL[name](gold, answer).correct == EQUAL[name](answer, gold).correct


class TestHendrycks:
    @pytest.mark.parametrize(
        ("response", "box"),
        [
            ("\\boxed{1} and \\boxed{2", None),
            ("\\fbox{3}", "3"),
            ("\\fbox{3} \\boxed{4}", "4"),
            ("$\\boxed 7$ then \\boxed{8}", "7"),
            ("\\boxed\\frac{1}{2}", None),
            ("nothing", None),
        ],
    )
    def test_last_box(self, response: str, box: str | None) -> None:
        assert hendrycks.extract(response) == box


class TestMinerva:
    @pytest.mark.parametrize(
        ("response", "answer"),
        [
            ("x\nFinal Answer: The final answer is $24$. I hope it is correct.\nProblem: 2", "$24$"),
            ("Final Answer: The final answer is 5. I hope it is correct. Final Answer: The final answer is 6.", "5"),
            ("Final Answer: The final answer is 5", None),
            ("Final Answer: The final answer is 5. I hope it is correct\nmore", None),
            ("Final Answer: The final answer is\n5. I hope it is correct.", None),
            ("Final Answer: The final answer is 5\nFinal Answer: The final answer is 6. ", "6"),
            ("The answer is \\boxed{5}.", None),
        ],
    )
    def test_extracts(self, response: str, answer: str | None) -> None:
        assert minerva.extract(response) == answer

    @pytest.mark.parametrize(
        ("answer", "form"),
        [
            ("x = 5", "5"),
            ("1,234,567", "1234567"),
            ("12 square inches", "12"),
            ("so $\\frac12$ it is $3$", "\\frac{1}{2}"),
            ("\\text{Evelyn}", "Evelyn"),
            ("\\mbox{(A)}", "(A)"),
            ("\\textbf{\\overline{AB}}", "AB"),
            ("\\text{c\\text{b}", "c\\text{b"),
            ("\\boxed{\\sqrt2}", "\\sqrt{2}"),
            ("90^{\\circ}", "90"),
            ("\\text{a", "\\text{a"),
        ],
    )
    def test_normal_forms(self, answer: str, form: str) -> None:
        assert minerva.normal_form(answer) == form

    def test_empty_normal_forms_are_not_equal(self) -> None:
        assert not minerva.equal("dollars", "meters")


class TestPrm800k:
    @pytest.mark.parametrize(
        ("gold", "answer", "same"),
        [
            ("1/2", "0.5", True),
            ("1/2", "2/4", False),
            ("3\\frac{1}{2}", "7/2", True),
            ("3\\frac{1}{2}", "3.5", True),
            ("2", "4/2", False),
            ("0.333", "1/3", False),
            ("1,234", "1234.0", True),
            ("1,234,567,890", "1234567890", False),
            ("(1, \\tfrac{1}{2})", "(1,0.50)", True),
            ("(1,2)", "[1,2]", False),
            ("(1,2)", "(1,2,3)", False),
            ("[0,\\infty)", "[0, inf)", True),
            ("5 \\text{ cm}^2", "5", True),
            ("\\text{Evelyn}", "evelyn", True),
            ("7 or -7", "7, -7", True),
            ("\\frac{\\sqrt{3}}{2}", "sqrt(3)/2", True),
            ("\\sqrt{8}", "2\\sqrt{2}", False),
            ("12345678901234567891", "12345678901234567890", False),
            ("5", "", False),
            ("5", "5.", True),
            ("0", ".0.", False),
        ],
    )
    def test_pairs(self, gold: str, answer: str, same: bool) -> None:
        assert prm800k.equal(gold, answer).correct is same

    def test_a_heading_comes_before_a_box(self) -> None:
        assert extract_in("prm800k", "\\boxed{4}\n# Answer\n\n5") == "5"

    def test_typed_text_has_no_latex_braces(self, golds: list[str]) -> None:
        for gold in golds:
            assert not {"{", "}", " ", "$"} & set(type_answer(gold))

    def test_group_commas(self) -> None:
        assert strip_group_commas("(1,234, 5,678)") == "(1234, 5678)"
        assert strip_group_commas("1,2345") == "1,2345"


class TestS1:
    @pytest.mark.parametrize(
        ("response", "answer"),
        [
            ("<|im_start|>think\n\\boxed{1}\n<|im_start|>answer\nFinal Answer: 5", "5"),
            ("<|im_start|>think\n1<|im_start|>other\nIt is\n\\fbox{6}", "6"),
            ("<|im_start|>think\nAnswer: 7", "7"),
            ("<|im_start|>answer\\boxed{8}", "8"),
            ("answer : 1\nAnswer: 2 ", "1\nAnswer: 2 "),
            ("\\boxed{9} \\boxed 3$.", "3"),
            ("Answer: 4 \\boxed{5", "4 \\boxed{5"),
            (" 27 cents.", " 27 cents."),
            ("<|im_start|>think\n 27", " 27"),
            ("<|im_start|> 27", " 27"),
        ],
    )
    def test_extracts(self, response: str, answer: str) -> None:
        assert s1.extract(response) == answer

    @pytest.mark.parametrize(
        ("gold", "answer", "same"),
        [("025", "25", True), ("27", "27.0", False), ("0", "000", True), ("C", "C", True), ("\u00b2", "2", False)],
    )
    def test_pairs(self, gold: str, answer: str, same: bool) -> None:
        assert s1.equal(gold, answer).correct is same


@pytest.mark.parametrize("name", OTHERS)
def test_long_answers_are_compared_as_strings(name: str) -> None:
    text = "1" * (MAX_ANSWER_CHARACTERS + 1)
    assert verify(text, text, mode=name).status == "ok"
    assert verify(text, text + "0", mode=name).status == "unparsed"


@pytest.mark.parametrize("name", OTHERS)
def test_an_empty_answer_is_no_answer(name: str) -> None:
    assert [verify("5", answer, mode=name).status for answer in (None, "", " ")] == ["no_answer"] * 3


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown mode 'hendryks': did you mean 'hendrycks'"):
        verify("5", "5", mode="hendryks")
    with pytest.raises(UnknownNameError, match="unknown mode 's2'"):
        grade("5", "5", mode="s2")
    with pytest.raises(UnknownNameError, match="unknown kind 'letter'"):
        verify("5", "5", "letter", mode="s1")  # type: ignore[arg-type]
