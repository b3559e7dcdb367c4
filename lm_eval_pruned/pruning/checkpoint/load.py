"""Load a whole checkpoint with transformers, and check that every weight of the model came from it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_pruned.pruning.checkpoint.complete import check_loaded
from lm_eval_pruned.pruning.checkpoint.formats import dequantising, quantization_of
from lm_eval_pruned.pruning.checkpoint.reader import Shards, has_own_head
from lm_eval_pruned.pruning.checkpoint.resolve import (
    LoadOptions,
    auto_class,
    load_tokenizer,
    read_config,
    set_untied,
    unreachable,
)

# Before transformers 5, a head is tied although the checkpoint has one of its own, if the config says that it is tied.
TIES_OWN_HEADS = "missing_keys" not in inspect.signature(PreTrainedModel.tie_weights).parameters
# Where files of a checkpoint are, with the defaults of transformers.
PLACE = {"revision": "main", "subfolder": ""}


class Checkpoint(NamedTuple):
    """A loaded model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class CheckedLoader:
    """Loads as an auto class of transformers does, and refuses a model whose weights are not all from its checkpoint.

    Attributes:
        auto_class: the class that loads.
        dequantise: whether quantised weights that transformers can dequantise are.
    """

    auto_class: type
    dequantise: bool = False

    def from_pretrained(self, pretrained: str, **arguments: object) -> PreTrainedModel:
        """Load a model.

        Raises:
            DataError: a tensor is missing in the checkpoint, or has another shape than in the model.
        """
        if self.dequantise:
            arguments |= self._dequantised(pretrained, arguments)
        model = self._load(pretrained, arguments)
        if TIES_OWN_HEADS and not arguments.get("gguf_file"):
            place = {name: str(arguments.get(name) or default) for name, default in PLACE.items()}
            if has_own_head(model, Shards.open_any(pretrained, **place)):
                set_untied(model.config)
                model = self._load(pretrained, {**arguments, "config": model.config})
        untie_config(model)
        return model

    def _load(self, pretrained: str, arguments: Mapping[str, object]) -> PreTrainedModel:
        model, loading = self.auto_class.from_pretrained(  # type: ignore[attr-defined]
            pretrained, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
        check_loaded(pretrained, loading)
        return model  # type: ignore[no-any-return]

    def _dequantised(self, pretrained: str, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return the argument with which weights are dequantised, where the checkpoint has quantised ones."""
        if arguments.get("gguf_file"):
            try:
                from transformers import GgufConfig
            except ImportError:
                # Before transformers 5.20 every GGUF file was dequantised.
                return {}
            return {"quantization_config": GgufConfig(dequantize=True)}
        names = ("revision", "trust_remote_code", "subfolder", "token", "cache_dir", "local_files_only")
        given = {name: arguments[name] for name in names if arguments.get(name)}
        quantization = quantization_of(AutoConfig.from_pretrained(pretrained, **given))
        config = None if quantization is None else dequantising(quantization)
        return {} if config is None else {"quantization_config": config}


def load_checkpoint(source: str, options: LoadOptions) -> Checkpoint:
    """Load a causal language model and its tokenizer.

    Raises:
        MissingDataError: the checkpoint cannot be reached.
        DataError: it lacks weights of the model.
    """
    # Checked first: for a folder without a model, the tokenizer would report that a package is missing.
    config = read_config(source, options)
    tokenizer = load_tokenizer(source, options)
    loader = CheckedLoader(auto_class(config), options.dequantise)
    # Each tensor goes to the device as it is read: the whole model is never in host memory.
    place = {} if options.device == "cpu" else {"device_map": {"": options.device}}
    try:
        model = loader.from_pretrained(source, dtype=options.dtype, **place, **options.for_transformers())
    except OSError as error:
        raise unreachable(source, error) from error
    return Checkpoint(model.eval(), tokenizer)  # type: ignore[no-untyped-call]


def untie_config(model: PreTrainedModel) -> None:
    """Let the config of a model say that its head is not tied, where the checkpoint has a head of its own.

    transformers keeps such a head as it loads the model, but whoever ties the weights once more would lose it.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[no-untyped-call]
    if head is None or embeddings is None or head.weight is embeddings.weight:
        return
    set_untied(model.config)
