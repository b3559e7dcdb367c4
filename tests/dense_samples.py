"""A samples file with two responses of the bundled model, as the harness writes it."""

from __future__ import annotations

import json
from pathlib import Path

PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
RESPONSES = {
    "f=9;g=f-3;g mod 10?": "<think>\ng=f-3=9-3=6;\n</think>\n\n\\boxed{6}",
    "a=4;b=a+5;c=b*2;c mod 10?": "<think>\nc=b*2=9*2=8;\n</think>\n\n\\boxed{8}",
}


def write_samples(folder: Path) -> Path:
    """Write the responses as one samples file."""
    rows = [
        {
            "doc_id": index,
            "doc_hash": f"{index:064x}",
            "arguments": {"gen_args_0": {"arg_0": PROMPT.format(question), "arg_1": {"thinking_token_budget": 16}}},
            "resps": [[response]],
        }
        for index, (question, response) in enumerate(RESPONSES.items())
    ]
    path = folder / "samples_tiny_tts_16.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path
