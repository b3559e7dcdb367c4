"""A weight loader for vLLM that prunes each tensor as it is read, before vLLM fuses or shards it.

The entry point group `vllm.general_plugins` registers it in every process of an engine.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn
from vllm.config import ModelConfig
from vllm.config.load import LoadConfig
from vllm.distributed import get_tp_group
from vllm.model_executor.model_loader import DefaultModelLoader, register_model_loader

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.pruning.artifacts.apply import PrunedStream, block_of
from lm_eval_pruned.pruning.masks.packing import count_zeros

# vLLM only shows log records under its own name.
logger = logging.getLogger("vllm.lm_eval_pruned")

LOAD_FORMAT = "pruned"
KEY = "lm_eval_pruned"


class Loading(TypedDict):
    """The value under our key in `model_loader_extra_config`: the artifact's folder, and the original load format."""

    artifact: str
    load_format: str


class PrunedModelLoader(DefaultModelLoader):  # type: ignore[misc]
    """Applies an artifact to the weights that vLLM's own loader reads."""

    def __init__(self, load_config: LoadConfig) -> None:
        extra = dict(load_config.model_loader_extra_config)
        ours: Loading = extra.pop(KEY)
        theirs = copy.copy(load_config)
        theirs.model_loader_extra_config = extra
        theirs.load_format = ours["load_format"]
        super().__init__(theirs)
        self.stream = PrunedStream.open(Path(ours["artifact"]))

    def get_all_weights(self, model_config: ModelConfig, model: nn.Module) -> Generator[tuple[str, Tensor], None, None]:
        """Yield every tensor of the checkpoint, pruned."""
        yield from self.stream(super().get_all_weights(model_config, model))

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Load the weights and count their zeros in the engine, before some devices change the layout.

        Raises:
            PruningError: the weights were not pruned as the artifact says.
        """
        super().load_weights(model, model_config)
        # With expert parallelism, the experts of other ranks are not read here.
        if getattr(self, "local_expert_ids", None) is None:
            self.stream.check()
            if model_config.quantization is None:
                check_zeros(model, self.stream)


def check_zeros(model: nn.Module, stream: PrunedStream) -> None:
    """Compare the zeros inside an engine with those that were read, over the blocks that this process holds.

    Raises:
        PruningError: there are fewer. There may be more, from padding and from heads that several ranks hold.
    """
    matrices = [
        (block_of(name), value)
        for name, value in model.named_parameters()
        if value.ndim > 1 and block_of(name) in stream.zeros
    ]
    wanted = sum(stream.zeros[block] for block in {block for block, _ in matrices})
    zeros = sum(count_zeros(value) for _, value in matrices)
    shards = get_tp_group()
    if shards.world_size > 1:
        count = torch.tensor([zeros])
        torch.distributed.all_reduce(count, group=shards.cpu_group)
        zeros = int(count.item())
    if zeros < wanted:
        raise PruningError(f"only {zeros} weights inside the engine are zero, and {wanted} of those that it was given")
    logger.info("%d weights of the decoder blocks are zero inside the engine, as the pruning artifact says", zeros)


def register() -> None:
    """Register the loader with vLLM."""
    register_model_loader(LOAD_FORMAT)(PrunedModelLoader)
