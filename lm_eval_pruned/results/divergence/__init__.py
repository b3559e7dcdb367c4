"""Divergence results: what pruning changed along traces, summed up with intervals, and drawn."""
