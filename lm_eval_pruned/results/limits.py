"""Bounds on the results files that are read, the texts on the leaderboard page, and exact statistics."""

from __future__ import annotations

# A longer line of a samples file is not a row of the harness, and would not fit in memory.
MAX_LINE_BYTES = 256 * 2**20
# More tokens than any model has room for; a larger number is not a thinking budget.
MAX_BUDGET = 2**40

# The page shows the texts of this many questions lost and won per comparison, the largest changes first,
MAX_LOST = 12
MAX_WON = 6
# and of this many in total, the most significant comparisons first.
MAX_CHANGES = 1_200
# A longer text loses its middle: its subject stands at the beginning, and its answer at the end.
MAX_CHARACTERS = 3_000

# A trained weight is hardly ever exactly 0: a model with a larger fraction of zeros was pruned before it was evaluated.
ZEROS_OF_A_DENSE_MODEL = 1e-3

# Accuracies are means over at most a few hundred samples: with a larger denominator they are not fractions.
MAX_DENOMINATOR = 1_000
# Largest sum whose distribution is counted: the time grows with its square, up to half a second.
MAX_SUM = 40_000
