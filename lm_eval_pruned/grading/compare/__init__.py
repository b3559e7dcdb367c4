"""Comparison: decide whether two parsed answers mean the same."""
