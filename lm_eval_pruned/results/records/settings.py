"""Settings: names with values as text, taken from what a results file says, so that runs can be told to be alike."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from typing import TypeAlias

from lm_eval_pruned.errors import DataError

# Names with values, sorted by name.
Settings: TypeAlias = tuple[tuple[str, str], ...]


def section(content: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return an object inside an object of JSON, empty where it is missing or null.

    Raises:
        DataError: something else stands there.

    Example:
        >>> section({"config": {"model": "hf"}}, "config"), section({}, "config")
        ({'model': 'hf'}, {})
    """
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{name} is no object")
    return value


def model_args(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return the arguments of the model; older harnesses write them as they stood on the command line.

    Example:
        >>> model_args({"model_args": "pretrained=gpt2,dtype=float32"})
        {'pretrained': 'gpt2', 'dtype': 'float32'}
    """
    given = config.get("model_args")
    if isinstance(given, str):
        return {name: value for name, _, value in (part.partition("=") for part in given.split(",")) if name}
    return section(config, "model_args")


def is_seed(name: str) -> bool:
    """Tell whether a setting is a seed, and so no part of a configuration.

    Example:
        >>> is_seed("calib_seed"), is_seed("seed"), is_seed("seedling")
        (True, True, False)
    """
    return name == "seed" or name.endswith("_seed")


def as_settings(values: Mapping[str, object]) -> Settings:
    """Write values as text, without seeds and what is empty, so that 1 and 1.0 are one.

    Example:
        >>> as_settings({"temperature": 1.0, "until": [], "seed": 3, "alloc": "owl", "limit": None})
        (('alloc', 'owl'), ('temperature', '1'))
    """
    return written({key: value for key, value in values.items() if not is_seed(key)})


def written(values: Mapping[str, object]) -> Settings:
    """Write values as text, seeds too."""
    return tuple(sorted((key, _text(value)) for key, value in values.items() if value not in (None, "", [], {}, ())))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.12g}"
    return dumps(value, sort_keys=True)
