"""Choice of the calibration source: what `calib` means, decided from the settings and the checkpoint, only here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lm_eval_pruned.config import PruneConfig, is_traces
from lm_eval_pruned.paths import bundled_folder
from lm_eval_pruned.pruning.calibration.source import CalibrationSource, CheckpointInfo, Traces
from lm_eval_pruned.pruning.calibration.texts import PaperChunks, Texts, TokenIds
from lm_eval_pruned.pruning.model.shapes import WindowShape


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCalibration:
    """Calibration source of a recipe that needs none; the source that was named is checked all the same."""

    unused: CalibrationSource

    @property
    def needs_model(self) -> bool:
        """False."""
        return False

    def check(self) -> None:
        """Check the source that was named."""
        self.unused.check()

    def shape(self, checkpoint: CheckpointInfo) -> WindowShape:
        """Return zeros."""
        del checkpoint
        return WindowShape(0, 0)

    def windows(self, checkpoint: CheckpointInfo) -> None:
        """Return None."""
        del checkpoint


def choose_source(
    config: PruneConfig, pretrained: str, *, is_needed: bool, paper_chunks: bool, least: int
) -> CalibrationSource:
    """Return what `calib` means for a checkpoint.

    Args:
        config: the settings, with the preset applied.
        pretrained: folder or hub id of the checkpoint; a bundled model brings its own windows.
        is_needed: whether the method or the allocation reads calibration data.
        paper_chunks: whether texts are cut into chunks as the code of the paper did for ShortGPT.
        least: fewest windows that method and allocation can use.
    """
    source = _named_source(config, pretrained, paper_chunks=paper_chunks, least=least if is_needed else 1)
    return source if is_needed else NoCalibration(unused=source)


def _named_source(config: PruneConfig, pretrained: str, *, paper_chunks: bool, least: int) -> CalibrationSource:
    bundled = bundled_windows(pretrained)
    samples, seqlen, seed = config.calib_samples, config.calib_seqlen, config.calib_seed
    calib = config.calib or "c4"
    if is_traces(calib):
        return Traces(
            calib=calib,
            samples=samples,
            seqlen=seqlen,
            seed=seed,
            is_bundled=bundled is not None,
            tokens=config.calib_tokens,
            least=least,
        )
    if calib.endswith(".npy"):
        return TokenIds(calib=calib, least=least)
    if paper_chunks:
        return PaperChunks(calib=calib, samples=samples, seed=seed)
    if config.calib is None and bundled is not None:
        return TokenIds(calib=str(bundled), least=least)
    return Texts(calib=calib, samples=samples, seqlen=seqlen, seed=seed, least=least)


def bundled_windows(pretrained: str) -> Path | None:
    """Return the calibration windows that are stored next to a bundled model; None for every other checkpoint."""
    folder = bundled_folder()
    return folder / "calibration.npy" if Path(pretrained) == folder else None
