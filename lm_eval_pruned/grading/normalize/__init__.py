"""Normalisation: rewrite an answer to one canonical LaTeX spelling."""
