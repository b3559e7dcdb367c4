"""What every cell imports, imported once by the process that cells are forked from."""

import os
import signal
from importlib import import_module

# Ctrl-C reaches every process of a terminal; the sweep answers it.
signal.signal(signal.SIGINT, signal.SIG_IGN)

# Asked the other way, CUDA would be initialised, and no fork could use it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

for name in (
    *("lm_eval.__main__", "lm_eval.evaluator", "lm_eval.models.huggingface"),
    *("lm_eval_pruned.models.hf", "lm_eval_pruned.models.task"),
):
    import_module(name)
