"""How a model thinks: thinking formats, budgets and decoding."""
