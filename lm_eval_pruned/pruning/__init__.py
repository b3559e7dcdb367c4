"""Which weights go: statistics, scores, masks and the walk over the blocks."""
