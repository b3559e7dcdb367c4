"""Parser: values, kinds of nodes, labels of names, and forms that are refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from lm_eval_pruned.grading.compare.evaluate import evaluate_exactly, free_names
from lm_eval_pruned.grading.limits import MAX_PARSED_CHARACTERS, MAX_PARSER_DEPTH
from lm_eval_pruned.grading.normalize.normalize import normalize
from lm_eval_pruned.grading.read.parser import read


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (r"-2\frac{1}{2}", Fraction(-5, 2)),
        ("3 1/4", Fraction(13, 4)),
        (r"2\frac{7}{2}", 7),  # not a mixed number: the neighbours are multiplied
        (r"0.1\overline{6}", Fraction(1, 6)),
        (r"2^{-2}\cdot 3!", Fraction(3, 2)),
        ("2-3-4", -5),
        ("12/3/2", 2),
        ("6/2(3)", 9),
        ("--3", 3),
        ("2--3", 5),
        (r"|{-3}|+\lfloor 2.7\rfloor+\lceil 2.2\rceil", 8),
        ("2|3-5||-2|", 8),
        (r"\binom{6}{2}", 15),
        (r"\gcd(12, 18)+\operatorname{lcm}(4,6)", 18),
        (r"\max(2, 7, 5)", 7),
        ("2^10", 1024),
        (r"\left(\frac{2}{3}\right)^{2}", Fraction(4, 9)),
        (r"1.5\times10^{3}", 1500),
    ],
)
def test_rational_values(answer, value):
    tree = read(normalize(answer))
    assert tree is not None
    assert evaluate_exactly(tree) == value


@pytest.mark.parametrize(
    ("answer", "head", "label"),
    [
        ("(1,2)", "bracket", "()"),
        ("[1,2)", "bracket", "[)"),
        (r"\langle 1,2\rangle", "bracket", "()"),
        (r"\{1,2\}", "set", ""),
        (r"\{\}", "set", ""),
        ("1,2", "list", ""),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "matrix", ""),
        (r"(1,2]\cup[3,4)\cup(5,6)", "union", ""),
        ("1<x\\le 3", "relation", "< <="),
        (r"\{x\mid x>2\}", "relation", "<"),
        ("2:3:4", "ratio", ""),
        (r"\sin^{2}x", "^", ""),
        (r"\log_{2}(x)", "*", ""),
    ],
)
def test_heads_and_labels(answer, head, label):
    tree = read(normalize(answer))
    assert tree is not None
    assert (tree.head, tree.label) == (head, label)


def test_names_keep_subscripts_primes_and_case():
    tree = read(normalize(r"x_{1}+x_{12}+y'+A\alpha+a-\pi e i"))
    assert tree is not None
    assert free_names(tree) == {"x_{1}", "x_{12}", "y'", "A", "a", "\\alpha"}


@pytest.mark.parametrize(
    "answer",
    [
        "", "+", "1+", "(1", "1)", "(1,2", "[1", r"\{1", "1,,2", ",1", "=", "x=", r"\frac{1}", r"\frac{1}{", r"\sqrt{}",
        "x^{", "x^{}", r"\begin{pmatrix}1&2", r"\begin{cases}1\\2\end{cases}", r"1,2,\ldots,9", "1...9", "evelyn",
        r"\int_0^1 x\,dx", "5 apples and", "2 3", "3.4.5", "x$y", "\\undefined{3}", "|x", "((((", "!", "&", "3&4",
    ],
)  # fmt: skip
def test_forms_that_cannot_be_parsed_to_their_end(answer):
    assert read(normalize(answer)) is None


def test_a_long_product_is_flat_and_deep_nesting_is_refused():
    tree = read(normalize("x" + r"\cdot x" * 200))
    assert tree is not None
    assert len(tree.parts) == 201
    assert read("(" * MAX_PARSER_DEPTH + "x" + ")" * MAX_PARSER_DEPTH) is None
    assert read("(" * 10 + "x" + ")" * 10) is not None
    assert read("1+" * MAX_PARSED_CHARACTERS + "1") is None
