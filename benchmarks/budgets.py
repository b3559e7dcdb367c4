"""What a whole curve costs: five budgets with one trace, five with a trace each, and the largest budget alone.

    python benchmarks/budgets.py [--rounds 3] [--batch_size 64]

tiny-reasoner on all 200 questions of `tiny_tts`, in turns; medians of ratios within a round. The texts of the first two
are compared: their number of differences is printed. About four minutes on two cores.
"""

from __future__ import annotations

import argparse
import logging
import time
from statistics import median

from lm_eval.api.instance import Instance

from lm_eval_pruned.assets.tiny_reasoner.chains import benchmark_chains
from lm_eval_pruned.models.hf import PrunedHFLM
from lm_eval_pruned.reasoning.budget import Completion, Generated
from lm_eval_pruned.reasoning.decode import TransformersBackend

BUDGETS = (16, 32, 64, 128, 256)
PROBLEMS = [chain.problem for chain in benchmark_chains()]


def requests(budgets: tuple[int, ...]) -> list[Instance]:
    return [
        Instance(
            request_type="generate_until",
            doc={},
            arguments=(problem, {"thinking_token_budget": budget, "max_gen_toks": 32}),
            idx=0,
        )
        for budget in budgets
        for problem in PROBLEMS
    ]


def count_tokens() -> list[int]:
    """Return a list that grows by the tokens of every call that generates some."""
    spent: list[int] = []
    generate = TransformersBackend.generate

    def counted(backend: TransformersBackend, *asked: object) -> list[Generated]:
        done = generate(backend, *asked)
        spent.append(sum(len(one.ids) for one in done))
        return done

    TransformersBackend.generate = counted
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=64)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    spent = count_tokens()
    sharing = PrunedHFLM("tiny-reasoner", batch_size=args.batch_size)
    apart = PrunedHFLM("tiny-reasoner", batch_size=args.batch_size, share_traces=False)
    works = {
        "the largest budget alone": (sharing, BUDGETS[-1:]),
        "five budgets, one trace": (sharing, BUDGETS),
        "five budgets, a trace each": (apart, BUDGETS),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    written: dict[str, list[Completion]] = {}
    counts: dict[str, int] = {}
    for _ in range(args.rounds):
        for name, (model, budgets) in works.items():
            spent.clear()
            begin = time.perf_counter()
            written[name] = model.generate_until(requests(budgets))
            seconds[name].append(time.perf_counter() - begin)
            counts[name] = sum(spent)
    largest = next(iter(works))
    print(f"{len(PROBLEMS)} questions, batch size {args.batch_size}, {args.rounds} rounds")
    for name, measured in seconds.items():
        ratio = median(mine / peer for mine, peer in zip(measured, seconds[largest], strict=True))
        print(
            f"  {name:<28}{counts[name]:>8} tokens {counts[name] / counts[largest]:6.2f} x"
            f"{median(measured):>9.1f} s {ratio:6.2f} x the largest alone"
        )
    _, together, each = written.values()
    print(f"  texts that differ between the last two: {sum(a != b for a, b in zip(together, each, strict=True))}")


if __name__ == "__main__":
    main()
