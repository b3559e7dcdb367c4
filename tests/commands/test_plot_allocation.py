"""Plots of an allocation's sparsities."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from lm_eval_pruned.commands.plot_allocation import draw_allocation, draw_blocks
from lm_eval_pruned.errors import MissingPackageError
from lm_eval_pruned.pruning.artifacts.report import BlockReport

BLUE, VERMILION, HATCHED = (0, 114, 178), (213, 94, 0), (204, 204, 204)


def block(index: int, attn: float, mlp: float) -> BlockReport:
    return BlockReport(index=index, attn=attn, mlp=mlp, achieved=(attn + mlp) / 2)


def pixels(path, colour: tuple[int, int, int]) -> int:
    picture = np.rint(imread(path)[..., :3] * 255)
    return int((picture == colour).all(axis=-1).sum())


@pytest.mark.parametrize("count", [1, 4, 64])
def test_series_that_agree_are_drawn_once(tmp_path, count):
    path = tmp_path / "picture.png"
    draw_allocation([block(index, 0.2, 0.2) for index in range(count)], path, title="uniform")
    assert pixels(path, BLUE) > 20
    assert pixels(path, VERMILION) == 0
    assert path.stat().st_size < 60_000


@pytest.mark.parametrize("count", [4, 64])
def test_series_that_differ_in_one_block_are_drawn_apart(tmp_path, count):
    path = tmp_path / "picture.png"
    blocks = [block(index, 0.2, 0.3 if index == 2 else 0.2) for index in range(count)]
    draw_allocation(blocks, path, title="layerif")
    assert pixels(path, VERMILION) > 20
    assert pixels(path, BLUE) > 20
    assert pixels(path, HATCHED) < 50  # a grey of some letter


def test_dropped_blocks_stand_out(tmp_path):
    path = tmp_path / "picture.png"
    draw_allocation([block(index, *([float(index in (3, 4))] * 2)) for index in range(9)], path, title="shortgpt")
    assert pixels(path, HATCHED) > 1000
    assert pixels(path, BLUE) > 20
    assert pixels(path, VERMILION) == 0


@pytest.mark.parametrize("count", [1, 2, 4, 9, 10, 28, 30, 36, 64, 80, 126, 200])
def test_block_numbers_do_not_touch(count):
    figure = Figure(figsize=(6, 2.5), layout="constrained")
    axes = figure.subplots()
    draw_blocks(axes, [block(index, 0.2, 0.2) for index in range(count)])
    figure.canvas.draw()
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    assert [label.get_text() for label in labels][:1] == ["0"]
    assert len(labels) >= min(count, 5)
    for left, right in pairwise(label.get_window_extent() for label in labels):
        assert left.x1 + 5 < right.x0


def test_the_name_of_a_list_is_no_mathematics(tmp_path):
    draw_allocation([block(0, 0.2, 0.2)], tmp_path / "picture.png", title=r"wanda, $\no$.json, sparsity 0.2")
    assert pixels(tmp_path / "picture.png", BLUE) > 20


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'lm-eval-pruned\[plot\]'"):
        draw_allocation([block(0, 0.2, 0.2)], tmp_path / "picture.png", title="uniform")
