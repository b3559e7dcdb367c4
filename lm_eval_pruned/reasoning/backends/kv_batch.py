"""Continuous batching over one KV cache: prefill prompts, decode a token per step, evict, fork and join sequences."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import transformers
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from lm_eval_pruned.errors import EngineError
from lm_eval_pruned.reasoning.backends import kv_cache
from lm_eval_pruned.reasoning.backends.kv_cache import grow_in_place, rearrange, upload
from lm_eval_pruned.reasoning.backends.last_logits import only_last_logits
from lm_eval_pruned.reasoning.backends.step_mask import StepMask, step_mask

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
        paddings: tokens of padding on the left of each sequence.
        width: tokens per sequence in the cache, padding included.
        logits: logits of the next token [sequences vocab], in float32.
        cache: the KV cache, of whatever type the model returns.
    """

    model: PreTrainedModel
    autocast: torch.dtype | None
    forward_arguments: frozenset[str]
    paddings: list[int]
    width: int
    logits: Tensor
    cache: object = None

    @classmethod
    def prefill(
        cls, model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, autocast: torch.dtype | None
    ) -> Batch:
        """Run all prompts through the model, padded on the left, to fill the KV cache."""
        width = max(map(len, prompts))
        paddings = [width - len(prompt) for prompt in prompts]
        batch = cls(
            model=model,
            autocast=autocast,
            forward_arguments=frozenset(inspect.signature(model.forward).parameters),
            paddings=paddings,
            width=width,
            logits=torch.empty(0),
        )
        padded = [[PADDING] * padding + list(prompt) for padding, prompt in zip(paddings, prompts, strict=True)]
        mask = batch._mask().long()
        batch._forward(torch.tensor(padded, device=batch.device), mask, (mask.cumsum(dim=-1) - 1).clamp(min=0))
        grow_in_place(batch.cache)
        return batch

    @property
    def device(self) -> torch.device:
        """The device of the input ids."""
        return self.model.device

    @property
    def can_pad(self) -> bool:
        """Whether sequences of different lengths compute what each computes alone."""
        return kv_cache.can_pad(self.cache) and self._follows_positions

    @property
    def can_join(self) -> bool:
        """Whether other sequences can join."""
        return kv_cache.can_join(self.cache) and self._follows_positions

    @property
    def _follows_positions(self) -> bool:
        """Whether the model uses the positions it is given, or none, as a model that keeps states only.

        A model that takes no `position_ids` counts from the first token, padding or not, and new tokens from the width
        of the cache.
        """
        return "position_ids" in self.forward_arguments or not kv_cache.has_tokens(self.cache)

    def step(self, tokens: Sequence[int | None]) -> None:
        """Run one new token per sequence through the model; None for a sequence that has finished."""
        slack = min(padding for token, padding in zip(tokens, self.paddings, strict=True) if token is not None)
        if slack and self.can_join:
            self._trim(slack)
        # A finished one goes on from position 0: its own may be beyond those that the model has.
        positions = [
            0 if token is None else self.width - padding for token, padding in zip(tokens, self.paddings, strict=True)
        ]
        ids = [PADDING if token is None else token for token in tokens]
        self.width += 1
        self._forward(upload(ids, self.device)[:, None], self._step_mask(), upload(positions, self.device)[:, None])

    def select(self, sequences: Sequence[int]) -> None:
        """Keep only these sequences, in this order; an index that is given twice forks. The logits become invalid."""
        rearrange(self.cache, sequences, self.device)
        self.paddings = [self.paddings[sequence] for sequence in sequences]

    def join(self, other: Batch, places: Sequence[int]) -> None:
        """Put the sequences of a batch that was prefilled at these places, which have finished or are new ones."""
        old, rows = len(self.paddings), max(len(self.paddings), *(place + 1 for place in places))
        width = max(self.width, other.width)
        self.paddings = [padding + width - self.width for padding in self.paddings] + [0] * (rows - old)
        for place, padding in zip(places, other.paddings, strict=True):
            self.paddings[place] = padding + width - other.width
        self.width = width
        indices = upload(places, self.device)
        kv_cache.join(self.cache, other.cache, indices, rows)
        self.logits = pad(self.logits, (0, 0, 0, rows - old)).index_copy_(
            0, indices.to(self.logits.device), other.logits
        )

    def _trim(self, tokens: int) -> None:
        """Drop tokens on the left that are padding in every sequence which has not finished."""
        kv_cache.trim(self.cache, tokens)
        self.paddings = [max(0, padding - tokens) for padding in self.paddings]
        self.width -= tokens

    def _mask(self) -> Bool[Tensor, "sequences tokens"]:
        """Return the mask of the batch, False where a sequence is padded."""
        return torch.arange(self.width, device=self.device) >= upload(self.paddings, self.device)[:, None]

    def _step_mask(self) -> StepMask:
        """Return the attention mask of a step; `step_mask` supports only layers whose sequences can join."""
        if not self.can_join:
            return self._mask().long()
        layers = self.cache.layers  # type: ignore[attr-defined]
        return step_mask(self.model, layers, self._mask(), is_padded=any(self.paddings))

    def _forward(
        self, ids: Int[Tensor, "sequences tokens"], mask: StepMask, positions: Int[Tensor, "sequences tokens"]
    ) -> None:
        optional = {"position_ids": positions, "logits_to_keep": 1}
        cache = cache_name(self.forward_arguments) or "past_key_values"
        keeps_all = "logits_to_keep" not in self.forward_arguments and ids.shape[1] > 1
        with (
            torch.autocast(self.model.device.type, dtype=self.autocast, enabled=self.autocast is not None),
            only_last_logits(self.model, ids.shape[1]) if keeps_all else nullcontext(),
        ):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                use_cache=True,
                **{cache: self.cache},
                **{name: value for name, value in optional.items() if name in self.forward_arguments},
            )
        self.cache = getattr(output, cache, None)
        if self.cache is None:
            raise EngineError(no_cache(type(self.model).__name__))
        self.logits: Float[Tensor, "sequences vocab"] = output.logits[:, -1, :].float()


def cache_name(forward_arguments: Collection[str]) -> str | None:
    """Return the name of the KV cache among the arguments of a model's `forward`, which its output has as well.

    It changed in transformers 5.24; models with code of their own may lag. None where a model takes no cache.
    """
    return next((name for name in ("cache", "past_key_values") if name in forward_arguments), None)


def no_cache(model: str) -> str:
    """Return the error message for a class of models that returns no KV cache."""
    return (
        f"{model} keeps no KV cache that transformers {transformers.__version__} returns, so that it cannot generate "
        "under a thinking budget: take another model, or a task without thinking_token_budget"
    )
