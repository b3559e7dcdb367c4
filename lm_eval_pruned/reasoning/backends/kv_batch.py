"""A running batch: left-padded prompts, then one token a line and step; lines leave, and fork."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

# Masked, any token of the model does; that of a tokenizer may be none, or beyond the model's embeddings.
PADDING = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """The key/value cache, the attention mask [lines tokens] and the logits [lines vocab] of the next token."""

    model: PreTrainedModel
    autocast: torch.dtype | None
    takes: frozenset[str]
    mask: Tensor
    logits: Tensor
    cache: object = None

    @classmethod
    def read(cls, model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, autocast: torch.dtype | None) -> Batch:
        """Read all prompts, padded on the left."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), PADDING, device=model.device)
        mask = torch.zeros_like(ids)
        for line, prompt in enumerate(prompts):
            ids[line, width - len(prompt) :] = torch.tensor(prompt, device=model.device)
            mask[line, width - len(prompt) :] = 1
        takes = frozenset(inspect.signature(model.forward).parameters)
        batch = cls(model=model, autocast=autocast, takes=takes, mask=mask, logits=torch.empty(0))
        batch._forward(ids, (mask.cumsum(dim=-1) - 1).clamp(min=0))
        return batch

    @property
    def device(self) -> torch.device:
        """Where tokens are read."""
        return self.mask.device

    @property
    def width(self) -> int:
        """Tokens of a line, padding included."""
        return self.mask.shape[1]

    def step(self, tokens: Int[Tensor, " lines"]) -> None:
        """Read one new token a line."""
        positions = self.mask.sum(dim=-1, keepdim=True)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        self._forward(tokens[:, None], positions)

    def select(self, lines: Sequence[int]) -> None:
        """Keep these lines only, in this order; one that comes twice goes on twice. The logits are used up."""
        indices = torch.tensor(lines, device=self.mask.device)
        # What beam search does to a cache, the same for every kind of layer.
        self.cache.reorder_cache(indices)  # type: ignore[attr-defined]
        self.mask = self.mask[indices]

    def _forward(self, ids: Int[Tensor, "lines tokens"], positions: Int[Tensor, "lines tokens"]) -> None:
        optional = {"position_ids": positions, "logits_to_keep": 1}
        # Its name since transformers 5.24, in the call and in the output; models with code of their own may lag.
        cache = "cache" if "cache" in self.takes else "past_key_values"
        with torch.autocast(self.model.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            output = self.model(
                input_ids=ids,
                attention_mask=self.mask,
                use_cache=True,
                **{cache: self.cache},
                **{name: value for name, value in optional.items() if name in self.takes},
            )
        self.cache = getattr(output, cache)
        self.logits: Float[Tensor, "lines vocab"] = output.logits[:, -1, :].float()
