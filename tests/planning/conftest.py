"""The small model and the calibration windows of the pruning tests."""

from tests.pruning.conftest import model, windows

__all__ = ["model", "windows"]
