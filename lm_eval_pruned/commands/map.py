"""`lm-eval-pruned map`: where a model hurts, by pruning one part of one block at a time."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, get_args

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.flags import parse_flags
from lm_eval_pruned.commands.trace_arguments import add_traces_parser, described, make_folder, write_json
from lm_eval_pruned.errors import ArgumentError, MissingPackageError, unknown_name

if TYPE_CHECKING:
    from lm_eval_pruned.models.sensitivity import SensitivityMap
    from lm_eval_pruned.pruning.recipe import Recipe

logger = logging.getLogger(__name__)

MAP_FILE = "map.json"
PICTURE_FILE = "map.png"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `map`: the flags of `prune`, where the traces are, the parts and the sparsities."""
    parser = add_traces_parser(
        subparsers,
        "map",
        main,
        help_="measure which parts of which blocks change most when they are pruned",
        description=(
            "Prunes one part of one block at a time, runs the model once along responses of the dense one, and writes "
            f"{MAP_FILE} and the heat map {PICTURE_FILE}. It measures how much pruning changed, not whether answers "
            "suffer."
        ),
    )
    parser.add_argument(
        "--parts", default="sublayer", help="what is pruned alone: block, sublayer (attn, mlp) or matrix [sublayer]"
    )
    parser.add_argument(
        "--sparsities", default="0.5,0.7", metavar="LIST", help="sparsities, separated by commas [0.5,0.7]"
    )


def main(args: argparse.Namespace) -> int:
    """Check the arguments, measure, write the result and print a summary.

    Raises:
        ArgumentError: a sparsity is none, an argument has no meaning here, or the output cannot be written.
        PrunedEvalError: the arguments, the traces, the model or the calibration data are invalid.
    """
    from lm_eval_pruned.models.sensitivity import Parts, map_pretrained
    from lm_eval_pruned.process_memory import use_huge_pages
    from lm_eval_pruned.results.divergence.heat_map import draw_map, map_lines

    if args.parts not in get_args(Parts):
        raise unknown_name("parts", args.parts, get_args(Parts))
    if args.sparsity is not None:
        raise ArgumentError(f"--sparsity {args.sparsity} is one of several here: give --sparsities {args.sparsity}")
    sparsities = _read_sparsities(args.sparsities)
    args.method = args.method or "magnitude"
    # With the activations of the dense model, a mask does not depend on what else is pruned.
    args.propagate = "dense" if args.method in ("wanda", "sparsegpt") else args.propagate
    recipes: list[Recipe] = []
    for sparsity in sparsities:
        args.sparsity = sparsity
        recipe, run, options = parse_flags(args)
        recipes.append(recipe)
    make_folder(args.output)
    use_huge_pages()
    measured = map_pretrained(args.pretrained, recipes, run, options, places=args.traces, parts=args.parts)
    cells = cells_of(measured)
    config = {**described(args, options), **recipes[0].effective(), "sparsity": list(sparsities), "parts": args.parts}
    content = {
        "schema_version": 1,
        "config": config,
        "traces": len(measured.traces),
        "tokens": sum(trace.tokens for trace in measured.traces),
        "cells": cells,
    }
    write_json(content, args.output / MAP_FILE)
    try:
        draw_map(cells, args.output / PICTURE_FILE, title=f"{args.pretrained}, {args.method}")
    except MissingPackageError as error:
        logger.warning("%s was not written: %s", PICTURE_FILE, error)
    print("\n".join(map_lines(cells)))
    return 0


def cells_of(measured: SensitivityMap) -> list[dict[str, float | int | str]]:
    """Return the cells of a map as JSON values: KL in nats a token, and the share of tokens that flipped."""
    return [
        {
            "block": cell.block,
            "part": cell.part,
            "sparsity": cell.sparsity,
            "weights": cell.weights,
            "kl": float(cell.divergences.kl.mean()),
            "flips": float(cell.divergences.flipped.mean()),
        }
        for cell in measured.cells
    ]


def _read_sparsities(text: str) -> list[float]:
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < one < 1 for one in found):
        raise ArgumentError(
            f"--sparsities {text} are not fractions between 0 and 1: give some, such as --sparsities 0.3,0.5,0.7"
        )
    return found
