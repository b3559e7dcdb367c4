"""Inference backends: generate tokens with transformers or with vLLM."""
