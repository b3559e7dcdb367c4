"""The model being pruned: its decoder blocks, their Linears, and where their weights are."""
