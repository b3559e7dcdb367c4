from __future__ import annotations

import pytest

from lm_eval_pruned.errors import ArgumentError, NotBuiltError
from lm_eval_pruned.reasoning.settings import is_budgeted, parse_gen_kwargs


@pytest.mark.parametrize(
    "name", ["thinking_token_budget", "max_tokens_thinking", "thinking_n_ignore", "until_thinking"]
)
def test_thinking_in_a_name_means_budgeted(name):
    assert is_budgeted({name: 1})
    assert not is_budgeted({"max_gen_toks": 1, "until": []})


def test_the_literal_kwargs_of_the_paper():
    given = {"temperature": 1.0, "seed": 7, "max_gen_toks": 32768, "max_tokens_thinking": 512}
    settings = parse_gen_kwargs({"thinking_token_budget": 8192, "do_sample": True, "until": [], **given})
    assert (settings.budget, settings.answer_room) == (512, 32768)
    assert (settings.sampling.temperature, settings.sampling.seed) == (1.0, 7)
    assert (settings.sampling.top_p, settings.sampling.top_k) == (1.0, 0)


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ({}, 0.0),
        ({"temperature": 0.6}, 0.6),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.6}, 0.6),
        ({"do_sample": True, "temperature": 0.0}, 0.0),
        ({"do_sample": False, "temperature": 0.6}, 0.0),
    ],
)
def test_a_temperature_samples(given, temperature):
    assert parse_gen_kwargs({"thinking_token_budget": 5, **given}).sampling.temperature == temperature


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thinking_token_budget": -1}, "thinking_token_budget=-1: give a whole number of at least 0"),
        ({"thinking_token_budget": 1.5}, "thinking_token_budget=1.5"),
        ({"max_tokens_thinking": "auto"}, "thinking_token_budget='auto' is not a number"),
        ({"thinking_token_budget": 5, "max_gen_toks": 0}, "max_gen_toks=0"),
        (
            {"thinking_token_budget": 5, "temprature": 1},
            "unknown generation kwarg 'temprature': did you mean 'temperature'",
        ),
        ({"thinking_token_budget": 5, "temperature": -1}, "temperature=-1.0"),
        ({"thinking_token_budget": 5, "top_p": 0}, "top_p=0.0"),
        ({"thinking_token_budget": 5, "min_p": 1}, "min_p=1.0"),
        ({"thinking_start": "<a>"}, "add one, in tokens"),
    ],
)
def test_wrong_kwargs_are_named(given, message):
    with pytest.raises(ArgumentError, match=message):
        parse_gen_kwargs(given)


def test_documented_kwargs_that_are_not_built_are_refused_by_name():
    with pytest.raises(NotBuiltError, match="thinking_n_ignore=2"):
        parse_gen_kwargs({"thinking_token_budget": 5, "thinking_n_ignore": 2})
