"""What the values of an axis may be.

Checks stand here, so that a wrong value is told before anything is compiled.
"""

import math
from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay import decay
from weightdecay.core import tree
from weightdecay.decay import Masked, Rule, masks, registry, schedules
from weightdecay.search import member
from weightdecay.search.distributions import Distribution

_LARGEST_WHOLE = 2**31 - 1


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


def is_one(values: Any) -> bool:
    """Whether an axis is given as one value.

    Args:
      values: What a user gave.

    Returns:
      True for a rule, a word, a number or anything else that is not gone through.
    """
    is_one = isinstance(values, Rule | str | bytes | type) or not isinstance(values, Iterable)
    return is_one or getattr(values, "shape", None) == ()


def several(name: str, values: Any) -> list[Any]:
    """Values of an axis, not checked.

    Args:
      name: What they were given as.
      values: One value, or an iterable of values.

    Returns:
      At least one.

    Raises:
      TypeError: Values in no order.
      ValueError: None at all.
    """
    if is_one(values):
        return [values]
    if isinstance(values, Mapping | Set | np.ma.MaskedArray):
        raise TypeError(f"{name} is of type {type(values).__name__}; give its values in a list, in their order.")
    values = list(values)
    if not values:
        raise ValueError(f"{name} is an empty axis, so the grid would have no members; give at least one value.")
    return values


def checked_values(name: str, values: Any, argument: str | None = None) -> list[Any]:
    """Values of an axis, checked one by one.

    Args:
      name: The axis's.
      values: One value, or an iterable of values.
      argument: What they were given as, where that is another name.

    Returns:
      The values as members have them.

    Raises:
      TypeError: A value of the wrong type.
      ValueError: No value, or one out of range.
    """
    argument = name if argument is None else argument
    return [checked_value(f"{argument}[{index}]", name, value) for index, value in enumerate(several(argument, values))]


def checked_axis(name: str, values: Any, argument: str | None = None) -> list[Any]:
    """Values of an axis, checked, each of them once.

    Args:
      name: The axis's.
      values: One value, or an iterable of values.
      argument: What they were given as, where that is another name.

    Returns:
      The values as members have them.

    Raises:
      TypeError: A value of the wrong type.
      ValueError: No value, one out of range, or one twice.
    """
    checked = checked_values(name, values, argument)
    seen: set[str] = set()
    for value in checked:
        key = member.value_identity(name, value)
        if key in seen:
            hint = f"; a tuple as one value stands in a list: {name}=[{values!r}]" if isinstance(values, tuple) else ""
            raise ValueError(
                f"{argument or name} holds {value} twice, as JAX rounds numbers; give each value once (seeds make "
                f"replicates){hint}."
            )
        seen.add(key)
    return checked


def checked_value(where: str, name: str, value: Any) -> Any:
    """The value of an axis as a member has it, checked.

    Args:
      where: What it was given as, such as ``momentum[1]``.
      name: The axis's.
      value: What a user gave.

    Returns:
      The value; a number is Python's own.

    Raises:
      TypeError: A value of the wrong type, or one that a result on disk cannot hold.
      ValueError: A value out of range.
    """
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


def check_num(num: Any) -> None:
    """Refuse what is no number of things.

    Args:
      num: What a user gave.

    Raises:
      TypeError: It is no whole number.
      ValueError: It is below 1.
    """
    if isinstance(num, bool) or not isinstance(num, int | np.integer):
        raise TypeError(f"num is {num!r}, of type {type(num).__name__}; give a whole number of at least 1.")
    if num < 1:
        raise ValueError(f"num is {num}; give at least 1.")


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


def _check_storable(rule: Rule, where: str) -> None:
    """Refuse in a grid what a result on disk could not say again."""
    if isinstance(rule, Masked):
        if not isinstance(rule.mask, masks.Matching | bool) and rule.mask not in member.MASKS.values():
            raise TypeError(
                f"{where} = {rule} has a mask of its own making; in a grid a mask is one of wd.masks: "
                f"{', '.join(member.MASKS)} or matching(...)."
            )
        rule = rule.rule
    registry.check_storable(rule, argument=where)
    if getattr(rule, "anchor", None) is not None:
        raise TypeError(
            f"{where} = {rule.name} has an anchor of its own; in a grid the anchor is the weights that each member "
            "starts from: leave it out."
        )


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
