"""Grids: sequences of members, each a dictionary of hyperparameters.

`Grid` is the product of its axes; `Grid.zip` pairs their values, and `Grid.random` and `Grid.sobol` draw from
distributions. Grids can be added and filtered. `logspace` makes rules of one kind with log-spaced coefficients.
`weightdecay.search.axis_values` validates the values of an axis.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from weightdecay import decay
from weightdecay.core import html, tree
from weightdecay.core.types import Integer, Scalar
from weightdecay.decay import Rule, schedules
from weightdecay.search import axis_values, conditions, draws
from weightdecay.search.member import REPLICATES, identity, value_identity

_SHOWN = 10  # members in a notebook


def logspace(rule: Callable[[float], Rule], start: Scalar, stop: Scalar, num: Integer) -> list[Rule]:
    """Make rules of one kind with log-spaced coefficients, both ends included.

    Args:
      rule: A rule with one coefficient, such as ``wd.L2``, or any function from a coefficient to a rule.
      start: First coefficient, > 0.
      stop: Last coefficient, > 0.
      num: Number of rules, >= 1.

    Returns:
      The rules, in the order of their coefficients.

    Raises:
      TypeError: ``rule`` takes several coefficients or is not a rule, or an end or ``num`` is not a number.
      ValueError: An end is not above 0, or ``num`` is below 1.

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
        raise TypeError(f"rule is {rule!r}; give a class such as wd.L2, without a coefficient.")
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

    ``decay`` and ``seed`` are optional; the defaults are no decay and seed 0. Other axes are arguments of the training,
    of the network or of the optimizer, such as ``label_smoothing``, ``dropout_rate``, ``momentum`` or ``b2``; a
    learning rate may be a schedule. An axis may be a single value. Several rules that act together are a tuple in the
    list of ``decay``, and any other tuple that is one value is put in a list too, ``hidden=[(64,), (64, 64)]``. Members
    that differ only in seed and fold are replicates of one candidate.

    Besides the product there are `zip`, `random` and `sobol`. ``grid + grid`` has the members of both grids, each
    member once; their axes may differ.

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
          TypeError: A value has the wrong type, such as the name of a rule instead of a rule.
          ValueError: An axis is empty, or a value is out of range or occurs twice.
        """
        self.axes = {name: axis_values.checked_axis(name, values) for name, values in axes.items()}
        self.axes.setdefault("decay", [decay.NoDecay()])
        self.axes.setdefault("seed", [0])
        self._members = [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]

    @classmethod
    def zip(cls, **axes: Any) -> "Grid":
        """Pair the values of axes of one length: the first values make a candidate, the second values, and so on.

        Args:
          **axes: Values by name; a single value is used for all candidates. ``seed`` and ``fold`` are not paired: every
            candidate is replicated over them.

        Returns:
          The candidates times the seeds and folds, the last fastest.

        Raises:
          TypeError: As for a product.
          ValueError: The axes have different lengths, a candidate occurs twice, or as for a product.

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
            counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(
                f"the axes have different lengths: {counts} values; give each the same number of values or a single "
                "value, or use wd.Grid(...) for all combinations."
            )
        rows = max(lengths.values(), default=1)
        positions: dict[str, int] = {}
        zipped = [{name: column[row % len(column)] for name, column in columns.items()} for row in range(rows)]
        for position, candidate in enumerate(zipped):
            first = positions.setdefault(identity(candidate), position)
            if first != position:
                raise ValueError(
                    f"the values at positions {first} and {position} are the same in every axis, as JAX rounds "
                    "numbers; give each candidate once (seeds make replicates)."
                )
        return cls._replicated(zipped, replicates)

    @classmethod
    def random(cls, num: Integer, seed: Integer = 0, *, seeds: Any = 0, folds: Any = None, **axes: Any) -> "Grid":
        """Draw candidates at random.

        Each axis has random numbers of its own, which depend on ``seed`` and the name of the axis. A larger ``num``
        therefore keeps the candidates and adds to them, and a further axis does not change the values of the others.
        Candidates are distinct: a repetition, which occurs if there are few values, is skipped and another is drawn.

        Args:
          num: Number of candidates, >= 1.
          seed: Seed of the draw, not of the members.
          seeds: Values of the axis ``seed``, over which every candidate is replicated.
          folds: Values of the axis ``fold``, over which every candidate is replicated; None = no such axis.
          **axes: Distributions by name, such as ``wd.LogUniform(1e-4, 1e-1)``. A list is a `weightdecay.Choice` of its
            values, and a single value is fixed. A rule or a schedule may hold distributions.

        Returns:
          The candidates times the seeds and folds, the last fastest.

        Raises:
          TypeError: A value or an end of a range has the wrong type.
          ValueError: A value or an end of a range is out of range, or there are fewer distinct candidates than ``num``.

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
            return {name: streams[name].random((rows, axis.num_dimensions)) for name, axis in space.items()}

        return cls._replicated(draws.candidates(num, space, draw), _replicates(seeds, folds))

    @classmethod
    def sobol(cls, num: Integer, seed: Integer = 0, *, seeds: Any = 0, folds: Any = None, **axes: Any) -> "Grid":
        """Draw candidates from a scrambled Sobol sequence, which fills the space evenly.

        The dimensions are assigned to the axes in the order of their names, so that the order of the arguments does not
        matter. A larger ``num`` keeps the candidates and adds to them; a further axis makes a new sequence. Powers of
        two fill the space most evenly. Candidates are distinct: a repetition is skipped, and the sequence continues.

        Args:
          num: Number of candidates, >= 1.
          seed: Seed of the scrambling, not of the members.
          seeds: Values of the axis ``seed``, over which every candidate is replicated.
          folds: Values of the axis ``fold``, over which every candidate is replicated; None = no such axis.
          **axes: As for `random`.

        Returns:
          The candidates times the seeds and folds, the last fastest.

        Raises:
          TypeError: A value or an end of a range has the wrong type.
          ValueError: A value or an end of a range is out of range, or there are fewer distinct candidates than ``num``.

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

    def where(self, predicate: Callable[[dict[str, Any]], Any] | None = None, **values: Any) -> "Grid":
        """Return the grid of the members that satisfy conditions.

        Args:
          predicate: ``predicate(member) -> bool`` of a member's hyperparameters by name; use ``member.get(name)`` for
            an axis that not every member has. None = no such condition.
          **values: The value of a hyperparameter, or several in a list, a range or a set; a rule by its name, by its
            class, or as it is. A member must satisfy all of them.

        Returns:
          The grid of these members, in their order.

        Raises:
          ArgumentTypeError: ``predicate`` is not a function.
          ArgumentError: No such hyperparameter, or no member satisfies all conditions.

        Examples:
          >>> grid = Grid(learning_rate=[0.1, 1.0], momentum=[0.0, 0.9])
          >>> grid.where(lambda member: member["learning_rate"] < 1 or member["momentum"] == 0)
          Grid of 3 members: learning_rate (2), momentum (2), decay (1), seed (1)
          >>> grid.where(learning_rate=0.1, momentum=[0.0, 0.9])
          Grid of 2 members: learning_rate (1) x momentum (2) x decay (1) x seed (1)
        """
        members = list(self)
        return self._of([members[number] for number in conditions.selected(members, predicate, values)])

    def __add__(self, other: "Grid") -> "Grid":
        """Return the grid of the members of both, in order; a member of both occurs once."""
        if not isinstance(other, Grid):
            raise TypeError(f"a grid and {other!r}, of type {type(other).__name__}, cannot be added; give two grids.")
        distinct: dict[str, dict[str, Any]] = {}
        for member in (*self, *other):
            distinct.setdefault(identity(member), member)
        return self._of(distinct.values())

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._members)

    def __getitem__(self, index: Any) -> Any:
        """Return a member's hyperparameters by name."""
        return self._members[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the members."""
        return iter(self._members)

    def __repr__(self) -> str:
        """Return the axes with their sizes."""
        # Members are distinct: if there are as many as combinations, the grid is the product.
        is_product = len(self) == math.prod(map(len, self.axes.values())) and all(
            len(member) == len(self.axes) for member in self
        )
        axes = (" x " if is_product else ", ").join(f"{name} ({len(values)})" for name, values in self.axes.items())
        return f"Grid of {len(self)} members: {axes}"

    def _repr_html_(self) -> str:
        """Return the axes and, folded, a table of the first members, as HTML for a notebook."""
        first = self[:_SHOWN]
        columns = {"member": range(len(first))}
        columns |= {name: [html.cell(one[name]) if name in one else "" for one in first] for name in self.axes}
        members = html.table(columns, text_columns=list(self.axes))
        title = f"The first {len(first)} of {len(self)} members" if len(first) < len(self) else "The members"
        return "\n".join([html.paragraph(repr(self)), html.axes(self.axes), html.folded(title, members)])

    @classmethod
    def _of(cls, members: Iterable[Mapping[str, Any]]) -> "Grid":
        """Make a grid of validated, distinct members; values that are equal in JAX's precision become one value."""
        axes: dict[str, dict[str, Any]] = {}
        grid = cls.__new__(cls)
        grid._members = [
            {
                name: axes.setdefault(name, {}).setdefault(value_identity(name, value), value)
                for name, value in member.items()
            }
            for member in members
        ]
        grid.axes = {name: list(values.values()) for name, values in axes.items()}
        return grid

    @classmethod
    def _replicated(cls, candidates: Iterable[Mapping[str, Any]], replicates: Mapping[str, list[Any]]) -> "Grid":
        combinations = [dict(zip(replicates, values, strict=True)) for values in product(*replicates.values())]
        return cls._of({**candidate, **replicate} for candidate in candidates for replicate in combinations)


def of_members(members: Iterable[Mapping[str, Any]]) -> Grid:
    """Make a grid of members of other grids, in their order.

    Args:
      members: Hyperparameters of each member by name, each member once.

    Returns:
      The grid.
    """
    return Grid._of(members)


def in_steps(grid: Grid, num_steps: int) -> Grid:
    """Replace fractions of the run in the schedules of a grid by numbers of steps.

    Args:
      grid: The members.
      num_steps: Steps of each member.

    Returns:
      The grid of the same members, in their order.
    """
    return of_members({name: schedules.over(value, num_steps) for name, value in member.items()} for member in grid)


def _replicates(seeds: Any, folds: Any) -> dict[str, list[Any]]:
    axes = {"seed": axis_values.checked_axis("seed", seeds, "seeds")}
    return axes if folds is None else axes | {"fold": axis_values.checked_axis("fold", folds, "folds")}
