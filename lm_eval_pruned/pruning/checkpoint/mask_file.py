"""Mask files: the masks of a pruned model in one safetensors file, to share without its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lm_eval_pruned.errors import DataError, MissingDataError, PruningError
from lm_eval_pruned.files import MALFORMED
from lm_eval_pruned.pruning.artifacts.store import Artifact
from lm_eval_pruned.pruning.checkpoint.resolve import find_file, looks_like_path

# Name of the file in a folder or a repository of the hub.
MASKS = "masks.safetensors"
FORMAT, VERSION = "lm_eval_pruned.masks", "1"
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFile:
    """A mask file whose header was read and checked; its masks are read when they are applied.

    Attributes:
        path: the file.
        sha256: digest of its bytes.
        dense_sha256: digest of the weights that it belongs to, as in the report of the dense model.
        model: name of the model that they are of, and `dtype` that of the weights.
        report: the pruning report, as JSON.
    """

    path: Path
    sha256: str
    dense_sha256: str
    model: str
    dtype: str
    report: Mapping[str, object]

    def artifact(self) -> Artifact:
        """Return the masks by the names of their Linears, mapped from the file, with the report."""
        return Artifact(self.report, {name.removesuffix(_WEIGHT): mask for name, mask in load_file(self.path).items()})

    def check_weights(self, dense_sha256: str) -> None:
        """Check that a model has the weights that the masks belong to.

        Raises:
            PruningError: it has others.
        """
        if dense_sha256 != self.dense_sha256:
            raise PruningError(
                f"masks={self.path} is for the weights {self.dense_sha256[:16]}... of {self.model} in {self.dtype}; "
                f"these are {dense_sha256[:16]}...: load that model, at its revision, with dtype={self.dtype}"
            )


def write_mask_file(
    path: Path, artifact: Artifact, *, shapes: Mapping[str, Sequence[int]], model: str, dtype: str
) -> None:
    """Write the masks of an artifact: one bit for each weight, under the names that the weights have in a checkpoint.

    Args:
        path: file to write.
        artifact: the report, and a packed mask for each Linear.
        shapes: shapes of the weights, by their names in the checkpoint.
        model: name of the dense model.
        dtype: dtype of its weights.
    """
    tensors = {f"{name}{_WEIGHT}": mask.contiguous() for name, mask in artifact.tensors.items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "dtype": dtype,
        "dense_sha256": str(artifact.report["dense_sha256"]),
        "shapes": json.dumps({name: list(shapes[name]) for name in tensors}),
        "report": json.dumps(dict(artifact.report)),
    }
    save_file(tensors, path, metadata=metadata)


def find_mask_file(given: str) -> Path:
    """Return the path of a mask file: that given, the one in a folder, or the one of a repository of the hub.

    Raises:
        MissingDataError: there is none.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return path
    is_elsewhere = path.is_dir() or not (looks_like_path(given) or path.suffix == ".safetensors")
    found = find_file(str(path) if path.is_dir() else given, MASKS, revision="main") if is_elsewhere else None
    if found is None:
        raise MissingDataError(
            f"masks={given} is neither a file nor a folder or hub id with {MASKS}: make one with lm-eval-pruned prune "
            f"--masks-only --output {MASKS}"
        )
    return found


def read_mask_file(path: Path) -> MaskFile:
    """Read the header of a mask file, and check that every mask has the size of its shape.

    Raises:
        DataError: it is damaged, or another kind of file.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
                raise DataError(f"masks={path} is not a mask file of version {VERSION}: see docs/masks.md")
            sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        shapes, report = json.loads(metadata["shapes"]), json.loads(metadata["report"])
        needed = {name: [-(-prod(shape) // 8)] for name, shape in shapes.items()}
        if sizes != needed or not isinstance(report["config"], dict):
            raise DataError(f"masks={path} has masks that do not fit their shapes: it is damaged, fetch it again")
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return MaskFile(
            path=path,
            sha256=digest,
            dense_sha256=metadata["dense_sha256"],
            model=metadata["model"],
            dtype=metadata["dtype"],
            report=report,
        )
    except DataError:
        raise
    except (OSError, SafetensorError, *MALFORMED) as error:
        raise DataError(f"masks={path} is not a mask file, or damaged ({error!r:.200}): fetch it again") from None
