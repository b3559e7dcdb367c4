"""Benchmark questions that are generated from a seed, so that they need neither a data set nor a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.models.generated.arithmetic import arithmetic_questions
from lm_eval_pruned.models.generated.brackets import bracket_questions
from lm_eval_pruned.models.generated.question import MAX_EXAMPLES, Question

# Data sets by the `dataset_path` of task files. The first `MAX_EXAMPLES` questions are those to show solved.
GENERATED: Mapping[str, Callable[..., list[Question]]] = {
    "lm_eval_pruned/arithmetic": arithmetic_questions,
    "lm_eval_pruned/brackets": bracket_questions,
}


def generate(path: str, examples: object = 0, **options: object) -> list[dict[str, object]]:
    """Return the rows of a generated data set: `prompt`, `question`, `answer` and what else describes a question.

    Args:
        path: one of `GENERATED`.
        examples: number of solved questions in front of each, for base models; they are none of those asked.
        options: what else the questions depend on, `form` for arithmetic.

    Raises:
        ArgumentError: `examples` is not a whole number from 0 to 16, or an option is not one of these questions.
        UnknownNameError: `form` is none that there is.
    """
    if isinstance(examples, bool) or not isinstance(examples, int) or not 0 <= examples <= MAX_EXAMPLES:
        raise ArgumentError(f"metadata: examples={examples!r} is not a whole number from 0 to {MAX_EXAMPLES}")
    known = inspect.signature(GENERATED[path]).parameters
    if unknown := options.keys() - known.keys():
        raise ArgumentError(f"metadata: {', '.join(sorted(unknown))} is not an option of {path}: leave it out")
    questions = GENERATED[path](**options)
    solved, asked = questions[:MAX_EXAMPLES], questions[MAX_EXAMPLES:]
    return [{"prompt": prompt_of(row, solved[:examples]), **row} for row in asked]


def check_options(path: str, **options: object) -> None:
    """Check the options of the questions of a data set, which are none where they are not generated.

    Raises:
        ArgumentError, UnknownNameError: as `generate`, or the questions are not generated.
    """
    if path in GENERATED:
        generate(path, **options)
    elif given := ", ".join(f"{name}={value!r}" for name, value in options.items() if value):
        raise ArgumentError(
            f"metadata: {given} is for generated questions ({', '.join(GENERATED)}), and those of {path} are not: "
            "leave it out"
        )


def prompt_of(row: Question, solved: list[Question]) -> str:
    r"""Return the text of a question, after solved ones if there are any.

    Example:
        >>> prompt_of({"question": "1 + 1?", "answer": "2"}, [{"question": "2 + 1?", "answer": "3"}])
        'Question: 2 + 1?\nAnswer: 3\n\nQuestion: 1 + 1?\nAnswer:'
    """
    if not solved:
        return str(row["question"])
    shown = "".join(f"Question: {one['question']}\nAnswer: {one['answer']}\n\n" for one in solved)
    return f"{shown}Question: {row['question']}\nAnswer:"
