"""Sweeps: a grid of evaluation runs, executed locally or on Ray and resumed after a kill."""
