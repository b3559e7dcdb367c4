"""Pruning artifacts: masks or solved weights with their report, stored under a fingerprint and applied again."""
