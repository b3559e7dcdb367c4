from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest

from lm_eval_pruned.errors import BudgetError
from lm_eval_pruned.reasoning.budget import (
    Completion,
    Generated,
    Request,
    Row,
    Stop,
    at_budget,
    complete,
    prepare,
)
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.sampling import Sampling
from lm_eval_pruned.reasoning.settings import BudgetSettings

END = 0


class Script:
    """A backend with one character a token, whose model wants to write a given thinking and then a given answer."""

    def __init__(self, thinking: str, answer: str, *, context: int = 1000) -> None:
        self.texts = [thinking, answer]
        self.context = context
        self.rows: list[list[Row]] = []
        self.stops: list[Stop] = []

    def encode(self, text: str, *, special: bool) -> list[int]:
        del special
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def generate(self, rows: Sequence[Row], stop: Stop, sampling: Sampling) -> list[Generated]:
        del sampling
        text = self.texts[len(self.rows)]
        self.rows.append(list(rows))
        self.stops.append(stop)
        return [self._one(text, row.room, stop) for row in rows]

    def _one(self, text: str, room: int, stop: Stop) -> Generated:
        ends = [position for mark in (chr(END), *stop.texts) if (position := text.find(mark)) >= 0]
        if ends and min(ends) < room:
            return Generated(self.encode(text[: min(ends)], special=False), "stop", ending=(END,))
        return Generated(self.encode(text[:room], special=False), "length")


def run(script: Script, budget: int, *, thinking: str = "qwen3", prompt: str = "Q?", room: int = 50) -> Completion:
    settings = BudgetSettings(budget=budget, answer_room=room)
    ((completion,),) = complete(script, [prepare(script, [Request(prompt, 0)], settings, FORMATS[thinking])])
    return completion


def test_a_natural_close():
    completion = run(Script("one two</think>ignored", "\\boxed{3}\0"), 100)
    assert completion == "<think>\none two</think>\n\n\\boxed{3}"
    assert (completion.thinking, completion.answer) == ("one two", "\\boxed{3}")
    assert (completion.thinking_tokens, completion.answer_tokens) == (7, 9)
    assert (completion.budget_hit, completion.answer_cut) == (False, False)


def test_a_cut_at_the_budget():
    script = Script("one two three</think>", "3\0")
    completion = run(script, 7)
    assert completion.thinking == "one two"
    assert completion.thinking_tokens == 7
    assert completion.budget_hit
    assert completion == "<think>\none two" + FORMATS["qwen3"].forced_close + "3"
    assert script.decode(script.rows[1][0].ids) == "Q?<think>\none two" + FORMATS["qwen3"].forced_close


def test_thinking_that_just_fits_was_not_seen_to_end():
    # The close marker would have been the next token: as in s1 and vLLM, the budget counts as exhausted.
    assert run(Script("one two</think>", "3\0"), 7).budget_hit
    assert not run(Script("one two</think>", "3\0"), 8).budget_hit


def test_an_end_of_text_while_thinking_closes_it():
    completion = run(Script("one two\0", "3\0"), 100)
    assert completion == "<think>\none two</think>\n\n3"
    assert not completion.budget_hit


def test_a_budget_of_zero_answers_at_once():
    completion = run(Script("one", "3\0"), 0)
    assert completion == "<think>\n" + FORMATS["qwen3"].forced_close + "3"
    assert (completion.thinking_tokens, completion.budget_hit) == (0, True)


def test_an_answer_without_end_is_cut():
    completion = run(Script("</think>", "3" * 99), 10, room=5)
    assert (completion.answer, completion.answer_cut, completion.answer_tokens) == ("33333", True, 5)


@pytest.mark.parametrize("prompt", ["Q?<think>", "Q?<think>\n"])
def test_a_template_that_opens_the_thinking_itself(prompt):
    script = Script("one</think>", "3\0")
    completion = run(script, 10, prompt=prompt)
    assert script.decode(script.rows[0][0].ids) == prompt
    assert completion == "one</think>\n\n3"


def test_s1_forces_its_markers_and_grades_what_follows():
    script = Script("so 25", " 25\0")
    completion = run(script, 3, thinking="s1")
    assert completion == "<|im_start|>thinkso \n<|im_start|>answer\nFinal Answer: 25"
    assert completion.answer == "Final Answer: 25"
    assert script.stops[0].texts == ("<|im_start|>",)


def test_none_grades_the_text_itself():
    script = Script("The answer is 4.\0", "unused")
    completion = run(script, 100, thinking="none")
    assert completion == completion.answer == completion.thinking == "The answer is 4."
    assert (completion.answer_tokens, completion.answer_cut, completion.budget_hit) == (0, False, False)


def test_none_forces_a_final_answer():
    completion = run(Script("The answer is", "4\0"), 6, thinking="none")
    assert completion == "The an\n\nFinal Answer: 4"
    assert completion.answer == "Final Answer: 4"


def test_until_applies_to_the_answer_only():
    script = Script("one\n\ntwo</think>", "3\n\nand more\0")
    settings = BudgetSettings(budget=100, until=("\n\n",))
    ((completion,),) = complete(script, [prepare(script, [Request("Q?", 0)], settings, FORMATS["qwen3"])])
    assert completion.thinking == "one\n\ntwo"
    assert completion.answer == "3"


def test_a_budget_beyond_the_context_is_refused():
    forced = len(FORMATS["qwen3"].forced_close)
    context = len("Q?<think>\n") + 20 + forced + 1
    assert run(Script("a" * 99, "3", context=context), 20).answer == "3"
    with pytest.raises(BudgetError, match=f"thinking_token_budget=21 .* context {context}: use a budget of at most 20"):
        run(Script("a" * 99, "3", context=context), 21)


def test_an_answer_room_beyond_the_context_is_shortened_openly(caplog):
    context = len("Q?<think>\n") + 20 + len(FORMATS["qwen3"].forced_close) + 7
    completion = run(Script("a" * 99, "3" * 99, context=context), 20, room=32768)
    assert completion.answer_tokens == 7
    assert "max_gen_toks=32768 does not fit" in caplog.text
    assert "at least 7 tokens" in caplog.text


def test_each_sample_and_phase_has_noise_of_its_own():
    script = Script("one</think>", "3\0")
    requests = [Request("Q?", 0), Request("Q?", 1), Request("R?", 0)]
    complete(script, [prepare(script, requests, BudgetSettings(budget=10), FORMATS["qwen3"])])
    keys = [row.key for rows in script.rows for row in rows]
    assert len(set(keys)) == 6


def test_a_completion_survives_pickling_and_is_a_string():
    completion = run(Script("one</think>", "3\0"), 10)
    again = pickle.loads(pickle.dumps(completion))
    assert again == completion
    assert again.thinking_tokens == completion.thinking_tokens == 3
    assert isinstance(completion, str)


def test_sets_that_differ_only_in_the_budget_think_once():
    script = Script("one two three</think>", "3\0")
    budgets = [3, 100, 7, 13, 14]
    sets = [prepare(script, [Request("Q?", 0)], BudgetSettings(budget=budget), FORMATS["qwen3"]) for budget in budgets]
    together = [completion for (completion,) in complete(script, sets)]
    assert [row.room for row in script.rows[0]] == [100]
    # Cut at 3, 7 and 13 tokens, and closed by itself under 14 and 100.
    assert len(script.rows[1]) == 4
    alone = [run(Script("one two three</think>", "3\0"), budget) for budget in budgets]
    assert together == alone
    assert [completion.budget_hit for completion in together] == [True, False, True, True, False]
    assert [completion.thinking_tokens for completion in together] == [3, 13, 7, 13, 13]


def test_without_sharing_every_budget_thinks_for_itself():
    script = Script("one two three</think>", "3\0")
    sets = [prepare(script, [Request("Q?", 0)], BudgetSettings(budget=budget), FORMATS["qwen3"]) for budget in (3, 9)]
    complete(script, sets, share=False)
    assert [row.room for row in script.rows[0]] == [3, 9]


def test_samples_and_prompts_have_traces_of_their_own():
    script = Script("one</think>", "3\0")
    requests = [Request("Q?", 0), Request("Q?", 1), Request("R?", 0)]
    sets = [prepare(script, requests, BudgetSettings(budget=budget), FORMATS["qwen3"]) for budget in (5, 9)]
    first, second = complete(script, sets)
    assert [row.room for row in script.rows[0]] == [9, 9, 9]
    assert (len(first), len(second)) == (3, 3)


def test_sets_that_differ_in_more_share_nothing():
    class Greeting(Script):
        """Answers thinking and answering alike, whatever was asked before."""

        def generate(self, rows: Sequence[Row], stop: Stop, sampling: Sampling) -> list[Generated]:
            self.rows.append(list(rows))
            return [Generated([104, 105], "stop", ending=(END,)) for _ in rows]

    script = Greeting("", "")
    settings = [
        BudgetSettings(budget=5),
        BudgetSettings(budget=9, until=("x",)),
        BudgetSettings(budget=9, sampling=Sampling(temperature=1.0)),
        BudgetSettings(budget=9, thinking_start="<other>"),
    ]
    sets = [prepare(script, [Request("Q?", 0)], one, FORMATS["qwen3"]) for one in settings]
    complete(script, sets)
    assert [len(rows) for rows in script.rows] == [1] * 8


def test_a_budget_inside_a_marker_of_several_tokens_cuts_the_marker():
    """Alone, the row would have been cut before the marker was whole; its beginning stands in the thinking."""
    trace = Generated([1, 2, 3], "stop", ending=(7, 8, 9))
    assert at_budget(trace, 5) == Generated([1, 2, 3, 7, 8], "length")
    assert at_budget(trace, 6) == trace
    assert at_budget(Generated([1, 2, 3], "length"), 2) == Generated([1, 2], "length")
