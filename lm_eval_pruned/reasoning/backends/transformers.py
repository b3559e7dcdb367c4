"""Decoding with a transformers model: lines that read what is forced on them, write, fork at a budget, and leave.

Thinking, forced text and answer of a row are one line in one batch and read the key/value cache of what stands before
them. Where a budget cuts a line that goes on thinking under a larger one, the line forks: its cache is copied, the copy
is closed and answers, and both go on side by side. Every line gets one token a step, its own or a forced one.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_pruned.reasoning.backends.batch_size import Bounds, rows_that_fit
from lm_eval_pruned.reasoning.backends.kv_batch import PADDING, Batch
from lm_eval_pruned.reasoning.progress import Progress
from lm_eval_pruned.reasoning.requests import Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import Sampling, next_tokens
from lm_eval_pruned.reasoning.stopping import StopWatch, end_tokens

logger = logging.getLogger(__name__)

# A batch is rebuilt without its finished lines once they are this share of it; rebuilding copies the cache.
FINISHED_SHARE = 0.25
# Forced text is read one token a step beside lines that write; a longer one is faster read with its prefix, at once.
LONGEST_FORCED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersBackend:
    """Runs a causal language model of transformers.

    `context` is in tokens; `batch_size` in rows, or None for as many of at most `max_batch_size` as fit the free
    memory; `autocast` is the dtype of mixed precision, or None for that of the weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encode_text: Callable[..., list[int]]
    context: int
    batch_size: int | None
    max_batch_size: int = 64
    autocast: torch.dtype | None = None
    is_quiet: bool = False

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokenize, as the harness does where `special` tokens are wanted at the start."""
        return self.encode_text(text) if special else self.encode_text(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def run(self, rows: Sequence[Row]) -> None:
        """Continue every row and all that follows; the longest go first, so that a batch too large shows at once."""
        if not rows:
            return
        longest = max(row.longest for row in rows)
        bounds = Bounds.of(self.batch_size or min(self.max_batch_size, rows_that_fit(self.model, longest)), longest)
        with Progress.start([row.longest - len(row.ids) for row in rows], is_quiet=self.is_quiet) as progress:
            run = _Run(backend=self, progress=progress)
            waiting = [Line(row=row, ids=list(row.ids), root=root) for root, row in enumerate(rows)]
            while waiting:
                waiting.sort(key=lambda line: line.row.longest, reverse=True)
                run.alive, waiting = waiting[: bounds.rows], waiting[bounds.rows :]
                tried = bounds
                try:
                    run.decode(capacity=bounds.tokens)
                except RuntimeError as error:
                    if not should_reduce_batch_size(error):
                        raise
                    bounds = bounds.below(*run.held, error)
                    logger.warning("no memory for a batch of %d rows: going on with %d", run.held[0], bounds.rows)
                waiting += run.alive
                if bounds is not tried:
                    # Only here, behind the error that held it, is the batch given back.
                    clear_device_cache(garbage_collection=True)

    def end_tokens(self) -> frozenset[int]:
        """Every token that ends a sequence."""
        return end_tokens(self.model.generation_config, self.tokenizer)


@dataclass(slots=True, kw_only=True, eq=False)
class Line:
    """A row on its way: all its tokens so far, how many of them the cache holds, and the row it goes back to."""

    row: Row
    ids: list[int]
    root: int
    fed: int = 0

    @property
    def written(self) -> int:
        """New tokens so far; 0 while forced ones are still being read."""
        return len(self.ids) - len(self.row.ids)

    @property
    def new(self) -> list[int]:
        """The new tokens so far."""
        return self.ids[len(self.row.ids) :]

    def follow(self, row: Row) -> Line:
        """Return the line of a row that follows; it goes on from the same cache if it begins with what that holds."""
        to_read = len(row.ids) - self.fed
        goes_on = 0 < to_read <= LONGEST_FORCED and row.ids[: self.fed] == self.ids[: self.fed]
        return Line(row=row, ids=list(row.ids), root=self.root, fed=self.fed if goes_on else 0)


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """What all batches of one run share, and the lines of the present one that have not come to their end.

    `held` is how many lines the present batch has, and how many tokens each of them.
    """

    backend: TransformersBackend
    progress: Progress
    alive: list[Line] = field(default_factory=list)
    held: tuple[int, int] = (0, 0)
    watches: dict[Stop, StopWatch] = field(default_factory=dict)

    @torch.inference_mode()
    def decode(self, *, capacity: int) -> None:
        """Write until no line of the batch runs any more; alive are then those that wait for a batch of their own.

        The cache holds at most `capacity` tokens, padding included. Where memory runs out, all lines stay alive.
        """
        backend, lines = self.backend, self.alive
        self.held = len(lines), max(len(line.ids) for line in lines)
        batch = Batch.read(backend.model, [line.ids for line in lines], autocast=backend.autocast)
        for line in lines:
            line.fed = len(line.ids)
        running: list[Line | None] = list(lines)
        waiting: list[Line] = []
        while True:
            self._write(batch.logits, running)
            forks: list[tuple[int, Line]] = []
            for place, before in enumerate(running):
                after = [] if before is None else list(self._after(before))
                waiting += [line for line in after if not line.fed]
                go_on = [line for line in after if line.fed]
                running[place] = go_on[0] if go_on else None
                forks += [(place, fork) for fork in go_on[1:]]
            kept = [(place, line) for place, line in enumerate(running) if line is not None] + forks
            self.alive = waiting + [line for _, line in kept]
            if not kept:
                return
            room = max(1, capacity // (batch.width + 1))
            if forks or len(kept) <= (1 - FINISHED_SHARE) * len(running) or room < len(running):
                kept, late = kept[:room], kept[room:]
                waiting += [line for _, line in late]
                batch.select([place for place, _ in kept])
                running = [line for _, line in kept]
            tokens = [line.ids[line.fed] if line else PADDING for line in running]
            self.held = len(running), batch.width + 1
            batch.step(torch.tensor(tokens, device=batch.device))
            for _, line in kept:
                line.fed += 1

    def _write(self, logits: Float[Tensor, "lines vocab"], running: Sequence[Line | None]) -> None:
        """Append a token to every line that has read all it is to read."""
        groups: dict[Sampling, list[tuple[int, Line]]] = defaultdict(list)
        for place, line in enumerate(running):
            if line is not None and line.fed == len(line.ids):
                groups[line.row.sampling].append((place, line))
                if line.written < line.row.least:
                    logits[place, list(self._watch(line.row.stop).ids)] = -torch.inf
        drawn: list[tuple[Line, int]] = []
        for sampling, places in groups.items():
            wanted = logits if len(places) == len(logits) else logits[[place for place, _ in places]]
            keys, positions = zip(*((line.row.key, len(line.ids)) for _, line in places), strict=True)
            tokens = next_tokens(wanted, sampling, keys, positions).tolist()
            drawn += zip((line for _, line in places), tokens, strict=True)
        # Where memory runs out while tokens are drawn, no line has got one that nobody has looked at.
        for line, token in drawn:
            line.ids.append(token)
            self.progress.wrote(line.root)

    def _after(self, line: Line) -> Iterator[Line]:
        """Yield the line itself, if it goes on, and then whatever follows at this point."""
        row, watch = line.row, self._watch(line.row.stop)
        if not line.written:
            yield line
            return
        if line.written > row.least and watch.ended(line.ids, start=len(row.ids)):
            kept = watch.without_stop(line.new)
            following = row.then(Generated(kept, "stop", line.new[len(kept) :]))
            self.progress.opened(line.root, len(following) - 1)
        elif line.written == row.room:
            following = row.then(Generated(line.new, "length"))
            self.progress.opened(line.root, len(following) - 1)
        else:
            yield line
            if line.written not in row.marks:
                return
            following = row.then(Generated(line.new, "length"))
            self.progress.opened(line.root, len(following))
        yield from map(line.follow, following)

    def _watch(self, stop: Stop) -> StopWatch:
        if stop not in self.watches:
            backend = self.backend
            self.watches[stop] = StopWatch.build(
                stop,
                end_tokens=backend.end_tokens(),
                added=backend.tokenizer.added_tokens_decoder,
                encode=lambda text: backend.encode(text, special=False),
                decode=backend.decode,
            )
        return self.watches[stop]
