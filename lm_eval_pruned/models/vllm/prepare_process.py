"""Child process that prunes a model for vLLM, so that its memory is free before the engine starts.

python -m lm_eval_pruned.models.vllm.prepare_process JOB.json OUTCOME.json
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lm_eval_pruned.config import PruneConfig, RunConfig
from lm_eval_pruned.errors import DataError, PrunedEvalError
from lm_eval_pruned.models.prune_checkpoint import prune_pretrained
from lm_eval_pruned.process_memory import use_huge_pages
from lm_eval_pruned.pruning.artifacts.apply import PrunedStream, can_stream
from lm_eval_pruned.pruning.artifacts.checksummed_folder import is_sealed, seal
from lm_eval_pruned.pruning.artifacts.report import PruneReport
from lm_eval_pruned.pruning.artifacts.store import TENSORS, Store
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.checkpoint.rewrite import is_code
from lm_eval_pruned.pruning.recipe import Recipe, resolve

# The file that every checkpoint has, whatever its shards are called.
CONFIG = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model that a child process prunes before a vLLM engine loads it.

    Attributes:
        source: folder or hub id.
        recipe: how it is pruned.
        artifacts: folder of the artifact cache.
        thinking: thinking format, for traces.
        options: how it is loaded.
    """

    source: str
    recipe: Recipe
    artifacts: str
    thinking: str
    options: LoadOptions

    @classmethod
    def of(cls, source: str, config: PruneConfig, *, artifacts: str, thinking: str, options: LoadOptions) -> Job:
        """Return the job of a configuration, with its names looked up.

        Args:
            source: folder or hub id of the checkpoint.
            config: how it is pruned.
            artifacts: folder of the artifact cache.
            thinking: thinking format, for traces.
            options: how the checkpoint is loaded.

        Raises:
            PrunedEvalError: as `pruning.recipe.resolve`.
        """
        return cls(source=source, recipe=resolve(config), artifacts=artifacts, thinking=thinking, options=options)

    def as_dict(self) -> dict[str, object]:
        """Return plain dicts and text, ready for JSON."""
        return {
            "source": self.source,
            "prune": asdict(self.recipe.config),
            "artifacts": self.artifacts,
            "thinking": self.thinking,
            "options": asdict(self.options),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Job:
        """Rebuild a job from the output of `as_dict`."""
        return cls.of(
            content["source"],
            PruneConfig(**content["prune"]),
            artifacts=content["artifacts"],
            thinking=content["thinking"],
            options=LoadOptions(**content["options"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The checkpoint or artifact that a vLLM engine loads.

    Attributes:
        pretrained: the checkpoint, which is pruned already if blocks or channels were taken out.
        folder: the checksummed folder that was made: an artifact, or `pretrained` itself; None for a dense model.
        report: the pruning report.
    """

    pretrained: str
    folder: str | None
    report: Mapping[str, object]

    @property
    def artifact(self) -> str | None:
        """The folder of the artifact that prunes the checkpoint while the engine reads it, if there is one."""
        return None if self.folder == self.pretrained else self.folder

    def as_dict(self) -> dict[str, object]:
        """Return what JSON can hold; `Prepared(**content)` rebuilds it."""
        return asdict(self)

    def is_intact(self) -> bool:
        """Return whether every byte that was made is still there."""
        return self.folder is None or is_sealed(Path(self.folder), TENSORS if self.artifact else CONFIG)


def prepare_here(job: Job) -> Prepared:
    """Prune a model, store the artifact, and return what an engine is to load.

    Masks and solved weights are applied while the engine reads the checkpoint. If blocks or channels are taken out, or
    the checkpoint names its matrices differently from the model, a pruned checkpoint is written next to the artifact.

    Raises:
        PrunedEvalError: something is wrong with the settings, the model or the data, or nothing can be stored.
    """
    run = RunConfig(thinking=job.thinking, artifacts=job.artifacts)  # type: ignore[arg-type]

    def prune(output: Path | None = None) -> PruneReport:
        return prune_pretrained(job.source, job.recipe, run, job.options, output=output)

    report = prune()
    content = report.as_dict()
    if job.recipe.method is None:
        return Prepared(pretrained=job.source, folder=None, report=content)
    store = Store(folder=Path(job.artifacts))
    artifact = store.folder / report.fingerprint
    if not store.is_intact(report.fingerprint):
        raise DataError(
            f"{artifact} was not kept, and an engine reads from there what to prune: make room, or give another folder "
            "as artifacts="
        )
    shards = Shards.open(job.source, revision=job.options.revision, subfolder=job.options.subfolder)
    # A solved weight cannot take the place of a quantised one, whose scale would be multiplied in.
    is_plain = not (job.recipe.method.solves and any(map(is_code, shards.on_meta().values())))
    if not job.recipe.reshapes and is_plain and can_stream(PrunedStream.open(artifact).names, shards.files):
        return Prepared(pretrained=job.source, folder=str(artifact), report=content)
    written = artifact.with_name(f"{report.fingerprint}.checkpoint")
    with FileLock(f"{written}.lock"):
        if not is_sealed(written, CONFIG):
            seal(written, prune)
    return Prepared(pretrained=str(written), folder=str(written), report=content)


def main(job_file: str, outcome_file: str) -> None:
    """Read a job, prune, and write what is to be loaded, or the class and the message of an error."""
    use_huge_pages()
    logging.basicConfig(format="%(asctime)s:%(levelname)s:%(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        outcome = prepare_here(Job.from_dict(json.loads(Path(job_file).read_text()))).as_dict()
    except PrunedEvalError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    Path(outcome_file).write_text(json.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
