"""English prose and perplexity, as the tests measure it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.prose import perplexity, prose

__all__ = ["perplexity", "prose"]
