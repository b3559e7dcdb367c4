"""Symbolic comparison with sympy, in sandboxed worker processes."""
