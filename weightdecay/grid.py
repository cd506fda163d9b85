"""A grid is a list of members, each a dictionary of hyperparameters.

`Grid` makes the product of its axes; `Grid.zip` goes along them side by side, and `Grid.random` and `Grid.sobol` draw
from distributions. Grids add up and are filtered. `logspace` makes the rules of one kind for an axis. Checks stand
here, so that a wrong value is told before anything is compiled.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import fields
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay import decay, distributions, markup, masks, schedules, tree
from weightdecay.decay import Masked, PerLayer, Rule
from weightdecay.distributions import Distribution
from weightdecay.types import Integer, Scalar

REPLICATES = ("seed", "fold")
"""Axes that make no candidates of their own: members that differ in these alone share one."""

_LARGEST_WHOLE = 2**31 - 1
_SHOWN = 10  # members in a notebook


class _Domain(NamedTuple):
    least: float
    below: float
    words: str
    takes_none: bool = False


_SHARE = _Domain(0, 1, "give a number from 0 to below 1")
_UP_TO_ONE = _Domain(0, math.nextafter(1, 2), "give a number from 0 to 1")
_NOT_NEGATIVE = _Domain(0, math.inf, "give a number >= 0")
_DOMAINS = {
    "learning_rate": _Domain(
        tree.SMALLEST, math.inf, "a learning rate is a number above 0, or a schedule of wd.schedules"
    ),
    "peak_learning_rate": _Domain(tree.SMALLEST, math.inf, "give a number above 0"),
    "clip_norm": _Domain(tree.SMALLEST, math.inf, "give a number above 0, or None for no clipping", takes_none=True),
    **dict.fromkeys(("momentum", "b1", "b2", "label_smoothing", "crop", "dropout_rate"), _SHARE),
    **dict.fromkeys(("flip", "cutout"), _UP_TO_ONE),
    **dict.fromkeys(("eps", "mixup", "input_noise", "shift"), _NOT_NEGATIVE),
}
_WHOLE = {  # those of the axes that are whole numbers: the least, what it is, what stands beside it
    "seed": (0, "a seed", ""),
    "fold": (0, "a fold", ""),
    "patience": (1, "patience", ", or None for never"),
}
_MASKS = {mask.__name__: mask for mask in (masks.kernels, masks.everything, masks.hidden, masks.first, masks.last)}


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
    _check_num(num)
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
        self.axes = {name: _axis(name, values) for name, values in axes.items()}
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
        replicates = {name: _axis(name, values) for name, values in axes.items() if name in REPLICATES}
        replicates.setdefault("seed", [0])
        columns = {name: _values(name, values) for name, values in axes.items() if name not in REPLICATES}
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
            first = found.setdefault(_identity(candidate), place)
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
          >>> from weightdecay.distributions import LogUniform
          >>> axes = {"decay": [decay.NoDecay(), decay.L2(LogUniform(1e-6, 1e-1))], "learning_rate": [1e-3, 1e-2]}
          >>> len(Grid.random(10, **axes, seeds=range(3))), Grid.random(10, **axes)[:4] == list(Grid.random(4, **axes))
          (30, True)
        """
        space = _space(num, seed, axes)
        streams = {
            name: np.random.Generator(
                np.random.PCG64(np.random.SeedSequence(int(seed), spawn_key=tuple(name.encode())))
            )
            for name in space
        }

        def draw(rows: int) -> dict[str, np.ndarray]:
            return {name: streams[name].random((rows, one.num_dimensions)) for name, one in space.items()}

        return cls._replicated(_drawn(num, space, draw), _replicates(seeds, folds))

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
          >>> from weightdecay.distributions import LogUniform
          >>> grid = Grid.sobol(4, decay=decay.L2(LogUniform(1e-4, 1.0)), learning_rate=1e-3)
          >>> sorted(math.floor(math.log10(member["decay"].coefficient)) for member in grid)  # one in each power of ten
          [-4, -3, -2, -1]
        """
        from scipy.stats import qmc

        space = _space(num, seed, axes)
        names = sorted(space)
        ends = np.cumsum([space[name].num_dimensions for name in names])
        sequence = qmc.Sobol(int(ends[-1]), seed=np.random.default_rng(int(seed)))  # pyright: ignore[reportCallIssue]

        def draw(rows: int) -> dict[str, np.ndarray]:
            return dict(zip(names, np.split(sequence.random(rows), ends[:-1], axis=1), strict=True))

        return cls._replicated(_drawn(num, space, draw), _replicates(seeds, folds))

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
            found.setdefault(_identity(member), member)
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
        columns |= {name: [markup.said(one[name]) if name in one else "" for one in first] for name in self.axes}
        members = markup.table(columns, words=list(self.axes))
        title = f"The first {len(first)} of {len(self)} members" if len(first) < len(self) else "The members"
        return "\n".join([markup.paragraph(repr(self)), markup.axes(self.axes), markup.folded(title, members)])

    @classmethod
    def _of(cls, members: Iterable[Mapping[str, Any]]) -> "Grid":
        """Grid of given members, which are checked already and distinct; values that JAX rounds to one become one."""
        axes: dict[str, dict[str, Any]] = {}
        grid = cls.__new__(cls)
        grid._members = [
            {name: axes.setdefault(name, {}).setdefault(_key(name, value), value) for name, value in member.items()}
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


def candidates(members: Iterable[Mapping[str, Any]]) -> list[int]:
    """Candidate of each member: members that differ in the seed and the fold alone share one.

    Args:
      members: Hyperparameters by name.

    Returns:
      Numbers from 0, in the order of first appearance.
    """
    numbers: dict[str, int] = {}
    compared = ({name: value for name, value in member.items() if name not in REPLICATES} for member in members)
    keys = (json.dumps(encode(member), sort_keys=True) for member in compared)
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def encode(member: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON has them.

    Args:
      member: Hyperparameters by name.

    Returns:
      The same, with a rule or a schedule as its name and its numbers, and a tuple as a list.
    """
    return {name: _encode(value) for name, value in member.items()}


def decode(member: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters from JSON.

    Args:
      member: As `encode` made it.

    Returns:
      Hyperparameters by name.

    Raises:
      ValueError: A rule or a schedule that this version does not know.
    """
    return {
        name: _decode_rule(value) if name == "decay" else _decode_other(name, value) for name, value in member.items()
    }


def _encode(value: Any) -> Any:
    """Rule, or what stands in one, in JSON: a dictionary whose first key says what it is."""

    def of_fields(value: Any) -> dict[str, Any]:
        named = {one.name: getattr(value, one.name) for one in fields(value)}
        return {name: _encode(item) for name, item in named.items() if item is not None}

    if isinstance(value, Masked):
        return {"masked": _encode(value.rule), "on": _encode(value.mask)}
    if isinstance(value, Rule):
        return {"rule": type(value).__name__, **of_fields(value)}
    if isinstance(value, PerLayer):
        return {"per_layer": _encode(value.coefficients), "default": _encode(value.default)}
    if isinstance(value, masks.Matching):
        return {"matching": list(value.patterns)}
    if isinstance(value, schedules.Parametric):
        return {"schedule": type(value).__name__, **of_fields(value)}
    if callable(value):
        return {"mask": getattr(value, "__name__", repr(value))}
    if isinstance(value, Mapping):
        return {"tree": [[name, _encode(item)] for name, item in value.items()]}
    if isinstance(value, list):
        return {"list": [_encode(item) for item in value]}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _decode_rule(value: Any) -> Rule:
    try:
        rule = _decode(value)
        decay.check(rule, argument="decay")
        return rule
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"decay is stored as {value!r}, which is no rule of this version.") from error


def _decode_other(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _decode(value)
    try:
        schedule = _decode(value)
        schedules.check(schedule, argument=name)
        return schedule
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is stored as {value!r}, which is no schedule of this version.") from error


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    items = {name: _decode(item) for name, item in value.items() if name != "tree"}
    if "list" in value:
        return list(items["list"])
    if "tree" in value:
        return {name: _decode(item) for name, item in value["tree"]}
    if "masked" in items:
        return Masked(items["masked"], items["on"])
    if "rule" in items:
        return {**decay.KINDS, "Combined": decay.Combined}[items.pop("rule")](**items)
    if "per_layer" in items:
        return PerLayer(items["per_layer"], items["default"])
    if "matching" in items:
        return masks.matching(*items["matching"])
    if "schedule" in items:
        return schedules.KINDS[items.pop("schedule")](**items)
    return _MASKS[items["mask"]]


def _is_one(values: Any) -> bool:
    """Whether an axis is given as one value."""
    is_one = isinstance(values, Rule | str | bytes | type) or not isinstance(values, Iterable)
    return is_one or getattr(values, "shape", None) == ()


def _several(name: str, values: Any) -> list[Any]:
    if _is_one(values):
        return [values]
    if isinstance(values, Mapping | Set | np.ma.MaskedArray):
        raise TypeError(f"{name} is of type {type(values).__name__}; give its values in a list, in their order.")
    values = list(values)
    if not values:
        raise ValueError(f"{name} is an empty axis, so the grid would have no members; give at least one value.")
    return values


def _values(name: str, values: Any, argument: str | None = None) -> list[Any]:
    """Values of an axis, checked; ``argument`` is what it was given as, where that is another name."""
    argument = name if argument is None else argument
    return [_value(f"{argument}[{index}]", name, value) for index, value in enumerate(_several(argument, values))]


def _axis(name: str, values: Any, argument: str | None = None) -> list[Any]:
    checked = _values(name, values, argument)
    seen: set[str] = set()
    for value in checked:
        key = _key(name, value)
        if key in seen:
            hint = f"; a tuple as one value stands in a list: {name}=[{values!r}]" if isinstance(values, tuple) else ""
            raise ValueError(
                f"{argument or name} holds {value} twice, as JAX rounds numbers; give each value once (seeds make "
                f"replicates){hint}."
            )
        seen.add(key)
    return checked


def _replicates(seeds: Any, folds: Any) -> dict[str, list[Any]]:
    axes = {"seed": _axis("seed", seeds, "seeds")}
    return axes if folds is None else axes | {"fold": _axis("fold", folds, "folds")}


def _space(num: Any, seed: Any, axes: Mapping[str, Any]) -> dict[str, Distribution]:
    """Distributions of the axes, checked."""
    _check_num(num)
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
        one = distributions.of(values) if _is_one(values) else distributions.Choice(*_several(name, values))
        one.check(name)
        for place, branch in enumerate(one.values if isinstance(one, distributions.Choice) else [one]):
            for end in distributions.of(branch).ends():
                _value(f"{name}[{place}]", name, end)
        space[name] = one
    return space


def _drawn(
    num: Integer, space: Mapping[str, Distribution], draw: Callable[[int], dict[str, np.ndarray]]
) -> list[dict[str, Any]]:
    """Distinct candidates; ``draw(rows)`` gives each axis its next numbers, ``(rows, dimensions)``."""
    found: dict[str, dict[str, Any]] = {}
    # Powers of two, as Sobol sequences have them; enough to come upon each of ``num`` values that are all alike.
    rows = 1 << (int(num) - 1).bit_length()
    most, drawn = max(16 * rows, 1024), 0
    while drawn < most:
        units = draw(rows)
        for row in range(rows):
            candidate = {name: _value(name, name, one.at(units[name][row])) for name, one in space.items()}
            found.setdefault(_identity(candidate), candidate)
            if len(found) == num:
                return list(found.values())
        drawn += rows
    raise ValueError(
        f"num is {num}, but {drawn} draws gave {len(found)} distinct candidates; give num={len(found)}, distributions "
        "with more values, or all values in wd.Grid(...)."
    )


def _check_num(num: Any) -> None:
    if isinstance(num, bool) or not isinstance(num, int | np.integer):
        raise TypeError(f"num is {num!r}, of type {type(num).__name__}; give a whole number of at least 1.")
    if num < 1:
        raise ValueError(f"num is {num}; give at least 1.")


def _identity(member: Mapping[str, Any]) -> str:
    """What tells a member from others."""
    return json.dumps({name: _key(name, value) for name, value in member.items()}, sort_keys=True)


def _key(name: str, value: Any) -> str:
    """What tells a value of an axis from others."""
    return str(value) if name in REPLICATES else _rounded(value)


def _rounded(value: Any) -> str:
    """What tells a value from others: its JSON with numbers in the precision that JAX computes in."""
    precision = jnp.result_type(float).type
    number = lambda text: float(precision(text)) + 0.0  # noqa: E731 (-0.0 is 0.0)
    text = json.dumps(_encode(value), sort_keys=True)
    return json.dumps(json.loads(text, parse_int=number, parse_float=number), sort_keys=True)


def _check_storable(rule: Rule, where: str) -> None:
    """Refuse in a grid what a result on disk could not say again."""
    if isinstance(rule, Masked):
        if not isinstance(rule.mask, masks.Matching | bool) and rule.mask not in _MASKS.values():
            raise TypeError(
                f"{where} = {rule} has a mask of its own making; in a grid a mask is one of wd.masks: "
                f"{', '.join(_MASKS)} or matching(...)."
            )
        rule = rule.rule
    if getattr(rule, "anchor", None) is not None:
        raise TypeError(
            f"{where} = {rule.name} has an anchor of its own; in a grid the anchor is the weights that each member "
            "starts from: leave it out."
        )


def _value(where: str, name: str, value: Any) -> Any:
    """The value of an axis as a member has it, checked."""
    is_tree = isinstance(value, Rule | schedules.Parametric | tuple | Distribution)
    if is_tree and any(isinstance(leaf, Distribution) for leaf in jax.tree.leaves(value)):
        raise TypeError(
            f"{where} = {value} is drawn by chance; give distributions to wd.Grid.random(num, ...) or "
            "wd.Grid.sobol(num, ...)."
        )
    if name == "decay":
        return _decay(where, value)
    if name == "learning_rate" and isinstance(value, schedules.Parametric):
        schedules.check(value, argument=where)
        if schedules.KINDS.get(type(value).__name__) is not type(value):
            raise TypeError(f"{where} is {value}, a schedule of your own; in a grid give one of wd.schedules.")
        return value
    value = _plain(value)
    if name in _WHOLE:
        return _whole(where, name, value)
    if name in _DOMAINS:
        _check_domain(where, value, _DOMAINS[name])
        return value
    if callable(value):
        raise TypeError(
            f"{where} is {getattr(value, '__name__', repr(value))}, of type {type(value).__name__}, which a result on "
            "disk cannot hold; give a word or a number, and let your model find the function by it."
        )
    if isinstance(value, tuple):
        value = tuple(map(_plain, value))
        for place, one in enumerate(value):
            if isinstance(one, bool) or not isinstance(one, int | float):
                raise TypeError(
                    f"{where}[{place}] is {one!r}, of type {type(one).__name__}; a tuple holds numbers alone."
                )
            _check_finite(f"{where}[{place}]", one)
    elif not isinstance(value, bool | int | float | str | None):
        raise TypeError(
            f"{where} is {value!r}, of type {type(value).__name__}; give a number, True, False, None, a word or a "
            "tuple of numbers."
        )
    _check_finite(where, value)
    return value


def _decay(where: str, value: Any) -> Rule:
    if isinstance(value, list):
        raise TypeError(
            f"{where} is a list of {len(value)} rules; for a candidate each put a star before it, as in "
            "decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-4, 1e-1, 7)]; several rules together are a tuple."
        )
    decay.check(value, argument=where)
    rule = decay.combined(value)
    if any(callable(leaf) for leaf in jax.tree.leaves(rule)):
        raise TypeError(
            f"{where} has a function as its coefficient; in a grid a coefficient is a number, or a schedule of "
            "wd.schedules, whose parameters are numbers."
        )
    for part in rule.rules if isinstance(rule, decay.Combined) else [rule]:
        _check_storable(part, where)
    return rule


def _plain(value: Any) -> Any:
    """Python's own number for one of NumPy or JAX."""
    is_number = isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0
    return value.item() if is_number and not jnp.issubdtype(value.dtype, jax.dtypes.extended) else value


def _whole(where: str, name: str, value: Any) -> int | None:
    least, what, otherwise = _WHOLE[name]
    if value is None and otherwise:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; {what} is a whole number{otherwise}.")
    if not least <= value <= _LARGEST_WHOLE:
        raise ValueError(f"{where} is {value}; {what} lies between {least} and {_LARGEST_WHOLE}{otherwise}.")
    return value


def _check_domain(where: str, value: Any, domain: _Domain) -> None:
    if value is None and domain.takes_none:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; {domain.words}.")
    _check_finite(where, value)
    if not domain.least <= value < domain.below:
        raise ValueError(f"{where} is {value!r}; {domain.words}.")


def _check_finite(where: str, value: Any) -> None:
    if isinstance(value, int | float) and not abs(value) <= tree.LARGEST:
        raise ValueError(f"{where} is {value}; give a finite number.")
