"""Comparison with sympy inside this process: decisions, bounds on sizes, the choice of LaTeX parser."""

from __future__ import annotations

import pytest
import sympy

from lm_eval_pruned.grading.limits import MAX_SYMPY_DEPTH, MAX_SYMPY_DIGITS
from lm_eval_pruned.grading.symbolic import latex_parser as parse
from lm_eval_pruned.grading.symbolic.compare import decide

EQUAL = [
    (r"\int_0^1 x^2 \, dx", r"\frac13"),
    (r"\int_0^\infty e^{-x^2} dx", r"\frac{\sqrt\pi}{2}"),
    (r"\int_0^1\frac{\ln(1+x)}{1+x^2}dx", r"\frac{\pi\ln 2}{8}"),
    (r"\int_0^1 |3x-1| dx", r"\frac{5}{6}"),
    (r"\int x dx", r"\frac{x^2}{2}"),
    (r"\int x^n dx", r"\frac{x^{n+1}}{n+1}"),
    (r"\sum_{k=1}^{10} k^2", "385"),
    (r"\sum_{n=1}^{\infty} \frac{1}{n^2}", r"\frac{\pi^2}{6}"),
    (r"\sum_{k=0}^{n} \binom{n}{k}", "2^n"),
    (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
    (r"\prod_{k=1}^{5} k", "5!"),
    (r"\lim_{x\to 0} \frac{\sin x}{x}", "1"),
    (r"\lim_{x \to \infty} (1+\frac{1}{x})^x", "e"),
    (r"\frac{d}{dx}(x^3)", "3x^2"),
    (r"\log_2 8", "3"),
    (r"\ln(x^2)", r"2\ln x"),
    (r"\ln(x-1)+\ln(x+1)", r"\ln(x^2-1)"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\cos 2x", r"2\cos^2x-1"),
    (r"\sum_{k=1}^{n} (-1)^k", r"\frac{(-1)^n-1}{2}"),
    (r"\tan^{-1} 1", r"\frac\pi4"),
    (r"\sin 30^\circ", "0.5"),
    ("sin(x)cos(x)", r"\frac{\sin 2x}{2}"),
    (r"\sqrt{5+2\sqrt6}", r"\sqrt2+\sqrt3"),
    (r"\sqrt{1-x}\sqrt{1+x}", r"\sqrt{1-x^2}"),
    (r"\sqrt{x^2}", "|x|"),
    (r"\sqrt[3]{-8}", "-2"),
    ("2^{100}", "1267650600228229401496703205376"),
    (r"\sqrt2x=2", r"x-\sqrt2=0"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
    ("x^3-1", "(x-1)(x^2+x+1)"),
    ("0.25x", r"\frac{x}{4}"),
    ("2(3)", "6"),
    ("(2)(3)", "6"),
    (r"2\frac12", r"\frac52"),
    (r"2\frac{1}{2}\pi", r"\frac{5\pi}{2}"),
    (r"e^{i\pi}", "i^2"),
    (r"\frac{2+i}{1-i}", r"\frac{1+3i}{2}"),
    (r"\binom{10}{3}", "120"),
    (r"\frac{n!}{(n-1)!}", "n"),
    ("f(x+1)", "f(1+x)"),
    (r"\infty", r"2\cdot\infty"),
    (r"\begin{pmatrix}1&\sqrt4\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    (
        r"2\begin{pmatrix}1&2\\3&4\end{pmatrix}+\begin{pmatrix}1&0\\0&1\end{pmatrix}",
        r"\begin{pmatrix}3&4\\6&9\end{pmatrix}",
    ),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}\begin{pmatrix}1\\1\end{pmatrix}", r"\begin{pmatrix}3\\7\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{2}", r"\begin{pmatrix}7&10\\15&22\end{pmatrix}"),
    ("x^2+y^2=1", "2-2x^2-2y^2=0"),
    ("-x<-3", "x>3"),
    ("x=5", "5"),
]
UNEQUAL = [
    (r"\int_0^1 x^2 dx", r"\frac14"),
    (r"\sum_{k=1}^{10} k^2", "384"),
    (r"\lim_{x\to 0} \frac{\sin x}{x}", "0"),
    (r"\log_2 8", "2"),
    (r"\sin 2x", r"2\sin x"),
    ("(-1)^n", "1"),
    ("(-1)^{2n}", "-1"),
    (r"\sqrt{5+2\sqrt6}", r"\sqrt2+\sqrt5"),
    (r"\sqrt{x^2}", "x"),
    ("|x|", "x"),
    ("(x+1)^2", "x^2+1"),
    ("2(3)", "5"),
    (r"2\frac12", "1"),
    ("X", "x"),
    # These agree to 29 digits.
    (r"e^{\pi\sqrt{163}}", "640320^3+744"),
    ("10^{-40}", "0"),
    ("10^{-40}", "10^{-41}"),
    ("2^{1000}", "2^{1000}+1"),
    ("x^2+10^{-20}", "x^2"),
    (r"\sqrt2x=2", r"x+\sqrt2=0"),
    (r"\frac{x^2}{2}+10^{-20}", r"\int x dx"),
    (r"\infty", r"-\infty"),
    (r"\infty", "1"),
    (r"\{1,2\}", r"\{1,3\}"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    (r"\{1,1,2\}", r"\{1,2,2\}"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("[1,2)", "(1,2]"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("x<3", "x>3"),
    ("x<3", r"x\le3"),
    ("y=x", "y=2x"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}\begin{pmatrix}1\\1\end{pmatrix}", r"\begin{pmatrix}3\\8\end{pmatrix}"),
]
UNDECIDED = [
    ("5^{5^{5^{5^5}}}", "1"),
    ("10^{10^{10}}", "10^{10^{10}}"),
    ("x^{10^{10}}", "1"),
    ("1000000!", "1"),
    ("((100!)!)!", "1"),
    (r"\binom{10^{9}}{10^{8}}", "1"),
    (r"\prod_{k=1}^{10^9} k", "1"),
    (r"e^{e^{e^{e^{9}}}}", "1"),
    (r"\frac{1}{0}", "1"),
    ("101_2", "101"),
    ("x'", "x"),
    ("east", "seat"),
    (r"\text{odd}", "ddo"),
    (r"40\%", "40"),
    ("2 3", "23"),
    # One reading halves x, the other divides by it.
    ("1/2x", r"\frac{x}{2}"),
    ("(1,2)", r"\{1,2\}"),
    ("f(x)", "g(x)"),
    (r"\operatorname{eye}{100000}", "1"),
    (r"\input{/etc/passwd}", "1"),
    ("__import__('os').system('true')", "1"),
    ("", "1"),
    ("(1", "1"),
    (r"x\in\{1\}", "x=1"),
    ("9" * (MAX_SYMPY_DIGITS + 1), "1"),
    ("(" * (MAX_SYMPY_DEPTH + 1) + "x" + ")" * (MAX_SYMPY_DEPTH + 1), "x"),
    (",".join("1" * 100), "1"),
]


@pytest.mark.parametrize(
    ("left", "right", "wanted"),
    [(*pair, True) for pair in EQUAL] + [(*pair, False) for pair in UNEQUAL + UNDECIDED],
)
def test_decisions_do_not_depend_on_the_order(left: str, right: str, wanted: bool) -> None:
    assert (decide(left, right).equal is True) is wanted
    assert decide(left, right) == decide(right, left)


def test_sizes_are_bounded_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(parse, "_evaluate", computed)
    for text in ("7^{7^{7^{7}}}", "(20!)!", r"\prod_{k=1}^{10^9} k"):
        with pytest.raises(parse.UnreadableError, match="too large"):
            parse.parse(text)


def test_decimals_are_exact() -> None:
    assert parse.parse("0.1") == sympy.Rational(1, 10)
    assert decide("0.3333333333333333333333333333333333333333", r"\frac13").equal is False
