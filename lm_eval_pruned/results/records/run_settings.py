"""Settings of a run as sorted (name, text) pairs, so that runs can be compared and hashed."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from typing import TypeAlias

from lm_eval_pruned.errors import DataError

# (name, value) pairs, sorted by name.
Settings: TypeAlias = tuple[tuple[str, str], ...]


def section(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a JSON object inside another one; empty where it is missing or null.

    Raises:
        DataError: it is something other than an object.

    Example:
        >>> section({"config": {"model": "hf"}}, "config"), section({}, "config")
        ({'model': 'hf'}, {})
    """
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{name} is not an object")
    return value


def model_args(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return the model's arguments; older versions of the harness store them as the text of the command line.

    Example:
        >>> model_args({"model_args": "pretrained=gpt2,dtype=float32"})
        {'pretrained': 'gpt2', 'dtype': 'float32'}
    """
    given = config.get("model_args")
    if isinstance(given, str):
        return {name: value for name, _, value in (argument.partition("=") for argument in given.split(",")) if name}
    return section(config, "model_args")


def is_seed(name: str) -> bool:
    """Whether a setting is a seed, which does not belong to a configuration.

    Example:
        >>> is_seed("calib_seed"), is_seed("seed"), is_seed("seedling")
        (True, True, False)
    """
    return name == "seed" or name.endswith("_seed")


def as_settings(values: Mapping[str, object]) -> Settings:
    """Return settings as sorted text, without seeds and empty values; 1 and 1.0 become equal.

    Example:
        >>> as_settings({"temperature": 1.0, "until": [], "seed": 3, "alloc": "owl", "limit": None})
        (('alloc', 'owl'), ('temperature', '1'))
    """
    return as_text({key: value for key, value in values.items() if not is_seed(key)})


def as_text(values: Mapping[str, object]) -> Settings:
    """Return settings, seeds included, as sorted text, without empty values."""
    return tuple(sorted((key, _text(value)) for key, value in values.items() if value not in (None, "", [], {}, ())))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.12g}"
    return dumps(value, sort_keys=True)
