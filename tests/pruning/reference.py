"""Slow, obvious versions of the methods, written from the papers' formulas and sharing nothing with the package."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def magnitude_matrix(weight: Tensor, sparsity: float) -> Tensor:
    """Zero the floor(numel * sparsity) smallest of a matrix, the first of equal ones first."""
    flat = weight.abs().flatten().tolist()
    order = sorted(range(len(flat)), key=lambda index: (flat[index], index))
    pruned = weight.clone().flatten()
    pruned[order[: math.floor(len(flat) * sparsity)]] = 0
    return pruned.reshape(weight.shape)


def rows_by_score(weight: Tensor, score: Tensor, sparsity: float) -> Tensor:
    """Zero the floor(in * sparsity) lowest scores of every row, by stable sorting as the published code does."""
    pruned = weight.clone()
    columns = score.sort(dim=-1, stable=True).indices[:, : math.floor(weight.shape[1] * sparsity)]
    return pruned.scatter(1, columns, 0.0)


@torch.no_grad()
def wanda_in_place(model: nn.Module, windows: Tensor, sparsity: float, *, propagate: str) -> None:
    """Prune block after block; each norm comes from a full forward pass of the model as it is by then.

    With `pruned` the earlier blocks are already pruned; with `dense` all norms are taken before anything is pruned.
    """
    blocks = list(model.model.layers)
    if propagate == "dense":
        norms = [input_norms(model, block, windows) for block in blocks]
    for index, block in enumerate(blocks):
        block_norms = norms[index] if propagate == "dense" else input_norms(model, block, windows)
        for name, linear in linears(block).items():
            score = linear.weight.abs() * block_norms[name]
            linear.weight.copy_(rows_by_score(linear.weight, score, sparsity))


@torch.no_grad()
def input_norms(model: nn.Module, block: nn.Module, windows: Tensor) -> dict[str, Tensor]:
    squares: dict[str, Tensor] = {}
    handles = []
    for name, linear in linears(block).items():

        def add(module: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            squares[name] = squares.get(name, 0.0) + inputs[0].square().sum(dim=(0, 1))

        handles.append(linear.register_forward_pre_hook(add))
    for window in windows:
        model(window[None])
    for handle in handles:
        handle.remove()
    return {name: total.sqrt() for name, total in squares.items()}


@torch.no_grad()
def owl_sparsities(model: nn.Module, windows: Tensor, target: float, *, owl_m: float, owl_lambda: float) -> list[float]:
    """The formulas of arXiv 2310.05175 for blocks of equal size, without any clamping."""
    ratios = []
    for block in model.model.layers:
        norms = input_norms(model, block, windows)
        scores = torch.cat([(linear.weight.abs() * norms[name]).flatten() for name, linear in linears(block).items()])
        ratios.append(100 * float((scores > owl_m * scores.mean()).double().mean()))
    spread = max(ratios) - min(ratios)
    raised = [2 * owl_lambda * (ratio - min(ratios)) / spread for ratio in ratios]
    keeps = [value - sum(raised) / len(raised) + (1 - target) for value in raised]
    return [1 - keep for keep in keeps]


@torch.no_grad()
def sparsegpt_row_by_row(weight: Tensor, inputs: Tensor, sparsity: float, *, pattern: tuple[int, int] | None) -> Tensor:
    """Optimal Brain Surgeon over columns: each step inverts anew what is left of the Hessian, in float64.

    One block of columns, compared over the whole matrix, as published for up to 128 columns; or N of M columns a row.
    """
    new = weight.double().clone()
    rows, columns = new.shape
    hessian = inputs.double().T @ inputs.double()
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    inverses = [torch.linalg.inv(hessian[column:, column:]) for column in range(columns)]
    removed = torch.zeros(rows, columns, dtype=torch.bool)
    for column in range(columns):
        span = pattern[1] if pattern else columns
        if column % span == 0:
            score = torch.stack(
                [new[:, other] ** 2 / inverses[other][0, 0] for other in range(column, column + span)], dim=1
            )
            if pattern:
                lowest = score.argsort(dim=1)[:, : span - pattern[0]]
                removed[:, column : column + span].scatter_(1, lowest, True)
            else:
                removed.view(-1)[score.flatten().argsort()[: math.floor(rows * columns * sparsity)]] = True
        inverse = inverses[column]
        for row in range(rows):
            if removed[row, column]:
                new[row, column:] -= new[row, column] / inverse[0, 0] * inverse[0]
                new[row, column] = 0
    return new


def tail_exponent(weight: Tensor) -> float:
    """Hill's estimator above the fullest bin of the spectrum, on plain lists."""
    eigenvalues = sorted(float(value) for value in torch.linalg.eigvalsh(gram_of_smaller_side(weight.double())))
    logs = [math.log10(value) for value in eigenvalues]
    width = (logs[-1] - logs[0]) / 100
    bins = [min(int((value - logs[0]) / width), 99) for value in logs]
    fullest = max(range(100), key=lambda index: (bins.count(index), -index))
    above = [value for value, place in zip(eigenvalues, bins, strict=True) if place >= fullest]
    return 1 + (len(above) - 1) / sum(math.log(value / above[0]) for value in above[1:])


def gram_of_smaller_side(weight: Tensor) -> Tensor:
    return weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight


def alphapruning_sparsities(model: nn.Module, target: float) -> list[float]:
    """The formulas of arXiv 2410.10912 with epsilon 0.3, for blocks of equal size."""
    alphas = []
    for block in model.model.layers:
        found = [tail_exponent(linear.weight.detach()) for linear in linears(block).values()]
        alphas.append(sum(found) / len(found))
    raw = [(alpha - min(alphas)) / (max(alphas) - min(alphas)) * 0.6 + 0.7 for alpha in alphas]
    return [value * target * len(raw) / sum(raw) for value in raw]


@torch.no_grad()
def dlp_sparsities(model: nn.Module, windows: Tensor, target: float) -> list[float]:
    """The formulas of arXiv 2505.23807 with alpha 0.15, for blocks of equal size."""
    medians = []
    for block in model.model.layers:
        norms = input_norms(model, block, windows)
        scores: list[float] = []
        for name, linear in linears(block).items():
            scores += (linear.weight.abs() * norms[name]).flatten().tolist()
        medians.append(sorted(scores)[(len(scores) - 1) // 2])
    importance = [1 - median / sum(medians) for median in medians]
    spread = max(importance) - min(importance)
    raised = [0.3 * (value - min(importance)) / spread for value in importance]
    return [target - value + sum(raised) / len(raised) for value in raised]


def gradients(model: nn.Module, window: Tensor) -> dict[str, Tensor]:
    """One sample's gradient of the mean token loss, materialised by an ordinary backward pass."""
    model.zero_grad()
    logits = model(window[None]).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, window[1:]).backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return found


def layerif_scores(model: nn.Module, windows: Tensor, *, parts: list[list[str]]) -> list[list[float]]:
    """Sum of positive dot products with the mean gradient of the last quarter, one list a group of parts."""
    held = max(1, len(windows) // 4)
    held_out = [gradients(model, window) for window in windows[-held:]]
    training = [gradients(model, window) for window in windows[:-held]]
    scores = []
    for part in parts:
        row = []
        for index in range(len(model.model.layers)):
            names = [
                f"model.layers.{index}.{name}.weight"
                for name in linears(model.model.layers[index])
                if name.split(".")[0] in part
            ]
            total = 0.0
            for sample in training:
                dot = 0.0
                for name in names:
                    mean = sum(one[name].double() for one in held_out) / held
                    dot += float((mean * sample[name].double()).sum())
                total += max(0.0, dot)
            row.append(total)
        scores.append(row)
    return scores


def layerif_sparsities(scores: list[float], target: float, *, direction: str, low: float, high: float) -> list[float]:
    """The mapping of arXiv 2604.25098 for blocks of equal size; a quadratic through five points by least squares."""

    def unit(values: list[float]) -> list[float]:
        return [(value - min(values)) / (max(values) - min(values)) for value in values]

    values = unit([abs(score) for score in scores])
    count = len(values)
    window = min(5, count - 1 + count % 2)
    smooth = []
    for place in range(count):
        begin = min(max(place - window // 2, 0), count - window)
        design = torch.tensor([[1.0, x, x * x] for x in range(begin, begin + window)], dtype=torch.float64)
        right = torch.tensor(values[begin : begin + window], dtype=torch.float64)
        a, b, c = torch.linalg.lstsq(design, right).solution.tolist()
        smooth.append(min(max(a + b * place + c * place * place, 0.0), 1.0))
    normed = unit(smooth)
    shares = [(value if direction == "prune" else 1 - value) * (high - low) + low for value in normed]
    return [share * target * count / sum(shares) for share in shares]
