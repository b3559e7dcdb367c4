"""Lower bounds of KL from the largest log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from lm_eval_pruned.divergence.largest import Largest, compare_largest

VOCAB, TOKENS = 40, 600


def logits(seed: int, scale: float = 2.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((TOKENS, VOCAB))


def log_softmax(values: np.ndarray) -> np.ndarray:
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def largest(logp: np.ndarray, count: int) -> Largest:
    ids = np.argsort(-logp, axis=-1)[:, :count]
    return Largest(ids.astype(np.int32), np.take_along_axis(logp, ids, -1).astype(np.float32), logp[:, 0])


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_more_log_probabilities_bring_the_bound_up_to_kl(noise):
    dense = log_softmax(logits(0))
    pruned = log_softmax(logits(0) + noise * logits(1))
    exact = (np.exp(dense) * (dense - pruned)).sum(-1)
    found = [compare_largest(largest(dense, count), largest(pruned, count)) for count in (1, 5, 20, VOCAB)]
    for one in found:
        assert (one.kl <= exact + 1e-5).all()
        assert one.flipped.tolist() == (dense.argmax(-1) != pruned.argmax(-1)).tolist()
        assert one.logp.tolist() == dense[:, 0].tolist()
    means = [one.kl.mean() for one in found]
    assert means == sorted(means)
    assert means[0] < 0.8 * exact.mean()
    assert means[2] > 0.75 * exact.mean()
    np.testing.assert_allclose(found[-1].kl, exact, atol=1e-5)


def test_models_without_a_token_in_common_have_the_least_bound():
    dense, pruned = np.full((1, 4), -10.0), np.full((1, 4), -10.0)
    dense[0, 0] = pruned[0, 1] = 0.0
    found = compare_largest(largest(log_softmax(dense), 1), largest(log_softmax(pruned), 1))
    assert (found.kl.tolist(), found.flipped.tolist()) == ([0.0], [True])


def test_equal_models_have_none():
    one = largest(log_softmax(logits(0)), 5)
    assert compare_largest(one, one).kl.max() == 0
