"""One GPU against its rooflines, on random weights in the shapes of Qwen3-8B in bfloat16, made on the spot.

    python benchmarks/gpu.py prune magnitude wanda shortgpt    # 128 windows of 2048 tokens
    python benchmarks/gpu.py prune sparsegpt
    python benchmarks/gpu.py prune layerif
    python benchmarks/gpu.py decode
    python benchmarks/gpu.py decode --rows 32 --widths 8192    # one case
    python benchmarks/gpu.py rooflines                         # needs no GPU: the computed table of docs/gpu.md

Each takes at most ten minutes on a card of 48 GB or more, without network, harness and vLLM. `--small` runs the same
code on tiny shapes, with `--device cpu` on any machine. What bandwidth and products are possible is measured in the
same run: a large copy and large products. `decode` compares with `generate` of transformers over a static cache; the
time of a step is a difference between two lengths, so that reading the prompt cancels out. tests/gpu checks masks and
texts.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from roofline import DATA_SHEETS, Ceilings, Shape, pruning_seconds, step_seconds, tokens_per_second
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from lm_eval_pruned.config import PruneConfig
from lm_eval_pruned.paths import assets_folder
from lm_eval_pruned.planning.architecture import read_architecture
from lm_eval_pruned.planning.memory import peak_memory_bytes
from lm_eval_pruned.planning.work import phases
from lm_eval_pruned.pruning.engine import prune_model
from lm_eval_pruned.pruning.model.flops import total
from lm_eval_pruned.pruning.model.shapes import WindowShape
from lm_eval_pruned.pruning.products import float32_product
from lm_eval_pruned.pruning.recipe import resolve
from lm_eval_pruned.reasoning.backends.transformers import TransformersBackend
from lm_eval_pruned.reasoning.requests import Generated, Row, Stop
from lm_eval_pruned.reasoning.sampling import Sampling

QWEN3_8B = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
    "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
SMALL = QWEN3_8B | {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
METHODS = {
    "magnitude": {"method": "magnitude", "sparsity": 0.1},
    "wanda": {"method": "wanda", "sparsity": 0.1},
    "sparsegpt": {"method": "sparsegpt", "sparsity": 0.1},
    "layerif": {"method": "wanda", "alloc": "layerif", "sparsity": 0.1},
    "shortgpt": {"method": "shortgpt", "num_blocks": 1},
}
ROUNDS = 3


def synchronized(work: Callable[[], object], device: str) -> float:
    """Return the seconds of a work, up to its last kernel."""
    wait(device)
    begin = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begin


def wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def measured_ceilings(device: str, *, small: bool) -> Ceilings:
    """Measure copies, which read and write each byte, and products in bfloat16 and float32."""
    size, side = (1 << 22, 256) if small else (1 << 31, 8192)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    square = torch.randn(side, side, device=device)
    half = square.bfloat16()
    works = (lambda: target.copy_(source), lambda: half @ half, lambda: square @ square)
    amounts = (2 * size, 2 * side**3, 2 * side**3)
    for work in works:
        work()
    return Ceilings(
        *(
            amount / median(synchronized(work, device) for _ in range(ROUNDS))
            for amount, work in zip(amounts, works, strict=True)
        )
    )


def gram_rate(device: str, *, small: bool) -> float:
    """Measure what SparseGPT and LayerIF spend their time on: products of inputs with themselves, added to a sum."""
    tokens, side = (64, 96) if small else (2048, 12288)
    rows = torch.randn(tokens, side, device=device, dtype=torch.bfloat16)
    total = torch.zeros(side, side, device=device)

    def add() -> None:
        float32_product(rows.T, rows, added_to=total)

    add()
    return 2 * tokens * side**2 / median(synchronized(add, device) for _ in range(ROUNDS))


def make_model(device: str, *, small: bool) -> PreTrainedModel:
    """Return a random model, initialised on its device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            model = Qwen3ForCausalLM(Qwen3Config(**(SMALL if small else QWEN3_8B))).eval()
    finally:
        torch.set_default_dtype(before)
    model.generation_config = GenerationConfig()
    return model


def prune(methods: Sequence[str], device: str, *, small: bool) -> None:
    """Print seconds and peak memory of each method, beside its roofline and the peak that `plan` predicts."""
    ceilings = measured_ceilings(device, small=small)
    print_ceilings(ceilings)
    print(f"sums in float32 of products in bfloat16: {gram_rate(device, small=small) / 1e12:.1f} TFLOP/s", flush=True)
    windows = WindowShape(*((8, 32) if small else (128, 2048)))
    ids = torch.randint(0, SMALL["vocab_size"], windows, generator=torch.Generator().manual_seed(0))
    print(f"{windows.samples} windows of {windows.seqlen} tokens")
    print(f"{'':<12}{'seconds':>10}{'roofline':>10}{'times':>8}{'peak GB':>10}{'plan GB':>10}")
    for name in methods:
        recipe = resolve(PruneConfig(**METHODS[name]))
        model = make_model(device, small=small)
        architecture = read_architecture(recipe, model, torch.bfloat16, whole=True)
        work = total(phases(recipe, architecture, windows).values())
        least = pruning_seconds(work, architecture.weights * architecture.itemsize, ceilings)
        plan = peak_memory_bytes(recipe, architecture, windows)
        if torch.device(device).type == "cuda":
            # Masks are in the memory of the host.
            plan.pop("masks", None)
            torch.cuda.reset_peak_memory_stats()
        report = None

        def run(model: PreTrainedModel = model, recipe: object = recipe) -> None:
            nonlocal report
            report = prune_model(model, recipe, ids)

        took = synchronized(run, device)
        sizes = f"{report.peak_memory_bytes / 1e9:>10.2f}{sum(plan.values()) / 1e9:>10.2f}"
        print(f"{name:<12}{took:>10.2f}{least:>10.2f}{took / least:>8.1f}{sizes}  {dict(report.seconds)}", flush=True)
        del model, run


def decode(rows: Sequence[int], widths: Sequence[int], device: str, *, small: bool, compiled: bool) -> None:
    """Print tokens a second of our backend and of `generate` with a static cache, beside the roofline."""
    ceilings = measured_ceilings(device, small=small)
    print_ceilings(ceilings)
    model = make_model(device, small=small)
    model.requires_grad_(False)
    shape = shape_of(model)
    tokens = 4 if small else 64
    print(f"{'rows':>5}{'width':>7}{'ours':>10}{'generate':>10}{'roofline':>10}   tokens a second, all rows together")
    for width in widths:
        for count in rows:
            ours, theirs = (
                rate(run, model, count, width, tokens, device)
                for run in (run_ours, lambda *given: run_generate(*given, compiled=compiled))
            )
            least = tokens_per_second(shape, count, width, 2, ceilings)
            print(f"{count:>5}{width:>7}{ours:>10}{theirs:>10}{least:>10.0f}", flush=True)


def shape_of(model: PreTrainedModel) -> Shape:
    config = model.config
    embedding = model.get_input_embeddings().weight
    weights = sum(one.nbytes for one in model.parameters() if one is not embedding)
    return Shape(weights, 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim)


def rate(
    run: Callable[[PreTrainedModel, list[list[int]], int], int],
    model: PreTrainedModel,
    rows: int,
    width: int,
    tokens: int,
    device: str,
) -> str:
    """Return tokens a second beyond the first, by the difference of two lengths; or why there are none."""
    # Prompts of different lengths, so that rows are padded as those of a benchmark are.
    prompts = [[7] * (width - tokens - index % 3) for index in range(rows)]
    try:
        run(model, prompts, 1)
        made: list[int] = []
        few, many = (
            synchronized(lambda length=length: made.append(run(model, prompts, length)), device)
            for length in (1, 1 + tokens)
        )
    except torch.OutOfMemoryError:
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
        return "full"
    return f"{(made[1] - made[0]) / max(many - few, 1e-9):.0f}"


def run_ours(model: PreTrainedModel, prompts: Sequence[list[int]], tokens: int) -> int:
    """Generate with our backend; a full device halves the batch, which its logger reports."""
    tokenizer = AutoTokenizer.from_pretrained(assets_folder() / "tiny_reasoner")
    made = 0

    def finish(generated: Generated) -> list[Row]:
        nonlocal made
        made += len(generated.ids)
        return []

    backend = TransformersBackend(
        model=model, tokenizer=tokenizer, encode_text=tokenizer.encode, context=40960, batch_size=len(prompts),
        is_quiet=True,
    )  # fmt: skip
    backend.run(
        [Row(ids, tokens, 0, Stop(()), Sampling(), finish, max_length=len(ids) + tokens + 1) for ids in prompts]
    )
    return made


def run_generate(model: PreTrainedModel, prompts: Sequence[list[int]], tokens: int, *, compiled: bool) -> int:
    """Generate with transformers over a static cache."""
    device = model.device
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(one)) + one for one in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
    settings = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, cache_implementation="static", pad_token_id=0,
        disable_compile=not compiled,
    )  # fmt: skip
    with torch.inference_mode():
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    return len(prompts) * (found.shape[1] - width)


def rooflines() -> None:
    """Print the computed decoding table: Qwen3-8B in bfloat16, least milliseconds a step by card."""
    with torch.device("meta"):
        shape = shape_of(Qwen3ForCausalLM(Qwen3Config(**QWEN3_8B)).bfloat16())
    print(f"{'':<18}" + "".join(f"{f'{rows} x {width}':>11}" for width in (2048, 8192) for rows in (1, 8, 32)))
    for card, ceilings in DATA_SHEETS.items():
        cells = [step_seconds(shape, rows, width, 2, ceilings) for width in (2048, 8192) for rows in (1, 8, 32)]
        print(f"{card:<18}" + "".join(f"{1e3 * cell:>8.1f} ms" for cell in cells))


def print_ceilings(ceilings: Ceilings) -> None:
    print(
        f"measured: copies {ceilings.bandwidth / 1e12:.2f} TB/s, products {ceilings.flops / 1e12:.1f} TFLOP/s in "
        f"bfloat16 and {ceilings.fp32_flops / 1e12:.1f} in float32",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prune", "decode", "rooflines"))
    parser.add_argument("methods", nargs="*", choices=[[], *METHODS], help="of prune; all by default")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to see that everything runs")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--widths", type=int, nargs="+", help="tokens of a row; 2048 and 8192 by default")
    parser.add_argument("--compile", action="store_true", help="let generate compile its step, which takes minutes")
    args = parser.parse_args()
    if args.what == "rooflines":
        rooflines()
        return
    name = "the CPU"
    if torch.device(args.device).type == "cuda":
        if not torch.cuda.is_available():
            sys.exit(f"no CUDA device for --device {args.device}: --device cpu --small runs the same code on a CPU")
        name = f"{torch.cuda.get_device_name(args.device)}, CUDA {torch.version.cuda}"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if args.what == "prune":
        prune(args.methods or [*METHODS], args.device, small=args.small)
    else:
        widths = args.widths or ([16, 32] if args.small else [2048, 8192])
        decode(args.rows, widths, args.device, small=args.small, compiled=args.compile)


if __name__ == "__main__":
    main()
