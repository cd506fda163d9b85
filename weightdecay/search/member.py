"""Members as JSON: how they are stored, hashed and compared.

A member is a dictionary of hyperparameters by name.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import jax.numpy as jnp

from weightdecay import decay
from weightdecay.decay import Masked, PerLayer, Rule, Touched, masks, schedules
from weightdecay.decay.registry import UnknownRuleError, named

REPLICATES = ("seed", "fold")
"""Axes of replicates: members that differ only in these are replicates of one candidate."""
MASKS = masks.NAMED
"""Masks that have a name, by it."""


def encode(member: Mapping[str, Any]) -> dict[str, Any]:
    """Convert hyperparameters to JSON values.

    Args:
      member: Hyperparameters by name.

    Returns:
      The same; a rule or a schedule is an object of its name and its numbers, and a tuple is a list.
    """
    return {name: _encode(value) for name, value in member.items()}


def decode(member: Mapping[str, Any]) -> dict[str, Any]:
    """Convert JSON values to hyperparameters.

    Args:
      member: As `encode` returns it.

    Returns:
      Hyperparameters by name.

    Raises:
      ValueError: A rule or a schedule is unknown to this version.
    """
    return {
        name: _decode_rule(value) if name == "decay" else _decode_other(name, value) for name, value in member.items()
    }


def candidates(members: Iterable[Mapping[str, Any]]) -> list[int]:
    """Number the candidates; members that differ only in seed and fold have the same number.

    Args:
      members: Hyperparameters of each member by name.

    Returns:
      Number of each member's candidate, from 0 in the order of first appearance.
    """
    numbers: dict[str, int] = {}
    compared = ({name: value for name, value in member.items() if name not in REPLICATES} for member in members)
    keys = (json.dumps(encode(member), sort_keys=True) for member in compared)
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def identity(member: Mapping[str, Any]) -> str:
    """Return a string that identifies a member, including its seed and fold.

    Args:
      member: Hyperparameters by name.

    Returns:
      The same string for members whose numbers are equal in the precision in which JAX computes.
    """
    return json.dumps({name: value_identity(name, value) for name, value in member.items()}, sort_keys=True)


def value_identity(name: str, value: Any) -> str:
    """Return a string that identifies a value of an axis.

    Args:
      name: Name of the axis.
      value: The value.

    Returns:
      The same string for values that are equal in the precision in which JAX computes.
    """
    return str(value) if name in REPLICATES else _rounded(value)


def _encode(value: Any) -> Any:
    """Convert a rule or a part of one to JSON: an object whose first key names its type."""

    def of_fields(value: Any) -> dict[str, Any]:
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _encode(item) for name, item in named.items() if item is not None}

    if isinstance(value, Masked):
        return {"masked": _encode(value.rule), "on": _encode(value.mask)}
    if isinstance(value, Touched):
        return {"touched": _encode(value.rule)}
    if isinstance(value, Rule):
        return {"rule": type(value).__name__, **of_fields(value)}
    if isinstance(value, PerLayer):
        width = {} if value.base_width is None else {"base_width": value.base_width, "power": value.power}
        return {"per_layer": _encode(value.coefficients), "default": _encode(value.default), **width}
    if isinstance(value, masks.Matching):
        return {"matching": list(value.patterns)}
    if isinstance(value, schedules.Parametric):
        return {"schedule": type(value).__name__, **value.encoded(_encode)}
    if isinstance(value, schedules.NamedFunction):
        return {"function": value.name, "digest": value.digest}
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
    except UnknownRuleError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"decay is stored as {value!r}, which is not a rule of this version.") from error


def _decode_other(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _decode(value)
    try:
        schedule = _decode(value)
        by_pattern = [*schedule.coefficients.values(), schedule.default] if isinstance(schedule, PerLayer) else []
        for item in by_pattern or [schedule]:
            if isinstance(item, schedules.Parametric) or not by_pattern:
                schedules.check(item, argument=name, in_run=True)
        return schedule
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is stored as {value!r}, which is not a schedule of this version.") from error


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
        name = items.pop("rule")
        return named(name, items)(**items)
    if "touched" in items:
        return Touched(items["touched"])
    if "per_layer" in items:
        width = {name: items[name] for name in ("base_width", "power") if name in items}
        return PerLayer(items["per_layer"], items["default"], **width)
    if "matching" in items:
        return masks.matching(*items["matching"])
    if "fraction" in items:
        return float(items["fraction"])
    if "digest" in items:
        return schedules.NamedFunction(items["function"], items["digest"])
    if "schedule" in items:
        return schedules.KINDS[items.pop("schedule")](**items)
    return MASKS[items["mask"]]


def _rounded(value: Any) -> str:
    """Return the JSON of a value, with numbers rounded to the precision in which JAX computes."""
    precision = jnp.result_type(float).type
    number = lambda text: float(precision(text)) + 0.0  # noqa: E731 (-0.0 is 0.0)
    text = json.dumps(_encode(value), sort_keys=True)
    return json.dumps(json.loads(text, parse_int=number, parse_float=number), sort_keys=True)
