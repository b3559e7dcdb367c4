"""Comparison: decide whether two parsed answers have equal values."""
