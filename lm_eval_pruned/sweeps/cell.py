"""Cells: single runs of the harness in a grid, identified by a hash of everything that decides their outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.files import sha256_of_json

# Hexadecimal digits of a cell's hash that name its folder: 64 bits.
ID_CHARACTERS = 16

_NAMED = ("method", "alloc", "sparsity", "num_blocks", "blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a cell needs of a machine; `memory_gb` None means estimated, and a fraction of `gpus` shares one."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run: a model and its pruning (both in `model_args`), a task, a seed, and how the task is asked.

    `variant` is a label. `weights` is the model's number of weights, for estimates where its config cannot be read.
    `diverge` measures what pruning changed, after the run.
    """

    backend: str
    model_args: Mapping[str, object]
    task: str
    seed: int | None = None
    variant: str | None = None
    gen_kwargs: Mapping[str, object]
    metadata: Mapping[str, object]
    batch_size: str = "1"
    limit: float | None = None
    apply_chat_template: bool = False
    system_instruction: str | None = None
    num_fewshot: int | None = None
    weights: float | None = None
    diverge: bool = False
    resources: Resources

    @property
    def id(self) -> str:
        """Name of the cell's folder: a hash of what decides its outcome, not of where or how fast it runs."""
        return sha256_of_json(self.outcome_settings())[:ID_CHARACTERS]

    def outcome_settings(self) -> dict[str, object]:
        """Return the settings that decide the outcome, as JSON values."""
        return {
            "backend": self.backend,
            "model_args": dict(self.model_args),
            "task": self.task,
            "gen_kwargs": self.decoding,
            "metadata": dict(self.metadata),
            "limit": self.limit,
            "apply_chat_template": self.apply_chat_template,
            "system_instruction": self.system_instruction,
            "num_fewshot": self.num_fewshot,
        }

    @property
    def model(self) -> str:
        """The checkpoint."""
        return str(self.model_args["pretrained"])

    @property
    def decoding(self) -> dict[str, object]:
        """Generation kwargs with the seed."""
        return {**self.gen_kwargs, **({} if self.seed is None else {"seed": self.seed})}

    @property
    def label(self) -> str:
        """Readable name: model, pruning, task, seed, variant."""
        words = [str(self.model_args[name]) for name in _NAMED if self.model_args.get(name) is not None]
        if self.model_args.get("exclude") is not None:
            words.append(f"exclude {self.model_args['exclude']}")
        if self.model_args.get("masks") is not None:
            words = [*(word for word in words if word != "none"), f"masks {self.model_args['masks']}"]
        pruning = "dense" if words in (["none"], []) else " ".join(words)
        seed = "" if self.seed is None else f"seed {self.seed}"
        parts = [self.model.rpartition("/")[2], pruning, self.task, seed, self.variant or ""]
        return ", ".join(part for part in parts if part)

    def arguments(self, *, responses: Path, output: Path) -> list[str]:
        """Return the arguments of the harness's command line."""
        # As JSON, since a path may contain the commas that separate arguments.
        model_args = {"responses": str(responses), **self.model_args}
        optional = {
            "--gen_kwargs": json.dumps(self.decoding) if self.decoding else None,
            "--metadata": json.dumps(self.metadata) if self.metadata else None,
            "--limit": self.limit,
            "--system_instruction": self.system_instruction,
            "--num_fewshot": self.num_fewshot,
        }
        return [
            *("--model", self.backend, "--model_args", json.dumps(model_args), "--tasks", self.task),
            *("--batch_size", self.batch_size, "--log_samples", "--output_path", str(output)),
            *(word for flag, value in optional.items() if value is not None for word in (flag, str(value))),
            *(["--apply_chat_template"] if self.apply_chat_template else []),
        ]
