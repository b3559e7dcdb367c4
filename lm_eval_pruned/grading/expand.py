"""What is said in short is written out: plus-minus, lists within lists, the real line without some points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lm_eval_pruned.grading.chains import shortened
from lm_eval_pruned.grading.regions import computed, region_of
from lm_eval_pruned.grading.systems import written_out
from lm_eval_pruned.grading.tree import VALUES, Head, Node, number, product
from lm_eval_pruned.grading.vectors import transposed


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
