"""Teacher forcing: what a dense model computes along traces is kept, and compared with a pruned model's, once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lm_eval_pruned.divergence.head import TwoParts
from lm_eval_pruned.divergence.kl import chunk_tokens, compare
from lm_eval_pruned.divergence.traces import TokenTrace, batches, offsets
from lm_eval_pruned.errors import PruningError

# Called with the number of tokens of each finished batch.
Progress = Callable[[int], object]
# Which tokens of the responses of all traces, joined, count; None for all.
Counted: TypeAlias = NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class DenseTraces:
    """Traces with the states of the dense model before each token of their responses [tokens width].

    From them the same model's logits follow, pruned or not, since its head is never pruned.
    """

    traces: Sequence[TokenTrace]
    states: Tensor


class Divergences(NamedTuple):
    """What `compare` found at each token of the responses of all traces, joined: each of the three is [tokens]."""

    kl: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    logp: NDArray[np.float64]


@torch.no_grad()
def dense_traces(
    model: TwoParts,
    traces: Sequence[TokenTrace],
    allocate: Callable[[torch.Size, torch.dtype], Tensor] = lambda shape, dtype: torch.empty(shape, dtype=dtype),
    progress: Progress = lambda _: None,
) -> DenseTraces:
    """Run a dense model once over every trace and keep its states before each token of a response.

    Args:
        model: the dense model.
        traces: what it is run over.
        allocate: returns an uninitialised tensor for the states, which may be in a file.
        progress: called with the number of tokens of each finished batch.
    """
    kept: Tensor | None = None
    for batch in _run(model, traces):
        if kept is None:
            shape = torch.Size([int(offsets(traces)[-1]), batch.states.shape[-1]])
            kept = allocate(shape, batch.states.dtype)
        kept[batch.positions] = batch.states.cpu()
        progress(len(batch.positions))
    assert kept is not None, "there is at least one trace"
    return DenseTraces(traces, kept)


@torch.no_grad()
def diverge(model: TwoParts, dense: DenseTraces, progress: Progress = lambda _: None) -> Divergences:
    """Run a pruned model once over every trace and compare its next-token distributions with the dense model's.

    Args:
        model: the pruned model, with the head of the dense one.
        dense: traces with the states of the dense model.
        progress: called with the number of tokens of each finished batch.

    Raises:
        PruningError: logits are not finite.
    """
    total = len(dense.states)
    found = Divergences(np.empty(total), np.empty(total, dtype=np.bool_), np.empty(total))
    following = torch.tensor([token for trace in dense.traces for token in trace.ids[trace.start :]])
    size: int | None = None
    for batch in _run(model, dense.traces):
        start = 0
        while start < len(batch.positions):
            # The vocabulary is known from the first logits.
            rows = slice(start, start + (size or 1))
            positions = batch.positions[rows]
            states = batch.states[rows]
            before = model.logits(dense.states[positions].to(states.device))
            after = model.logits(states)
            one = compare(before, after, following[positions].to(after.device))
            for kept, new in zip(found, one, strict=True):
                kept[positions.numpy()] = new.cpu().numpy()
            start += len(positions)
            size = chunk_tokens(after.shape[-1])
            del before, after
        progress(len(batch.positions))
    _check_finite(found, dense.traces)
    return found


def mean_kl(model: TwoParts, dense: DenseTraces, counted: Counted = None) -> float:
    """Return KL(dense || pruned) in nats a token of the traces: the fitness of an allocation, lower is better.

    Args:
        model: the pruned model.
        dense: traces with the states of the dense model.
        counted: which tokens of all responses, joined, the mean is over; all if it is None.

    Raises:
        PruningError: logits are not finite.
    """
    kl = diverge(model, dense).kl
    return float((kl if counted is None else kl[counted]).mean())


@torch.no_grad()
def mean_loss(model: TwoParts, traces: Sequence[TokenTrace], counted: Counted = None) -> float:
    """Return the mean loss of the responses in nats a token, whose exponential is their perplexity; NaN if it is none.

    Args:
        model: the model.
        traces: what it is run over.
        counted: as for `mean_kl`.
    """
    total, tokens, size = 0.0, 0, 1
    every = np.ones(int(offsets(traces)[-1]), dtype=np.bool_) if counted is None else counted
    following = torch.tensor([token for trace in traces for token in trace.ids[trace.start :]])
    for batch in _run(model, traces):
        start = 0
        while start < len(batch.positions):
            rows = slice(start, start + size)
            logits = model.logits(batch.states[rows])
            wanted = following[batch.positions[rows]].to(logits.device)
            logp = torch.log_softmax(logits, -1, dtype=torch.float32).gather(-1, wanted[:, None])
            chosen = torch.from_numpy(every)[batch.positions[rows]].to(logits.device)
            total -= float(logp[chosen].double().sum())
            tokens += int(chosen.sum())
            start += len(wanted)
            size = chunk_tokens(logits.shape[-1])
    return total / tokens


class _Batch(NamedTuple):
    """States before the tokens of the responses of some traces [tokens width], and where they belong among all."""

    states: Tensor
    positions: Tensor


def _run(model: TwoParts, traces: Sequence[TokenTrace]) -> Iterator[_Batch]:
    """Run a model over batches of traces, padded on the right: no token of a causal model sees the padding."""
    begins = offsets(traces)
    for indices in batches(traces):
        longest = max(len(traces[index].ids) for index in indices)
        ids = torch.zeros(len(indices), longest, dtype=torch.long)
        for row, index in enumerate(indices):
            ids[row, : len(traces[index].ids)] = torch.tensor(traces[index].ids)
        states = model.states(ids.to(model.device))
        # The state before token n is that of token n - 1.
        kept = [states[row, traces[index].start - 1 : len(traces[index].ids) - 1] for row, index in enumerate(indices)]
        places = [torch.arange(begins[index], begins[index + 1]) for index in indices]
        yield _Batch(torch.cat(kept), torch.cat(places))


def _check_finite(found: Divergences, traces: Sequence[TokenTrace]) -> None:
    bad = np.flatnonzero(~np.isfinite(found.kl))
    if not len(bad):
        return
    begins = offsets(traces)
    index = int(np.searchsorted(begins, bad[0], side="right")) - 1
    of_dense = not np.isfinite(found.logp[bad[0]])
    raise PruningError(
        f"the logits of the {'dense' if of_dense else 'pruned'} model are not finite at {len(bad)} of "
        f"{len(found.kl)} tokens, the first of them token {bad[0] - begins[index]} of trace {index}: give "
        "dtype=float32 or bfloat16, or prune less"
    )
