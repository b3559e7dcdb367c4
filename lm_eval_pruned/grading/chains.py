r"""A chain of equations whose constants are equal says one value: `\frac{18}{24}=\frac34`, `A=\pi r^2=49\pi`."""

from __future__ import annotations

from lm_eval_pruned.grading.evaluate import CONSTANTS, names
from lm_eval_pruned.grading.tree import VALUES, Node
from lm_eval_pruned.grading.values import same_value

# With one of them in its middle, as in `y=4x=12`, a chain does not say which value was asked for.
_UNKNOWNS = frozenset("xyz")


def shortened(relation: Node) -> Node:
    """Return the value that a chain of equal constants says, or what it says of the name that begins it.

    Constants that differ, as in `3=4`, are no such chain: its end alone is never taken for what it says.

    Example:
        >>> from lm_eval_pruned.grading.read import read
        >>> shortened(read("x=2+3=5")) == read("x=2+3"), shortened(read("4=2^{2}")), shortened(read("3=4")).head
        (True, Node(head='number', parts=(), label='', value=Fraction(4, 1), step=None, significant=1), 'relation')
    """
    if set(relation.label.split()) != {"="}:
        return relation
    first, *middle, last = relation.parts
    constants = [side for side in relation.parts if side.head in VALUES and not names(side)]
    if last not in constants or not all(same_value(constants[0], side) for side in constants[1:]):
        return relation
    if len(constants) == len(relation.parts):
        return first
    is_name = first.head == "name" and first.label not in CONSTANTS
    if not is_name or any(side.head == "name" or names(side) & _UNKNOWNS for side in middle):
        return relation
    return Node("relation", (first, constants[0]), label="=")
