"""Make the logs of Inspect in this folder: python make_inspect.py, in an environment with inspect_ai."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from inspect_ai import Epochs, Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalError, read_eval_log, write_eval_log
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    ModelAPI,
    ModelOutput,
    modelapi,
)
from inspect_ai.scorer import Score, choice, f1, match, mean, scorer, stderr
from inspect_ai.solver import generate, multiple_choice, system_message

HERE = Path(__file__).parent
# What the model says next; Inspect asks for one after the other.
answers: list[str] = []


@modelapi(name="told")
def told() -> type[ModelAPI]:
    class Told(ModelAPI):
        async def generate(self, *_: object, **__: object) -> ModelOutput:
            content = [ContentReasoning(reasoning="Hm."), ContentText(text=f"ANSWER: {answers.pop(0)}")]
            message = ChatMessageAssistant(content=content, model=self.model_name)
            choices = [ChatCompletionChoice(message=message, stop_reason="stop")]
            return ModelOutput(model=self.model_name, choices=choices)

        async def count_tokens(self, *_: object, **__: object) -> int:
            return 1

    return Told


@scorer(metrics={"ease": [mean(), stderr()], "style": [mean()]})
def two():
    async def score(state, target):
        return Score(value={"ease": float(target.text in state.output.completion), "style": 0.5})

    return score


SUMS = [Sample(input=f"{n} + {n + 3}?", target=str(2 * n + 3)) for n in range(10)]
LARGER = [
    Sample(input=[ChatMessageUser(content=f"Larger, {n} or {n + 5}?")], choices=[str(n), str(n + 5)], target="B")
    for n in range(4)
]


def make(name: str, task: Task, told: Iterable[object], model: str = "told/small/model", **settings: object) -> None:
    answers[:] = map(str, told)
    with TemporaryDirectory() as folder:
        one_by_one = {"max_samples": 1, "max_connections": 1, "display": "none", "log_dir": folder}
        (log,) = inspect_eval(task, model=model, **one_by_one, **settings)
        whole = read_eval_log(log.location)
        whole.eval.revision, whole.eval.task_file = None, None
        for sample in whole.samples or ():
            # Events are most of the file, and are not read; tracebacks name folders of the machine.
            sample.events.clear()
            sample.error_retries = None
        for one in (whole, *(whole.samples or ())):
            if one.error:
                one.error = EvalError(message="pop from empty list", traceback="", traceback_ansi="")
        write_eval_log(whole, HERE / name)


def sums(wrong: Iterable[int], questions: int = 10) -> list[int]:
    return [1000 if n in wrong else 2 * n + 3 for n in range(questions)]


make(
    "inspect_dense.eval", Task(SUMS, name="sums", solver=generate(), scorer=match()), sums([2]), temperature=0.6, seed=3
)
make(
    "inspect_pruned.eval",
    Task(SUMS, name="sums", solver=generate(), scorer=match()),
    sums([2, 3, 4, 5, 6, 7, 8]),
    model="told/small/pruned",
    temperature=0.6,
    seed=3,
)
make(
    "inspect_scores.eval",
    Task(SUMS[:4], name="sums", solver=[system_message("Be brief."), generate()], scorer=[match(), f1(), two()]),
    # One epoch after the other: the first question is answered rightly twice, the next two once.
    [3, 1000, 7, 1000, 3, 5, 1000, 1000],
    epochs=Epochs(2, ["mean", "max"]),
    reasoning_tokens=64,
)
make("inspect_choices.json", Task(LARGER, name="larger", solver=multiple_choice(), scorer=choice()), "BABB", limit=3)
make("inspect_failed.eval", Task(SUMS, name="sums", solver=generate(), scorer=match()), sums([], 3))
make("inspect_some.eval", Task(SUMS, name="sums", solver=generate(), scorer=match()), sums([], 9), fail_on_error=False)
make("inspect_unscored.eval", Task(SUMS[:2], name="sums", solver=generate(), scorer=match()), sums([], 2), score=False)
