"""Rows of the harness's samples files, turned into rows to grade: one for each response, with its gold answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from lm_eval_pruned.grading.answer_kinds import kind_of
from lm_eval_pruned.grading.extract.extract import extract

# Fields of a document with its answer, where the target is empty or a number of a choice.
_ANSWERS = ("answer", "Answer", "final_answer", "expected_answer", "gold")
_CHOICES = ("choices", "options")
# Fields of the row that are kept, and how long a gold answer may be that is not a solution.
_KEPT = ("doc_id", "doc_hash", "filter")
_MAX_ANSWER = 60
_LETTER = re.compile(r"\(?([A-J])[).]?")


def is_harness_row(row: Mapping[str, object]) -> bool:
    """Whether a row is one of a samples file of the harness.

    Example:
        >>> is_harness_row({"doc_id": 0, "doc": {}, "target": "5", "resps": [["5"]]}), is_harness_row({"gold": "5"})
        (True, False)
    """
    return "doc_id" in row and "resps" in row and "gold" not in row


def gradable(row: Mapping[str, object]) -> Iterator[dict[str, object]]:
    r"""Yield a row with gold answer, kind and response for each response; nothing for log-likelihoods.

    Example:
        >>> row = {"doc_id": 3, "doc": {}, "target": "6/2 = 3\n#### 3", "resps": [["It is 3.", "4"]], "filter": "none"}
        >>> for one in gradable(row):
        ...     print(one)
        {'doc_id': 3, 'filter': 'none', 'sample': 0, 'gold': '3', 'kind': 'math', 'response': 'It is 3.'}
        {'doc_id': 3, 'filter': 'none', 'sample': 1, 'gold': '3', 'kind': 'math', 'response': '4'}
    """
    gold = _gold(row)
    kind = kind_of(gold)
    kept = {name: row[name] for name in _KEPT if name in row}
    responses, extracted = list(_texts(row["resps"])), list(_texts(row.get("filtered_resps")))
    # Our tasks store the answer of each response, found after its thinking. Other filters are not ours to trust.
    is_ours = "thinking_tokens" in row and len(extracted) == len(responses) and extracted != responses
    for sample, response in enumerate(responses):
        graded = {"answer": extracted[sample], "text": response} if is_ours else {"response": response}
        yield {**kept, "sample": sample, "gold": gold, "kind": kind, **graded}


def _gold(row: Mapping[str, object]) -> str:
    """Return the gold answer: the target, the answer at its end if it is a solution, or that of the document."""
    document = row.get("doc")
    fields = document if isinstance(document, Mapping) else {}
    target = row.get("target")
    has_choices = any(isinstance(fields.get(name), list | Mapping) for name in _CHOICES)
    if has_choices and not isinstance(target, bool) and re.fullmatch(r"\d", str(target)):
        return "ABCDEFGHIJ"[int(str(target))]
    text = str(target).strip() if isinstance(target, str | int | float) else ""
    if len(text) > _MAX_ANSWER or "####" in text or "\\boxed" in text:
        # A solution: its answer is at its end.
        text = extract(text) or ""
    if not text:
        given = next((fields[name] for name in _ANSWERS if fields.get(name) not in (None, "")), "")
        text = str(given).strip()
        text = extract(text) or text if "####" in text or "\\boxed" in text else text
    letter = _LETTER.fullmatch(text)
    return letter[1] if letter else text


def _texts(value: object) -> Iterator[str]:
    """Yield the responses in nested lists, leaving out log-likelihoods, which are pairs of a number and a truth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        match value:
            case [str() | float() | int() as number, "True" | "False" | bool()] if _is_float(number):
                return
        for member in value:
            yield from _texts(member)


def _is_float(text: object) -> bool:
    try:
        float(text)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True
