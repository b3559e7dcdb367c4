"""Regression gate: hold new runs against a baseline file and report what got worse."""
