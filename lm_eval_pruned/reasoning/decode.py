"""The decoding loop for models of transformers: a left-padded batch, one token a row and step, finished rows leave."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_pruned.reasoning.budget import Finish, Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import Sampling, next_tokens

# A batch is rebuilt without its finished rows once they are this share of it; rebuilding copies the cache.
FINISHED_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersBackend:
    """Runs a causal language model of transformers.

    `context` is in tokens, `batch_size` in rows; `autocast` is the dtype of mixed precision, or None for that of the
    weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encode_text: Callable[..., list[int]]
    context: int
    batch_size: int
    autocast: torch.dtype | None = None

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize, as the harness does where `special` tokens are wanted at the start."""
        return self.encode_text(text) if special else self.encode_text(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def generate(self, rows: Sequence[Row], stop: Stop, sampling: Sampling) -> list[Generated]:
        """Continue every row; the longest go first, so that a batch too large shows at once."""
        order = sorted(range(len(rows)), key=lambda index: -(len(rows[index].ids) + rows[index].room))
        watch = StopWatch.build(self, stop)
        results: dict[int, Generated] = {}
        with tqdm(total=len(rows), desc="generating", unit="row", disable=None) as progress:
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                done = _decode_batch(self, [rows[index] for index in batch], watch, sampling)
                results.update(zip(batch, done, strict=True))
                progress.update(len(batch))
        return [results[index] for index in range(len(rows))]

    def end_tokens(self) -> frozenset[int]:
        """Every token that ends a sequence: those of the generation config and that of the tokenizer."""
        config = self.model.generation_config
        configured = config.eos_token_id if config is not None else None
        several = configured if isinstance(configured, Collection) else [configured]
        return frozenset(int(token) for token in [*several, self.tokenizer.eos_token_id] if token is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWatch:
    """Tells whether a row has come to its end, by token where a stop text is one token and by text where it is not."""

    ids: frozenset[int]
    texts: tuple[str, ...]
    decode: Callable[[Sequence[int]], str]

    @classmethod
    def build(cls, backend: TransformersBackend, stop: Stop) -> StopWatch:
        """Sort the stop texts into single tokens and the rest."""
        single, longer = set(), []
        for text in stop.texts:
            ids = backend.encode(text, special=False)
            if len(ids) == 1 and ids[0] in backend.tokenizer.added_tokens_decoder:
                single.add(ids[0])
            else:
                longer.append(text)
        return cls(ids=backend.end_tokens() | single, texts=tuple(longer), decode=backend.decode)

    def ended(self, ids: Sequence[int]) -> bool:
        """Tell whether the last of these new tokens ends the row."""
        if ids[-1] in self.ids:
            return True
        # A text of n bytes spans at most n tokens; one more may hold what stands before it.
        return any(text in self.decode(ids[-len(text.encode()) - 1 :]) for text in self.texts)

    def without_stop(self, ids: list[int]) -> list[int]:
        """Drop the tokens that ended the row, whole tokens only: one that also holds earlier text goes too."""
        if ids[-1] in self.ids:
            return ids[:-1]
        end = min(position for text in self.texts if (position := self.decode(ids).find(text)) >= 0)
        while ids and len(self.decode(ids)) > end:
            ids = ids[:-1]
        return ids


@torch.inference_mode()
def _decode_batch(
    backend: TransformersBackend, rows: Sequence[Row], watch: StopWatch, sampling: Sampling
) -> list[Generated]:
    """Generate until no row runs any more; `lines` are the rows still in the batch, in its order."""
    new: list[list[int]] = [[] for _ in rows]
    finish: list[Finish] = ["length" for _ in rows]
    endings: list[Sequence[int]] = [() for _ in rows]
    lines = [index for index, row in enumerate(rows) if row.room > 0]
    running = set(lines)
    batch = _Batch.start(backend, [rows[index].ids for index in lines]) if lines else None
    while batch is not None:
        positions = [len(rows[index].ids) + len(new[index]) for index in lines]
        tokens = next_tokens(batch.logits, sampling, [rows[index].key for index in lines], positions)
        for index, token in zip(lines, tokens.tolist(), strict=True):
            if index not in running:
                continue
            new[index].append(token)
            if watch.ended(new[index]):
                finish[index] = "stop"
                kept = watch.without_stop(new[index])
                new[index], endings[index] = kept, new[index][len(kept) :]
            elif len(new[index]) < rows[index].room:
                continue
            running.remove(index)
        if not running:
            break
        if len(lines) - len(running) >= FINISHED_SHARE * len(lines):
            stay = [line for line, index in enumerate(lines) if index in running]
            batch.select(stay)
            tokens, lines = tokens[stay], [lines[line] for line in stay]
        batch.step(tokens)
    return [Generated(*parts) for parts in zip(new, finish, endings, strict=True)]


@dataclass(slots=True)
class _Batch:
    """The state of a running batch: cache, mask [rows tokens] and the logits [rows vocab] of the next token."""

    model: PreTrainedModel
    autocast: torch.dtype | None
    takes: frozenset[str]
    cache: object
    mask: Tensor
    logits: Tensor

    @classmethod
    def start(cls, backend: TransformersBackend, prompts: Sequence[list[int]]) -> _Batch:
        """Read all prompts, padded on the left."""
        model = backend.model
        width = max(map(len, prompts))
        padding = backend.tokenizer.pad_token_id or 0
        ids = torch.tensor([[padding] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
        mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device
        )
        takes = frozenset(inspect.signature(model.forward).parameters)
        batch = cls(model=model, autocast=backend.autocast, takes=takes, cache=None, mask=mask, logits=torch.empty(0))
        batch._forward(ids, (mask.cumsum(dim=-1) - 1).clamp(min=0))
        return batch

    def step(self, tokens: Tensor) -> None:
        """Read one new token a row."""
        positions = self.mask.sum(dim=-1, keepdim=True)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        self._forward(tokens[:, None], positions)

    def select(self, kept: Sequence[int]) -> None:
        """Keep only these rows."""
        indices = torch.tensor(kept, device=self.mask.device)
        self.cache.batch_select_indices(indices)  # type: ignore[attr-defined]
        self.mask = self.mask[indices]

    def _forward(self, ids: Tensor, positions: Tensor) -> None:
        optional = {"position_ids": positions, "logits_to_keep": 1}
        with torch.autocast(self.model.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            output = self.model(
                input_ids=ids,
                attention_mask=self.mask,
                past_key_values=self.cache,
                use_cache=True,
                **{name: value for name, value in optional.items() if name in self.takes},
            )
        self.cache = output.past_key_values
        self.logits = output.logits[:, -1, :].float()
