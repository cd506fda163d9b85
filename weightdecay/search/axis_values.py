"""Validation of the values of an axis, so that a wrong value is reported before anything is compiled."""

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay import decay
from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError, integer, is_number
from weightdecay.decay import Masked, PerLayer, Rule, Touched, masks, registry, schedules
from weightdecay.search.distributions import Distribution
from weightdecay.search.member import MASKS, value_identity

_LARGEST_INTEGER = 2**31 - 1  # that traced numbers and stored results can hold


class _Domain(NamedTuple):
    at_least: float
    below: float
    allowed: str
    takes_none: bool = False


_FRACTION = _Domain(0, 1, "give a number from 0 to below 1")
_UP_TO_ONE = _Domain(0, math.nextafter(1, 2), "give a number from 0 to 1")
_NOT_NEGATIVE = _Domain(0, math.inf, "give a number >= 0")
_DOMAINS = {
    "learning_rate": _Domain(
        tree.SMALLEST, math.inf, "a learning rate is a number above 0, or a schedule of wd.schedules"
    ),
    "peak_learning_rate": _Domain(tree.SMALLEST, math.inf, "give a number above 0"),
    "clip_norm": _Domain(tree.SMALLEST, math.inf, "give a number above 0, or None for no clipping", takes_none=True),
    "ema": _Domain(0, 1, "give a number from 0 to below 1, or None for no average", takes_none=True),
    **dict.fromkeys(("momentum", "b1", "b2", "label_smoothing", "crop", "dropout_rate"), _FRACTION),
    **dict.fromkeys(("flip", "cutout"), _UP_TO_ONE),
    **dict.fromkeys(("eps", "mixup", "input_noise", "shift"), _NOT_NEGATIVE),
}
_INTEGERS = {  # axes of integers: smallest value, description, what else is allowed
    "seed": (0, "a seed", ""),
    "fold": (0, "a fold", ""),
    "patience": (1, "patience", ", or None for never"),
}


def is_single(values: Any) -> bool:
    """Whether an axis is given as a single value.

    Args:
      values: What the user passed.

    Returns:
      True for a rule, a string, a number and anything else that is not iterated over.
    """
    is_single = isinstance(values, Rule | str | bytes | type) or not isinstance(values, Iterable)
    return is_single or getattr(values, "shape", None) == ()


def as_list(name: str, values: Any) -> list[Any]:
    """List the values of an axis, without validating them.

    Args:
      name: Name of the argument, for the message.
      values: One value, or an iterable of values.

    Returns:
      A list with at least one value.

    Raises:
      TypeError: The values have no order.
      ValueError: There are no values.
    """
    if is_single(values):
        return [values]
    if isinstance(values, Mapping | Set | np.ma.MaskedArray):
        raise ArgumentTypeError(
            name, f"{name} is of type {type(values).__name__}; give its values in a list, in their order."
        )
    values = list(values)
    if not values:
        raise ArgumentError(
            name, f"{name} is an empty axis, so the grid would have no members; give at least one value."
        )
    return values


def checked_values(name: str, values: Any, argument: str | None = None) -> list[Any]:
    """Validate each value of an axis.

    Args:
      name: Name of the axis.
      values: One value, or an iterable of values.
      argument: Name of the argument if it differs from the axis.

    Returns:
      The values as members have them.

    Raises:
      TypeError: A value has the wrong type.
      ValueError: There are no values, or one is out of range.
    """
    argument = name if argument is None else argument
    return [checked_value(f"{argument}[{index}]", name, value) for index, value in enumerate(as_list(argument, values))]


def checked_axis(name: str, values: Any, argument: str | None = None) -> list[Any]:
    """Validate the values of an axis, of which each may occur once.

    Args:
      name: Name of the axis.
      values: One value, or an iterable of values.
      argument: Name of the argument if it differs from the axis.

    Returns:
      The values as members have them.

    Raises:
      TypeError: A value has the wrong type.
      ValueError: There are no values, one is out of range, or one occurs twice.
    """
    checked = checked_values(name, values, argument)
    seen: set[str] = set()
    for value in checked:
        key = value_identity(name, value)
        if key in seen:
            hint = (
                f"; put a tuple that is one value in a list: {name}=[{values!r}]" if isinstance(values, tuple) else ""
            )
            raise ArgumentError(
                argument or name,
                f"{argument or name} holds {value} twice, as JAX rounds numbers; give each value once (seeds make "
                f"replicates){hint}.",
            )
        seen.add(key)
    return checked


def checked_value(where: str, name: str, value: Any) -> Any:
    """Validate one value of an axis.

    Args:
      where: Where it was given, for the message, such as ``momentum[1]``.
      name: Name of the axis.
      value: What the user passed.

    Returns:
      The value as a member has it; numbers are Python numbers.

    Raises:
      TypeError: It has the wrong type, or a result on disk cannot hold it.
      ValueError: It is out of range.
    """
    is_tree = isinstance(value, Rule | schedules.Parametric | PerLayer | tuple | Distribution)
    if is_tree and any(isinstance(leaf, Distribution) for leaf in jax.tree.leaves(value)):
        raise TypeError(
            f"{where} = {value} is a distribution; give distributions to wd.Grid.random(num, ...) or "
            "wd.Grid.sobol(num, ...)."
        )
    if name == "decay":
        return _decay(where, value)
    if name == "learning_rate" and isinstance(value, PerLayer):
        by_pattern = {pattern: _rate(f"{where}[{pattern!r}]", rate) for pattern, rate in value.coefficients.items()}
        default = None if value.default is None else _rate(f"{where}.default", value.default)
        return replace(value, coefficients=by_pattern, default=default)
    if name == "learning_rate" and callable(value) and not isinstance(value, type):
        return _schedule(where, value)
    value = _plain(value)
    if name in _INTEGERS:
        return _integer(where, name, value)
    if name in _DOMAINS:
        _check_domain(where, value, _DOMAINS[name])
        return value
    if callable(value):
        raise TypeError(
            f"{where} is {getattr(value, '__name__', repr(value))}, of type {type(value).__name__}, which a result on "
            "disk cannot hold; give a string or a number, and let your model look up the function by it."
        )
    if isinstance(value, tuple):
        value = tuple(map(_plain, value))
        for position, item in enumerate(value):
            if not is_number(item):
                raise ArgumentTypeError(
                    where, f"{where}[{position}] is {item!r}, of type {type(item).__name__}; give numbers in a tuple."
                )
            _check_finite(f"{where}[{position}]", item)
    elif not isinstance(value, bool | int | float | str | None):
        raise ArgumentTypeError(
            where,
            f"{where} is {value!r}, of type {type(value).__name__}; give a number, True, False, None, a string or a "
            "tuple of numbers.",
        )
    _check_finite(where, value)
    return value


def _rate(where: str, value: Any) -> Any:
    """The learning rate of some layers; that of others may be 0."""
    return 0.0 if is_number(value) and value == 0 else checked_value(where, "learning_rate", value)


def check_num(num: Any) -> None:
    """Validate ``num``: an integer, at least 1.

    Args:
      num: What the user passed.

    Raises:
      TypeError: It is not an integer.
      ValueError: It is below 1.
    """
    integer(num, "num", at_least=1)


def _decay(where: str, value: Any) -> Rule:
    if isinstance(value, list):
        raise TypeError(
            f"{where} is a list of {len(value)} rules; for one candidate each put a star before it, as in "
            "decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-4, 1e-1, 7)]; several rules together are a tuple."
        )
    decay.check(value, argument=where)
    rule = jax.tree.map(
        lambda leaf: _schedule(where, leaf) if callable(leaf) else leaf, decay.combined(value), is_leaf=callable
    )
    for part in rule.rules if isinstance(rule, decay.Combined) else [rule]:
        _check_storable(part, where)
    return rule


def _schedule(where: str, value: Any) -> schedules.Parametric:
    """Validate a schedule; a function of the step, such as a schedule of optax, becomes one."""
    if isinstance(value, schedules.Parametric):
        schedules.check(value, argument=where, in_run=True)
        if schedules.KINDS.get(type(value).__name__) is not type(value):
            raise TypeError(f"{where} is {value}, a schedule of your own; in a grid give one of wd.schedules.")
        if not isinstance(value, schedules.Function):
            return value
    return schedules.of_function(value, argument=where)


def _check_storable(rule: Rule, where: str) -> None:
    """Refuse rules that a result on disk cannot hold."""
    if isinstance(rule, Masked):
        if not isinstance(rule.mask, masks.Matching | bool) and rule.mask not in MASKS.values():
            raise TypeError(
                f"{where} = {rule} has a mask that is a function of your own; in a grid a mask is one of wd.masks: "
                f"{', '.join(MASKS)} or matching(...)."
            )
        rule = rule.rule
    if isinstance(rule, Touched):
        rule = rule.rule
    registry.check_storable(rule, argument=where)
    if getattr(rule, "anchor", None) is not None:
        raise TypeError(
            f"{where} = {rule.name} has an anchor; in a grid the anchor is the weights that are passed as initial=..., "
            "or else the initial weights of each member: leave it out."
        )


def _plain(value: Any) -> Any:
    """Convert a number of NumPy or JAX to a Python number."""
    is_number = isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0
    return value.item() if is_number and not jnp.issubdtype(value.dtype, jax.dtypes.extended) else value


def _integer(where: str, name: str, value: Any) -> int | None:
    at_least, what, otherwise = _INTEGERS[name]
    if value is None and otherwise:
        return None
    allowed = f"{what}, an integer from {at_least} to {_LARGEST_INTEGER}{otherwise}"
    return integer(value, where, at_least=at_least, at_most=_LARGEST_INTEGER, allowed=allowed)


def _check_domain(where: str, value: Any, domain: _Domain) -> None:
    if value is None and domain.takes_none:
        return
    if value is None or not is_number(value):
        raise ArgumentTypeError(where, f"{where} is {value!r}, of type {type(value).__name__}; {domain.allowed}.")
    _check_finite(where, value)
    if not domain.at_least <= value < domain.below:
        raise ArgumentError(where, f"{where} is {value!r}; {domain.allowed}.")


def _check_finite(where: str, value: Any) -> None:
    if isinstance(value, int | float) and not abs(value) <= tree.LARGEST:
        raise ArgumentError(where, f"{where} is {value}; give a finite number.")
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise ArgumentError(
            where,
            f"{where} is {value}, an integer that a result on disk cannot hold; give one from {-_LARGEST_INTEGER} to "
            f"{_LARGEST_INTEGER}, or a real number such as {float(value)!r}.",
        )
