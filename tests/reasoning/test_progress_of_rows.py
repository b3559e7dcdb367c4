"""The total of the thinking bar is an estimate, and never less than what was generated."""

from __future__ import annotations

import random

from lm_eval_pruned.reasoning.progress import Progress
from lm_eval_pruned.reasoning.requests import Row, Stop
from lm_eval_pruned.reasoning.sampling import Sampling


def test_the_total_stays_ahead_of_what_is_generated():
    lengths = sorted(random.Random(1).choices(range(1, 200), k=40))
    rows = [Row([1], 200, 0, Stop(()), Sampling(), lambda _: [], max_length=211)] * len(lengths)
    with Progress.start(rows) as progress:
        assert progress.bar.total == 40 * 210
        # Side by side, so that the shortest finish first.
        for step in range(max(lengths)):
            for row, length in enumerate(lengths):
                if step < length:
                    progress.add_tokens(row)
                    if step == length - 1:
                        progress.add_sequences(row, -1)
                    running = sum(length > step + 1 for length in lengths)
                    assert progress.bar.total >= progress.bar.n + (running > 0 and step < 190)
    assert progress.bar.n == progress.bar.total == sum(lengths)
