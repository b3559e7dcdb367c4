"""Symbolic equality with sympy, in sandboxed worker processes."""
