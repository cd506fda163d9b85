"""Distributions for the axes of a search.

A distribution is a pure function from a point of the unit cube to a value of an axis, so that pseudorandom numbers and
Sobol sequences can both be used. It may be a coefficient of a rule or a parameter of a schedule,
``wd.L2(wd.LogUniform(1e-6, 1e-1))``, and a value of a `Choice`, which then draws it only if it is chosen. Constructors
do not validate their arguments; `weightdecay.Grid` does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.checks import integer

Units: TypeAlias = Sequence[float | int] | Float[np.ndarray, " dimensions"]
"""Numbers from 0 to 1."""


class Distribution:
    """Base class of distributions."""

    @property
    def num_dimensions(self) -> int:
        """Number of dimensions of the unit cube from which a value is computed."""
        return 1

    def at(self, units: Units) -> Any:
        """Return the value at a point of the unit cube.

        Args:
          units: ``num_dimensions`` numbers from 0 to 1.

        Returns:
          The value; for a distribution of numbers, the quantile.
        """
        raise NotImplementedError(f"{type(self).__name__} has no values.")

    def ends(self) -> list[Any]:
        """Return values at the ends of the range: all other values are between them."""
        return [self.at([0.0]), self.at([1.0])]

    def check(self, argument: str) -> None:
        """Validate the parameters.

        Args:
          argument: Where the distribution was given, for the message.

        Raises:
          TypeError: An end of the range is not a number, or a list is given instead of values.
          ValueError: The ends are in the wrong order or out of range, or there are no values.
        """


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform distribution on ``[low, high]``.

    ``low (1 - u) + high u``

    Args:
      low: Lower end.
      high: Upper end, > ``low``.

    Examples:
      >>> Uniform(0.5, 1.0).at([0.25])
      0.625
    """

    low: Any
    high: Any

    @override
    def at(self, units: Units) -> float:
        low, high, unit = float(self.low), float(self.high), float(units[0])
        return min(max(low * (1 - unit) + high * unit, low), high)

    @override
    def check(self, argument: str) -> None:
        _check_ends(self, argument, "number")


@dataclass(frozen=True)
class LogUniform(Distribution):
    """Log-uniform distribution on ``[low, high]``: uniform in the logarithm.

    ``low^(1 - u) high^u``, as `scipy.stats.loguniform`.

    Args:
      low: Lower end, > 0.
      high: Upper end, > ``low``.

    Examples:
      >>> round(LogUniform(1e-4, 1.0).at([0.5]), 6)
      0.01
    """

    low: Any
    high: Any

    @override
    def at(self, units: Units) -> float:
        low, high, unit = float(self.low), float(self.high), float(units[0])
        return min(max(low ** (1 - unit) * high**unit, low), high)

    @override
    def check(self, argument: str) -> None:
        _check_ends(self, argument, "number > 0", least=tree.SMALLEST)


@dataclass(frozen=True)
class IntUniform(Distribution):
    """Uniform distribution on the integers from ``low`` to ``high``, both included.

    ``low + floor((high - low + 1) u)``

    Args:
      low: Smallest integer.
      high: Largest integer, > ``low``.

    Examples:
      >>> [IntUniform(1, 4).at([unit]) for unit in (0.0, 0.25, 0.5, 0.75, 1.0)]
      [1, 2, 3, 4, 4]
    """

    low: Any
    high: Any

    @override
    def at(self, units: Units) -> int:
        low, high = int(self.low), int(self.high)
        return min(low + math.floor((high - low + 1) * float(units[0])), high)

    @override
    def check(self, argument: str) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            integer(value, f"{argument} = {self}: {name}", allowed="an integer")
        _check_ends(self, argument, "integer")


@dataclass(frozen=True, init=False, repr=False)
class Choice(Distribution):
    """Uniform choice from a list of values; a value that is listed twice is chosen twice as often.

    A value is any value of an axis, a distribution, or a rule or schedule that holds distributions, which are drawn if
    the value is chosen. The first number of a point chooses the value, and the others go to it, so that there are
    ``1 + max(dimensions of the values)``.

    Args:
      *values: The values.

    Examples:
      >>> Choice("relu", "gelu").at([0.7])
      'gelu'
      >>> either = Choice(0.0, LogUniform(1e-4, 1.0))
      >>> either.at([0.2, 0.5]), either.num_dimensions
      (0.0, 2)
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        """Take the values."""
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        """Return the choice as it is written in code."""
        return f"Choice({', '.join(map(repr, self.values))})"

    @property
    @override
    def num_dimensions(self) -> int:
        return 1 + max(of(value).num_dimensions for value in self.values)

    @override
    def at(self, units: Units) -> Any:
        chosen = min(math.floor(len(self.values) * float(units[0])), len(self.values) - 1)
        return of(self.values[chosen]).at(units[1:])

    @override
    def ends(self) -> list[Any]:
        return [end for value in self.values for end in of(value).ends()]

    @override
    def check(self, argument: str) -> None:
        if not self.values:
            raise ValueError(f"{argument} is a Choice without values; give at least one value.")
        for position, value in enumerate(self.values):
            if isinstance(value, list | range | np.ndarray) and np.shape(value) != ():
                raise TypeError(
                    f"{argument}[{position}] is {value!r}, of type {type(value).__name__}; for several values put a "
                    "star before it, as in wd.Choice(*values)."
                )
            of(value).check(f"{argument}[{position}]")


@dataclass(frozen=True)
class Holder(Distribution):
    """A value that holds distributions, such as a rule with a distribution as its coefficient, or a constant.

    Args:
      value: Any pytree. The numbers of a point go to its distributions in the order of `jax.tree.leaves`.
    """

    value: Any

    @property
    @override
    def num_dimensions(self) -> int:
        return sum(leaf.num_dimensions for leaf in jax.tree.leaves(self.value) if isinstance(leaf, Distribution))

    @override
    def at(self, units: Units) -> Any:
        leaves, structure = jax.tree.flatten(self.value)
        drawn, start = [], 0
        for leaf in leaves:
            if isinstance(leaf, Distribution):
                stop = start + leaf.num_dimensions
                leaf, start = leaf.at(units[start:stop]), stop
            drawn.append(leaf)
        return jax.tree.unflatten(structure, drawn)

    @override
    def ends(self) -> list[Any]:
        leaves, structure = jax.tree.flatten(self.value)
        all_ends = [leaf.ends() if isinstance(leaf, Distribution) else [leaf] for leaf in leaves]
        first = [ends[0] for ends in all_ends]
        # One leaf after the other takes each of its ends, while all others stay at their first.
        varied = [
            [*first[:position], end, *first[position + 1 :]] for position, ends in enumerate(all_ends) for end in ends
        ]
        return [jax.tree.unflatten(structure, values) for values in varied or [first]]

    @override
    def check(self, argument: str) -> None:
        for name, leaf in tree.named_leaves(self.value):
            if isinstance(leaf, Distribution):
                leaf.check(f"{argument}.{name}")


def of(value: Any) -> Distribution:
    """Convert a value of an axis to a distribution.

    Args:
      value: A distribution, or any value of an axis, which may hold distributions.

    Returns:
      The distribution itself, or a `Holder` of the value.
    """
    return value if isinstance(value, Distribution) else Holder(value)


def _check_ends(distribution: Any, argument: str, domain: str, *, least: float = -tree.LARGEST) -> None:
    where = f"{argument} = {distribution}"
    for name, value in (("low", distribution.low), ("high", distribution.high)):
        tree.check_number(value, f"{where}: {name}", domain, lambda _: True)
        if not least <= tree.plain(value) <= tree.LARGEST:
            raise ValueError(f"{where}: {name} is {value}; give a finite {domain}.")
    if not tree.plain(distribution.low) < tree.plain(distribution.high):
        raise ValueError(f"{where}: low is not below high; give the smaller end first, or one value without a range.")
