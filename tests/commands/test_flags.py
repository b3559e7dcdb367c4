"""Command-line flags of the model arguments."""

from __future__ import annotations

import argparse

import pytest

from lm_eval_pruned.cli import build_parser
from lm_eval_pruned.commands.flags import parse_flags
from lm_eval_pruned.config import PruneConfig, RunConfig, field_names
from lm_eval_pruned.errors import ArgumentError, UnknownNameError
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions

CHECKPOINT = {"pretrained", "dtype", "device", "revision", "subfolder", "trust_remote_code"}


def parse(command: str, *arguments: str) -> argparse.Namespace:
    return build_parser().parse_args([command, "--pretrained", "M", "--output", "D", *arguments])


@pytest.mark.parametrize("command", ["prune", "plan"])
def test_the_flags_are_frozen(command):
    given = (
        vars(parse(command)).keys()
        - {"main"}
        - ({"masks_only", "push_to_hub", "private"} if command == "prune" else set())
    )
    assert given == CHECKPOINT | {"output", "thinking", "artifacts"} | field_names(PruneConfig)


def test_what_is_left_out_has_its_default():
    recipe, run, options = parse_flags(parse("prune"))
    assert (recipe.config, run, options) == (PruneConfig(), RunConfig(), LoadOptions())


def test_text_gets_its_type():
    recipe, run, options = parse_flags(
        parse("plan", "--method", "wanda", "--sparsity", "0.25", "--calib_samples", "8", "--thinking", "s1",
              "--artifacts", "off", "--dtype", "bfloat16", "--revision", "v1")
    )  # fmt: skip
    assert (recipe.config.sparsity, recipe.config.calib_samples) == (0.25, 8)
    assert options == LoadOptions(dtype="bfloat16", revision="v1")
    assert (run.thinking, run.artifacts) == ("s1", "off")


def test_unknown_values_are_named():
    with pytest.raises(UnknownNameError, match="unknown dtype 'bf16': "):
        parse_flags(parse("prune", "--dtype", "bf16"))
    with pytest.raises(UnknownNameError, match="unknown thinking 'qwen': did you mean 'qwen3'"):
        parse_flags(parse("prune", "--thinking", "qwen"))
    with pytest.raises(ArgumentError, match="device=moon cannot be used here: give cpu"):
        parse_flags(parse("prune", "--device", "moon"))
