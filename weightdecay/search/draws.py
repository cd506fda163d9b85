"""Drawing of distinct candidates from the distributions of the axes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weightdecay import decay
from weightdecay.core.checks import ArgumentError, integer
from weightdecay.core.types import Integer
from weightdecay.search import axis_values, distributions
from weightdecay.search.distributions import Distribution
from weightdecay.search.member import identity


def space(num: Any, seed: Any, axes: Mapping[str, Any]) -> dict[str, Distribution]:
    """Validate the arguments of a draw, and make a distribution of each axis.

    Args:
      num: Number of candidates.
      seed: Seed of the draw.
      axes: Values by name: a distribution, a list to choose from, or one value.

    Returns:
      A distribution for each axis; ``decay`` is one of them.

    Raises:
      TypeError: A value or an end of a range has the wrong type.
      ValueError: A value or an end of a range is out of range.
    """
    axis_values.check_num(num)
    allowed = "the seed of the draw, an integer of at least 0; the seeds of the members are given as seeds=range(3)"
    integer(seed, "seed", at_least=0, allowed=allowed)
    if "fold" in axes:
        raise TypeError("fold is not an axis of a draw: every candidate is trained on all folds; give folds=range(5).")
    space: dict[str, Distribution] = {}
    for name, values in {"decay": decay.NoDecay(), **axes}.items():
        distribution = (
            distributions.of(values)
            if axis_values.is_single(values)
            else distributions.Choice(*axis_values.as_list(name, values))
        )
        distribution.check(name)
        branches = distribution.values if isinstance(distribution, distributions.Choice) else [distribution]
        for position, branch in enumerate(branches):
            for end in distributions.of(branch).ends():
                axis_values.checked_value(f"{name}[{position}]", name, end)
        space[name] = distribution
    return space


def candidates(
    num: Integer, space: Mapping[str, Distribution], draw: Callable[[int], dict[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """Draw distinct candidates; repetitions are skipped.

    Args:
      num: Number of candidates.
      space: Distributions by name.
      draw: ``draw(rows)`` returns the next numbers from 0 to 1 of each axis, of shape ``(rows, dimensions)``.

    Returns:
      Hyperparameters by name, without seed and fold, in the order of the draw.

    Raises:
      ArgumentError: There are fewer distinct candidates.
    """
    distinct: dict[str, dict[str, Any]] = {}
    # Powers of two, as Sobol sequences require; enough to draw each of ``num`` equally likely values.
    rows = 1 << (int(num) - 1).bit_length()
    most, drawn = max(16 * rows, 1024), 0
    while drawn < most:
        units = draw(rows)
        for row in range(rows):
            candidate = {
                name: axis_values.checked_value(name, name, distribution.at(units[name][row]))
                for name, distribution in space.items()
            }
            distinct.setdefault(identity(candidate), candidate)
            if len(distinct) == num:
                return list(distinct.values())
        drawn += rows
    raise ArgumentError(
        "num",
        f"num is {num}, but {drawn} draws gave {len(distinct)} distinct candidates; give num={len(distinct)}, "
        "distributions with more values, or all values in wd.Grid(...).",
    )
