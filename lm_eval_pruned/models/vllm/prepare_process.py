"""Making: a process of its own prunes a model for an engine, so that its memory is free before the engine starts.

python -m lm_eval_pruned.models.vllm.prepare_process JOB.json OUTCOME.json
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import DataError, PrunedEvalError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.process_memory import use_large_pages
from lm_eval_pruned.pruning.artifacts.apply import PrunedStream, can_stream
from lm_eval_pruned.pruning.artifacts.checksummed_folder import is_sealed, seal
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.artifacts.store import TENSORS, Store
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.methods import DropMethod
from lm_eval_pruned.pruning.recipe import resolve

# What a checkpoint cannot do without, whatever its shards are called.
CONFIG = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model to prune for an engine: fields are as in the `model_args`, `source` is a folder or a hub id."""

    source: str
    prune: PruneConfig
    artifacts: str
    thinking: str
    dtype: str
    device: str
    revision: str
    trust_remote_code: bool

    def as_dict(self) -> dict[str, object]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> Job:
        """Make again what `as_dict` has written."""
        return cls(**{**content, "prune": PruneConfig(**content["prune"])})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Premade:
    """What an engine loads: the checkpoint `pretrained`, pruned by the artifact in `kept` as it streams in, if it is.

    `kept` is the sealed folder that was made, an artifact or `pretrained` itself; a dense model has none. `report` is
    the pruning report.
    """

    pretrained: str
    kept: str | None
    report: Mapping[str, object]

    @property
    def artifact(self) -> str | None:
        """The folder of what prunes the checkpoint as it streams in, where the checkpoint itself is not pruned."""
        return None if self.kept == self.pretrained else self.kept

    def as_dict(self) -> dict[str, object]:
        """Return what JSON can hold; `Premade(**it)` makes it again."""
        return asdict(self)

    def is_intact(self) -> bool:
        """Tell whether every byte that was made is still there."""
        return self.kept is None or is_sealed(Path(self.kept), TENSORS if self.artifact else CONFIG)


def make(job: Job) -> Premade:
    """Prune the model of `job`, keep what came of it among the artifacts, and say what an engine is to load.

    Masks and solved weights are applied to the checkpoint itself as it streams in. Where whole blocks are gone, or the
    checkpoint has its matrices under other names than the model, a pruned checkpoint is kept beside the artifact.

    Raises:
        PrunedEvalError: whatever is wrong with the settings, the model or the data, or nothing can be kept.
    """
    run = RunConfig(thinking=job.thinking, artifacts=job.artifacts)  # type: ignore[arg-type]
    loading = {"revision": job.revision, "trust_remote_code": job.trust_remote_code}

    def prune(output: Path | None = None) -> PruneReport:
        return prune_pretrained(
            job.source, job.prune, run, dtype=job.dtype, device=job.device, loading=loading, output=output
        )

    report = prune()
    content = report.as_dict()
    method = resolve(job.prune).method
    if method is None:
        return Premade(pretrained=job.source, kept=None, report=content)
    store = Store(folder=Path(job.artifacts))
    place = store.folder / report.fingerprint
    if not store.is_intact(report.fingerprint):
        raise DataError(
            f"{place} was not kept, and an engine reads from there what to prune: make room, or give another folder as "
            "artifacts="
        )
    stored = Shards.open(job.source, revision=job.revision).files
    if not isinstance(method, DropMethod) and can_stream(PrunedStream.open(place).names, stored):
        return Premade(pretrained=job.source, kept=str(place), report=content)
    written = place.with_name(f"{report.fingerprint}.checkpoint")
    with FileLock(f"{written}.lock"):
        if not is_sealed(written, CONFIG):
            seal(written, prune)
    return Premade(pretrained=str(written), kept=str(written), report=content)


def main(job_file: str, outcome_file: str) -> None:
    """Read a job, do it, and write what is to be loaded, or class and message of a mistake."""
    use_large_pages()
    logging.basicConfig(format="%(asctime)s:%(levelname)s:%(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        outcome = make(Job.from_dict(json.loads(Path(job_file).read_text()))).as_dict()
    except PrunedEvalError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    Path(outcome_file).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
