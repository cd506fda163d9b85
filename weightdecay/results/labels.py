"""Labels along the members of a result: the rule's name, its coefficients, every other axis, the candidate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core import tree
from weightdecay.decay.schedules import Parametric
from weightdecay.search import member as member_json


def coordinates(members: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Values along the members: the rule's name, its coefficients, the other axes, the candidate.

    Args:
      members: Hyperparameters by name.

    Returns:
      By name, each of shape ``(members,)``.
    """
    by_member = [dict(_numbers(member)) for member in members]
    names = dict.fromkeys(["decay", "coefficient", *(name for row in by_member for name in row)])
    columns = {name: _column([row.get(name) for row in by_member]) for name in names}
    return columns | {"candidate": np.array(member_json.candidates(members), np.int32)}


def _column(values: Sequence[Any]) -> np.ndarray:
    """Values along the members: numbers with nan where there is none, or words."""
    if all(value is None or isinstance(value, bool | float | int | np.number) for value in values):
        there = [value for value in values if value is not None]
        return np.array([np.nan if value is None else value for value in values] if len(there) < len(values) else there)
    return np.array(["" if value is None else value if isinstance(value, str) else str(value) for value in values])


def _numbers(member: Mapping[str, Any]) -> list[tuple[str, Any]]:
    decay = member["decay"]
    row: list[tuple[str, Any]] = [("decay", decay.name)]
    coefficients = decay.coefficients()
    for name, value in coefficients.items():
        name = "coefficient" if len(coefficients) == 1 else name
        for leaf_name, leaf in tree.named_leaves(value):
            # netCDF allows no slash in a name, and no space in that of a coordinate.
            told = (f"{name}[{leaf_name}]" if leaf_name else name).replace("/", ".").replace(" ", "_")
            row.append((told, float(leaf)))
    for name, value in member.items():
        if isinstance(value, Parametric):
            row += [(name, float(value(0))), (f"{name}_schedule", str(value))]
        elif name != "decay":
            row.append((name, np.int32(value) if name in member_json.REPLICATES else value))
    return row
