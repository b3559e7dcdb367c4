"""The lazily imported names of the top-level package."""

from __future__ import annotations

import pytest

import lm_eval_pruned


@pytest.mark.parametrize("name", lm_eval_pruned.__all__)
def test_every_export_exists(name: str) -> None:
    assert getattr(lm_eval_pruned, name) is not None
    assert name in dir(lm_eval_pruned)


def test_an_export_is_the_object_of_its_module() -> None:
    from lm_eval_pruned.config import PruneConfig

    assert lm_eval_pruned.PruneConfig is PruneConfig


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'prune'"):
        lm_eval_pruned.prune  # noqa: B018
