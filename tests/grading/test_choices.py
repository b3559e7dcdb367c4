"""Choice letters: ways to choose one, alone and before a list of the others, and texts that choose none."""

from __future__ import annotations

import re

import pytest

from lm_eval_pruned.grading import grade
from lm_eval_pruned.grading.extract.extract import extract, find_answer

# One row for each wording; "|" separates wordings of the same kind.
CHOSEN = r"""
The answer is C.|the answer is (c).|Answer: C|Answer : C|answer - C|Answer C|Answer (C)|**Final answer: C**
### Final Answer\nC
\boxed{C}|\boxed{\text{(C)}}|\boxed{C. 5 eV}|\boxed{C) 5 eV}|\boxed{C - 5 eV}|\boxed{C, 5 eV}
\boxed{C (5 eV)}|\boxed{c}
\boxed{\text{Option C}}|\boxed{\text{The answer is C}}|\boxed {C}|<answer> c </answer>
<answer>C. the blue one</answer>
{"answer": "C"}|{"answer": "C) blue"}|{"reason": "A is too small", "final_answer": "c"}
I choose C.|I'd go with (c)|I'll go with option C.|Select option C.|My choice: C|I would say the answer is C.
I vote for C.
Option C is correct.|C is the best choice.|C must be the answer.|So C is our answer.|C it is.
Option C best explains the data.
The correct option is C.|The closest option is (C).|The false statement is C.
The statement that is not true is C.|Correct: C
The only choice consistent with the data is C.|The answer seems to be C.|The answer is C, not B.
The answer is C; A is too small.
The answer is **C. 5 eV**.|The answer is:\n\n**C**|The answer is $\mathbf{(C)}$.|The answer is C because A and B fail.
That leaves C.|Only C survives.|It must be C.|So, C.|Hence (C)|Therefore, option C.|The answer is not A, B or D.
This matches option C.|This corresponds to (C).|The value is 5 eV (option C).
The isomer is **Option C**: the endo one.
C|(C)|**C**|`C`|c)|**Option C**|> C
\u7b54\u6848\u662fC\u3002|\u6240\u4ee5\u9009C|\u9009\u62e9C|\u3010\u7b54\u6848\u3011C
\u6b63\u89e3\u306fC\u3067\u3059\u3002|C\u9009\u9879\u6b63\u786e
"""
WHOLE_LINES = (
    r"C. 5 eV|C) Plane|C: 5 eV|**C. 5 eV**|Option C: 5 eV|c. 5|C. Because B is not valid|The value is 5 eV (C)."
)
OPEN = r"""
A perfect crystal has no defects.|D is the diffusion constant.|SMILES: CC(=O)O|Vitamin C is an acid.
The operator A commutes with B.
Compound A reacts with B to give C and D.|The DNA has bases A, C, G and T.
the strain of C-H bonds at 4 \u00b0C|The rate of C = 5.
The answer is either A or C.|The answer is (A) or (C).|The answers are A and C.|Answer: A, C|Answer: AC
\boxed{A or C}|Is it C?
The correct answer is (A) 5 eV or (C) 6 eV.|It may be A.|The answer might be A, or possibly C.
I don't think C is correct.
Answer: None of the above|The correct answer is not listed.|Answer: E|The answer is 42.|\boxed{\text{blue}}
<answer></answer>
Answer: A strong acid|Answer: DNA|Answer: C2v|The answer is C is not correct, but|The answer cannot be C.
Option A is wrong.
If A is correct, then B is too.|Neither A nor B is correct.|Whether C is correct depends on the pH.
A is true. B is true.
Options:\nA) 1\nB) 2\nC) 3\nD) 4|(A) 1 (B) 2 (C) 3 (D) 4
To find the answer, look at each option:\n\nA) 5 eV: too small.
Hence A cannot be right.|Let us look at option D:|According to option C the rate doubles.
Hmm, so perhaps the ratio of C to
**A. red**\nToo long.\n\n**B. green**\nToo short.\n\n**C. blue**\nHmm.|(a) The energy is 5 eV. (b) The mass is 3 kg.
"""
BEFORE = "First, A is too small, and D would need heat.\n\n"
LISTS = (
    "\n\nWhy not the rest:\n* **A. 1 eV:** too small.\n* **B. 2 eV:** violates energy.\n* **D. 9 eV:** absurd.",
    "\n\nThe other options are wrong: A is too small, B violates parity, and D is not physical.",
    "\n\n- (A) is incorrect because it ignores friction.\n- (D) is incorrect since energy is lost.",
    "\n\nSMILES: O=C(OC)B1CCN1",
)


def wordings(rows: str) -> list[str]:
    """Split rows into wordings, in which line breaks and characters outside ASCII are written as escapes."""
    unescaped = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), rows)
    return [text.replace(r"\n", "\n") for line in unescaped.strip().split("\n") for text in line.split("|")]


@pytest.mark.parametrize("wording", wordings(CHOSEN))
@pytest.mark.parametrize("after", ["", *LISTS])
def test_a_choice_is_found_before_lists_and_formulas(wording: str, after: str) -> None:
    assert extract(BEFORE + wording + after, "choice") == "C"


@pytest.mark.parametrize("wording", wordings(WHOLE_LINES))
def test_an_option_alone_on_a_line_is_a_choice_if_the_response_is_not_cut(wording: str) -> None:
    assert find_answer(BEFORE + wording, "choice") == ("C", "sentence")
    assert find_answer(BEFORE + wording, "choice", finished=False) is None


@pytest.mark.parametrize("wording", wordings(OPEN))
def test_nothing_is_chosen(wording: str) -> None:
    assert extract(wording, "choice") is None
    assert extract("Let us think. The gap is 5 eV.\n\n" + wording, "choice") is None


@pytest.mark.parametrize(
    ("response", "finished", "found"),
    [
        ("The answer is C. More precisely, the gap is", None, ("C", "explicit")),
        ("The answer is C. More precisely, the gap is", False, ("C", "explicit")),
        ("This matches (C).", None, ("C", "sentence")),
        ("This matches (C).", False, None),
        ("This matches (C). More precisely, the gap of the sample is", None, None),
        ("This matches (C). More precisely, the gap of the sample is", True, ("C", "sentence")),
        ("<think>\nThe options are hot and cold.\n\nB", False, None),
        ("<think>\nThe options are hot and cold.\n\nB", True, ("B", "explicit")),
    ],
)
def test_a_response_that_is_cut_has_only_explicit_choices(
    response: str, finished: bool | None, found: tuple[str, str] | None
) -> None:
    assert find_answer(response, "choice", finished) == found


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The answer is A or B. On balance I choose (B).", "B"),
        ("The answer is B. Option D is correct for gases only.", "B"),
        ("(B) is true. (C) is true. (D) is false. Therefore (C) is correct.", "C"),
        ("The answer is (B).\n\nQuestion: What is red?\nOptions:\nA. x\nAnswer: The answer is (A).", "B"),
        ("The value is \\boxed{42}, so the answer is (B)", "B"),
        ("None of the options fits. The closest option is D.", "D"),
        ("The closest option is D. But the correct answer is not listed.", None),
    ],
)
def test_the_most_forceful_statement_decides(response: str, letter: str | None) -> None:
    assert extract(response, "choice") == letter


def test_a_gold_that_is_not_a_letter_from_a_to_d_is_named() -> None:
    assert grade("C) blue", "The answer is C.", "choice").correct
    assert grade("F", "The answer is C.", "choice").reason == "the gold is not a letter from A to D"
