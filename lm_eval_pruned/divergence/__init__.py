"""Divergence: how far a pruned model's next-token distributions are from the dense model's, along given token ids."""
