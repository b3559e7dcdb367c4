"""Every causal language model of the installed transformers, made tiny, pruned, and checked from outside."""
