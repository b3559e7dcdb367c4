"""Reasoning under a budget: thinking formats, budget forcing, sampling, and the backends that generate."""
