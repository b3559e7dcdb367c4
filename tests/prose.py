"""English prose without a network: windows of token ids from the language reference that ships with Python."""

from __future__ import annotations

import math
from pydoc_data.topics import topics

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_pruned.pruning.calibration.windows import sample_windows


def prose(tokenizer: PreTrainedTokenizerBase, *, samples: int, seqlen: int, held_out: bool = False) -> Tensor:
    """Return windows [samples seqlen] from every other topic; `held_out` takes the topics in between."""
    texts = [text for _, text in sorted(topics.items())][int(held_out) :: 2]
    return sample_windows(
        texts, lambda text: tokenizer(text, verbose=False)["input_ids"], samples=samples, seqlen=seqlen, seed=0
    )


@torch.no_grad()
def perplexity(model: PreTrainedModel, windows: Tensor) -> float:
    """Return the perplexity of `model` on windows [samples seqlen], one at a time."""
    losses = [float(model(window[None], labels=window[None]).loss) for window in windows]
    return math.exp(sum(losses) / len(losses))
