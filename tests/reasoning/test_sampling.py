"""Sampling: distribution, filters, and noise that depends only on the key of a row."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lm_eval_pruned.reasoning import sampling as sampling_module
from lm_eval_pruned.reasoning.sampling import (
    UNDECIDED,
    Draw,
    Sampling,
    derive_seed,
    gumbel_noise,
    least_kept,
    sample_all,
    sample_tokens,
)

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])


MASK = (1 << 64) - 1


def keys(*names: object) -> torch.Tensor:
    return torch.tensor([derive_seed(name) for name in names])


def draws(sampling: Sampling, count: int = 2000) -> torch.Tensor:
    tokens = sample_tokens(LOGITS.repeat(count, 1), sampling, keys(*range(count)))
    return torch.bincount(tokens, minlength=len(LOGITS))


def test_draws_follow_the_softmax():
    for temperature in (0.7, 1.0, 1.5):
        expected = 2000 * (LOGITS.double() / temperature).softmax(dim=0)
        assert chisquare(draws(Sampling(temperature=temperature)).numpy(), expected.numpy()).pvalue > 0.001


@pytest.mark.parametrize("greedy", [Sampling(), Sampling(temperature=1.0, top_k=1)], ids=["temperature", "top_k"])
def test_greedy_takes_the_first_of_the_likeliest(greedy):
    assert draws(greedy).tolist() == [2000, 0, 0, 0, 0]
    tied = torch.tensor([[0.0, 1.0, 1.0]]).repeat(50, 1)
    assert sample_tokens(tied, greedy, keys(*range(50))).tolist() == [1] * 50


@pytest.mark.parametrize(
    "filters",
    [{"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 20, "top_p": 0.6}, {"top_k": 500, "min_p": 0.01}],
    ids=str,
)
def test_filters_keep_what_those_of_transformers_keep(filters):
    logits = 3 * torch.randn(20, 300, generator=torch.Generator().manual_seed(0))
    wanted = logits
    for name, warper in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper)):
        if name in filters:
            wanted = warper(filters[name])(torch.LongTensor(), wanted)
    kept = logits >= least_kept(logits, Sampling(temperature=1.0, **filters))
    assert torch.equal(kept, wanted.isfinite())
    assert not kept.all()
    drawn = sample_tokens(logits, Sampling(temperature=1.0, **filters), keys(*range(20)))
    assert kept[range(20), drawn].all()


@pytest.mark.parametrize("min_p", [0.0, 0.01])
def test_a_few_candidates_of_top_p_draw_what_the_whole_vocabulary_does(min_p, monkeypatch):
    monkeypatch.setattr(sampling_module, "CANDIDATES", 64)
    sharpness = torch.linspace(0, 6, 400)[:, None]
    logits = sharpness * torch.randn(400, 3000, generator=torch.Generator().manual_seed(0))
    # Ties at the threshold, tokens that may not be drawn, and a share of exactly top_p.
    logits[::7] = logits[::7].round()
    logits[::5, ::3] = -torch.inf
    logits[1] = torch.tensor([0.0] * 20 + [-torch.inf] * 2980)
    for top_p in (0.3, 0.9, 0.95):
        nucleus = Sampling(temperature=0.8, top_p=top_p, min_p=min_p)
        seeds = keys(*range(400))
        whole = sample_tokens(logits, nucleus, seeds).tolist()
        undecided = (sample_tokens(logits, nucleus, seeds, candidates=64) == UNDECIDED).tolist()
        assert undecided[:2] == [True, True]
        assert 20 < sum(undecided) < 350
        others = Draw(logits[:5], Sampling(), seeds[:5])
        greedy = logits[:5].argmax(dim=-1).tolist()
        assert sample_all([others, Draw(logits, nucleus, seeds), others]) == [*greedy, *whole, *greedy]


def test_tokens_as_likely_as_the_last_one_stay():
    tied = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    for filters in ({"top_k": 2}, {"top_p": 0.5}):
        assert least_kept(tied, Sampling(temperature=1.0, **filters)) == 1.0


def test_a_top_k_of_minus_one_is_no_limit():
    assert draws(Sampling(temperature=1.0, top_k=-1))[4] > 0


def test_a_row_does_not_depend_on_its_batch():
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(temperature=1.0)
    together = sample_tokens(logits, sampling, keys(*range(7)))
    alone = [int(sample_tokens(logits[[row]], sampling, keys(row))) for row in range(7)]
    assert together.tolist() == alone


def test_the_key_changes_the_noise():
    flat = torch.zeros(25, 1000)
    assert len(set(sample_tokens(flat, Sampling(temperature=5.0), keys(*range(25))).tolist())) > 20


def test_logits_are_not_modified():
    logits = LOGITS[None].clone()
    sample_tokens(logits, Sampling(temperature=1.0, top_p=0.5), keys(1))
    assert torch.equal(logits[0], LOGITS)


def splitmix64(key: int, count: int) -> list[int]:
    """The generator as it was published, in integers without a limit."""
    outputs = []
    for index in range(1, count + 1):
        state = key + index * 0x9E3779B97F4A7C15 & MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
        outputs.append(state ^ state >> 31)
    return outputs


@pytest.mark.parametrize("vocab", [1, 6, 7])
def test_noise_is_that_of_splitmix64(vocab):
    key = derive_seed("a row")
    halves = [half & 0x7FFFFFFF for output in splitmix64(key, 4) for half in (output, output >> 32)]
    wanted = [-math.log(-math.log1p(-(half + 0.5) / 2**31)) for half in halves[:vocab]]
    assert gumbel_noise(torch.tensor([key]), vocab)[0].tolist() == pytest.approx(wanted, rel=1e-5)


def test_noise_of_tokens_and_rows_is_independent():
    noise = gumbel_noise(keys(*range(40)), 20_001).double()
    assert kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 0.001
    uniform = (-(-noise).exp()).exp()
    between_rows = torch.corrcoef(uniform)[~torch.eye(40, dtype=torch.bool)]
    assert between_rows.abs().max() * 20_001**0.5 < 5
    between_tokens = torch.corrcoef(torch.stack([uniform[:, :-1].flatten(), uniform[:, 1:].flatten()]))[0, 1]
    assert abs(between_tokens) * 800_000**0.5 < 4


def test_tokens_are_those_of_this_release():
    """Stored responses and published texts depend on them: another generator is an entry of the changelog."""
    logits = torch.arange(1000).mul(0.7).sin()[None].repeat(8, 1)
    sampling = Sampling(temperature=1.0, top_k=400, top_p=0.9)
    assert derive_seed(7, "question", 0) == 4258627919581450637
    assert sample_tokens(logits, sampling, keys(*range(8))).tolist() == [729, 971, 540, 910, 38, 523, 962, 425]
