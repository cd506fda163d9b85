"""Trees of weights: their leaves' names, values spread over them, their norm; numbers; dataclasses that are trees."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import dataclass_transform

from weightdecay.core.types import Params, PyTree

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Ends of the positive numbers that float32 has: what lies beyond is 0, or infinite, where JAX computes."""

_BOX = jax.tree_util.GetAttrKey("value")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def dataclass(cls: Any) -> Any:
    """Make a class a frozen dataclass and a pytree.

    Two such classes differ in tree structure, also where their fields agree. `jax.tree_util.register_dataclass` makes
    them compare equal (jaxlib 0.10.2), so that `jax.jit` now and then runs the program of another class.

    Args:
      cls: A class with annotated fields: leaves, or trees of them, unless their metadata say ``static``.

    Returns:
      The class.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    static = tuple(one.name for one in dataclasses.fields(cls) if one.metadata.get("static"))
    traced = tuple(one.name for one in dataclasses.fields(cls) if one.name not in static)
    keys = tuple(map(jax.tree_util.GetAttrKey, traced))

    def flatten(one: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(one, name) for name in traced), tuple(getattr(one, name) for name in static)

    def flatten_with_keys(one: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        values, rest = flatten(one)
        return tuple(zip(keys, values, strict=True)), rest

    def unflatten(rest: tuple[Any, ...], values: Any) -> Any:
        return cls(**dict(zip(static, rest, strict=True)), **dict(zip(traced, values, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def name(path: tuple[Any, ...]) -> str:
    """Name of a leaf from its key path, ``"Dense_0/kernel"``; ``""`` for a bare array.

    Args:
      path: Key path, as `jax.tree_util.tree_flatten_with_path` gives it.

    Returns:
      The keys, joined by slashes. The box that flax puts around an array (``nnx.Param``, ``linen.Partitioned``) has no
      part in the name.
    """
    return _joined(path[:-1] if path[-1:] == (_BOX,) else path)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Leaves with their names, in the tree's own order.

    Args:
      tree: Any pytree.

    Returns:
      Pairs ``(name, leaf)``.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # What has a value beside other fields is no box.
    crowded = {path[:-1] for path, _ in leaves if path[-1:] != (_BOX,)}
    return [(_joined(path) if path[:-1] in crowded else name(path), leaf) for path, leaf in leaves]


def spread(prefix: PyTree, params: Params, *, argument: str) -> list[Any]:
    """Spread a pytree prefix over the leaves of the weights.

    Args:
      prefix: One value, or a tree that agrees with ``params`` down to some depth.
      params: Weights.
      argument: What the prefix is, for the error message.

    Returns:
      One value a leaf of ``params``, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: ``prefix`` does not fit ``params``.
    """
    try:
        return jax.tree.leaves(jax.tree.broadcast(prefix, params))
    except ValueError as error:
        names = ", ".join(leaf_name or "(a bare array)" for leaf_name, _ in named_leaves(params))
        raise ValueError(
            f"{argument} is a tree that does not fit the weights: {jax.tree.structure(prefix)}. "
            f"Give one value, or a tree with the weights' own structure down to some depth; the weights are: {names}."
        ) from error


def is_real(value: Any) -> bool:
    """Whether a value is a real number, or an array of such; True and False are none.

    Args:
      value: Anything; may be traced.

    Returns:
      Whether it is.
    """
    if not hasattr(value, "dtype"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if value is np.ma.masked:
        return False
    return jnp.issubdtype(value.dtype, np.floating) or jnp.issubdtype(value.dtype, np.integer)


def plain(value: Any) -> int | float:
    """Python's own number for a number of any kind.

    Args:
      value: A number, not traced, shape ``()``.

    Returns:
      The same number.
    """
    return value if isinstance(value, int) else float(value)


def check_number(
    value: Any,
    argument: str,
    domain: str = "number >= 0",
    allowed: Callable[[Any], bool] = lambda number: not number < 0,
) -> None:
    """Refuse what is no number, or is out of its domain; the content of an array of JAX is not looked at.

    Args:
      value: What a user gave; may be traced.
      argument: Where it was given, for the message.
      domain: What it may be, for the message.
      allowed: Whether it may be that; by default nan may, which shows itself in what comes of it.

    Raises:
      TypeError: No real number.
      ValueError: An array of several numbers, or a Python or NumPy number that is not allowed.
    """
    if not is_real(value):
        raise TypeError(f"{argument} is {value!r}, of type {type(value).__name__}; give one {domain}.")
    if np.ndim(value) > 0:
        raise ValueError(f"{argument} is an array of shape {np.shape(value)}; give one {domain}.")
    if not isinstance(value, jax.Array) and not allowed(value):
        raise ValueError(f"{argument} is {value}; give one {domain}.")


def check_weights(params: Params, *, whole: bool = False) -> None:
    """Refuse weights that are no real numbers.

    Args:
      params: Weights.
      whole: Whether integers pass too.

    Raises:
      TypeError: A leaf that is none.
    """
    wanted = "real numbers" if whole else "floats"
    for place, leaf in enumerate(jax.tree.leaves(params)):
        dtype = getattr(leaf, "dtype", type(leaf))
        if not is_real(leaf) or not (whole or dtype is float or jnp.issubdtype(dtype, np.floating)):
            leaf_name = named_leaves(params)[place][0]
            raise TypeError(
                f"params has {leaf_name or 'an array'} of dtype {getattr(dtype, '__name__', dtype)}; weights are "
                f"{wanted}: convert it, or leave it out."
            )


def first_match(
    patterns: Sequence[str], names: Sequence[str], *, argument: str, what: str = "weight"
) -> list[str | None]:
    """First of the patterns that matches each name.

    Args:
      patterns: Regular expressions for a run of whole parts of a name: ``"Dense_1"`` matches ``"Dense_1/kernel"`` and
        not ``"Dense_10/kernel"``.
      names: Leaves' names, as `name` makes them.
      argument: Where the patterns were given, for the error message.
      what: What the names are names of, for the error message.

    Returns:
      One pattern, or None, a name.

    Raises:
      ValueError: A pattern that is no regular expression, matches no name, or is first nowhere.
    """
    found = _matches(patterns, names, argument, what)
    chosen = [next((pattern for pattern in patterns if found[pattern][place]), None) for place in range(len(names))]
    for pattern in patterns:
        if pattern not in chosen:
            earlier = sorted({str(chosen[place]) for place in np.flatnonzero(found[pattern])})
            raise ValueError(
                f"{argument}: the pattern {pattern!r} decides nowhere, since {', '.join(map(repr, earlier))} stands "
                "before it and the first match wins; put the narrower pattern first."
            )
    return chosen


def matches(patterns: Sequence[str], names: Sequence[str], *, argument: str) -> list[bool]:
    """Whether any of the patterns matches, for each name.

    Args:
      patterns: Regular expressions, as for `first_match`.
      names: Leaves' names, as `name` makes them.
      argument: Where the patterns were given, for the error message.

    Returns:
      One bool a name.

    Raises:
      ValueError: A pattern that is no regular expression, or matches no name.
    """
    found = _matches(patterns, names, argument, "weight")
    return [any(found[pattern][place] for pattern in patterns) for place in range(len(names))]


def norm(tree: PyTree) -> Any:
    """Euclidean norm of all leaves together, with a gradient of 0 where all are 0.

    Args:
      tree: Any pytree of arrays.

    Returns:
      The norm, shape ``()``, of at least float32's precision.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    precise = (leaf.astype(jnp.promote_types(jnp.float32, leaf.dtype)) for leaf in leaves)
    square = sum((jnp.sum(jnp.square(leaf)) for leaf in precise), start=jnp.zeros(()))
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def _joined(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _matches(patterns: Sequence[str], names: Sequence[str], argument: str, what: str) -> dict[str, list[bool]]:
    found = {pattern: _matching(pattern, names, argument) for pattern in patterns}
    for pattern in patterns:
        if not any(found[pattern]):
            known = ", ".join(one or "(a bare array)" for one in names) or "(none)"
            raise ValueError(f"{argument}: the pattern {pattern!r} matches no {what}; these are: {known}.")
    return found


def _matching(pattern: str, names: Sequence[str], argument: str) -> list[bool]:
    try:
        expression = re.compile(f"(?:^|/)(?:{pattern})(?:/|$)")
    except re.error as error:
        raise ValueError(f"{argument}: {pattern!r} is no regular expression: {error}.") from error
    return [expression.search(name) is not None for name in names]
