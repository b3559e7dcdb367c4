"""Generation kwargs: parsing, aliases and error messages."""

from __future__ import annotations

import pytest

from lm_eval_pruned.errors import ArgumentError
from lm_eval_pruned.reasoning.formats import FORMATS
from lm_eval_pruned.reasoning.sampling import Sampling
from lm_eval_pruned.reasoning.settings import is_budgeted, parse_gen_kwargs


@pytest.mark.parametrize(
    "name", ["thinking_token_budget", "max_tokens_thinking", "thinking_n_ignore", "until_thinking"]
)
def test_a_kwarg_with_thinking_in_its_name_is_budgeted(name):
    assert is_budgeted({name: 1})
    assert not is_budgeted({"max_gen_toks": 1, "until": []})


def test_the_kwargs_of_the_s1_paper():
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
        ({"do_sample": "false", "temperature": 0.6}, 0.0),
    ],
)
def test_a_temperature_samples(given, temperature):
    assert parse_gen_kwargs({"thinking_token_budget": 5, **given}).sampling.temperature == temperature


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thinking_token_budget": -1}, "thinking_token_budget=-1: give a whole number of at least 0"),
        ({"thinking_token_budget": 1.5}, "thinking_token_budget=1.5"),
        ({"max_tokens_thinking": "all"}, "thinking_token_budget='all' is not a number"),
        ({"thinking_token_budget": 5, "min_tokens_thinking": 6}, "min_tokens_thinking=6 is more than"),
        ({"thinking_token_budget": 5, "temperature_thinking": -1}, "temperature=-1.0"),
        ({"thinking_token_budget": 5, "rejection_sample": 1}, "unknown generation kwarg 'rejection_sample'"),
        ({"thinking_token_budget": 5, "max_gen_toks": 0}, "max_gen_toks=0"),
        (
            {"thinking_token_budget": 5, "temprature": 1},
            "unknown generation kwarg 'temprature': did you mean 'temperature'",
        ),
        ({"thinking_token_budget": 5, "temperature": -1}, "temperature=-1.0"),
        ({"thinking_token_budget": 5, "top_p": 0}, "top_p=0.0"),
        ({"thinking_token_budget": 5, "min_p": 1}, "min_p=1.0"),
        ({"thinking_start": "<a>"}, "add one, in tokens"),
        ({"thinking_token_budget": 5, "until": ["a", ""]}, "not empty"),
        ({"thinking_token_budget": 5, "until": {"a": 1}}, "give a text, or a list"),
        ({"thinking_token_budget": 5, "until_thinking": ""}, "until_thinking='': give a text, or a list"),
        ({"thinking_token_budget": 5, "thinking_start": ["<a>", "<b>"]}, "thinking_start=.*: give one text"),
        (
            {"thinking_token_budget": 5, "thinking_n_ignore_str": ""},
            "thinking_n_ignore_str='': give a text that is not",
        ),
        ({"thinking_token_budget": 5, "thinking_n_ignore_str": ["Wait"]}, "thinking_n_ignore_str=.*: give one text"),
        ({"thinking_token_budget": 5, "until": [True]}, "give a text, or a list"),
        ({"thinking_token_budget": 5, "do_sample": "maybe"}, "do_sample='maybe' is neither True nor False"),
        ({"thinking_token_budget": True}, "thinking_token_budget=True is not a number"),
        ({"thinking_token_budget": 5, "temperature": float("nan")}, "temperature=nan"),
        ({"thinking_token_budget": 5, "max_gen_toks": float("inf")}, "max_gen_toks=inf"),
        ({"thinking_token_budget": 5, "top_k": [50]}, r"top_k=\[50\] is not a number"),
    ],
)
def test_wrong_kwargs_are_named(given, message):
    with pytest.raises(ArgumentError, match=message):
        parse_gen_kwargs(given)


def test_the_s1_names_of_extensions_and_minimum():
    settings = parse_gen_kwargs({"max_tokens_thinking": 99, "thinking_n_ignore": 2, "min_tokens_thinking": 7})
    assert (settings.n_ignore, settings.ignore_text, settings.least_thinking) == (2, "Wait", 7)
    assert parse_gen_kwargs({"max_tokens_thinking": 9, "thinking_n_ignore_str": "Hm"}).ignore_text == "Hm"


def test_a_budget_of_auto_is_chosen_later():
    assert parse_gen_kwargs({"max_tokens_thinking": "auto"}).budget is None


def test_thinking_may_have_sampling_parameters_of_its_own():
    settings = parse_gen_kwargs(
        {"thinking_token_budget": 5, "temperature": 1.0, "top_p": 0.9, "seed": 7, "temperature_thinking": 0.6}
    )
    assert settings.sampling == Sampling(temperature=1.0, top_p=0.9, seed=7)
    assert settings.thinking_sampling == Sampling(temperature=0.6, top_p=0.9, seed=7)
    assert parse_gen_kwargs({"thinking_token_budget": 5, "temperature": 1.0}).thinking_sampling is None


def test_several_texts_may_end_the_thinking():
    settings = parse_gen_kwargs({"thinking_token_budget": 5, "until_thinking": ["</think>", "</thinking>"]})
    assert settings.markers(FORMATS["qwen3"]).closings == ("</think>", "</thinking>")
    assert parse_gen_kwargs({"thinking_token_budget": 5}).markers(FORMATS["qwen3"]) == FORMATS["qwen3"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("stop_sequences", "until"),
        ("max_tokens", "max_gen_toks"),
        ("max_completion_tokens", "max_gen_toks"),
        ("num_return_sequences", "num_samples"),
        ("best_of", "num_samples"),
        ("eos_token_id", "generation config"),
        ("frequency_penalty", "leave it out"),
        ("num_beams", "leave it out"),
        ("reasoning_effort", "thinking_token_budget"),
        ("thinking_budget", "thinking_token_budget"),
        ("Enable_Thinking", "thinking_token_budget=0"),
        ("think_end_token", "thinking_end"),
    ],
)
def test_names_of_other_apis_are_translated(name, advice):
    with pytest.raises(ArgumentError) as error:
        parse_gen_kwargs({"thinking_token_budget": 5, name: 1})
    assert f"unknown generation kwarg {name!r}: " in str(error.value)
    assert advice in str(error.value)
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "is_sampled"),
    [
        ({}, False),
        ({"seed": 3, "top_p": 0.9}, False),
        ({"temperature": 1.0}, True),
        ({"temperature": 1.0, "top_k": 1}, False),
        ({"temperature_thinking": 0.6}, True),
        ({"temperature": 1.0, "temperature_thinking": 0.0}, True),
    ],
)
def test_settings_without_effect_do_not_count(given, is_sampled):
    settings = parse_gen_kwargs({"thinking_token_budget": 5, **given})
    assert settings.is_sampled is is_sampled
    other = parse_gen_kwargs({"thinking_token_budget": 5, **given, "seed": 8})
    assert (settings.effective() == other.effective()) is not is_sampled


@pytest.mark.parametrize("seed", [2**53 + 1, str(2**53 + 1)])
def test_a_seed_beyond_the_whole_numbers_of_a_float_stays_what_it_is(seed):
    assert parse_gen_kwargs({"thinking_token_budget": 5, "temperature": 1.0, "seed": seed}).sampling.seed == 2**53 + 1
