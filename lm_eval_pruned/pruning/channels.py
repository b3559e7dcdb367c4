"""Choose the channels that every MLP keeps: for each block, calibrate, score, and propagate what is left."""

from __future__ import annotations

import torch
from torch import Tensor

from lm_eval_pruned.errors import PruningError
from lm_eval_pruned.progress import progress_bar
from lm_eval_pruned.pruning.calibration.activations import Windows
from lm_eval_pruned.pruning.calibration.calibrator import calibrate
from lm_eval_pruned.pruning.calibration.observed import Observed
from lm_eval_pruned.pruning.calibration.statistics import InputNorm
from lm_eval_pruned.pruning.methods import WidthMethod
from lm_eval_pruned.pruning.model.decoder import Decoder
from lm_eval_pruned.pruning.model.narrowing import Narrowing, stop_reading


def kept_channels(
    decoder: Decoder, narrowing: Narrowing, windows: Windows, method: WidthMethod, *, dense: bool
) -> dict[str, Tensor]:
    """Return the channels that each block keeps, in order, by name of the block; of equal scores the first go.

    Weights that read the other channels are set to zero, so that later blocks see what is left.

    Args:
        decoder: the model, whose blocks are onloaded one by one.
        narrowing: how many channels stay, and which Linear reads them.
        windows: calibration token ids.
        method: scores the channels.
        dense: whether later blocks see the outputs of dense blocks instead.

    Raises:
        PruningError: a score is not finite.
    """
    readers = {block.index: narrowing.reader(block) for block in decoder.blocks}
    observed = Observed(linears={index: [one] for index, one in readers.items()}, collect=InputNorm, dense=dense)
    kept: dict[str, Tensor] = {}
    with progress_bar(len(decoder.blocks) * len(windows), desc="channels", unit="window") as progress:
        calibrator = calibrate(decoder, windows, observed, progress.update)
        for block in decoder.onload_blocks():
            reader = readers[block.index]
            scores = method.score(reader.weight.detach(), calibrator.measure(block)[reader.name])
            if not scores.isfinite().all():
                raise PruningError(f"{reader.name}: a weight is not a number (NaN) or infinite: check the checkpoint")
            order = scores.cpu().argsort(stable=True)
            kept[block.name] = order[narrowing.units - narrowing.left :].sort().values.to(torch.int64)
            stop_reading(reader, kept[block.name])
            calibrator.advance(block)
    return kept
