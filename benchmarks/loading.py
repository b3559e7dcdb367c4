"""The bytes of a checkpoint that block-wise pruning reads, relative to its size.

    python benchmarks/loading.py

`lm-eval-pruned prune` prunes a random checkpoint of 1.6 GB in bfloat16; the bytes of the tensors that are read are
counted.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from bigger_than_memory import SIZES, make_checkpoint

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.models.prune_checkpoint import prune_offloaded
from lm_eval_pruned.pruning.artifacts.report import Stopwatch
from lm_eval_pruned.pruning.calibration.calibration import Calibration
from lm_eval_pruned.pruning.checkpoint.open_offloaded import open_offloaded
from lm_eval_pruned.pruning.checkpoint.reader import Shards
from lm_eval_pruned.pruning.checkpoint.resolve import LoadOptions
from lm_eval_pruned.pruning.recipe import resolve

SMALLER = SIZES | {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16,
}  # fmt: skip
BLOCKS = 14
SETTINGS = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "sparsegpt": {"method": "sparsegpt"},
    "wanda, alloc=owl": {"method": "wanda", "alloc": "owl"},
    "wanda, alloc=dlp": {"method": "wanda", "alloc": "dlp"},
    "magnitude, alloc=alphapruning": {"method": "magnitude", "alloc": "alphapruning"},
}


def count_reads(folder: Path, name: str) -> float:
    """Return the bytes that pruning reads of a checkpoint, relative to its size."""
    reads = Counter[str]()
    slices, read_each = Shards.slices, Shards.read_each

    def sliced(self: Shards, one: str, shape: list[int]) -> Iterator[object]:
        reads[one] += 1
        return slices(self, one, shape)

    def read(self: Shards, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for one, tensor in read_each(self, names):
            reads[one] += 1
            yield one, tensor

    with patch.object(Shards, "slices", sliced), patch.object(Shards, "read_each", read), TemporaryDirectory() as work:
        opened = open_offloaded(str(folder), LoadOptions())
        assert opened is not None
        windows = torch.randint(0, 1000, (2, 32), generator=torch.Generator().manual_seed(0))
        prune_offloaded(
            opened,
            resolve(PruneConfig(sparsity=0.5, **SETTINGS[name])),
            Calibration.of(windows),
            artifacts=None,
            output=Path(work),
            stopwatch=Stopwatch(),
        )
    sizes = {one: tensor.nbytes for one, tensor in Shards.open(str(folder), revision="main").on_meta().items()}
    return sum(reads[one] * size for one, size in sizes.items()) / sum(sizes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one block, to see that everything runs")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with TemporaryDirectory() as work:
        folder = Path(work) / "dense"
        make_checkpoint(folder, 1 if args.small else BLOCKS, SMALLER)
        print("bytes read by lm-eval-pruned prune, in checkpoints")
        for name in SETTINGS:
            print(f"  {name:<32}{count_reads(folder, name):6.2f}", flush=True)


if __name__ == "__main__":
    main()
