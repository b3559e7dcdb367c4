"""Names of tensors in a checkpoint: renumbered after blocks were dropped, and paired with those that a model saves."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

# The first number in the name of a tensor is the index of its block.
_INDEXED = re.compile(r"(?P<container>.*?)\.(?P<index>\d+)\.(?P<rest>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Renumbering:
    """The new names of tensors once blocks are dropped; tensors of blocks after the last one move up as well.

    Attributes:
        container: name of the list of blocks.
        removed: indices of the blocks that are dropped.
        drops_experts: whether blocks lose experts, so that numbered ones that were not written are gone.

    Example:
        >>> shorter = Renumbering(container="layers", removed=frozenset({1}))
        >>> [shorter.new_name(name) for name in ("layers.0.a", "layers.1.a", "layers.2.a", "head.a")]
        ['layers.0.a', None, 'layers.1.a', 'head.a']
    """

    container: str
    removed: Collection[int] = frozenset()
    drops_experts: bool = False

    def new_name(self, name: str) -> str | None:
        """Return the name that a tensor has afterwards; None if it belonged to a dropped block."""
        match = _INDEXED.match(name)
        if not self.removed or match is None or match["container"] != self.container:
            return name
        index = int(match["index"])
        if index in self.removed:
            return None
        return f"{self.container}.{index - sum(other < index for other in self.removed)}.{match['rest']}"


def of_first_expert(name: str) -> str:
    """Return the name that a tensor of a numbered expert has in the first one; another name as it is.

    Example:
        >>> of_first_expert("layers.3.experts.7.up.weight"), of_first_expert("layers.3.gate.weight")
        ('layers.3.experts.0.up.weight', 'layers.3.gate.weight')
    """
    match = _INDEXED.match(name)
    return name if match is None else name[: match.start("rest")] + re.sub(r"(?<=\.)\d+(?=\.)", "0", match["rest"])


def stored_container(stored: Iterable[str], container: str, block: Collection[str]) -> str:
    """Return the name that the list of blocks has in a checkpoint, which may differ from that in the model.

    Args:
        stored: names of the tensors in the checkpoint.
        container: name of the list in the model.
        block: names of the tensors of one block of the model, relative to the block.

    Example:
        >>> stored_container(["h.0.mlp.weight", "vision.0.conv.weight"], "transformer.h", ["mlp.weight", "ln.weight"])
        'h'
    """
    shared: dict[str, set[str]] = {}
    for match in map(_INDEXED.match, stored):
        if match is not None and match["rest"] in block:
            shared.setdefault(match["container"], set()).add(match["rest"])
    return container if container in shared else max(shared, key=lambda name: len(shared[name]), default=container)


def paired(saved: Iterable[str], stored: Collection[str]) -> Mapping[str, str]:
    """Return the name in the checkpoint of each tensor that a model saves: the same, or with another prefix.

    Example:
        >>> dict(paired(["transformer.h.0.w", "lm_head.w"], ["h.0.w", "lm_head.w"]))
        {'lm_head.w': 'lm_head.w', 'transformer.h.0.w': 'h.0.w'}
    """
    saved = set(saved)
    pairs = {name: name for name in sorted(saved & {*stored})}
    left = {*stored} - saved
    endings: dict[str, set[str]] = {}
    for other in left:
        for ending in _endings(other):
            endings.setdefault(ending, set()).add(other)
    for name in sorted(saved - pairs.keys()):
        found = {*endings.get(name, ())} | {ending for ending in _endings(name) if ending in left}
        if len(found) == 1:
            pairs[name] = found.pop()
    return pairs


def block_prefix(name: str) -> str:
    """Return the prefix of a tensor's name that names its block; outside of blocks its module."""
    match = _INDEXED.match(name)
    return f"{match['container']}.{match['index']}." if match else name.rpartition(".")[0]


def _endings(name: str) -> Iterator[str]:
    """Yield what is left of a name without its first parts; a single part says too little."""
    while name.count(".") > 1:
        name = name.partition(".")[2]
        yield name
