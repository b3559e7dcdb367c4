"""What is said in short is written out: plus-minus, lists within lists, the real line without some points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lm_eval_pruned.grading.compare.evaluate import names
from lm_eval_pruned.grading.compare.regions import computed, region_of
from lm_eval_pruned.grading.compare.values import same_value
from lm_eval_pruned.grading.compare.vectors import transposed
from lm_eval_pruned.grading.read.tree import VALUES, Head, Node, number, product
from lm_eval_pruned.grading.vocabulary import CONSTANTS


def expand(node: Node) -> Node:
    """Write plus-minus out as a list, lists and unions within their like as one, inequalities as what they describe."""
    if node.head == "list":
        node = Node("list", tuple(_exclusions(node.parts)))
    if node.head in ("list", "and", "or") and (region := region_of(node)):
        return region
    if node.head == "list":
        members = [member for part in node.parts for member in _members(expand(part), "list")]
        return Node("list", tuple(members))
    if _has_signs(node):
        return Node("list", (_with_sign(node, 1), _with_sign(node, -1)))
    if node.head == "relation":
        return written_out(node) or shortened(node)
    if node.head in ("difference", "intersection"):
        return computed(node)
    if (matrix := transposed(node)) is not None:
        return matrix
    if node.head == "union":
        return computed(
            Node("union", tuple(part for member in node.parts for part in _members(expand(member), "union")))
        )
    return node


def _exclusions(parts: Sequence[Node]) -> Iterator[Node]:
    r"""Write `x \ne 2, 3` as `x \ne 2, x \ne 3`."""
    first = parts[0]
    for part in parts:
        is_excluded = first.label == "!=" and part.head in VALUES
        yield Node("relation", (first.parts[0], part), label="!=") if is_excluded else part


def _members(node: Node, head: Head) -> Sequence[Node]:
    return node.parts if node.head == head else (node,)


def _has_signs(node: Node) -> bool:
    return node.head == "plus-minus" or any(map(_has_signs, node.parts))


def _with_sign(node: Node, sign: int) -> Node:
    if node.head == "plus-minus":
        inner = _with_sign(node.parts[0], sign)
        return product(number(sign if node.label == "\\pm" else -sign), inner)
    return Node(
        node.head,
        tuple(_with_sign(part, sign) for part in node.parts),
        node.label,
        node.value,
        node.step,
        node.significant,
    )


# With one of them in its middle, as in `y=4x=12`, a chain does not say which value was asked for.
_UNKNOWNS = frozenset("xyz")


def shortened(relation: Node) -> Node:
    """Return the value that a chain of equal constants says, or what it says of the name that begins it.

    Constants that differ, as in `3=4`, are no such chain: its end alone is never taken for what it says.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
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


def written_out(relation: Node) -> Node | None:
    """Write `(x, y) = (1, 2)` as `x = 1, y = 2`; return None for what is no equation of tuples."""
    if relation.label != "=" or len(relation.parts) != 2:
        return None
    left, right = relation.parts
    if not left.head == right.head == "bracket" or not left.label == right.label == "()":
        return None
    if len(left.parts) != len(right.parts) or any(part.head != "name" for part in left.parts):
        return None
    pairs = zip(left.parts, right.parts, strict=True)
    return Node("list", tuple(Node("relation", pair, label="=") for pair in pairs))


def as_tuples(named: Node) -> list[Node] | None:
    """Return the solutions that a list of named values gives, each a tuple in the alphabetical order of its names.

    Every solution gives a value to each name; the order in which they are named does not matter.

    Example:
        >>> from lm_eval_pruned.grading.read.parser import read
        >>> as_tuples(read("y=2, x=1, x=3, y=4")) == list(read("(1, 2), (3, 4)").parts)
        True
        >>> as_tuples(read("x=1, x=2")), as_tuples(read("x=1, y=2, x=3"))
        (None, None)
    """
    parts = named.parts
    if any(part.label != "=" or len(part.parts) != 2 or part.parts[0].head != "name" for part in parts):
        return None
    # Numbered names of one kind are solutions of one variable, in any order.
    size = len({part.parts[0].label.partition("_")[0] for part in parts})
    if size < 2 or len(parts) % size:
        return None
    solutions = [sorted(parts[start : start + size], key=_name) for start in range(0, len(parts), size)]
    if any(len({_name(part) for part in solution}) < size for solution in solutions):
        return None
    return [Node("bracket", tuple(part.parts[1] for part in solution), label="()") for solution in solutions]


def _name(relation: Node) -> str:
    r"""Return a name as it is sorted: `\theta` comes behind r."""
    return relation.parts[0].label.lstrip("\\")
