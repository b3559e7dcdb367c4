"""The pretend device refuses and counts what CUDA would: faults that were planted are found."""

from __future__ import annotations

import pytest
import torch

from lm_eval_pruned.pruning.masks.rule import MaskRule
from lm_eval_pruned.pruning.methods.sparsegpt import sparsegpt
from lm_eval_pruned.pruning.products import float32_product
from tests.gpu_rehearsal.cuda import pretend_cuda
from tests.gpu_rehearsal.rules import FLOAT32_SUMS, PretendCudaError

pytestmark = pytest.mark.rehearsal

FAULTS = {
    "a product of two devices": lambda card: card @ torch.ones(3, 3, device="cuda:1"),
    "a product with host memory": lambda card: card @ torch.ones(3, 3),
    "a sum with host memory": lambda card: card + torch.ones(3),
    "a join with host memory": lambda card: torch.cat([card, torch.ones(3, 3)]),
    "a mask in host memory": lambda card: card.masked_fill_(torch.ones(3, 3, dtype=torch.bool), 0),
    "a where with host memory": lambda card: torch.where(card > 0, card, torch.zeros(3, 3)),
    "an index on another device": lambda card: card.index_select(0, torch.tensor([0], device="cuda:1")),
    "a generator of the CPU": lambda card: card.exponential_(generator=torch.Generator()),
    "a generator of the CPU for a new tensor": lambda card: torch.rand(3, device="cuda", generator=torch.Generator()),
    "a histogram": lambda card: torch.histogram(card, 4),
    "an order of uint16": lambda card: card.to(torch.uint16).sort(),
    "a numpy array": lambda card: card.numpy(),
    "a numpy array by protocol": lambda card: __import__("numpy").asarray(card),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cuda_refuses_is_refused(fault):
    with pretend_cuda():
        card = torch.ones(3, 3, device="cuda")
        with pytest.raises((PretendCudaError, NotImplementedError, TypeError)):
            FAULTS[fault](card)


@pytest.mark.skipif(not FLOAT32_SUMS, reason="PyTorch has products with float32 sums since 2.8")
def test_products_of_16_bits_have_float32_sums_on_cuda():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = float32_product(rows.T, rows)
    with pretend_cuda() as counts:
        card = rows.to("cuda")
        once = float32_product(card.T, card)
        twice = float32_product(card.T, card, added_to=once.clone())
        assert once.is_cuda
        assert torch.equal(once.cpu(), expected)
        assert torch.equal(twice.cpu(), float32_product(rows.T, rows, added_to=expected.clone()))
        # No copy in float32 is made of what is multiplied.
        assert counts.launches["mm"] == counts.launches["addmm"] == 1
        assert not counts.launches["_to_copy"]
        with pytest.raises(PretendCudaError, match="out_dtype must be fp32"):
            torch.mm(card.float().T, card.float(), out_dtype=torch.float32)


def test_sparsegpt_launches_two_kernels_a_column():
    weight = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    with pretend_cuda() as counts:
        sparsegpt(weight.to("cuda"), torch.eye(512, device="cuda"), MaskRule(sparsity=0.5, compare="matrix"))
        assert counts.launches.total() < 2.5 * 512
        # One for each mask, and one to look for NaN.
        assert counts.synchronisations["_local_scalar_dense"] == 512 / 128 + 1


def test_what_cuda_allows_is_allowed():
    with pretend_cuda() as counts:
        card = torch.arange(12.0, device="cuda:1").reshape(3, 4)
        assert (card * torch.tensor(2.0) + 1).device == torch.device("cuda", 1)
        assert card[torch.tensor([0, 2])].cpu().tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
        assert counts.synchronisations["index from the host"] == 1
        assert (card.to(torch.int16) * (card > 5)).sum().cpu() == 51
        assert card.new_zeros(2).device == torch.zeros_like(card).device == card.device
        assert torch.zeros_like(card, device="cpu").device.type == "cpu"
        assert card.to("cuda:0").device == torch.device("cuda", 0)
        assert torch.rand(2, device="cuda", generator=torch.Generator("cuda")).is_cuda
    assert counts.copied_bytes["between devices"] == 48


WAITS = {
    "item": lambda card: card.sum().item(),
    "a truth value": lambda card: bool(card.all()),
    "a float in a format": lambda card: f"{card.max():.1f}",
    "a list": lambda card: card.tolist(),
    "an index by a mask": lambda card: card[card > 0],
    "nonzero": lambda card: card.nonzero(),
    "equality": lambda card: torch.equal(card, card),
    "a copy to the host": lambda card: card.cpu(),
    "a copy from the host": lambda card: torch.tensor([1.0], device="cuda"),
    "a copy into a row": lambda card: card[0].copy_(torch.ones(3)),
    "a factorisation": lambda card: torch.linalg.cholesky(card @ card.T + torch.eye(3, device="cuda")),
}


@pytest.mark.parametrize("inference", [False, True], ids=["", "inference mode"])
@pytest.mark.parametrize("reason", WAITS)
def test_every_synchronisation_is_counted(reason, inference):
    with pretend_cuda() as counts, torch.inference_mode(inference):
        card = torch.ones(3, 3, device="cuda")
        assert not counts.synchronisations
        WAITS[reason](card)
        assert counts.synchronisations.total() == 1


def test_launches_and_bytes_are_counted_and_views_are_not():
    with pretend_cuda() as counts:
        card = torch.ones(8, 8, device="cuda")
        (card.T.reshape(4, 16)[1:] + 1).unsqueeze(0)
    assert counts.launches == {"ones": 1, "clone": 1, "add": 1}
    assert counts.moved_bytes == 4 * (64 + 2 * 64 + 2 * 48)
    assert not counts.synchronisations


def test_sums_in_any_order_are_counted_unless_deterministic_algorithms_are_on(monkeypatch):
    def add() -> None:
        card = torch.zeros(3, device="cuda")
        card.index_add_(0, torch.zeros(2, dtype=torch.long, device="cuda"), torch.ones(2, device="cuda"))
        assert card.tolist() == [2, 0, 0]

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with pretend_cuda() as counts:
        add()
        assert counts.unordered == {"index_add_": 1}
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        add()
        assert counts.unordered == {"index_add_": 1}
        with pytest.raises(PretendCudaError, match="deterministic implementation"):
            torch.ones(3, device="cuda").cumsum(0)
        assert torch.ones(2, 2, device="cuda").mm(torch.ones(2, 2, device="cuda")).sum().item() == 8
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
        with pytest.raises(PretendCudaError, match="CUBLAS_WORKSPACE_CONFIG"):
            torch.ones(2, 2, device="cuda").mm(torch.ones(2, 2, device="cuda"))


def test_products_in_tf32_are_counted():
    before = torch.get_float32_matmul_precision()
    with pretend_cuda() as counts:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            for dtype in (torch.float32, torch.bfloat16):
                torch.ones(2, 2, device="cuda", dtype=dtype).mm(torch.ones(2, 2, device="cuda", dtype=dtype))
    torch.set_float32_matmul_precision(before)
    assert counts.reduced.total() == 1


def test_gradients_cross_devices():
    with pretend_cuda():
        weight = torch.full((2, 2), 3.0, device="cuda:0", requires_grad=True)
        seen = []
        hidden = (weight * 2).to("cuda:1")
        hidden.register_hook(lambda gradient: seen.append((gradient.device.index, torch.zeros(1).device.type)))
        (hidden * hidden).sum().backward()
        assert seen == [(1, "cpu")]
        assert weight.grad.device == torch.device("cuda", 0)
        assert weight.grad.tolist() == [[24, 24], [24, 24]]


def test_gradients_change_their_dtype_on_the_device():
    with pretend_cuda():
        weight = torch.full((2, 2), 3.0, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        (weight @ weight).float().sum().backward()
        assert weight.grad.is_cuda
        assert weight.grad.tolist() == [[12, 12], [12, 12]]


def test_a_given_gradient_is_the_one_that_goes_backward():
    with pretend_cuda():
        weight = torch.full((2,), 3.0, device="cuda", requires_grad=True)
        (weight * 2).backward(torch.tensor([5.0, 7.0], device="cuda"))
        assert weight.grad.tolist() == [10, 14]


def test_nothing_is_left_behind():
    generator, to = torch.Generator, torch.nn.Module.to
    with pretend_cuda():
        assert torch.cuda.is_available()
    assert (torch.Generator, torch.nn.Module.to, torch.cuda.is_available()) == (generator, to, False)
