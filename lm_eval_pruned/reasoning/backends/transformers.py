"""Backend that generates with a transformers model, by continuous batching over one KV cache.

Thinking, forced text and answer of a row are one sequence in one batch. Where a budget cuts a sequence that goes on
thinking under a larger budget, it forks: its KV cache is copied, and one copy is closed and answers while the other
goes on. Every sequence gets one token per step, sampled or forced. Where others have finished, rows that wait join, if
all layers of the model's cache are of known kinds.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from accelerate.utils.memory import clear_device_cache
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from lm_eval_pruned.process_memory import is_out_of_memory
from lm_eval_pruned.reasoning.backends.batch_size import BatchLimits, count_fitting_rows, describe_single_rows
from lm_eval_pruned.reasoning.backends.cache_trial import CacheTraits, describe_equal_lengths, try_cache
from lm_eval_pruned.reasoning.backends.kv_batch import Batch
from lm_eval_pruned.reasoning.backends.kv_cache import keep_places, upload
from lm_eval_pruned.reasoning.backends.limits import FINISHED_SHARE, PREFILL_TOKENS
from lm_eval_pruned.reasoning.backends.live_sequence import LiveSequence
from lm_eval_pruned.reasoning.backends.tokenizing import TokenizingBackend
from lm_eval_pruned.reasoning.progress import Progress
from lm_eval_pruned.reasoning.requests import Generated, Row
from lm_eval_pruned.reasoning.sampling import Draw, Sampling, derive_seed, sample_all
from lm_eval_pruned.reasoning.stopping import end_tokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersBackend(TokenizingBackend):
    """Runs a causal language model of transformers.

    Attributes:
        model: the model.
        context: the longest sequence, in tokens.
        batch_size: rows of a batch, or None for as many as fit the free memory.
        max_batch_size: most rows of a batch if `batch_size` is None.
        autocast: dtype of mixed precision, or None for that of the weights.
        is_quiet: whether to hide the progress bar.
    """

    model: PreTrainedModel
    context: int
    batch_size: int | None
    max_batch_size: int = 64
    autocast: torch.dtype | None = None
    is_quiet: bool = False

    def run(self, rows: Sequence[Row]) -> None:
        """Continue every row and all that follow; the longest go first, so that a batch too large fails early."""
        if not rows:
            return
        traits = try_cache(self.model, autocast=self.autocast)
        for advice in (
            describe_single_rows(self.batch_size, len(rows), self.model.device),
            describe_equal_lengths(self.model, traits, self.batch_size, [len(row.ids) for row in rows]),
        ):
            if advice and not self.is_quiet:
                logger.warning("%s", advice)
        max_length = max(row.max_length for row in rows)
        batch_size = self.batch_size or min(self.max_batch_size, count_fitting_rows(self.model, max_length))
        limits = BatchLimits.of_rows(batch_size, max_length)
        with Progress.start(rows, is_quiet=self.is_quiet) as progress:
            # A stack: what continues a row goes before other rows, and of those the longest first.
            waiting = [LiveSequence(row=row, ids=list(row.ids), root=root) for root, row in enumerate(rows)]
            waiting.sort(key=lambda sequence: sequence.row.max_length)
            run = _Run(backend=self, progress=progress, end_tokens=self.end_tokens(), traits=traits, waiting=waiting)
            while run.waiting:
                tried = limits
                try:
                    run.decode(limits)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    limits = limits.halved(*run.batch_shape, error)
                    size, _ = run.batch_shape
                    logger.warning("no memory for a batch of %d rows: going on with %d", size, limits.rows)
                    run.interrupt()
                if limits is not tried:
                    # Only outside the except block, as the error's traceback references the batch.
                    clear_device_cache(garbage_collection=True)

    def end_tokens(self) -> frozenset[int]:
        """Return the ids of all end-of-sequence tokens."""
        config = self.model.config
        return end_tokens(self.tokenizer, self.model.generation_config, config, config.get_text_config())


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """The state of one call of `run`: the sequences of the present batch, and those that wait for a place in one.

    Attributes:
        backend: the backend.
        progress: the progress bar.
        end_tokens: ids of all end-of-sequence tokens.
        traits: what a batch of this model may hold.
        waiting: a stack of sequences that are not in the batch.
        live: the sequences in the batch that have not finished.
        batch_shape: sequences in the present batch, and tokens per sequence.
    """

    backend: TransformersBackend
    progress: Progress
    end_tokens: frozenset[int]
    traits: CacheTraits
    waiting: list[LiveSequence]
    live: list[LiveSequence] = field(default_factory=list)
    batch_shape: tuple[int, int] = (0, 0)

    def interrupt(self) -> None:
        """Give up the batch: its sequences wait, and are prefilled again."""
        self.waiting += self.live
        self.live = []

    @torch.inference_mode()
    def decode(self, limits: BatchLimits) -> None:
        """Generate until the batch is empty; what waits then needs a batch of its own.

        The KV cache holds at most `limits.tokens` tokens, padding included. If memory runs out, no sequence is lost.
        """
        batch = self._start(limits)
        # One entry per row of the cache; None where its sequence has finished.
        running: list[LiveSequence | None] = list(self.live)
        # Steps that rows were free, together.
        idle = 0
        while True:
            self._sample(batch.logits, running)
            forks: list[tuple[int, LiveSequence]] = []
            for index, before in enumerate(running):
                continuing = [] if before is None else list(self._advance(before))
                self.waiting += [one for one in continuing if not one.cached]
                in_cache = [one for one in continuing if one.cached]
                running[index] = in_cache[0] if in_cache else None
                forks += [(index, fork) for fork in in_cache[1:]]
            remaining = [(index, one) for index, one in enumerate(running) if one is not None] + forks
            fitting = max(1, limits.tokens // (batch.width + 1))
            self.waiting += [one for _, one in remaining[fitting:]]
            self.live = [one for _, one in remaining[:fitting]]
            if not remaining:
                return
            joining = self._next_to_join(limits, len(running), batch.width) if self.traits.joins else []
            many_finished = len(remaining) <= (1 - FINISHED_SHARE) * len(running)
            if forks or many_finished or fitting < len(running):
                kept = keep_places(remaining[:fitting])
                batch.select([index for index, _ in kept])
                running = [one for _, one in kept]
            self.batch_shape = len(running), batch.width + 1
            batch.step([one.ids[one.cached] if one else None for one in running])
            for one in self.live:
                one.cached += 1
            idle += min(limits.rows, fitting) - len(self.live)
            # A prefill is a pass in which all others wait: it is due once free rows have cost as much.
            if joining and idle >= len(self.live):
                idle = 0
                self._join(batch, running, joining)

    def _next_to_join(self, limits: BatchLimits, rows: int, width: int) -> list[LiveSequence]:
        """Return the sequences that are prefilled next: those on top of the stack, as far as there is room.

        Args:
            limits: the limits of the batch.
            rows: rows of the cache, with those that have finished.
            width: tokens per row.
        """
        chosen: list[LiveSequence] = []
        longest = 0
        for one in reversed(self.waiting):
            needs_padding = bool(chosen) and len(one.ids) != longest
            longest = max(longest, len(one.ids))
            live = len(self.live) + len(chosen) + 1
            too_many = live > limits.rows or max(rows, live) * (max(width, longest) + 1) > limits.tokens
            too_long = bool(chosen) and self.traits.joins and (len(chosen) + 1) * longest > PREFILL_TOKENS
            if (live > 1 and too_many) or too_long or (needs_padding and not self.traits.pads):
                break
            chosen.append(one)
        return chosen

    def _start(self, limits: BatchLimits) -> Batch:
        """Prefill a new batch: as many rows as are read at once, or all if no more can join later."""
        if not self.traits.pads:
            # To the top: what is as long as the sequence there.
            length = len(self.waiting[-1].ids)
            self.waiting.sort(key=lambda one: len(one.ids) == length)
        chosen = self._next_to_join(limits, 0, 0)
        batch = self._prefill(chosen, len(chosen), 0)
        self._admit(chosen)
        return batch

    def _join(self, batch: Batch, running: list[LiveSequence | None], chosen: Sequence[LiveSequence]) -> None:
        """Prefill sequences and put them where others have finished, and after them."""
        free = [index for index, one in enumerate(running) if one is None]
        places = [*free, *range(len(running), len(running) + len(chosen))][: len(chosen)]
        batch.join(self._prefill(chosen, len(self.live) + len(chosen), batch.width), places)
        running += [None] * (max(places) + 1 - len(running))
        for place, one in zip(places, chosen, strict=True):
            running[place] = one
        self._admit(chosen)

    def _prefill(self, chosen: Sequence[LiveSequence], sequences: int, width: int) -> Batch:
        """Prefill sequences, for a batch of that many sequences."""
        self.batch_shape = sequences, max(width, *(len(one.ids) for one in chosen))
        return Batch.prefill(self.backend.model, [one.ids for one in chosen], autocast=self.backend.autocast)

    def _admit(self, chosen: Sequence[LiveSequence]) -> None:
        """Move sequences from the stack into the batch, which has all their tokens."""
        del self.waiting[-len(chosen) :]
        self.live += chosen
        for one in chosen:
            one.cached = len(one.ids)

    def _sample(self, logits: Float[Tensor, "sequences vocab"], running: Sequence[LiveSequence | None]) -> None:
        """Append a sampled token to every sequence whose tokens are all in the cache."""
        by_sampling: dict[Sampling, list[tuple[int, LiveSequence]]] = defaultdict(list)
        forbidden: list[tuple[int, int]] = []
        for index, sequence in enumerate(running):
            if sequence is not None and sequence.cached == len(sequence.ids):
                row = sequence.row
                by_sampling[row.sampling].append((index, sequence))
                if sequence.new_count < row.min_new_tokens:
                    condition = self.backend.stop_condition(row.stop, self.end_tokens)
                    forbidden += [(index, token) for token in condition.token_ids]
        if not by_sampling:
            return
        if forbidden:
            places = tuple(upload(ids, logits.device) for ids in zip(*forbidden, strict=True))
            logits.index_put_(places, logits.new_full((), -torch.inf))
        sampled: list[LiveSequence] = []
        draws: list[Draw] = []
        for sampling, chosen in by_sampling.items():
            indices, sequences = zip(*chosen, strict=True)
            is_all = len(chosen) == len(logits)
            selected = logits if is_all else logits.index_select(0, upload(indices, logits.device))
            keys = upload([derive_seed(one.row.seed, len(one.ids)) for one in sequences], logits.device)
            draws.append(Draw(selected, sampling, keys))
            sampled += sequences
        tokens = sample_all(draws)
        # Appended only now: if memory runs out above, no sequence has a token that `_advance` did not see.
        for sequence, token in zip(sampled, tokens, strict=True):
            sequence.ids.append(token)
            self.progress.add_tokens(sequence.root)

    def _advance(self, sequence: LiveSequence) -> Iterator[LiveSequence]:
        """Yield the sequence itself, if it continues, and then all that follow at this token."""
        row = sequence.row
        if not sequence.new_count:
            yield sequence
            return
        condition = self.backend.stop_condition(row.stop, self.end_tokens)
        if sequence.new_count > row.min_new_tokens and condition.is_met(sequence.ids, start=len(row.ids)):
            ids = condition.without_stop(sequence.new_ids)
            following = row.on_finish(Generated(ids, "stop", sequence.new_ids[len(ids) :]))
            self.progress.add_sequences(sequence.root, len(following) - 1)
        elif sequence.new_count == row.max_new_tokens:
            following = row.on_finish(Generated(sequence.new_ids, "length"))
            self.progress.add_sequences(sequence.root, len(following) - 1)
        else:
            yield sequence
            if sequence.new_count not in row.checkpoints:
                return
            following = row.on_finish(Generated(sequence.new_ids, "length"))
            self.progress.add_sequences(sequence.root, len(following))
        yield from map(sequence.follow, following)
