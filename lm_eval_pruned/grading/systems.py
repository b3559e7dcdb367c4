"""Values of several names are the tuple of these values in the order of the names: x=3, y=-8 is (3, -8)."""

from __future__ import annotations

from lm_eval_pruned.grading.tree import Node


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
        >>> from lm_eval_pruned.grading.read import read
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
