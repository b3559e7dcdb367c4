"""Model arguments: `--model_args` from text, YAML or Python, split into our settings and those of the harness."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, fields
from difflib import get_close_matches
from typing import NamedTuple, TypeVar

from lm_eval_pruned.config import PruneConfig, RunConfig, choices, field_names, read_blocks
from lm_eval_pruned.errors import ArgumentError, unknown_name

# The dtypes that the harness's model classes accept; `auto` takes the checkpoint's.
DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float", "float64")

# Arguments that are folders, or off.
_FOLDERS = ("artifacts", "responses")
_FILES = ("calib", "layerif_scores", "masks")
# Arguments of the harness's model classes that are names or paths.
_TEXTS = frozenset(
    {
        *("pretrained", "revision", "code_revision", "tokenizer", "subfolder", "variant", "gguf_file", "cache_dir"),
        *("dtype", "attn_implementation"),
    }
)
# Generation kwargs that are often given to the model.
_GENERATION = ("temperature", "top_p", "top_k", "min_p", "do_sample", "until", "max_gen_toks", "thinking_token_budget")


class ModelArgs(NamedTuple):
    """Parsed `--model_args`: our two configs, and the arguments that go on to the harness's model class."""

    prune: PruneConfig
    run: RunConfig
    parent: dict[str, object]


def parse_model_args(arguments: Mapping[str, object], *, parent: Collection[str]) -> ModelArgs:
    """Split and check `arguments`; `parent` names those that the harness's model class and transformers accept.

    Raises:
        ArgumentError: an argument is unknown (the nearest known one is named) or has a wrong type or value.

    Example:
        >>> parse_model_args({"method": "magnitude", "sparsity": "0.1", "dtype": "float32"}, parent=["dtype"]).parent
        {'dtype': 'float32'}
        >>> parse_model_args({"sparsty": 0.1}, parent=[])
        Traceback (most recent call last):
        lm_eval_pruned.errors.ArgumentError: unknown model argument 'sparsty': did you mean 'sparsity'?
    """
    ours = field_names(PruneConfig) | field_names(RunConfig)
    for name in arguments:
        if name.isdecimal() and "blocks" in arguments:
            raise ArgumentError(
                f"blocks={arguments['blocks']},{name}: commas separate arguments here: join numbers with +, "
                f"blocks={arguments['blocks']}+{name}"
            )
        if name != name.strip():
            raise ArgumentError(f"model argument {name!r} has blanks: write {name.strip()!r} right after the comma")
        if name not in ours and name not in parent:
            raise ArgumentError(f"unknown model argument {name!r}: {_advice(name, [*ours, *parent])}")
    dtype = arguments.get("dtype")
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    for name in arguments.keys() - ours:
        _check_parent_type(name, arguments[name])
    return ModelArgs(
        prune=PruneConfig(**_typed(PruneConfig, arguments)),  # type: ignore[arg-type]
        run=RunConfig(**_typed(RunConfig, arguments)),  # type: ignore[arg-type]
        parent={name: value for name, value in arguments.items() if name not in ours},
    )


Settings = TypeVar("Settings", PruneConfig, RunConfig)


def _typed(settings: type[Settings], arguments: Mapping[str, object]) -> dict[str, object]:
    given = {field: arguments[field.name] for field in fields(settings) if field.name in arguments}
    # The harness reads the word none on its command line as None.
    given |= {one: "none" for one, value in given.items() if value is None and "none" in choices(settings, one.name)}
    return {field.name: convert(field, value) for field, value in given.items() if value is not None}


def _check_parent_type(name: str, value: object) -> None:
    """Refuse a value of the harness's own arguments that a file or command line has given another type.

    Raises:
        ArgumentError: a name or path was read as a number or switch, or a switch as text, which would count as true.
    """
    if name in _TEXTS and isinstance(value, bool | int | float | list | tuple | dict):
        raise ArgumentError(
            f"{name}={value!r} was read as {type(value).__name__} and not as text: put it in quotes, in YAML "
            f'{name}: "...", on the command line as JSON, --model_args \'{{"{name}": "..."}}\''
        )
    if name == "trust_remote_code" and not isinstance(value, bool | None):
        raise ArgumentError(f"trust_remote_code={value!r} is neither True nor False")
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off"):
        # Any text, even "False", would count as true somewhere downstream.
        raise ArgumentError(
            f"{name}={value!r} is text, and any text counts as true: give True or False, without quotes"
        )


def convert(field: Field[object], value: object) -> object:
    """Convert a value from a command line to the type of `field`.

    Raises:
        ArgumentError: the value does not read as that type.
    """
    kind = str(field.type).removesuffix(" | None")
    if kind == "bool":
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
    elif kind == "int" and str(value).isdecimal():
        return int(str(value))
    elif kind in ("int", "float"):
        try:
            number = float(str(value))
        except ValueError:
            number = float("nan")
        if kind == "float" and not math.isnan(number):
            return number
        if number.is_integer():
            return int(number)
    else:
        return _as_text(field, value)
    wanted = {"bool": "True or False", "int": "a whole number", "float": "a number"}[kind]
    raise ArgumentError(f"{field.name}={value!r} is not {wanted}")


def _as_text(field: Field[object], value: object) -> str:
    """Return a name or path as text; the harness and YAML read some as numbers, switches and times.

    Raises:
        ArgumentError: what was written cannot be told from what was read.
    """
    name, is_folder = field.name, field.name in _FOLDERS
    if name == "blocks":
        return "+".join(map(str, read_blocks(value)))
    if is_folder and value is False:
        return "off"
    if name == "exclude" and isinstance(value, bool | list | tuple | dict):
        raise ArgumentError(
            f"exclude={value!r} is not a regular expression: give one text, several names joined by | such as "
            "'q_proj|k_proj'"
        )
    if name == "pattern" and isinstance(value, int) and not isinstance(value, bool):
        # YAML 1.1 reads 2:4 as two minutes and four seconds.
        return f"{value // 60}:{value % 60}"
    if (is_folder or name in _FILES) and isinstance(value, bool | float | list | tuple | dict):
        raise ArgumentError(
            f"{name}={value!r} is not a path{' or off' if is_folder else ''}: give one, in quotes if it looks like "
            "another type"
        )
    return str(value)


def _advice(name: str, known: Iterable[str]) -> str:
    if name in _GENERATION:
        return f"it belongs to generation, --gen_kwargs {name}=..."
    nearest = get_close_matches(name, sorted(known), n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else "see docs/arguments.md"
