"""Trees of weights: names of leaves, broadcasting, norms, checks of numbers, and dataclasses that are pytrees."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import dataclass_transform

from weightdecay.core.types import Params, PyTree

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Smallest and largest positive normal number of float32. In JAX, smaller numbers become 0 and larger ones infinite."""

_BOX = jax.tree_util.GetAttrKey("value")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def dataclass(cls: Any) -> Any:
    """Make a class a frozen dataclass and a pytree.

    Two such classes have different tree structures, even if their fields are equal.
    `jax.tree_util.register_dataclass` makes the structures compare equal (jaxlib 0.10.2), so that `jax.jit` sometimes
    runs the program of another class.

    Args:
      cls: A class with annotated fields, which are leaves or pytrees. A field whose metadata contain ``static`` is part
        of the structure.

    Returns:
      The class.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    static = tuple(field.name for field in dataclasses.fields(cls) if field.metadata.get("static"))
    traced = tuple(field.name for field in dataclasses.fields(cls) if field.name not in static)
    keys = tuple(map(jax.tree_util.GetAttrKey, traced))

    def flatten(instance: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children = tuple(getattr(instance, name) for name in traced)
        rest = (getattr(instance, name) for name in static)
        return children, tuple(_HashableDict(value) if isinstance(value, dict) else value for value in rest)

    def flatten_with_keys(instance: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        values, rest = flatten(instance)
        return tuple(zip(keys, values, strict=True)), rest

    def unflatten(rest: tuple[Any, ...], values: Any) -> Any:
        plain = (dict(value) if isinstance(value, _HashableDict) else value for value in rest)
        return cls(**dict(zip(static, plain, strict=True)), **dict(zip(traced, values, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


class _HashableDict(dict[Any, Any]):
    """A dictionary in the structure of a tree, which JAX hashes."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(frozenset(self.items()))


def name(path: tuple[Any, ...]) -> str:
    """Name of a leaf from its key path, ``"Dense_0/kernel"``; ``""`` for a bare array.

    Args:
      path: Key path, as `jax.tree_util.tree_flatten_with_path` returns it.

    Returns:
      The keys, joined by slashes. The box that flax puts around an array (``nnx.Param``, ``linen.Partitioned``) is left
      out of the name.
    """
    return _joined(path[:-1] if path[-1:] == (_BOX,) else path)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Leaves with their names, in the order of `jax.tree.leaves`.

    Args:
      tree: Any pytree.

    Returns:
      Pairs ``(name, leaf)``.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # A node that has further fields in addition to a value is not a box.
    crowded = {path[:-1] for path, _ in leaves if path[-1:] != (_BOX,)}
    return [(_joined(path) if path[:-1] in crowded else name(path), leaf) for path, leaf in leaves]


def without(params: PyTree, names: Sequence[str]) -> PyTree:
    """Return a tree with None in place of some arrays.

    Args:
      params: Any pytree.
      names: Names of the arrays that are left out.

    Returns:
      The tree.
    """
    if not names:
        return params
    left_out, structure = set(names), jax.tree.structure(params)
    return structure.unflatten(None if name in left_out else leaf for name, leaf in named_leaves(params))


def only(params: PyTree, names: Sequence[str]) -> PyTree:
    """Return a tree with None in place of all arrays but some.

    Args:
      params: Any pytree.
      names: Names of the arrays that are kept.

    Returns:
      The tree.
    """
    kept = set(names)
    return without(params, [name for name, _ in named_leaves(params) if name not in kept])


def first_given(*trees: Any) -> Any:
    """Put trees together that have None at each other's arrays.

    Args:
      *trees: Trees of one structure; a tree that is None holds nothing.

    Returns:
      The first value that is not None, for each array.
    """
    present = [one for one in trees if one is not None]
    if len(present) == 1:
        return present[0]
    return jax.tree.map(
        lambda *leaves: next((leaf for leaf in leaves if leaf is not None), None),
        *present,
        is_leaf=lambda leaf: leaf is None,
    )


def spread(prefix: PyTree, params: Params, *, argument: str) -> list[Any]:
    """Broadcast a pytree prefix to the leaves of the weights.

    Args:
      prefix: One value, or a tree with the structure of ``params`` down to some depth.
      params: Weights.
      argument: Name of the prefix, for the error message.

    Returns:
      One value per leaf of ``params``, in the order of `jax.tree.leaves`.

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
    """Whether a value is a real number or an array of real numbers; True and False are not.

    Args:
      value: Any object; may be traced.

    Returns:
      True or False.
    """
    if not hasattr(value, "dtype"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if value is np.ma.masked:
        return False
    return jnp.issubdtype(value.dtype, np.floating) or jnp.issubdtype(value.dtype, np.integer)


def plain(value: Any) -> int | float:
    """Convert a number to a Python number.

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
    """Validate a number. The content of a JAX array is not checked.

    Args:
      value: Value that a user passed; may be traced.
      argument: Name of the argument, for the message.
      domain: Description of the allowed values, for the message.
      allowed: ``allowed(value) -> bool``. The default allows nan, which appears in every result that depends on it.

    Raises:
      TypeError: Not a real number.
      ValueError: An array of several numbers, or a Python or NumPy number that is not allowed.
    """
    if not is_real(value):
        raise TypeError(f"{argument} is {value!r}, of type {type(value).__name__}; give one {domain}.")
    if np.ndim(value) > 0:
        raise ValueError(f"{argument} is an array of shape {np.shape(value)}; give one {domain}.")
    if not isinstance(value, jax.Array) and not allowed(value):
        raise ValueError(f"{argument} is {value}; give one {domain}.")


def check_weights(params: Params, *, integers: bool = False) -> None:
    """Check that all weights are real numbers.

    Args:
      params: Weights.
      integers: Whether integers are allowed too.

    Raises:
      TypeError: A leaf of another type.
    """
    wanted = "real numbers" if integers else "floats"
    for index, leaf in enumerate(jax.tree.leaves(params)):
        dtype = getattr(leaf, "dtype", type(leaf))
        if not is_real(leaf) or not (integers or dtype is float or jnp.issubdtype(dtype, np.floating)):
            leaf_name = named_leaves(params)[index][0]
            raise TypeError(
                f"params has {leaf_name or 'an array'} of dtype {getattr(dtype, '__name__', dtype)}; weights are "
                f"{wanted}: convert it, or leave it out."
            )


def first_match(
    patterns: Sequence[str], names: Sequence[str], *, argument: str, what: str = "weight"
) -> list[str | None]:
    """Find the first pattern that matches each name.

    Args:
      patterns: Regular expressions. Each is matched against complete parts of a name, one part or several adjacent
        ones: ``"Dense_1"`` matches ``"Dense_1/kernel"``, but not ``"Dense_10/kernel"``.
      names: Names of leaves, as `name` returns them.
      argument: Name of the argument that holds the patterns, for the error message.
      what: What the names stand for, for the error message.

    Returns:
      One pattern or None per name.

    Raises:
      ValueError: A pattern is not a regular expression, matches no name, or is never the first match.
    """
    matching = _matches(patterns, names, argument, what)
    chosen = [next((pattern for pattern in patterns if matching[pattern][index]), None) for index in range(len(names))]
    for pattern in patterns:
        if pattern not in chosen:
            earlier = sorted({str(chosen[index]) for index in np.flatnonzero(matching[pattern])})
            raise ValueError(
                f"{argument}: the pattern {pattern!r} is never used, because {', '.join(map(repr, earlier))} comes "
                "before it and the first match wins; put the narrower pattern first."
            )
    return chosen


def matches(patterns: Sequence[str], names: Sequence[str], *, argument: str, what: str = "weight") -> list[bool]:
    """Whether any pattern matches, for each name.

    Args:
      patterns: Regular expressions, as for `first_match`.
      names: Names of leaves, as `name` returns them.
      argument: Name of the argument that holds the patterns, for the error message.
      what: What the names stand for, for the error message.

    Returns:
      One boolean per name.

    Raises:
      ValueError: A pattern is not a regular expression, or matches no name.
    """
    matching = _matches(patterns, names, argument, what)
    return [any(matching[pattern][index] for pattern in patterns) for index in range(len(names))]


def norm(tree: PyTree) -> Any:
    """Euclidean norm of all leaves together; its gradient is 0 where all leaves are 0.

    Args:
      tree: Any pytree of arrays.

    Returns:
      The norm, shape ``()``, of at least the precision of float32.

    Numerics:
      Leaves are divided by a power of two before they are squared, so that the norm is right up to the largest number
      of its dtype; the square of 1e20 is infinite in float32.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    precise = [leaf.astype(jnp.promote_types(jnp.float32, leaf.dtype)) for leaf in leaves]
    unit = power_of_two(precise)
    square = sum((jnp.sum(jnp.square(leaf / unit)) for leaf in precise), start=jnp.zeros(()))
    return jnp.where(square == 0, 0, unit * jnp.sqrt(jnp.where(square == 0, 1, square)))


def power_of_two(leaves: Sequence[Any]) -> Any:
    """Largest power of two that is not above the largest absolute value of some arrays.

    Division by it is exact, so that a sum of squares can be computed without overflow and with the same bits.

    Args:
      leaves: Arrays of at least the precision of float32.

    Returns:
      The power, shape ``()``, without a derivative; 1 where all values are 0, or one is not finite.
    """
    largest = functools.reduce(
        jnp.maximum, (jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves), jnp.zeros((), jnp.float32)
    )
    largest = jax.lax.stop_gradient(largest)
    usable = (largest > 0) & jnp.isfinite(largest)
    _, exponent = jnp.frexp(jnp.where(usable, largest, 1))
    return jnp.ldexp(jnp.ones_like(largest), jnp.maximum(exponent - 1, jnp.finfo(largest.dtype).minexp))


def _joined(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _matches(patterns: Sequence[str], names: Sequence[str], argument: str, what: str) -> dict[str, list[bool]]:
    matching = {pattern: _matching(pattern, names, argument) for pattern in patterns}
    for pattern in patterns:
        if not any(matching[pattern]):
            known = ", ".join(leaf_name or "(a bare array)" for leaf_name in names) or "(none)"
            raise ValueError(f"{argument}: the pattern {pattern!r} matches no {what}; these are: {known}.")
    return matching


def _matching(pattern: str, names: Sequence[str], argument: str) -> list[bool]:
    try:
        expression = re.compile(f"(?:^|/)(?:{pattern})(?:/|$)")
    except re.error as error:
        raise ValueError(f"{argument}: {pattern!r} is not a regular expression: {error}.") from error
    return [expression.search(name) is not None for name in names]
