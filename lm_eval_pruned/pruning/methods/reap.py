"""REAP: the experts that add least to the tokens that are routed to them are removed from every mixture."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, linalg

from lm_eval_pruned.pruning.methods.kinds import expert_method


@expert_method("reap")
def reap(gates: Float[Tensor, " tokens"], outputs: Float[Tensor, "tokens hidden"]) -> Float[Tensor, " tokens"]:
    """Remove whole experts, as many from each mixture; routers lose the rows of the removed ones.

    S_e = mean over the tokens x that are routed to expert e of g_e(x) * ||f_e(x)||_2, with the gate g_e that the model
    multiplies the output f_e by.

    Example:
        >>> import torch
        >>> reap(torch.tensor([0.5, 0.25]), torch.tensor([[3.0, 4.0], [0.0, 8.0]])).tolist()
        [2.5, 2.0]

    Reference: Lasby et al. 2025, arXiv 2510.13999.
    Differs: the published code takes a softmax of the router for the gate, also where the model has a sigmoid.
    """
    norms: Tensor = linalg.vector_norm(outputs.float(), dim=-1)
    return gates.float() * norms
