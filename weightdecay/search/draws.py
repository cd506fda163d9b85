"""Distinct candidates, drawn from the distributions of the axes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weightdecay import decay
from weightdecay.core.types import Integer
from weightdecay.search import axis_values, distributions, member
from weightdecay.search.distributions import Distribution


def space(num: Any, seed: Any, axes: Mapping[str, Any]) -> dict[str, Distribution]:
    """Distributions of the axes, checked.

    Args:
      num: How many candidates are wanted.
      seed: Of the draw.
      axes: Values by name: a distribution, a list to choose from, or one value.

    Returns:
      A distribution for each axis, ``decay`` among them.

    Raises:
      TypeError: A value or an end of the wrong type.
      ValueError: A value or an end out of range.
    """
    axis_values.check_num(num)
    is_whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not is_whole or seed < 0:
        raise (ValueError if is_whole else TypeError)(
            f"seed is {seed!r}, of type {type(seed).__name__}; the seed of a draw is a whole number >= 0, and the "
            "members' own are given as seeds=range(3)."
        )
    if "fold" in axes:
        raise TypeError("fold is no axis of a draw: every candidate goes through all folds; give folds=range(5).")
    space: dict[str, Distribution] = {}
    for name, values in {"decay": decay.NoDecay(), **axes}.items():
        one = (
            distributions.of(values)
            if axis_values.is_one(values)
            else distributions.Choice(*axis_values.several(name, values))
        )
        one.check(name)
        for place, branch in enumerate(one.values if isinstance(one, distributions.Choice) else [one]):
            for end in distributions.of(branch).ends():
                axis_values.checked_value(f"{name}[{place}]", name, end)
        space[name] = one
    return space


def candidates(
    num: Integer, space: Mapping[str, Distribution], draw: Callable[[int], dict[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """Draw distinct candidates: one that comes again is left out.

    Args:
      num: How many.
      space: Distributions by name.
      draw: ``draw(rows)`` gives each axis its next numbers from 0 to 1, ``(rows, dimensions)``.

    Returns:
      Hyperparameters by name, without seed and fold, in the order in which they were drawn.

    Raises:
      ValueError: There are fewer.
    """
    found: dict[str, dict[str, Any]] = {}
    # Powers of two, as Sobol sequences have them; enough to come upon each of ``num`` values that are all alike.
    rows = 1 << (int(num) - 1).bit_length()
    most, drawn = max(16 * rows, 1024), 0
    while drawn < most:
        units = draw(rows)
        for row in range(rows):
            candidate = {
                name: axis_values.checked_value(name, name, one.at(units[name][row])) for name, one in space.items()
            }
            found.setdefault(member.identity(candidate), candidate)
            if len(found) == num:
                return list(found.values())
        drawn += rows
    raise ValueError(
        f"num is {num}, but {drawn} draws gave {len(found)} distinct candidates; give num={len(found)}, distributions "
        "with more values, or all values in wd.Grid(...)."
    )
