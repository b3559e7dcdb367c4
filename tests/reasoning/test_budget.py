"""Budget forcing on a scripted backend: closing, cutting, extending and sharing thinking traces."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence

import pytest

from lm_eval_pruned.errors import BudgetError
from lm_eval_pruned.reasoning.budget import complete
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.preparing import Request, prepare
from lm_eval_pruned.reasoning.requests import Generated, Row, Stop, cut_at_budget, run_in_rounds
from lm_eval_pruned.reasoning.sampling import Sampling
from lm_eval_pruned.reasoning.settings import BudgetSettings

MARKERS = {"\0": 0, "</think>": 0xE000, "<|im_start|>": 0xE001, "\n\n": 0xE002, "x": 0xE003}
NAMES = {token: mark for mark, token in MARKERS.items()}


class Script:
    """A backend with one token per character, whose model generates given texts: one per round of rows."""

    def __init__(self, *texts: str, context: int = 1000) -> None:
        self.texts = texts
        self.context = context
        self.rows: list[list[Row]] = []

    def encode(self, text: str, *, special: bool) -> list[int]:
        del special
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(NAMES.get(token, chr(token)) for token in ids)

    def run(self, rows: Sequence[Row]) -> None:
        run_in_rounds(self.generate, rows)

    def generate(self, rows: Sequence[Row]) -> list[Generated]:
        text = self.texts[len(self.rows)]
        self.rows.append(list(rows))
        return [self._generate_one(text, row.max_new_tokens, row.stop) for row in rows]

    def _generate_one(self, text: str, max_new_tokens: int, stop: Stop) -> Generated:
        # A marker is a single token, as in most tokenizers.
        ends = [(position, mark) for mark in ("\0", *stop.texts) if (position := text.find(mark)) >= 0]
        if ends and min(ends)[0] < max_new_tokens:
            position, mark = min(ends)
            return Generated(self.encode(text[:position], special=False), "stop", stop_ids=(MARKERS[mark],))
        return Generated(self.encode(text[:max_new_tokens], special=False), "length")


def run(
    script: Script, budget: int, *, thinking: str = "qwen3", prompt: str = "Q?", answer_room: int = 50
) -> Completion:
    settings = BudgetSettings(budget=budget, answer_room=answer_room)
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


def test_thinking_of_exactly_the_budget_counts_as_cut():
    # The close marker would have been the next token: as in s1 and vLLM, the budget counts as exhausted.
    assert run(Script("one two</think>", "3\0"), 7).budget_hit
    assert not run(Script("one two</think>", "3\0"), 8).budget_hit


def test_an_end_of_text_while_thinking_closes_it():
    completion = run(Script("one two\0", "3\0"), 100)
    assert completion == "<think>\none two</think>\n\n3"
    assert (completion.thinking_finish, completion.answer_finish) == ("eos", "stop")


def test_closing_at_once_leaves_no_thinking():
    completion = run(Script("</think>", "3\0"), 100)
    assert completion == "<think>\n</think>\n\n3"
    assert (completion.thinking_tokens, completion.thinking_finish) == (0, "closed")


def test_a_budget_of_zero_answers_at_once():
    completion = run(Script("3\0"), 0)
    assert completion == "<think>\n" + FORMATS["qwen3"].forced_close + "3"
    assert (completion.thinking_tokens, completion.budget_hit) == (0, True)


def test_an_answer_without_end_is_cut():
    completion = run(Script("</think>", "3" * 99), 10, answer_room=5)
    assert (completion.answer, completion.answer_cut, completion.answer_tokens) == ("33333", True, 5)


@pytest.mark.parametrize("prompt", ["Q?<think>", "Q?<think>\n"])
def test_a_template_that_opens_the_thinking_itself(prompt):
    script = Script("one</think>", "3\0")
    completion = run(script, 10, prompt=prompt)
    assert script.decode(script.rows[0][0].ids) == prompt
    assert completion == "one</think>\n\n3"


def test_a_template_that_closes_the_thinking_is_answered_at_once():
    script = Script("3\0")
    sets = [
        prepare(script, [Request("Q?<think>\n\n</think>\n\n", 0)], BudgetSettings(budget=budget), FORMATS["qwen3"])
        for budget in (5, 9)
    ]
    (first,), (second,) = complete(script, sets)
    assert first is second
    assert (first, first.thinking, first.answer) == ("3", "", "3")
    assert (first.thinking_tokens, first.thinking_finish, first.answer_finish) == (0, "closed", "stop")
    assert [len(rows) for rows in script.rows] == [1]


def test_s1_forces_its_markers_and_answers_after_them():
    script = Script("so 25", " 25\0")
    completion = run(script, 3, thinking="s1")
    assert completion == "<|im_start|>thinkso \n<|im_start|>answer\nFinal Answer: 25"
    assert completion.answer == "Final Answer: 25"
    assert script.rows[0][0].stop.texts == ("<|im_start|>",)


def test_without_markers_the_text_itself_is_the_answer():
    script = Script("The answer is 4.\0", "unused")
    completion = run(script, 100, thinking="none")
    assert completion == completion.answer == completion.thinking == "The answer is 4."
    assert (completion.answer_tokens, completion.thinking_finish, completion.answer_finish) == (0, "eos", "none")


def test_without_markers_a_final_answer_is_forced():
    completion = run(Script("The answer is", " 4\0"), 6, thinking="none")
    assert completion == "The an\n\nFinal Answer: 4"
    assert completion.answer == "Final Answer: 4"


def test_a_line_break_may_end_the_thinking():
    settings = BudgetSettings(budget=50, answer_room=50, until_thinking=("\n\n",))
    script = Script("one\n\ntwo", "3\0")
    ((completion,),) = complete(script, [prepare(script, [Request("Q?", 0)], settings, FORMATS["qwen3"])])
    assert (completion.thinking, completion.answer) == ("one", "3")


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
    completion = run(Script("a" * 99, "3" * 99, context=context), 20, answer_room=32768)
    assert completion.answer_tokens == 7
    assert "max_gen_toks=32768 does not fit" in caplog.text
    assert "at least 7 tokens" in caplog.text


def test_each_sample_and_phase_has_its_own_seed():
    script = Script("one</think>", "3\0")
    requests = [Request("Q?", 0), Request("Q?", 1), Request("R?", 0)]
    complete(script, [prepare(script, requests, BudgetSettings(budget=10), FORMATS["qwen3"])])
    seeds = [row.seed for rows in script.rows for row in rows]
    assert len(set(seeds)) == 6


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
    assert [row.max_new_tokens for row in script.rows[0]] == [100]
    # Three answers to thinking cut at 3, 7 and 13 tokens, and one to thinking that closes, under 14 and 100.
    assert len(script.rows[1]) == 4
    alone = [run(Script("one two three</think>", "3\0"), budget) for budget in budgets]
    assert together == alone
    assert [completion.budget_hit for completion in together] == [True, False, True, True, False]
    assert [completion.thinking_tokens for completion in together] == [3, 13, 7, 13, 13]


def test_without_sharing_every_budget_thinks_for_itself():
    script = Script("one two three</think>", "3\0")
    sets = [prepare(script, [Request("Q?", 0)], BudgetSettings(budget=budget), FORMATS["qwen3"]) for budget in (3, 9)]
    complete(script, sets, share=False)
    assert [row.max_new_tokens for row in script.rows[0]] == [3, 9]


def test_samples_and_prompts_have_traces_of_their_own():
    script = Script("one</think>", "3\0")
    requests = [Request("Q?", 0), Request("Q?", 1), Request("R?", 0)]
    sets = [prepare(script, requests, BudgetSettings(budget=budget), FORMATS["qwen3"]) for budget in (5, 9)]
    first, second = complete(script, sets)
    assert [row.max_new_tokens for row in script.rows[0]] == [9, 9, 9]
    assert (len(first), len(second)) == (3, 3)


def test_sets_that_differ_in_more_share_nothing():
    class SameText(Script):
        """Generates the same text for every row."""

        def generate(self, rows: Sequence[Row]) -> list[Generated]:
            self.rows.append(list(rows))
            return [Generated([104, 105], "stop", stop_ids=(0,)) for _ in rows]

    script = SameText()
    settings = [
        BudgetSettings(budget=5),
        BudgetSettings(budget=9, until=("x",)),
        BudgetSettings(budget=9, sampling=Sampling(temperature=1.0)),
        BudgetSettings(budget=9, thinking_start="<other>"),
    ]
    sets = [prepare(script, [Request("Q?", 0)], one, FORMATS["qwen3"]) for one in settings]
    complete(script, sets)
    assert [len(rows) for rows in script.rows] == [4, 4]


def budgets_of(script: Script, settings: BudgetSettings, *prompts: str) -> list[int]:
    requests = [Request(prompt, 0) for prompt in prompts]
    return [request.budget for request in prepare(script, requests, settings, FORMATS["qwen3"])]


def test_the_largest_budget_that_leaves_the_answer_its_room():
    context = len("Q?<think>\n") + 20 + len(FORMATS["qwen3"].forced_close) + 50
    script = Script("a" * 99, "3\0", context=context)
    settings = BudgetSettings(budget=None, answer_room=50)
    assert budgets_of(script, settings, "Q?") == [20]
    # The budget of a prompt does not depend on the other prompts.
    assert budgets_of(script, settings, "Q?", "Q?...") == [20, 17]
    with pytest.raises(BudgetError, match="thinking_token_budget=auto does not fit"):
        prepare(script, [Request("Q?" * 99, 0)], settings, FORMATS["qwen3"])


def answers(script: Script, *budgets: int, thinking: str = "qwen3", **settings: object) -> list[Completion]:
    sets = [
        prepare(script, [Request("Q?", 0)], BudgetSettings(budget=budget, **settings), FORMATS[thinking])
        for budget in budgets
    ]
    return [completion for (completion,) in complete(script, sets)]


def test_the_end_of_thinking_is_ignored_as_often_as_asked():
    script = Script("one</think>", " two\0", " three</think>", "3\0")
    (completion,) = answers(script, 100, n_ignore=2)
    assert completion == "<think>\noneWait twoWait three</think>\n\n3"
    assert completion.thinking_tokens == len("oneWait twoWait three")
    assert [row.max_new_tokens for rows in script.rows[:3] for row in rows] == [100, 93, 85]
    # An extension generates at least one token.
    assert [row.min_new_tokens for rows in script.rows for row in rows] == [1, 1, 1, 0]
    assert script.decode(script.rows[1][0].ids) == "Q?<think>\noneWait"


def test_extensions_count_against_the_budget():
    script = Script("one</think>", " two and more", "3\0")
    (completion,) = answers(script, 10, n_ignore=1, ignore_text="Hm")
    assert completion.thinking == "oneHm two "
    assert (completion.thinking_tokens, completion.thinking_finish) == (10, "budget")


def test_a_budget_may_end_inside_an_extension():
    """The end is within the budget, and two letters of the text written in its place still fit."""
    (completion,) = answers(Script("one</think>", "3\0"), 5, n_ignore=1)
    assert (completion.thinking, completion.thinking_finish) == ("oneWa", "budget")
    (completion,) = answers(Script("one</think>", "3\0"), 7, n_ignore=1)
    assert (completion.thinking, completion.thinking_finish) == ("oneWait", "budget")


def test_extended_thinking_is_shared_by_all_budgets():
    texts = "one</think>", " two</think>", " three</think>", "3\0"
    budgets = [2, 3, 4, 5, 7, 9, 11, 12, 15, 17, 21, 22, 50]

    class Rounds(Script):
        """Generates by how often the thinking was extended before, and answers once it is closed."""

        def generate(self, rows: Sequence[Row]) -> list[Generated]:
            self.rows.append(list(rows))
            return [
                self._generate_one(self.next_text(self.decode(row.ids)), row.max_new_tokens, row.stop) for row in rows
            ]

        def next_text(self, so_far: str) -> str:
            return texts[3] if "</think>" in so_far else texts[so_far.count("Wait")]

    together = answers(Rounds(), *budgets, n_ignore=2)
    assert together == [answers(Rounds(), budget, n_ignore=2)[0] for budget in budgets]
    whole = "oneWait twoWait three"
    assert [one.thinking for one in together] == [whole[:budget] for budget in budgets]
    assert [one.thinking_finish for one in together] == ["budget"] * 11 + ["closed"] * 2


def test_min_tokens_thinking_is_passed_to_the_backend():
    script = Script("one two</think>", "3\0")
    answers(script, 100, least_thinking=5)
    assert [row.min_new_tokens for rows in script.rows for row in rows] == [5, 0]


def test_thinking_and_answers_may_be_sampled_differently():
    script = Script("one</think>", "3\0")
    answers(script, 9, sampling=Sampling(), thinking_sampling=Sampling(temperature=0.6))
    assert [row.sampling.temperature for rows in script.rows for row in rows] == [0.6, 0.0]


def test_stored_responses_are_not_generated_again():
    class Store(dict[str, Completion]):
        def get(self, request: Mapping[str, object]) -> Completion | None:
            return super().get(json.dumps(request))

        def put(self, request: Mapping[str, object], completion: Completion) -> None:
            self[json.dumps(request)] = completion

    store, script = Store(), Script("one two three</think>", "3\0")
    sets = [prepare(script, [Request("Q?", 0)], BudgetSettings(budget=budget), FORMATS["qwen3"]) for budget in (3, 100)]
    first = complete(script, sets[:1], responses=store)
    assert complete(Script("one two three</think>", "4\0"), sets, responses=store)[0] == first[0]
    assert len(store) == 2
    unused = Script()
    assert [str(one) for (one,) in complete(unused, sets, responses=store)] == [str(one) for one in store.values()]
    assert not unused.rows


def test_a_budget_inside_a_marker_of_several_tokens_cuts_the_marker():
    """A row of that budget alone is cut inside the marker, and the thinking ends with the marker's beginning."""
    generated = Generated([1, 2, 3], "stop", stop_ids=(7, 8, 9))
    assert cut_at_budget(generated, 5) == Generated([1, 2, 3, 7, 8], "length")
    assert cut_at_budget(generated, 6) == generated
    assert cut_at_budget(Generated([1, 2, 3], "length"), 2) == Generated([1, 2], "length")
