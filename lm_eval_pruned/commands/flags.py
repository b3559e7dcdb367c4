"""Command-line flags that `prune` and `plan` share: the checkpoint, and one flag per model argument."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_pruned.commands.descriptions import DESCRIPTIONS
from lm_eval_pruned.config import PruneConfig, RunConfig, choices
from lm_eval_pruned.errors import ArgumentError, unknown_name
from lm_eval_pruned.model_args import DTYPES, parse_model_args

if TYPE_CHECKING:
    from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
    from lm_eval_pruned.pruning.recipe import Recipe

# The fields of RunConfig that pruning itself reads.
_RUN = ("thinking", "artifacts")


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select the checkpoint and how it is loaded."""
    parser.add_argument("--pretrained", required=True, metavar="MODEL", help="hub id, folder, or tiny-reasoner")
    parser.add_argument("--dtype", default="auto", help=f"{', '.join(DTYPES)} [auto: that of the checkpoint]")
    parser.add_argument("--device", default="cpu", help="device to prune on [cpu]")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of a hub model [main]")
    parser.add_argument("--subfolder", default="", metavar="DIR", help="folder of the checkpoint inside MODEL")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the checkpoint")


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag per model argument that pruning reads; `parse_flags` checks their values."""
    flags = parser.add_argument_group("pruning")
    for settings, name in _fields():
        allowed = choices(settings, name)
        default = settings.__dataclass_fields__[name].default
        listed = f" ({', '.join(allowed)})" if allowed else ""
        shown = "" if default is None else f" [{default}]"
        metavar = name.rpartition("_")[2].upper()
        flags.add_argument(f"--{name}", metavar=metavar, help=DESCRIPTIONS[name] + listed + shown)


class Flags(NamedTuple):
    """Parsed flags: how to prune, how the model is run, and how it is loaded."""

    recipe: Recipe
    run: RunConfig
    options: LoadOptions


def parse_flags(args: argparse.Namespace) -> Flags:
    """Check the flags of `prune` and `plan` as `--model_args` would be, and resolve the recipe.

    Raises:
        ArgumentError, UnknownNameError: a value is out of range, contradicts another one or is unknown, or the
            device cannot be used.
        MissingDataError, DataError: a file that a flag names cannot be read.
    """
    from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
    from lm_eval_pruned.pruning.recipe import resolve

    flags = {name: getattr(args, name) for _, name in _fields()}
    given = parse_model_args({name: value for name, value in flags.items() if value is not None}, parent=())
    if args.dtype not in DTYPES:
        raise unknown_name("dtype", args.dtype, DTYPES)
    _check_device(args.device)
    options = LoadOptions(
        dtype=args.dtype,
        device=args.device,
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        subfolder=args.subfolder,
    )
    return Flags(resolve(given.prune), given.run, options)


def _fields() -> list[tuple[type[PruneConfig] | type[RunConfig], str]]:
    return [
        *((PruneConfig, name) for name in PruneConfig.__dataclass_fields__),
        *((RunConfig, name) for name in _RUN),
    ]


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    # A build of PyTorch without CUDA raises AssertionError.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ArgumentError(
            f"device={device} cannot be used here: give cpu, or another one it has ({reason})"
        ) from None
