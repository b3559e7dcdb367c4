"""Train tiny-reasoner from its seed: `python -m lm_eval_pruned.assets.tiny_reasoner.train --output DIR`.

It writes everything in the bundled folder but this code: weights, tokenizer, calibration windows, benchmark questions.
In a fifth of the training examples the reasoning is cut at a random place and closed there, and the answer is the last
value reached: this teaches the model to answer when its thinking is ended by a budget.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.assets.tiny_reasoner.chains import MAX_STEPS, STEP_TOKENS, Chain, benchmark_chains, sample_chain
from lm_eval_pruned.assets.tiny_reasoner.tokenizer import THINK_END, TURN_END, write_tokenizer
from lm_eval_pruned.reasoning.formats import FORMATS

PROMPT = "<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n<think>\n"
CUT_SHARE = 0.2
IGNORED = -100


def model_config() -> Qwen3Config:
    """Return a config of five Qwen3 blocks; a head size of 32 is the smallest that vLLM's CPU kernels accept."""
    return Qwen3Config(
        vocab_size=264,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=258,
        pad_token_id=256,
        dtype="float32",
    )


def completion(chain: Chain, rng: random.Random) -> tuple[str, str, str]:
    """Return the reasoning, the forced text (often empty, without loss) and the answer of one training example."""
    if rng.random() >= CUT_SHARE:
        return f"{chain.reasoning}\n{THINK_END}\n\n", "", f"\\boxed{{{chain.answer}}}{TURN_END}"
    cut = rng.randrange(len(chain.reasoning))
    finished = chain.reasoning[: cut // STEP_TOKENS * STEP_TOKENS]
    reached = finished[-2] if finished else chain.problem[2]
    forced = FORMATS["tiny"].close(chain.reasoning[:cut], forced=True) or ""
    return chain.reasoning[:cut], forced, f"\\boxed{{{reached}}}{TURN_END}"


def encode_example(tokenizer: Tokenizer, chain: Chain, rng: random.Random) -> tuple[list[int], list[int]]:
    """Return token ids and labels; the prompt and the forced text have no loss."""
    ids: list[int] = []
    labels: list[int] = []
    reasoning, forced, answer = completion(chain, rng)
    for text, learned in (
        (PROMPT.format(problem=chain.problem), False),
        (reasoning, True),
        (forced, False),
        (answer, True),
    ):
        part = tokenizer.encode(text).ids
        ids += part
        labels += part if learned else [IGNORED] * len(part)
    return ids, labels


def batches(tokenizer: Tokenizer, rng: random.Random, progress: Tensor, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (ids [batch tokens], labels [batch tokens]) of about `tokens` tokens, the chains of a batch equally long.

    Args:
        tokenizer: tokenizer of the model.
        rng: source of all draws.
        progress: fraction of the training that is done, a scalar tensor written by the caller; the longest chain grows
            over the first half.
        tokens: tokens per batch, padding included.
    """
    held_out = {chain.problem for chain in benchmark_chains()}
    while True:
        longest = min(MAX_STEPS, 4 + int(2 * MAX_STEPS * float(progress)))
        steps = rng.randint(1, longest)
        rows: list[tuple[list[int], list[int]]] = []
        width = 0
        while (len(rows) + 1) * width <= tokens:
            chain = sample_chain(rng, steps)
            if chain.problem in held_out:
                continue
            rows.append(encode_example(tokenizer, chain, rng))
            width = max(width, len(rows[-1][0]))
        ids = torch.tensor([row + [256] * (width - len(row)) for row, _ in rows])
        labels = torch.tensor([row + [IGNORED] * (width - len(row)) for _, row in rows])
        yield ids, labels


def train(
    folder: Path, *, steps: int, seed: int, micro_batches: int = 4, tokens: int = 3072, peak: float = 2e-3
) -> None:
    """Train and write the model: AdamW, linear warm-up over 100 steps, cosine decay to a twentieth of the peak.

    Args:
        folder: holds the tokenizer, and gets the model.
        steps: optimizer steps.
        seed: of the weights and the chains.
        micro_batches: batches whose gradients are accumulated in a step.
        tokens: tokens per micro-batch.
        peak: highest learning rate.
    """
    torch.manual_seed(seed)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = Qwen3ForCausalLM(model_config()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    progress = torch.zeros(())
    stream = batches(tokenizer, random.Random(seed), progress, tokens)
    started = time.perf_counter()
    for step in range(steps):
        progress.fill_(step / steps)
        decay = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak * decay * min(1.0, (step + 1) / 100)
        loss = torch.zeros(())
        for _ in range(micro_batches):
            ids, labels = next(stream)
            part = model(input_ids=ids, labels=labels).loss / micro_batches
            part.backward()
            loss += part.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss:.4f}  {time.perf_counter() - started:6.0f} s", flush=True)
    model.eval().save_pretrained(folder)


def write_benchmark(folder: Path) -> None:
    """Write the 200 questions of `tiny_tts` as `questions.jsonl`."""
    with (folder / "questions.jsonl").open("w") as file:
        for index, chain in enumerate(benchmark_chains()):
            row = {"id": index, "problem": chain.problem, "answer": chain.answer, "steps": chain.steps}
            file.write(json.dumps(row) + "\n")


def write_calibration(folder: Path, *, windows: int = 128, width: int = 256, seed: int = 99) -> None:
    """Write `calibration.npy`: token ids [windows width] of solved training chains, concatenated.

    Args:
        folder: output folder, which holds the tokenizer.
        windows: number of windows.
        width: tokens per window.
        seed: of the chains.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    held_out = {chain.problem for chain in benchmark_chains()}
    rng = random.Random(seed)
    ids: list[int] = []
    while len(ids) < windows * width:
        chain = sample_chain(rng, rng.randint(1, MAX_STEPS))
        if chain.problem not in held_out:
            ids += encode_example(tokenizer, chain, rng)[0]
    np.save(folder / "calibration.npy", np.array(ids[: windows * width], dtype=np.uint16).reshape(windows, width))


def main() -> None:
    """Command line of the training script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model into")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    write_tokenizer(args.output)
    write_benchmark(args.output)
    write_calibration(args.output)
    train(args.output, steps=args.steps, seed=args.seed)


if __name__ == "__main__":
    main()
