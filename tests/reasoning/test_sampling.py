"""Sampling: distribution, filters, and noise that depends only on seed and position."""

from __future__ import annotations

import torch
from scipy.stats import chisquare

from lm_eval_pruned.reasoning.sampling import Sampling, derive_seed, sample_tokens

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])


def draws(sampling: Sampling, count: int = 2000) -> torch.Tensor:
    seeds = [derive_seed("row", index) for index in range(count)]
    tokens = sample_tokens(LOGITS.repeat(count, 1), sampling, seeds, [3] * count)
    return torch.bincount(tokens, minlength=len(LOGITS))


def test_draws_follow_the_softmax():
    for temperature in (0.7, 1.0, 1.5):
        expected = 2000 * (LOGITS.double() / temperature).softmax(dim=0)
        assert chisquare(draws(Sampling(temperature=temperature)).numpy(), expected.numpy()).pvalue > 0.001


def test_a_temperature_of_zero_is_greedy():
    assert draws(Sampling()).tolist() == [2000, 0, 0, 0, 0]


def test_filters_forbid_tokens():
    assert draws(Sampling(temperature=1.0, top_k=2))[2:].sum() == 0
    assert draws(Sampling(temperature=1.0, top_p=0.7))[2:].sum() == 0
    assert draws(Sampling(temperature=1.0, min_p=0.2))[2:].sum() == 0
    assert draws(Sampling(temperature=1.0, top_k=-1))[4] > 0


def test_a_row_does_not_depend_on_its_batch():
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    seeds, positions = list(range(7)), [5, 6, 7, 8, 9, 10, 11]
    together = sample_tokens(logits.clone(), Sampling(temperature=1.0), seeds, positions)
    for row in range(7):
        alone = sample_tokens(logits[row : row + 1].clone(), Sampling(temperature=1.0), [seeds[row]], [positions[row]])
        assert alone[0] == together[row]


def test_seed_and_position_change_the_noise():
    sampling = Sampling(temperature=5.0)
    flat = torch.zeros(1, 1000)
    tokens = {int(sample_tokens(flat, sampling, [seed], [position])) for seed in range(5) for position in range(5)}
    assert len(tokens) > 20


def test_logits_are_not_modified():
    logits = LOGITS[None].clone()
    sample_tokens(logits, Sampling(temperature=1.0), [1], [1])
    assert torch.equal(logits[0], LOGITS)
