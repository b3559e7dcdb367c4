"""`lm-eval-pruned diverge`: what pruning changed along the dense model's own responses, token by token."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.commands.flags import Flags, parse_flags
from lm_eval_pruned.commands.trace_arguments import add_traces_parser, described, make_folder, write_json
from lm_eval_pruned.errors import ArgumentError, MissingPackageError, unknown_name

if TYPE_CHECKING:
    from lm_eval_pruned.models.diverge import Diverged
    from lm_eval_pruned.results.divergence.summary import Changes

logger = logging.getLogger(__name__)

DIVERGENCE_FILE = "divergence.json"
PICTURE_FILE = "divergence.png"
BACKENDS = ("hf", "vllm")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `diverge`: the flags of `prune`, and where the traces are."""
    parser = add_traces_parser(
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
    vllm = parser.add_argument_group("vLLM")
    vllm.add_argument("--backend", default="hf", help="hf: transformers, exact; vllm: KL is a lower bound [hf]")
    vllm.add_argument("--logprobs", type=int, default=64, metavar="K", help="largest log-probabilities a token [64]")
    vllm.add_argument("--engine_args", default="", metavar="LIST", help="such as tensor_parallel_size=2,max_num_seqs=8")


def main(args: argparse.Namespace) -> int:
    """Check the arguments, measure, write the result and print a summary.

    Raises:
        ArgumentError: the output cannot be written.
        PrunedEvalError: the arguments, the traces, the model or the calibration data are invalid.
    """
    from lm_eval_pruned.models.diverge import perplexity
    from lm_eval_pruned.process_memory import use_huge_pages
    from lm_eval_pruned.results.divergence.summary import SCHEMA_VERSION, summarise, summary_lines

    _check_backend(args)
    parsed = parse_flags(args)
    make_folder(args.output)
    use_huge_pages()
    diverged = _diverge(args, parsed)
    changes = changes_of(diverged)
    content = {
        "schema_version": SCHEMA_VERSION,
        "config": {**described(args, parsed.options), "backend": args.backend, **diverged.report.config},
        "fingerprint": diverged.report.fingerprint,
        **summarise(changes, diverged.budgets),
    }
    if args.backend == "vllm":
        content["approximation"] = (
            f"kl is a lower bound, from the {args.logprobs} largest log-probabilities of each model (vLLM)"
        )
    write_json(content, args.output / DIVERGENCE_FILE)
    draw_beside(diverged, changes, args.output)
    print("\n".join(summary_lines(content, perplexity(diverged.divergences))))
    return 0


def _check_backend(args: argparse.Namespace) -> None:
    if args.backend not in BACKENDS:
        raise unknown_name("--backend", args.backend, BACKENDS)
    if args.backend == "hf" and args.engine_args:
        raise ArgumentError(f"--engine_args {args.engine_args} are vLLM's: leave them out, or give --backend vllm")
    if args.backend == "vllm" and not find_spec("vllm"):
        raise MissingPackageError(
            "--backend vllm needs vLLM: pip install 'lm-eval-pruned[vllm]', or leave it out to run on transformers"
        )
    if args.logprobs < 1:
        raise ArgumentError(f"--logprobs {args.logprobs}: give 1 or more")


def _diverge(args: argparse.Namespace, parsed: Flags) -> Diverged:
    if args.backend == "hf":
        from lm_eval_pruned.models.diverge import diverge_pretrained

        return diverge_pretrained(args.pretrained, *parsed, args.traces)
    from lm_eval.utils import simple_parse_args_string

    from lm_eval_pruned.models.vllm.diverge import VLLMSettings, diverge_on_vllm

    settings = VLLMSettings(largest=args.logprobs, engine=simple_parse_args_string(args.engine_args))
    return diverge_on_vllm(args.pretrained, *parsed, args.traces, settings)


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
