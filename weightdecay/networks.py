"""Networks of any library under one face: `Network`, two pure functions that carry model state and random keys."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from weightdecay import dropout, models, tree
from weightdecay.types import Key, ModelState, Params


class Network(NamedTuple):
    """A network as training sees it.

    Attributes:
      init: ``init(key, inputs) -> (params, model_state)``.
      apply: ``apply(params, model_state, inputs, *, key, train, hyperparameters={}) -> (outputs, model_state)``; ``key``
        drives dropout and the like, ``train`` is a Python bool, ``hyperparameters`` are traced scalars by name.
    """

    init: Callable[[Key, Any], tuple[Params, ModelState]]
    apply: Callable[..., tuple[Any, ModelState]]


@dataclass(frozen=True)
class Model:
    """A network given by two plain functions.

    Attributes:
      init: ``init(key, inputs) -> params``, any pytree of float arrays.
      apply: ``apply(params, inputs) -> outputs``, with one row an example.

    Examples:
      >>> import jax.numpy as jnp
      >>> linear = Model(
      ...     init=lambda key, inputs: {"kernel": jnp.zeros((inputs.shape[1], 10))},
      ...     apply=lambda params, inputs: inputs @ params["kernel"],
      ... )
    """

    init: Callable[[Key, Any], Params]
    apply: Callable[[Params, Any], Any]


def complete(model: Any, num_outputs: int) -> Any:
    """Model with its number of outputs, where it left that to the data.

    Args:
      model: Any model; one with an attribute ``num_outputs`` of None is completed, others come back as they are.
      num_outputs: What the data asks for.

    Returns:
      The model.
    """
    if isinstance(model, nn.Module) and getattr(model, "num_outputs", 0) is None:
        return model.clone(num_outputs=num_outputs)
    return model


def network(model: Any) -> Network:
    """Bring a model under the one face.

    Args:
      model: A flax linen module, or a `Model` of plain functions.

    Returns:
      The network.

    Raises:
      TypeError: Anything else; an `MLP` or a `Model` of what is no width, or no function.
      ValueError: Widths below 1.
    """
    if isinstance(model, models.MLP):
        models.check(model)
    if isinstance(model, nn.Module):
        return _linen(model)
    if isinstance(model, Model):
        for name in ("init", "apply"):
            if not callable(getattr(model, name)):
                raise TypeError(f"model.{name} is {getattr(model, name)!r}; give a function, as wd.Model describes it.")
        return Network(
            init=lambda key, inputs: (_checked(model.init(key, inputs)), {}),
            apply=lambda params, model_state, inputs, *, key, train, hyperparameters=None: (
                model.apply(params, inputs),
                model_state,
            ),
        )
    hint = (
        "it is a class: make an instance, such as wd.models.MLP((64, 64))"
        if isinstance(model, type)
        else ("give a flax linen module, such as wd.models.MLP((64, 64)), or wd.Model(init, apply)")
    )
    raise TypeError(f"model is {model!r}, of type {type(model).__name__}; {hint}.")


def _checked(params: Params) -> Params:
    """Weights of a `Model`, refused where there are none, or where they cannot be trained."""
    if not jax.tree.leaves(params):
        raise ValueError(f"model.init gives {params!r}, which holds no weights; it must return a tree of float arrays.")
    tree.check_weights(params)
    return params


def rewritten(network: Network, rewrite: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Network:
    """Network whose forward pass is rewritten.

    Args:
      network: Any.
      rewrite: From a function of trees of arrays to one with the same arguments and results.

    Returns:
      The network.
    """

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: Any,
        *,
        key: Key,
        train: bool,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> tuple[Any, ModelState]:
        forward = rewrite(
            lambda *arguments: network.apply(
                *arguments[:3], key=arguments[3], train=train, hyperparameters=arguments[4]
            )
        )
        return forward(params, model_state, inputs, key, dict(hyperparameters or {}))

    return Network(network.init, apply)


def computing_in(network: Network, dtype: Any) -> Network:
    """Network that computes in another float dtype: mixed precision.

    Weights and inputs are cast on their way in, outputs and model state on their way out, so that gradients, weights
    and what is carried keep their dtypes.

    Args:
      network: Any.
      dtype: Such as ``"bfloat16"``.

    Returns:
      The network.
    """

    def cast(tree: Any) -> Any:
        is_float = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating)  # noqa: E731
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if is_float(leaf) else leaf, tree)

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: Any,
        *,
        key: Key,
        train: bool,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> tuple[Any, ModelState]:
        outputs, changed = network.apply(
            cast(params), model_state, cast(inputs), key=key, train=train, hyperparameters=hyperparameters
        )
        outputs = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), outputs)
        return outputs, jax.tree.map(lambda after, before: after.astype(before.dtype), changed, model_state)

    return Network(network.init, apply)


# How flax modules are told that they train, and what that is when they do.
_TRAIN_FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def _linen(module: nn.Module) -> Network:
    parameters = inspect.signature(type(module).__call__).parameters
    flags = {name: value for name, value in _TRAIN_FLAGS.items() if name in parameters}

    def mode(train: bool) -> dict[str, Any]:
        return {name: value == train for name, value in flags.items()}

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        params_key, dropout_key = jax.random.split(key)
        variables = module.init({"params": params_key, "dropout": dropout_key}, inputs, **mode(train=False))
        params = variables.get("params", {})
        return params, {name: value for name, value in variables.items() if name != "params"}

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: Any,
        *,
        key: Key,
        train: bool,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> tuple[Any, ModelState]:
        variables = {"params": params, **model_state}
        if not train:
            return module.apply(variables, inputs, **mode(train=False)), model_state
        outputs, changed = module.apply(
            variables, inputs, **mode(train=True), rngs={"dropout": key}, mutable=list(model_state)
        )
        return outputs, {**model_state, **changed}

    return Network(init, apply)


def traced_axes(model: Any) -> frozenset[str]:
    """Names of grid axes that a network takes as traced numbers."""
    return frozenset({dropout.AXIS})


def static_axes(model: Any) -> frozenset[str]:
    """Fields of a model that a grid may set; each value makes a program of its own."""
    if isinstance(model, nn.Module):
        return frozenset(model.__dataclass_fields__) - {"parent", "name"}
    return frozenset()


def with_options(model: Any, options: Mapping[str, Any]) -> Any:
    """Model with other fields."""
    return model.clone(**options)
