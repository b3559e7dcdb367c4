"""Preload for the fork server: import what every cell needs before cells are forked."""

import os
import signal
from importlib import import_module

# Ctrl-C reaches every process of a terminal; only the sweep handles it.
signal.signal(signal.SIGINT, signal.SIG_IGN)

# Check for CUDA through NVML: the other check would initialise CUDA, which no fork could then use.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

for name in (
    *("lm_eval.__main__", "lm_eval.evaluator", "lm_eval.models.huggingface"),
    *("lm_eval_pruned.models.hf", "lm_eval_pruned.models.task"),
):
    import_module(name)
