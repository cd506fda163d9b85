"""A grid is a list of members, each a dictionary of hyperparameters.

`Grid` makes the product of its axes; `logspace` makes the rules of one kind for an axis. Checks stand here, so that a
wrong value is told before anything is compiled.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import fields
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay import decay, masks, schedules, tree
from weightdecay.decay import Masked, PerLayer, Rule
from weightdecay.types import Integer, Scalar

_LARGEST_SEED = 2**31 - 1
_DOMAINS = {  # from, below, in words
    "learning_rate": (tree.SMALLEST, math.inf, "a learning rate is a number above 0"),
    **dict.fromkeys(("momentum", "b1", "b2"), (0, 1, "give a number from 0 to below 1")),
    "eps": (0, math.inf, "give a number >= 0"),
    "peak_learning_rate": (tree.SMALLEST, math.inf, "give a number above 0"),
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
    if isinstance(num, bool) or not isinstance(num, int | np.integer):
        raise TypeError(f"num is {num!r}, of type {type(num).__name__}; give a whole number of at least 1.")
    if num < 1:
        raise ValueError(f"num is {num}; give at least 1.")
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

    ``decay`` and ``seed`` may be left out: no decay, and seed 0. Every other axis is an argument of the optimizer,
    such as ``learning_rate``, ``momentum`` or ``b2``. An axis may be one value; several rules together are a
    tuple in the list of ``decay``. Members that differ in the seed alone are replicates of one candidate.

    Examples:
      >>> grid = Grid(decay=[decay.NoDecay(), *logspace(decay.L2, 1e-4, 1e-2, 3)], learning_rate=1e-3, seed=range(2))
      >>> len(grid), grid[7]
      (8, {'decay': L2(coefficient=0.01), 'learning_rate': 0.001, 'seed': 1})
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
        axes = " x ".join(f"{name} ({len(values)})" for name, values in self.axes.items())
        return f"Grid of {len(self)} members: {axes}"


def candidates(members: Iterable[Mapping[str, Any]]) -> list[int]:
    """Candidate of each member: members that differ in the seed alone share one.

    Args:
      members: Hyperparameters by name.

    Returns:
      Numbers from 0, in the order of first appearance.
    """
    numbers: dict[str, int] = {}
    keys = (json.dumps(encode({k: v for k, v in member.items() if k != "seed"}), sort_keys=True) for member in members)
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def encode(member: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON has them.

    Args:
      member: Hyperparameters by name.

    Returns:
      The same, with a rule as its name and its coefficients.
    """
    return {name: _encode(value) for name, value in member.items()}


def decode(member: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters from JSON.

    Args:
      member: As `encode` made it.

    Returns:
      Hyperparameters by name.

    Raises:
      ValueError: A rule that this version does not know.
    """
    return {name: _decode_rule(value) if name == "decay" else value for name, value in member.items()}


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


def _axis(name: str, values: Any) -> list[Any]:
    is_one = isinstance(values, Rule | str | bytes | type) or not isinstance(values, Iterable)
    several: Any = [values] if is_one or getattr(values, "shape", None) == () else values
    if isinstance(several, Mapping | Set | np.ma.MaskedArray):
        raise TypeError(f"{name} is of type {type(several).__name__}; give its values in a list, in their order.")
    values = [_value(f"{name}[{index}]", name, value) for index, value in enumerate(several)]
    if not values:
        raise ValueError(f"{name} is an empty axis, so the grid would have no members; give at least one value.")
    seen: set[str] = set()
    for value in values:
        key = str(value) if name == "seed" else _rounded(value)
        if key in seen:
            raise ValueError(
                f"{name} holds {value} twice, as JAX rounds numbers; give each value once (seeds make replicates)."
            )
        seen.add(key)
    return values


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
    if name == "decay":
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
    if (
        isinstance(value, np.generic | np.ndarray | jax.Array)
        and np.ndim(value) == 0
        and not jnp.issubdtype(value.dtype, jax.dtypes.extended)
    ):
        value = value.item()
    if name == "seed":
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; a seed is a whole number.")
        if not 0 <= value <= _LARGEST_SEED:
            raise ValueError(f"{where} is {value}; a seed lies between 0 and {_LARGEST_SEED}.")
        return value
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; give a number, True, False or a word.")
    if isinstance(value, int | float) and not abs(value) <= tree.LARGEST:
        raise ValueError(f"{where} is {value}; give a finite number.")
    if name in _DOMAINS:
        least, below, words = _DOMAINS[name]
        if isinstance(value, bool | str):
            raise TypeError(f"{where} is {value!r}, of type {type(value).__name__}; {words}.")
        if not least <= value < below:
            raise ValueError(f"{where} is {value!r}; {words}.")
    return value
