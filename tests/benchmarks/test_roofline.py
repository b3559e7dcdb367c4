"""Roofline arithmetic, against counts by hand for Qwen3-8B."""

from __future__ import annotations

import pytest

from benchmarks.roofline import Ceilings, Shape, pruning_seconds, step_bytes, step_seconds, tokens_per_second
from lm_eval_pruned.pruning.model.flops import Work

# 36 blocks of 193 million weights and a head of 151936 x 4096, 2 bytes each; 8 heads of 128 keys and values a block.
QWEN3_8B = Shape(weight_bytes=15_136_190_464, token_bytes=36 * 2 * 8 * 128 * 2)
H100 = Ceilings(bandwidth=3.35e12, flops=9.89e14, fp32_flops=6.7e13)


@pytest.mark.parametrize(("rows", "width", "milliseconds"), [(1, 4096, 4.7), (8, 4096, 6.0), (23, 8192, 12.8)])
def test_a_step_reads_weights_and_cache_once(rows, width, milliseconds):
    assert step_bytes(QWEN3_8B, rows, width) == QWEN3_8B.weight_bytes + rows * width * 147_456
    assert 1e3 * step_seconds(QWEN3_8B, rows, width, 2, H100) == pytest.approx(milliseconds, abs=0.05)


def test_products_bound_steps_of_many_rows():
    seconds = step_seconds(QWEN3_8B, 1000, 1, 2, H100)
    assert seconds == pytest.approx(1000 * QWEN3_8B.weight_bytes / H100.flops)
    assert tokens_per_second(QWEN3_8B, 1000, 1, 2, H100) == pytest.approx(H100.flops / QWEN3_8B.weight_bytes)


def test_pruning_reads_and_writes_weights_and_multiplies():
    assert pruning_seconds(Work(), 335, H100._replace(bandwidth=335.0)) == 2.0
    work = Work(matmul_flops=1e15, fp32_matmul_flops=1e14)
    assert pruning_seconds(work, 0, H100) == pytest.approx(1e15 / 9.89e14 + 1e14 / 6.7e13)
