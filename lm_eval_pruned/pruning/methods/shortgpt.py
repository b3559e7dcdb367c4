"""ShortGPT: block influence is one minus the cosine similarity of the hidden states before and after a block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lm_eval_pruned.pruning.methods.kinds import drop_method


@drop_method("shortgpt")
def shortgpt(
    inputs: Float[Tensor, "*tokens hidden"], outputs: Float[Tensor, "*tokens hidden"]
) -> Float[Tensor, "*tokens"]:
    """Drop the blocks that turn the hidden states least; the last block stays.

    BI = 1 - X_t . Y_t / (|X_t| |Y_t|) for the input X_t and the output Y_t of a block at token t, averaged over the
    tokens of a window and then over windows; an undefined cosine counts as 0.5. Where a model keeps several hidden
    states for each token (Gemma 3n, DeepSeek-V4), each of them counts.

    Example:
        >>> import torch
        >>> shortgpt(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])).tolist()
        [[1.0]]

    Reference: Men et al. 2024, arXiv 2403.03853.
    Differs: the published code forms the similarity of every token with every other to read its diagonal.
    """
    before, after = inputs.float(), outputs.float()
    cosine: Tensor = (before * after).sum(dim=-1) / (before.norm(dim=-1) * after.norm(dim=-1))
    return 1 - cosine.nan_to_num(nan=0.5)
