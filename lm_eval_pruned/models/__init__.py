"""Adapters to the harness, where pruning, reasoning and grading meet."""
