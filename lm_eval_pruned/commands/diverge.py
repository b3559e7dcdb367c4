"""`lm-eval-pruned diverge`: what pruning changed along the dense model's own responses, token by token."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.flags import parse_flags
from lm_eval_pruned.commands.trace_arguments import add_traces_parser, described, make_folder, write_json
from lm_eval_pruned.errors import MissingPackageError

if TYPE_CHECKING:
    from lm_eval_pruned.models.diverge import Diverged
    from lm_eval_pruned.results.divergence.summary import Changes

logger = logging.getLogger(__name__)

DIVERGENCE_FILE = "divergence.json"
PICTURE_FILE = "divergence.png"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `diverge`: the flags of `prune`, and where the traces are."""
    add_traces_parser(
        subparsers,
        "diverge",
        main,
        help_="measure what pruning changes along the dense model's own responses",
        description=(
            "Runs the dense and the pruned model once over responses of the dense one, without generating, and writes "
            f"{DIVERGENCE_FILE} (KL divergence, flips of the argmax, traces without a flip) and {PICTURE_FILE}. It "
            "measures how much pruning changed, not whether answers suffer."
        ),
    )


def main(args: argparse.Namespace) -> int:
    """Check the arguments, measure, write the result and print a summary.

    Raises:
        ArgumentError: the output cannot be written.
        PrunedEvalError: the arguments, the traces, the model or the calibration data are invalid.
    """
    from lm_eval_pruned.models.diverge import diverge_pretrained, perplexity
    from lm_eval_pruned.process_memory import use_huge_pages
    from lm_eval_pruned.results.divergence.summary import SCHEMA_VERSION, summarise, summary_lines

    recipe, run, options = parse_flags(args)
    make_folder(args.output)
    use_huge_pages()
    diverged = diverge_pretrained(args.pretrained, recipe, run, options, args.traces)
    changes = changes_of(diverged)
    content = {
        "schema_version": SCHEMA_VERSION,
        "config": {**described(args, options), **diverged.report.config},
        "fingerprint": diverged.report.fingerprint,
        **summarise(changes, diverged.budgets),
    }
    write_json(content, args.output / DIVERGENCE_FILE)
    draw_beside(diverged, changes, args.output)
    print("\n".join(summary_lines(content, perplexity(diverged.divergences))))
    return 0


def changes_of(diverged: Diverged) -> Changes:
    """Return what was measured in the form in which it is summed up."""
    import numpy as np

    from lm_eval_pruned.divergence.traces import offsets
    from lm_eval_pruned.results.divergence.summary import Changes

    return Changes(
        kl=diverged.divergences.kl,
        flipped=diverged.divergences.flipped,
        offsets=offsets(diverged.traces),
        thinking=np.array([trace.thinking for trace in diverged.traces]),
        questions=[trace.question for trace in diverged.traces],
    )


def draw_beside(diverged: Diverged, changes: Changes, folder: Path) -> None:
    """Draw the picture into a folder; without matplotlib only warn, as the rest is complete."""
    from lm_eval_pruned.commands.plot_allocation import title_of
    from lm_eval_pruned.results.divergence.picture import draw_changes, kind_of

    tokens: Sequence[int] = [token for trace in diverged.traces for token in trace.ids[trace.start :]]
    kinds = {token: kind_of(str(diverged.tokenizer.decode([token]))) for token in set(tokens)}
    title = title_of(diverged.report.config, diverged.report.target_sparsity)
    try:
        draw_changes(changes, [kinds[token] for token in tokens], folder / PICTURE_FILE, title=title)
    except MissingPackageError as error:
        logger.warning("%s was not written: %s", PICTURE_FILE, error)
