"""Signals: the number per decoder block that an allocation turns into sparsities."""
