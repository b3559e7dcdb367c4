"""Model arguments: names, defaults, conversion from text, and the error for each wrong value."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

from lm_eval_pruned.commands.descriptions import DESCRIPTIONS
from lm_eval_pruned.config import Allocation, Method, PruneConfig, RunConfig, Thinking, field_names
from lm_eval_pruned.errors import ArgumentError, PrunedEvalError, UnknownNameError
from lm_eval_pruned.model_args import parse_model_args
from lm_eval_pruned.pruning.allocations import ALLOCATIONS
from lm_eval_pruned.pruning.methods import METHODS
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.reasoning.formats import FORMATS

# The public surface: names and defaults are a contract.
DEFAULTS = {
    "method": "none", "alloc": "uniform", "sparsity": None, "pattern": "unstructured", "scope": "all",
    "exclude": None,
    "num_blocks": None, "blocks": None, "compare": "auto", "propagate": "pruned", "calib": None, "calib_samples": 128,
    "calib_seqlen": 2048, "calib_seed": 0, "calib_tokens": "all", "random_seed": 0, "greedy_by": "perplexity",
    "owl_m": 7.0, "owl_lambda": 0.08, "alphapruning_epsilon": 0.3, "dlp_alpha": 0.15, "arithmetic_slope": 0.01,
    "search_evaluations": 18, "search_seed": 0, "layerif_min": 0.05, "layerif_max": 0.40,
    "layerif_direction": "protect", "layerif_groups": "module", "layerif_scores": None, "masks": None,
    "preset": "none",
}  # fmt: skip


def parse(**arguments: object) -> PruneConfig:
    return parse_model_args(arguments, parent=["dtype"]).prune


def test_the_arguments_and_their_defaults_are_frozen():
    assert {field.name: field.default for field in fields(PruneConfig)} == DEFAULTS
    assert field_names(RunConfig) == {"thinking", "auto_chat_template", "share_traces", "artifacts", "responses"}


def test_every_argument_is_described():
    assert set(DESCRIPTIONS) == field_names(PruneConfig) | field_names(RunConfig)


def test_text_from_a_command_line_gets_its_type():
    config = parse(method="wanda", sparsity="0.25", calib_samples="8", owl_m=5)
    assert (config.sparsity, config.calib_samples, config.owl_m) == (0.25, 8, 5.0)
    assert isinstance(config.owl_m, float)


@pytest.mark.parametrize("given", ["16+17", "17+16", "16-17", "16,17", [17, 16], "[16, 17]", ["16-17"]], ids=str)
def test_blocks_have_one_name_however_they_are_written(given):
    recipes = [resolve(parse(method="shortgpt", blocks=given)), resolve(PruneConfig(method="shortgpt", blocks=given))]
    for recipe in recipes:
        assert (recipe.config.blocks, recipe.config.named_blocks) == ("16+17", (16, 17))
        assert not recipe.needs_calibration
    assert parse(method="shortgpt", blocks=16).named_blocks == (16,)
    assert recipes[0].determining() != resolve(parse(method="shortgpt", num_blocks=2)).determining()


def test_the_rest_goes_to_the_parent():
    arguments = parse_model_args(
        {"dtype": "float16", "thinking": "s1", "auto_chat_template": "False"}, parent=["dtype"]
    )
    assert arguments.parent == {"dtype": "float16"}
    assert (arguments.run.thinking, arguments.run.auto_chat_template) == ("s1", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "wanda", "sparsity": 1}, "sparsity=1.0 is not a fraction"),
        ({"method": "wanda", "sparsity": -0.1}, "sparsity=-0.1"),
        ({"method": "wanda", "sparsity": "nan"}, "sparsity='nan' is not a number"),
        ({"method": "wanda", "sparsity": "half"}, "sparsity='half' is not a number"),
        ({"method": "wanda"}, "method=wanda needs a sparsity"),
        ({"sparsity": 0.2}, "sparsity=0.2 was given without a method"),
        ({"num_blocks": 2}, "num_blocks=2 was given without a method"),
        ({"pattern": "2:4"}, "pattern=2:4 was given without a method"),
        ({"alloc": "mine.json"}, "alloc=mine.json was given without a method"),
        ({"method": "wanda", "sparsity": 0.2, "alloc": "owl", "layerif_scores": "s.npy"}, "belongs to alloc=layerif"),
        ({"method": "wanda", "sparsity": 0.2, "alloc": "owl", "owl_lambda": "inf"}, "owl_lambda=inf: give m > 0"),
        ({"method": "wanda", "sparsity": 0.2, "alloc": "owl", "owl_lambda": -0.1}, "owl_lambda=-0.1"),
        ({"method": "wanda", "sparsity": 0.2, "alloc": "owl", "owl_m": 0}, "owl_m=0.0"),
        ({"method": "wanda", "arithmetic_slope": -2}, "arithmetic_slope=-2.0 is out of range"),
        ({"method": "wanda", "sparsity": 0.2, "alloc": "dlp", "dlp_alpha": 2}, "dlp_alpha=2.0 is out of range"),
        ({"method": "wanda", "sparsity": 0.2, "num_blocks": 2}, "num_blocks=2 is for methods that drop blocks"),
        ({"method": "shortgpt"}, "needs one of num_blocks, sparsity, blocks, such as num_blocks=2, and has none"),
        (
            {"method": "shortgpt", "num_blocks": 1, "sparsity": 0.1},
            "has num_blocks=1 and sparsity=0.1: leave all but one",
        ),
        ({"method": "shortgpt", "num_blocks": 1, "blocks": "3"}, "has num_blocks=1 and blocks=3: leave all but one"),
        ({"method": "wanda", "sparsity": 0.2, "blocks": "3"}, "blocks=3 is for methods that drop blocks"),
        ({"blocks": "3"}, "blocks=3 was given without a method"),
        ({"method": "shortgpt", "blocks": 1, "2": ""}, "join numbers with +, blocks=1+2"),
        ({"method": "shortgpt", "blocks": "3+1-4"}, "blocks='3+1-4' names block 3 twice"),
        ({"method": "shortgpt", "blocks": [1, True]}, "blocks=[1, True] does not name blocks"),
        ({"method": "shortgpt", "blocks": "-1"}, "blocks='-1' does not name blocks"),
        ({"method": "shortgpt", "blocks": "4-2"}, "blocks='4-2' does not name blocks"),
        ({"method": "shortgpt", "blocks": []}, "blocks=[] names no block"),
        ({"method": "shortgpt", "num_blocks": 1, "alloc": "owl"}, "leave alloc=owl out"),
        ({"method": "shortgpt", "num_blocks": 1, "scope": "mlp"}, "leave scope=mlp out"),
        ({"method": "wanda", "sparsity": 0.2, "pattern": "4:2"}, "pattern='4:2' is neither"),
        ({"method": "wanda", "sparsity": 0.2, "pattern": "2/4"}, "pattern='2/4' is neither"),
        ({"method": "wanda", "sparsity": 0.2, "pattern": "2:4"}, "which is sparsity=0.5: leave sparsity=0.2 out"),
        ({"method": "wanda", "pattern": "2:4", "alloc": "owl"}, "leave alloc=owl out"),
        ({"method": "wanda", "pattern": "2:4", "compare": "row"}, "leave compare=row out"),
        ({"method": "wanda", "sparsity": 0.2, "calib_samples": 0}, "calib_samples=0 is too small"),
        ({"method": "random", "sparsity": 0.2, "random_seed": -1}, "random_seed=-1 is negative"),
        ({"method": "wanda", "sparsity": 0.2, "calib_samples": 1.5}, "calib_samples=1.5 is not a whole number"),
        (
            {"calib": "c4", "calib_tokens": "thinking"},
            "calib=c4 has no prompts: give calib=traces, or calib_tokens",
        ),
        ({"calib": "a.npy", "calib_tokens": "thinking"}, "and calib=a.npy has no prompts"),
        ({"calib_tokens": "thinking"}, "and the default calibration text has no prompts"),
        ({"layerif_min": 0.5, "layerif_max": 0.4}, "give 0 <= min < max <= 1"),
        ({"top_p": 0.9}, "unknown model argument 'top_p': it belongs to generation, --gen_kwargs top_p=..."),
        ({"calib_sample": 3}, "unknown model argument 'calib_sample': did you mean 'calib_samples'?"),
        ({"auto_chat_template": "maybe"}, "auto_chat_template='maybe' is not True or False"),
    ],
)
def test_wrong_values_are_named(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        resolve(parse(**arguments))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "wandaa"},
        {"alloc": "owll"},
        {"scope": "ffn"},
        {"compare": "col"},
        {"thinking": "qwen"},
        {"preset": "p"},
    ],
)
def test_unknown_choices_list_the_known(arguments):
    (name,) = arguments
    with pytest.raises(UnknownNameError, match=f"unknown {name} '{arguments[name]}': .*Known: "):
        parse(**arguments)


def test_every_error_is_also_the_built_in_it_is():
    for error in PrunedEvalError.__subclasses__():
        assert any(issubclass(error, builtin) for builtin in (ValueError, KeyError, NotImplementedError, OSError,
                                                              RuntimeError, ImportError))  # fmt: skip


def test_names_are_those_of_the_registries():
    assert set(get_args(Method)) == {"none", *METHODS}
    assert set(get_args(Allocation)) == {*ALLOCATIONS}
    assert set(get_args(Thinking)) == {"auto", *FORMATS}


def test_a_misspelt_dtype_is_named():
    with pytest.raises(UnknownNameError, match="unknown dtype 'bf16': did you mean 'bfloat16'"):
        parse(dtype="bf16")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        # As YAML reads off, no, null, 2:4 and 1e2, and as the harness's command line reads none.
        ({"artifacts": False}, {"artifacts": "off"}),
        ({"responses": False}, {"responses": "off"}),
        ({"artifacts": None, "responses": None}, {"artifacts": None, "responses": "off"}),
        ({"responses": 2026}, {"responses": "2026"}),
        ({"thinking": None, "method": None, "preset": None}, {"thinking": "none", "method": "none", "preset": "none"}),
        ({"calib_seed": str(2**53 + 1)}, {"calib_seed": 2**53 + 1}),
        ({"method": "wanda", "pattern": 124}, {"pattern": "2:4"}),
        ({"method": "wanda", "pattern": 16 * 60 + 32}, {"pattern": "16:32"}),
        ({"calib_samples": "1e2"}, {"calib_samples": 100}),
    ],
)
def test_values_that_a_file_gives_another_type_mean_what_was_written(given, read):
    arguments = parse_model_args(given, parent=[])
    settings = {**arguments.prune.as_dict(), **{name: getattr(arguments.run, name) for name in field_names(RunConfig)}}
    assert {name: settings[name] for name in read} == read


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"artifacts": True}, "artifacts=True is not a path or off"),
        ({"responses": 1.5}, "responses=1.5 is not a path or off"),
        ({"responses": ["a", "b"]}, "is not a path or off"),
        ({"calib": False}, "calib=False is not a path"),
        ({"alloc": "layerif", "layerif_scores": True}, "layerif_scores=True is not a path"),
        ({"thinking": False}, "unknown thinking 'False'"),
        ({"method": False}, "unknown method 'False'"),
        ({"alloc": False}, "unknown alloc 'False'"),
        ({"sparsity": True, "method": "wanda"}, "sparsity=True is not a number"),
        ({"revision": 1e5}, "revision=100000.0 was read as float and not as text: put it in quotes"),
        ({"revision": 83}, "revision=83 was read as int"),
        ({"pretrained": 7}, "pretrained=7 was read as int"),
        ({"parallelize": "false"}, "parallelize='false' is text"),
        ({"trust_remote_code": "yes"}, "trust_remote_code='yes' is neither True nor False"),
    ],
)
def test_values_that_cannot_be_told_are_refused(given, message):
    with pytest.raises(PrunedEvalError) as error:
        parse_model_args(given, parent=["revision", "pretrained", "parallelize", "trust_remote_code"])
    assert message in str(error.value)
