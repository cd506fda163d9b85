"""A grid is a list of members, each a dictionary of hyperparameters.

`Grid` makes the product of its axes; `Grid.zip` goes along them side by side, and `Grid.random` and `Grid.sobol` draw
from distributions. Grids add up and are filtered. `logspace` makes the rules of one kind for an axis. What the
values of an axis may be, `weightdecay.search.axis_values` says.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from weightdecay import decay
from weightdecay.core import html, tree
from weightdecay.core.types import Integer, Scalar
from weightdecay.decay import Rule
from weightdecay.search import axis_values, draws
from weightdecay.search import member as member_json
from weightdecay.search.member import REPLICATES

_SHOWN = 10  # members in a notebook


def logspace(rule: Callable[[float], Rule], start: Scalar, stop: Scalar, num: Integer) -> list[Rule]:
    """Rules of one kind with log-spaced coefficients, both ends in.

    Args:
      rule: A kind with one coefficient, such as ``wd.L2``, or any function from a coefficient to a rule.
      start: First coefficient, > 0.
      stop: Last coefficient, > 0.
      num: How many, >= 1.

    Returns:
      The rules, in the order of their coefficients.

    Raises:
      TypeError: ``rule`` takes several coefficients, or is no rule; an end or ``num`` is no number.
      ValueError: An end that is not above 0, or ``num`` below 1.

    Examples:
      >>> [str(rule) for rule in logspace(decay.L2, 1e-3, 1e-1, 3)]
      ['L2(0.001)', 'L2(0.01)', 'L2(0.1)']
    """
    for name, value in {"start": start, "stop": stop}.items():
        tree.check_number(value, name, "number > 0", lambda _: True)
        if not 0 < value < math.inf:
            raise ValueError(
                f"{name} is {value}; a logarithmic axis needs ends above 0. For no decay add wd.NoDecay()."
            )
    axis_values.check_num(num)
    if not callable(rule):
        raise TypeError(f"rule is {rule!r}; give a kind such as wd.L2, without a coefficient.")
    coefficients = np.geomspace(start, stop, num)
    try:
        rules = [rule(float(coefficient)) for coefficient in coefficients]
    except TypeError as error:
        name = getattr(rule, "__name__", repr(rule))
        raise TypeError(
            f"rule is {name}, which does not take one coefficient; fix the others, as in "
            "wd.logspace(lambda c: wd.ElasticNet(c, 0.1), 1e-4, 1e-1, 7)."
        ) from error
    decay.check(rules[0], argument="rule")
    return rules


class Grid(Sequence[dict[str, Any]]):
    """Product of axes, the last axis fastest; a sequence of members.

    ``decay`` and ``seed`` may be left out: no decay, and seed 0. Other axes are arguments of the training, of the
    network or of the optimizer, such as ``label_smoothing``, ``dropout_rate``, ``momentum`` or ``b2``; a learning rate
    may be a schedule. An axis may be one value; several rules together are a tuple in the list of ``decay``, and any
    other tuple that is one value stands in a list too, ``hidden=[(64,), (64, 64)]``. Members that differ in the seed
    and the fold alone are replicates of one candidate.

    Beside the product there are `zip`, `random` and `sobol`. ``grid + grid`` has the members of both, a member that is
    in both once; their axes may differ.

    Attributes:
      axes: The distinct values of each axis by name, in the order of first appearance.

    Examples:
      >>> grid = Grid(decay=[decay.NoDecay(), *logspace(decay.L2, 1e-4, 1e-2, 3)], learning_rate=1e-3, seed=range(2))
      >>> len(grid), grid[7]
      (8, {'decay': L2(coefficient=0.01), 'learning_rate': 0.001, 'seed': 1})
      >>> grid + Grid(decay=decay.Decoupled(0.1), learning_rate=[1e-3, 1e-2])
      Grid of 10 members: decay (5), learning_rate (2), seed (2)
    """

    def __init__(self, **axes: Any) -> None:
        """Take the axes, each a value or an iterable of values.

        Args:
          **axes: Values by name.

        Raises:
          TypeError: A value of the wrong type, such as a rule's name in place of a rule.
          ValueError: An empty axis, a value twice, or a value out of range.
        """
        self.axes = {name: axis_values.checked_axis(name, values) for name, values in axes.items()}
        self.axes.setdefault("decay", [decay.NoDecay()])
        self.axes.setdefault("seed", [0])
        self._members = [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]

    @classmethod
    def zip(cls, **axes: Any) -> "Grid":
        """Go along axes of one length side by side: the first values together, the second, and so on.

        Args:
          **axes: Values by name; one value alone goes with all others. ``seed`` and ``fold`` do not go along: every
            candidate is replicated over them.

        Returns:
          The candidates times the seeds and folds, the last fastest.

        Raises:
          TypeError: As for a product.
          ValueError: Axes of different lengths, a candidate twice, or as for a product.

        Examples:
          >>> grid = Grid.zip(decay=logspace(decay.L2, 1e-4, 1e-2, 3), learning_rate=[3e-3, 1e-3, 3e-4], seed=range(2))
          >>> len(grid), grid[3]
          (6, {'decay': L2(coefficient=0.001), 'learning_rate': 0.001, 'seed': 1})
        """
        replicates = {
            name: axis_values.checked_axis(name, values) for name, values in axes.items() if name in REPLICATES
        }
        replicates.setdefault("seed", [0])
        columns = {
            name: axis_values.checked_values(name, values) for name, values in axes.items() if name not in REPLICATES
        }
        columns.setdefault("decay", [decay.NoDecay()])
        lengths = {name: len(values) for name, values in columns.items() if len(values) > 1}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(
                f"the axes are of different lengths: {told} values; give as many to each, one value for all, or "
                "wd.Grid(...) for every combination."
            )
        rows = max(lengths.values(), default=1)
        found: dict[str, int] = {}
        zipped = [{name: column[row % len(column)] for name, column in columns.items()} for row in range(rows)]
        for place, candidate in enumerate(zipped):
            first = found.setdefault(member_json.identity(candidate), place)
            if first != place:
                raise ValueError(
                    f"the values at places {first} and {place} are the same in every axis, as JAX rounds numbers; give "
                    "each candidate once (seeds make replicates)."
                )
        return cls._replicated(zipped, replicates)

    @classmethod
    def random(cls, num: Integer, seed: Integer = 0, *, seeds: Any = 0, folds: Any = None, **axes: Any) -> "Grid":
        """Draw candidates at random.

        Each axis has random numbers of its own, which follow from ``seed`` and the axis's name. So a larger ``num``
        keeps the candidates and adds to them, and another axis leaves the values of the others as they are. Candidates
        are distinct: one that comes again, as happens where values are few, is left out and another drawn.

        Args:
          num: How many candidates, >= 1.
          seed: Of the draw; not of the members.
          seeds: The members' axis ``seed``, by which every candidate is replicated.
          folds: The members' axis ``fold``, likewise; None = no such axis.
          **axes: Distributions by name, as ``wd.LogUniform(1e-4, 1e-1)``; a list is a `weightdecay.Choice` of its
            values, and one value is fixed. A rule or a schedule may hold distributions.

        Returns:
          The candidates times the seeds and folds, the last fastest.

        Raises:
          TypeError: A value or an end of the wrong type.
          ValueError: A value or an end out of range, or fewer distinct candidates than ``num``.

        Examples:
          >>> from weightdecay.search.distributions import LogUniform
          >>> axes = {"decay": [decay.NoDecay(), decay.L2(LogUniform(1e-6, 1e-1))], "learning_rate": [1e-3, 1e-2]}
          >>> len(Grid.random(10, **axes, seeds=range(3))), Grid.random(10, **axes)[:4] == list(Grid.random(4, **axes))
          (30, True)
        """
        space = draws.space(num, seed, axes)
        streams = {
            name: np.random.Generator(
                np.random.PCG64(np.random.SeedSequence(int(seed), spawn_key=tuple(name.encode())))
            )
            for name in space
        }

        def draw(rows: int) -> dict[str, np.ndarray]:
            return {name: streams[name].random((rows, one.num_dimensions)) for name, one in space.items()}

        return cls._replicated(draws.candidates(num, space, draw), _replicates(seeds, folds))

    @classmethod
    def sobol(cls, num: Integer, seed: Integer = 0, *, seeds: Any = 0, folds: Any = None, **axes: Any) -> "Grid":
        """Draw candidates that fill the space evenly: a scrambled Sobol sequence.

        The dimensions go to the axes in the order of their names, so that the order of the arguments does not matter. A
        larger ``num`` keeps the candidates and adds to them; another axis makes a new sequence. Powers of two fill the
        space most evenly. Candidates are distinct: one that comes again is left out, and the sequence goes on.

        Args:
          num: How many candidates, >= 1.
          seed: Of the scrambling; not of the members.
          seeds: The members' axis ``seed``, by which every candidate is replicated.
          folds: The members' axis ``fold``, likewise; None = no such axis.
          **axes: As for `random`.

        Returns:
          The candidates times the seeds and folds, the last fastest.

        Raises:
          TypeError: A value or an end of the wrong type.
          ValueError: A value or an end out of range, or fewer distinct candidates than ``num``.

        References:
          Owen, Scrambling Sobol' and Niederreiter-Xing Points, 1998; `scipy.stats.qmc.Sobol`.

        Examples:
          >>> from weightdecay.search.distributions import LogUniform
          >>> grid = Grid.sobol(4, decay=decay.L2(LogUniform(1e-4, 1.0)), learning_rate=1e-3)
          >>> sorted(math.floor(math.log10(member["decay"].coefficient)) for member in grid)  # one in each power of ten
          [-4, -3, -2, -1]
        """
        from scipy.stats import qmc

        space = draws.space(num, seed, axes)
        names = sorted(space)
        ends = np.cumsum([space[name].num_dimensions for name in names])
        sequence = qmc.Sobol(int(ends[-1]), seed=np.random.default_rng(int(seed)))  # pyright: ignore[reportCallIssue]

        def draw(rows: int) -> dict[str, np.ndarray]:
            return dict(zip(names, np.split(sequence.random(rows), ends[:-1], axis=1), strict=True))

        return cls._replicated(draws.candidates(num, space, draw), _replicates(seeds, folds))

    def where(self, predicate: Callable[[dict[str, Any]], Any]) -> "Grid":
        """Return the grid of those members for which something is true.

        Args:
          predicate: ``predicate(member) -> bool`` of a member's hyperparameters by name; an axis that not every member
            has is ``member.get(name)``.

        Returns:
          The grid of these members, in their order.

        Raises:
          TypeError: ``predicate`` is no function.
          ValueError: No member is left.

        Examples:
          >>> grid = Grid(learning_rate=[0.1, 1.0], momentum=[0.0, 0.9])
          >>> grid.where(lambda member: member["learning_rate"] < 1 or member["momentum"] == 0)
          Grid of 3 members: learning_rate (2), momentum (2), decay (1), seed (1)
        """
        if not callable(predicate):
            raise TypeError(
                f"predicate is {predicate!r}, of type {type(predicate).__name__}; give a function of a member, as in "
                "grid.where(lambda member: member['learning_rate'] < 0.1)."
            )
        members = [member for member in self if predicate(dict(member))]
        if not members:
            raise ValueError(
                f"predicate is true for none of the {len(self)} members, so nothing is left; grid.axes has the values."
            )
        return self._of(members)

    def __add__(self, other: "Grid") -> "Grid":
        """Return the grid of the members of both, in order; a member that is in both stands there once."""
        if not isinstance(other, Grid):
            raise TypeError(f"a grid and {other!r}, of type {type(other).__name__}, do not add up; give two grids.")
        found: dict[str, dict[str, Any]] = {}
        for member in (*self, *other):
            found.setdefault(member_json.identity(member), member)
        return self._of(found.values())

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._members)

    def __getitem__(self, index: Any) -> Any:
        """Return a member's hyperparameters by name."""
        return self._members[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Go through the members."""
        return iter(self._members)

    def __repr__(self) -> str:
        """Return the axes with their sizes."""
        # Members are distinct, so that as many as combinations are the product.
        is_product = len(self) == math.prod(map(len, self.axes.values())) and all(
            len(member) == len(self.axes) for member in self
        )
        axes = (" x " if is_product else ", ").join(f"{name} ({len(values)})" for name, values in self.axes.items())
        return f"Grid of {len(self)} members: {axes}"

    def _repr_html_(self) -> str:
        """Return the axes and, folded, the first members in tables, as a notebook shows them."""
        first = self[:_SHOWN]
        columns = {"member": range(len(first))}
        columns |= {name: [html.said(one[name]) if name in one else "" for one in first] for name in self.axes}
        members = html.table(columns, words=list(self.axes))
        title = f"The first {len(first)} of {len(self)} members" if len(first) < len(self) else "The members"
        return "\n".join([html.paragraph(repr(self)), html.axes(self.axes), html.folded(title, members)])

    @classmethod
    def _of(cls, members: Iterable[Mapping[str, Any]]) -> "Grid":
        """Grid of given members, which are checked already and distinct; values that JAX rounds to one become one."""
        axes: dict[str, dict[str, Any]] = {}
        grid = cls.__new__(cls)
        grid._members = [
            {
                name: axes.setdefault(name, {}).setdefault(member_json.value_identity(name, value), value)
                for name, value in member.items()
            }
            for member in members
        ]
        grid.axes = {name: list(values.values()) for name, values in axes.items()}
        return grid

    @classmethod
    def _replicated(cls, candidates: Iterable[Mapping[str, Any]], replicates: Mapping[str, list[Any]]) -> "Grid":
        combinations = [dict(zip(replicates, values, strict=True)) for values in product(*replicates.values())]
        return cls._of({**candidate, **one} for candidate in candidates for one in combinations)


def of_members(members: Iterable[Mapping[str, Any]]) -> Grid:
    """Grid of members of other grids, in their order.

    Args:
      members: Hyperparameters by name, each member once.

    Returns:
      The grid.
    """
    return Grid._of(members)


def _replicates(seeds: Any, folds: Any) -> dict[str, list[Any]]:
    axes = {"seed": axis_values.checked_axis("seed", seeds, "seeds")}
    return axes if folds is None else axes | {"fold": axis_values.checked_axis("fold", folds, "folds")}
