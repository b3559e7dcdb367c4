"""A cell is one run of the harness in a grid, known by a hash of everything that decides its outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

# Characters of a cell's hash that name its folder: 64 bits.
ID_CHARACTERS = 16

_NAMED = ("method", "alloc", "sparsity", "num_blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a cell needs of a machine; `memory_gb` is estimated where it is None, and may be for one GPU shared."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run: a model, how it is pruned (both in `model_args`), a task, a seed, and how it is asked.

    `variant` is a label. `weights` counts those of the model, for estimates where its config cannot be read.
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
    resources: Resources

    @property
    def id(self) -> str:
        """Name of the cell's folder: a hash of what decides its outcome, and not of where or how fast it runs."""
        text = json.dumps(self.deciding(), sort_keys=True)
        return sha256(text.encode()).hexdigest()[:ID_CHARACTERS]

    def deciding(self) -> dict[str, object]:
        """Return what decides the outcome, as what JSON can hold."""
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
        """A few words for people: model, pruning, task, seed, variant."""
        given = [str(self.model_args[name]) for name in _NAMED if self.model_args.get(name) is not None]
        pruning = "dense" if given in (["none"], []) else " ".join(given)
        seed = "" if self.seed is None else f"seed {self.seed}"
        words = [self.model.rpartition("/")[2], pruning, self.task, seed, self.variant or ""]
        return ", ".join(word for word in words if word)

    def arguments(self, *, responses: Path, output: Path) -> list[str]:
        """Return the command line of the harness, without the name of the command."""
        # JSON, since a path may hold the commas that separate arguments.
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
            *(part for flag, value in optional.items() if value is not None for part in (flag, str(value))),
            *(["--apply_chat_template"] if self.apply_chat_template else []),
        ]
