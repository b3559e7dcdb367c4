"""`lm-eval-pruned card`: put the results of a pruned checkpoint into its model card, and beside it for the hub."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_pruned.commands import Subparsers
from lm_eval_pruned.errors import DataError, MissingDataError

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


def add_parser(subparsers: Subparsers) -> None:
    """Declare the subcommand `card` and its flags."""
    parser = subparsers.add_parser(
        "card",
        help="put the results of a pruned checkpoint into its model card and .eval_results",
        description="Writes into CHECKPOINT and uploads nothing. What you wrote yourself in its files stays.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder that lm-eval-pruned prune wrote")
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="DIR", help="folders with results of lm_eval, the dense model's as well"
    )
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Find the results of the checkpoint, and write them.

    Raises:
        PrunedEvalError: it is no pruned checkpoint, no run is of it, or a file cannot be written.
    """
    from lm_eval_pruned.pruning.checkpoint.note import read_note
    from lm_eval_pruned.results.hub.checkpoint_results import checkpoint_results
    from lm_eval_pruned.results.hub.eval_results import eval_result_files
    from lm_eval_pruned.results.hub.table import results_table
    from lm_eval_pruned.results.output import warn_skipped

    if not args.checkpoint.is_dir():
        raise MissingDataError(f"there is no folder {args.checkpoint}: give one that lm-eval-pruned prune wrote")
    note = read_note(str(args.checkpoint), {})
    if note is None:
        raise DataError(
            f"{args.checkpoint} has no pruning_report.json that describes its weights: give a folder that "
            "lm-eval-pruned prune wrote"
        )
    found = checkpoint_results(args.places, str(note["fingerprint"]))
    files, unfit = eval_result_files(found.results)
    written, left = _write(args.checkpoint, note, results_table([result.line for result in found.results]), files)
    warn_skipped([*found.problems, *unfit, *left])
    print(f"{args.checkpoint}: {len(found.results)} results; written: {', '.join(written) or 'nothing'}")
    return 0


class _Done(NamedTuple):
    """The names of the files that were written, and a sentence for each that somebody else wrote."""

    written: list[str]
    left: list[str]


def _write(folder: Path, note: Mapping[str, object], table: str, files: Mapping[str, str]) -> _Done:
    from lm_eval_pruned.pruning.checkpoint.card import with_results
    from lm_eval_pruned.pruning.checkpoint.other_files import CARD_FILE
    from lm_eval_pruned.results.hub.eval_results import FOLDER
    from lm_eval_pruned.results.output import make_folder, printable, write_text

    done = _Done([], [])
    path = folder / CARD_FILE
    card = with_results(_read(path) if path.exists() else str(_new_card(note, folder)), printable(table))
    if card is None:
        done.left.append(f"{path} has no place for results: docs/publishing.md shows the two lines to add")
    else:
        write_text(path, card, flag="")
        done.written.append(CARD_FILE)
    for name, content in files.items():
        target = make_folder(folder / FOLDER, flag="") / name
        if _is_foreign(target):
            done.left.append(f"{target} was not written by this command: rename it to have another one written")
        else:
            write_text(target, content, flag="")
            done.written.append(f"{FOLDER}/{name}")
    return done


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8: save it as such, or move it") from None


def _is_foreign(path: Path) -> bool:
    from lm_eval_pruned.results.hub.eval_results import MARK

    return path.exists() and not _read(path).startswith(MARK)


def _new_card(note: Mapping[str, object], folder: Path) -> ModelCard:
    """Return the card of a checkpoint that has none, since an older version wrote it."""
    from lm_eval_pruned.commands.prune import PICTURE_FILE
    from lm_eval_pruned.pruning.artifacts.report import PruneReport
    from lm_eval_pruned.pruning.checkpoint.card import model_card
    from lm_eval_pruned.pruning.checkpoint.note import ORIGINAL

    origin = note[ORIGINAL]
    original = origin if isinstance(origin, dict) else {}
    return model_card(
        PruneReport.from_dict({name: value for name, value in note.items() if name != ORIGINAL}),
        original=str(original.get("pretrained") or "the dense model"),
        revision=str(original.get("revision") or "main"),
        inherited={},
        picture=PICTURE_FILE if (folder / PICTURE_FILE).exists() else None,
    )
