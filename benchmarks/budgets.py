"""Cost of budgeted thinking: five budgets against the largest one alone, and against plain generation.

    python benchmarks/budgets.py [--rounds 5] [--batch_size 64]

First tiny-reasoner on all 200 questions of `tiny_tts`: five budgets with one trace, five with a trace each, and the
largest budget alone, in turns; the texts of the first two are compared. Then SmolLM2-135M on prose: thinking that is
cut and answered, against `generate` of transformers for as many tokens, in turns. Prints medians of ratios within a
round; takes about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from statistics import median

import torch
from lm_eval.api.instance import Instance
from prose import prose
from smollm2 import temporary_smollm2
from timing import ratio, warm_in_turns

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.reasoning.completion import Completion
from lm_eval_pruned.reasoning.progress import Progress

BUDGETS = (16, 32, 64, 128, 256)
PROBLEMS = [chain.problem for chain in benchmark_chains()]
PLAIN_ROWS, PLAIN_PROMPT, PLAIN_TOKENS, ANSWER_TOKENS = 16, 64, 128, 32


def requests(problems: Sequence[str], budgets: Sequence[int], **kwargs: object) -> list[Instance]:
    return [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(problem, {"thinking_token_budget": budget, "max_gen_toks": 32, **kwargs}),
            idx=0,
            task_name="",
            doc_id=0,
        )
        for budget in budgets
        for problem in problems
    ]


def measure_five_budgets(rounds: int, batch_size: int) -> None:
    tokens = [0]
    add_tokens = Progress.add_tokens
    Progress.add_tokens = lambda progress, row: (tokens.__setitem__(0, tokens[0] + 1), add_tokens(progress, row))  # type: ignore
    sharing = PrunedHFLM("tiny-reasoner", batch_size=batch_size)
    unshared = PrunedHFLM("tiny-reasoner", batch_size=batch_size, share_traces=False)
    texts: dict[str, list[Completion]] = {}
    counts: dict[str, int] = {}

    def generate(name: str, model: PrunedHFLM, budgets: Sequence[int]) -> None:
        tokens[0] = 0
        texts[name] = model.generate_until(requests(PROBLEMS, budgets), disable_tqdm=True)
        counts[name] = tokens[0]

    named = {
        "the largest budget alone": (sharing, BUDGETS[-1:]),
        "five budgets, one trace": (sharing, BUDGETS),
        "five budgets, a trace each": (unshared, BUDGETS),
    }
    seconds = warm_in_turns(
        {name: lambda name=name, a=args: generate(name, *a) for name, args in named.items()}, rounds
    )
    largest, together, each = named
    print(f"{len(PROBLEMS)} questions, batch size {batch_size}, {rounds} rounds")
    for name, measured in seconds.items():
        print(
            f"  {name:<28}{counts[name]:>8} tokens {counts[name] / counts[largest]:6.2f} x"
            f"{median(measured):>9.1f} s {ratio(measured, seconds[largest]):6.2f} x the largest alone"
        )
    differing = sum(one != other for one, other in zip(texts[together], texts[each], strict=True))
    print(f"  texts that differ between the last two: {differing}")
    Progress.add_tokens = add_tokens


def measure_plain_generation(rounds: int) -> None:
    with temporary_smollm2() as folder:
        model = PrunedHFLM(str(folder), batch_size=PLAIN_ROWS, thinking="none", auto_chat_template=False)
    prompts = model.tokenizer.batch_decode(prose(model.tokenizer, samples=PLAIN_ROWS, seqlen=PLAIN_PROMPT))
    asked = requests(
        prompts,
        [PLAIN_TOKENS - ANSWER_TOKENS],
        min_tokens_thinking=PLAIN_TOKENS - ANSWER_TOKENS,
        max_gen_toks=ANSWER_TOKENS,
    )
    texts = model.generate_until(asked, disable_tqdm=True)
    length = max(len(model.tok_encode(text)) for text in texts)
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")

    def plain() -> None:
        with torch.inference_mode():
            model.model.generate(**batch, do_sample=False, min_new_tokens=length, max_new_tokens=length, pad_token_id=0)

    seconds = warm_in_turns(
        {"plain": plain, "budgeted": lambda: model.generate_until(asked, disable_tqdm=True)}, rounds
    )
    print(f"{PLAIN_ROWS} rows of {length} tokens (budgeted: {length - PLAIN_TOKENS} of them forced), SmolLM2-135M")
    print(
        f"  plain generate {median(seconds['plain']):.1f} s, budgeted {median(seconds['budgeted']):.1f} s: "
        f"{ratio(seconds['budgeted'], seconds['plain']):.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    measure_five_budgets(args.rounds, args.batch_size)
    measure_plain_generation(args.rounds)


if __name__ == "__main__":
    main()
