"""Continuous batching over one KV cache: prefill prompts, decode a token per step, evict and fork sequences."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

# Any token id of the model serves, as padding is masked; a tokenizer may have no padding token, or one that the model
# has no embedding for.
PADDING = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """A batch of sequences that share one KV cache.

    Attributes:
        model: the model.
        autocast: dtype of mixed precision, or None.
        forward_arguments: names of the arguments that the model's `forward` accepts.
        mask: attention mask [sequences tokens], 0 where a sequence is padded.
        logits: logits of the next token [sequences vocab], in float32.
        cache: the KV cache, of whatever type the model returns.
    """

    model: PreTrainedModel
    autocast: torch.dtype | None
    forward_arguments: frozenset[str]
    mask: Tensor
    logits: Tensor
    cache: object = None

    @classmethod
    def prefill(
        cls, model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, autocast: torch.dtype | None
    ) -> Batch:
        """Run all prompts through the model, padded on the left, to fill the KV cache."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), PADDING, device=model.device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt, device=model.device)
            mask[row, width - len(prompt) :] = 1
        arguments = frozenset(inspect.signature(model.forward).parameters)
        batch = cls(model=model, autocast=autocast, forward_arguments=arguments, mask=mask, logits=torch.empty(0))
        batch._forward(ids, (mask.cumsum(dim=-1) - 1).clamp(min=0))
        return batch

    @property
    def device(self) -> torch.device:
        """The device of the input ids."""
        return self.mask.device

    @property
    def width(self) -> int:
        """Tokens per sequence in the cache, padding included."""
        return self.mask.shape[1]

    def step(self, tokens: Int[Tensor, " sequences"]) -> None:
        """Run one new token per sequence through the model."""
        positions = self.mask.sum(dim=-1, keepdim=True)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        self._forward(tokens[:, None], positions)

    def select(self, sequences: Sequence[int]) -> None:
        """Keep only these sequences, in this order; an index that is given twice forks. The logits become invalid."""
        indices = torch.tensor(sequences, device=self.mask.device)
        # What beam search does to a cache; every kind of cache layer supports it.
        self.cache.reorder_cache(indices)  # type: ignore[attr-defined]
        self.mask = self.mask[indices]

    def _forward(self, ids: Int[Tensor, "sequences tokens"], positions: Int[Tensor, "sequences tokens"]) -> None:
        optional = {"position_ids": positions, "logits_to_keep": 1}
        # The cache's name since transformers 5.24, in the call and in the output; models with custom code may lag.
        cache = "cache" if "cache" in self.forward_arguments else "past_key_values"
        with torch.autocast(self.model.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            output = self.model(
                input_ids=ids,
                attention_mask=self.mask,
                use_cache=True,
                **{cache: self.cache},
                **{name: value for name, value in optional.items() if name in self.forward_arguments},
            )
        self.cache = getattr(output, cache)
        self.logits: Float[Tensor, "sequences vocab"] = output.logits[:, -1, :].float()
