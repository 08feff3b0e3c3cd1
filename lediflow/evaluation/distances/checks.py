"""What no distance can be computed from is refused, on every rank with the same words."""

from lediflow.engine.group import Group
from lediflow.evaluation.distances.rows import Rows


def check_sets(x: Rows, y: Rows, group: Group) -> None:
    """Two sets of finite embeddings of one size; called by all ranks together."""
    shapes = [(rows.total, *rows.values.shape[1:]) for rows in (x, y)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"cannot compare embeddings of shapes {shapes[0]} and {shapes[1]}; "
            "both must be (count, dim) with the same dim: use one feature extractor for both sets"
        )
    check_count(x.total, y.total, fewest=1)
    for rows in (x, y):
        check_finite(rows, group)


def check_count(n: int, m: int, fewest: int) -> None:
    """Enough embeddings in both sets."""
    if min(n, m) < fewest:
        raise ValueError(f"{n} and {m} embeddings, at least {fewest} needed in each set; add images")


def check_finite(rows: Rows, group: Group) -> None:
    """No infinity, and nothing that is not a number, on any rank."""
    broken = (~rows.values.isfinite().all(dim=1)).nonzero().flatten() + rows.first
    found = group.all_gather((len(broken), int(broken[0]) if len(broken) else rows.total))
    count, first = sum(count for count, _ in found), min(first for _, first in found)
    if count:
        raise ValueError(
            f"{count} of {rows.total} embeddings are not finite, the first is row {first}; "
            "look at that image, and at the extractor's weights"
        )
