"""Distributions for the axes of a search: what turns numbers from the unit interval into a value of an axis.

A distribution takes as many numbers as it has dimensions and is their pure function, so that pseudorandom and Sobol
numbers serve alike. It may stand inside a rule or a schedule, ``wd.L2(wd.LogUniform(1e-6, 1e-1))``, and as a value of a
`Choice`, which draws it only where it is chosen. Constructors do not look at what they get; `weightdecay.Grid` does.
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

Units: TypeAlias = Sequence[float | int] | Float[np.ndarray, " dimensions"]
"""Numbers from 0 to 1."""


class Distribution:
    """A value by chance."""

    @property
    def num_dimensions(self) -> int:
        """How many numbers a value takes, whatever they are."""
        return 1

    def at(self, units: Units) -> Any:
        """Return the value at a point of the unit cube.

        Args:
          units: ``num_dimensions`` numbers from 0 to 1.

        Returns:
          The value; of numbers, the quantile.
        """
        raise NotImplementedError(f"{type(self).__name__} has no values.")

    def ends(self) -> list[Any]:
        """Return values between which all others lie."""
        return [self.at([0.0]), self.at([1.0])]

    def check(self, argument: str) -> None:
        """Refuse parameters that make no distribution.

        Args:
          argument: Where the distribution was given, for the message.

        Raises:
          TypeError: An end that is no number, or a list in place of values.
          ValueError: Ends in the wrong order or out of range, or no values.
        """


@dataclass(frozen=True)
class Uniform(Distribution):
    """A number between two others, all alike.

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
    """A number between two others, every power of ten alike.

    ``low^(1 - u) high^u``; as `scipy.stats.loguniform`.

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
    """A whole number between two others, both among them, all alike.

    ``low + floor((high - low + 1) u)``

    Args:
      low: Smallest.
      high: Largest, > ``low``.

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
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(
                    f"{argument} = {self}: {name} is {value!r}, of type {type(value).__name__}; give a whole number."
                )
        _check_ends(self, argument, "whole number")


@dataclass(frozen=True, init=False, repr=False)
class Choice(Distribution):
    """One of some values, all alike; one that is given twice is chosen twice as often.

    A value is whatever an axis may hold, or a distribution, or holds one: then that is drawn where it is chosen. One
    number chooses, and the others go to what is chosen: there are ``1 + max(dimensions of the values)``.

    Args:
      *values: What to choose from.

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
        """Return the choice as one writes it."""
        return f"Choice({', '.join(map(repr, self.values))})"

    @property
    @override
    def num_dimensions(self) -> int:
        return 1 + max(of(value).num_dimensions for value in self.values)

    @override
    def at(self, units: Units) -> Any:
        place = min(math.floor(len(self.values) * float(units[0])), len(self.values) - 1)
        return of(self.values[place]).at(units[1:])

    @override
    def ends(self) -> list[Any]:
        return [end for value in self.values for end in of(value).ends()]

    @override
    def check(self, argument: str) -> None:
        if not self.values:
            raise ValueError(f"{argument} is a Choice of nothing; give at least one value.")
        for place, value in enumerate(self.values):
            if isinstance(value, list | range | np.ndarray) and np.shape(value) != ():
                raise TypeError(
                    f"{argument}[{place}] is {value!r}, of type {type(value).__name__}; for several values put a star "
                    "before it, as in wd.Choice(*values)."
                )
            of(value).check(f"{argument}[{place}]")


@dataclass(frozen=True)
class Holder(Distribution):
    """A value that holds distributions, such as a rule with one as its coefficient; without any it is itself.

    Args:
      value: Any pytree; the numbers go to its distributions in the order of `jax.tree.leaves`.
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
        every = [leaf.ends() if isinstance(leaf, Distribution) else [leaf] for leaf in leaves]
        first = [ends[0] for ends in every]
        # One leaf after the other goes through its ends.
        moved = [[*first[:place], end, *first[place + 1 :]] for place, ends in enumerate(every) for end in ends]
        return [jax.tree.unflatten(structure, one) for one in moved or [first]]

    @override
    def check(self, argument: str) -> None:
        for name, leaf in tree.named_leaves(self.value):
            if isinstance(leaf, Distribution):
                leaf.check(f"{argument}.{name}")


def of(value: Any) -> Distribution:
    """A value of an axis as a distribution.

    Args:
      value: A distribution, or whatever an axis may hold, which may hold distributions.

    Returns:
      The distribution itself, or a `Holder` of the value.
    """
    return value if isinstance(value, Distribution) else Holder(value)


def _check_ends(one: Any, argument: str, domain: str, *, least: float = -tree.LARGEST) -> None:
    where = f"{argument} = {one}"
    for name, value in (("low", one.low), ("high", one.high)):
        tree.check_number(value, f"{where}: {name}", domain, lambda _: True)
        if not least <= tree.plain(value) <= tree.LARGEST:
            raise ValueError(f"{where}: {name} is {value}; give a finite {domain}.")
    if not tree.plain(one.low) < tree.plain(one.high):
        raise ValueError(f"{where}: low is not below high; give the smaller end first, and one value without a range.")
