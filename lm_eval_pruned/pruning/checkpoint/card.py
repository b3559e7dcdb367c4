"""The model card of a pruned checkpoint: what it was made from and how, in the format of the Hugging Face hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.paths import is_hub_id, without_folders
from lm_eval_pruned.pruning.artifacts.report import BlockReport, PruneReport
from lm_eval_pruned.pruning.checkpoint.other_files import CARD_FILE
from lm_eval_pruned.pruning.methods import METHODS

logger = logging.getLogger(__name__)

# The results are between these lines; they are written after the checkpoint has been evaluated.
RESULTS_BEGIN, RESULTS_END = "<!-- lm-eval-pruned: results -->", "<!-- lm-eval-pruned: end of results -->"
NO_RESULTS = "None yet: `lm-eval-pruned card CHECKPOINT RESULTS` puts them here."
# Fields of the original's card that are as true of a pruned model.
_INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag")
_TAGS = ("pruned", "sparse", "lm-eval-pruned")


def model_card(
    report: PruneReport, *, original: str, revision: str, inherited: Mapping[str, object], picture: str | None
) -> ModelCard:
    """Return the card of a pruned checkpoint.

    Args:
        report: its pruning report.
        original: hub id of the dense model, or its folder, of which only the name is told.
        revision: of the dense model.
        inherited: what `inherited_data` found in the card of the dense model.
        picture: name of the picture of its allocation, if there is one.
    """
    name, method = without_folders(original), str(report.config["method"])
    # The hub knows no relation for pruning, and takes this one where none is given.
    origin = {"base_model": original, "base_model_relation": "finetune"} if is_hub_id(original) else {}
    fields: dict[str, Any] = {**origin, "pipeline_tag": "text-generation", **inherited}
    data = ModelCardData(library_name="transformers", tags=[*_TAGS, method], **fields)
    parts = [
        f"# {name.rpartition('/')[2]}, pruned with {method}",
        f"{_sentence(report)} The dense model is {_link(original, revision)}; nothing was trained after pruning.",
        *([f"![sparsity of each block]({picture})"] if picture else []),
        _table(("setting", "value"), _settings(report)),
        "## Blocks",
        _table(("block", "attention, target", "MLP, target", "achieved"), [_row(block) for block in report.blocks]),
        "## Results",
        f"{RESULTS_BEGIN}\n{NO_RESULTS}\n{RESULTS_END}",
        "## How it was made",
        f"```console\n{_command(report, name, revision)}\n```",
        "`pruning_report.json` holds all settings, the sparsity of every matrix, and digests of the files of weights.",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n")


def with_results(card: str, table: str) -> str | None:
    r"""Return the text of a card with other results in it, and all else unchanged; None if it has no place for them.

    Example:
        >>> with_results(f"Mine.\n{RESULTS_BEGIN}\nold\n{RESULTS_END}\n", "new").splitlines()[2]
        'new'
    """
    before, begin, rest = card.partition(RESULTS_BEGIN)
    _, end, after = rest.partition(RESULTS_END)
    return f"{before}{begin}\n{table}\n{end}{after}" if end else None


def inherited_data(folders: Sequence[Path]) -> dict[str, object]:
    """Return the licence, the languages and the task that the first card in some folders gives; {} if none does."""
    for folder in folders:
        path = folder / CARD_FILE
        if not path.is_file():
            continue
        try:
            data = metadata_load(path) or {}
        except (OSError, ValueError, yaml.YAMLError) as problem:
            logger.warning("%s has no metadata that can be read (%s): look up its licence", path, problem)
            continue
        return {name: data[name] for name in _INHERITED if data.get(name)}
    return {}


def _sentence(report: PruneReport) -> str:
    share = f"{100 * report.achieved_sparsity:.4g} %"
    if report.removed_blocks:
        return f"{len(report.removed_blocks)} of {len(report.blocks)} blocks were dropped."
    if report.remaining_weights and report.remaining_weights < report.model_weights:
        return f"{share} of the prunable weights were taken out."
    return f"{share} of the prunable weights are zero."


def _settings(report: PruneReport) -> list[tuple[str, ...]]:
    rows = [
        ("method", report.config["method"]),
        *((name, value) for name, value in _given(report).items() if name != "method"),
        ("target sparsity", f"{report.target_sparsity:.6g}"),
        ("achieved sparsity, counted from the weights", f"{report.achieved_sparsity:.6g}"),
        ("prunable weights", f"{report.prunable_weights:,}"),
        ("of these zero or removed", f"{report.zero_weights:,}"),
        ("parameters of the dense model", f"{report.model_weights:,}"),
        *([("parameters left", f"{report.remaining_weights:,}")] if report.remaining_weights else []),
        *([("dropped blocks", ", ".join(map(str, report.removed_blocks)))] if report.removed_blocks else []),
        ("fingerprint", f"`{report.fingerprint}`"),
        ("software", ", ".join(f"{name} {version}" for name, version in report.software.items())),
    ]
    return [(str(name), str(value)) for name, value in rows]


def _given(report: PruneReport) -> dict[str, str]:
    """Return the settings that differ from their defaults, and the sparsity."""
    defaults = PruneConfig()
    return {
        name: without_folders(str(value))
        for name, value in report.config.items()
        if value is not None and value != getattr(defaults, name, None)
    }


def _command(report: PruneReport, name: str, revision: str) -> str:
    origin = {"pretrained": name, **({"revision": revision} if revision != "main" else {})}
    # A report knows masks by their digest, and has the settings they were made with.
    given = {"masks": "FILE"} if report.config.get("masks") else _asked(report)
    flags = " ".join(f"--{flag} {quote(value)}" for flag, value in {**origin, **given}.items())
    return f"lm-eval-pruned prune {flags} --output DIR"


def _asked(report: PruneReport) -> dict[str, str]:
    """Return the settings to give; a report also has those that follow from others, which contradict them if given."""
    given, method = _given(report), str(report.config["method"])
    own = METHODS[method].compare if method in METHODS else None
    if given.get("compare") == own or report.config.get("pattern") != PruneConfig().pattern:
        given.pop("compare", None)
    if str(given.get("alloc")).endswith(".json"):
        given.pop("sparsity", None)
    return given


def _link(original: str, revision: str) -> str:
    name = without_folders(original)
    at = f" at revision `{revision}`" if revision != "main" else ""
    return (f"[{name}](https://huggingface.co/{name})" if is_hub_id(original) else f"`{name}`") + at


def _row(block: BlockReport) -> tuple[str, ...]:
    return (str(block.index), *(f"{value:.4g}" for value in (block.attn, block.mlp, block.achieved)))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
