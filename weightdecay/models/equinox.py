"""Networks of equinox: a module class, or a function of ``key`` that makes a module, with a traced dropout rate.

A module of equinox takes one example. A batch is mapped over its examples with `jax.vmap`, along an axis named
``batch``, which batch normalization of equinox needs.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from weightdecay.core import random_streams, tree
from weightdecay.core.types import Key, ModelState, Params
from weightdecay.models import adapters, dropout
from weightdecay.models.adapters import Functions


def functions(factory: Callable[..., Any]) -> Functions:
    """Return two pure functions of what makes a module.

    Weights are the module with its floating arrays only, as ``eqx.filter(module, eqx.is_inexact_array)`` returns it:
    ``eqx.combine(params, module)`` is the module with these weights. Its other arrays and its ``eqx.nn.State`` are
    model state. Each example has a key of its own.

    Args:
      factory: ``factory(key=...) -> module``, or ``-> (module, state)`` as ``eqx.nn.make_with_state`` returns it.

    Returns:
      ``init`` and ``forward``.
    """

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        del inputs
        skeleton = _skeleton(factory)
        module, state = _make(factory, key)
        params, constants = skeleton.divide(jax.tree.leaves(module))
        strong = [jnp.asarray(leaf, leaf.dtype) for leaf in jax.tree.leaves(state)]
        arrays = {"constants": constants, "state": strong}
        return params, {name: leaves for name, leaves in arrays.items() if leaves}

    def forward(
        params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool, hyperparameters: Mapping[str, Any]
    ) -> tuple[Any, ModelState]:
        import equinox as eqx

        skeleton = _skeleton(factory)
        module = eqx.nn.inference_mode(skeleton.module(params, model_state.get("constants", [])), value=not train)
        if dropout.AXIS in hyperparameters:
            module = _with_rate(module, hyperparameters[dropout.AXIS])
        arguments = inspect.signature(type(module).__call__).parameters
        known = adapters.call_arguments(type(module).__call__)
        flags = adapters.mode(known, train=train)
        before = model_state.get("state", [])
        state = jax.tree.unflatten(jax.tree.structure(skeleton.state), before)
        stateful = "state" in known and (bool(before) or arguments["state"].default is inspect.Parameter.empty)

        def apply_to_example(example: Any, key: Key) -> Any:
            positional, named = adapters.bound(type(module).__call__, example, key, given=("state", "key"))
            options: dict[str, Any] = {"key": key} | named | flags if "key" in known else named | flags
            if not stateful:
                return module(*positional, **options), state
            return module(*positional, state=state, **options)

        keys = jax.random.split(key, jax.tree.leaves(inputs)[0].shape[0])
        outputs, state = jax.vmap(apply_to_example, axis_name="batch", out_axes=(0, None))(inputs, keys)
        if not before or not train:
            return outputs, model_state
        after = [leaf.astype(old.dtype) for leaf, old in zip(jax.tree.leaves(state), before, strict=True)]
        return outputs, {**model_state, "state": after}

    return init, forward


def trained(factory: Callable[..., Any], params: Params, model_state: ModelState) -> Any:
    """Return a module with its weights, in inference mode.

    Args:
      factory: As in `functions`.
      params: Its weights.
      model_state: Its other arrays, and its state.

    Returns:
      The module; for a module with state, the module and its ``eqx.nn.State``.
    """
    import equinox as eqx

    skeleton = _skeleton(factory)
    module = eqx.nn.inference_mode(skeleton.module(params, model_state.get("constants", [])))
    if "state" not in model_state:
        return module
    return module, jax.tree.unflatten(jax.tree.structure(skeleton.state), model_state["state"])


class _Skeleton(NamedTuple):
    """A module without its arrays."""

    leaves: list[Any]  # shapes in place of arrays
    structure: Any
    state: Any  # as shapes

    def divide(self, leaves: list[Any]) -> tuple[Params, list[Any]]:
        """Return the weights, in the module's structure, and its other arrays."""
        params = [leaf if _is_weight(shape) else None for leaf, shape in zip(leaves, self.leaves, strict=True)]
        constants = [leaf for leaf, shape in zip(leaves, self.leaves, strict=True) if _is_constant(shape)]
        return self.structure.unflatten(params), constants

    def module(self, params: Params, constants: list[Any]) -> Any:
        """Return the module with its arrays."""
        weights, others = iter(jax.tree.leaves(params)), iter(constants)
        return self.structure.unflatten(
            [
                next(weights) if _is_weight(leaf) else next(others) if _is_constant(leaf) else leaf
                for leaf in self.leaves
            ]
        )


def _is_weight(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _is_constant(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) and not _is_weight(leaf)


def _make(factory: Callable[..., Any], key: Key) -> tuple[Any, Any]:
    """A module and its state."""
    import equinox as eqx

    made = factory(key=key)
    if isinstance(made, eqx.Module):
        return eqx.nn.make_with_state(lambda: made)()
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], eqx.nn.State):
        return made
    raise TypeError(
        f"model returns {made!r}, of type {type(made).__name__}; a function of key must make an equinox module, or a "
        "module and its state."
    )


def _skeleton(factory: Callable[..., Any]) -> _Skeleton:
    try:
        return _kept_skeleton(factory)
    except TypeError:  # The factory cannot be hashed.
        return _kept_skeleton.__wrapped__(factory)


@functools.lru_cache(maxsize=128)
def _kept_skeleton(factory: Callable[..., Any]) -> _Skeleton:
    """Skeleton of what a factory makes: one for all its modules, so that their tree structures are equal."""
    import equinox as eqx

    module, state = eqx.filter_eval_shape(lambda key: _make(factory, key), random_streams.constant_key())
    return _Skeleton(*jax.tree.flatten(module), state)


@tree.dataclass
class _TracedDropout:
    """Dropout layer of equinox, at a traced rate."""

    rate: Any
    inference: Any = field(metadata={"static": True})

    def __call__(
        self, x: Any, *, key: Key | None = None, inference: bool | None = None, deterministic: bool | None = None
    ) -> Any:
        inference = deterministic if inference is None else inference
        if self.inference if inference is None else inference:
            return x
        if key is None:
            raise RuntimeError("model calls a dropout layer without a key; write dropout(x, key=key).")
        return dropout.drop(x, self.rate, key)


def _with_rate(module: Any, rate: Any) -> Any:
    import equinox as eqx

    def is_layer(node: Any) -> bool:
        return isinstance(node, eqx.nn.Dropout)

    def traced(node: Any) -> Any:
        return _TracedDropout(rate, node.inference) if is_layer(node) else node

    if not any(map(is_layer, jax.tree.leaves(module, is_leaf=is_layer))):
        raise dropout.no_layer()
    return jax.tree.map(traced, module, is_leaf=is_layer)
