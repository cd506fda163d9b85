"""Networks of any library under one face: `Network`, two pure functions that carry model state and random keys.

flax linen, flax nnx and equinox have a file each; what a user gives as two functions of their own is a `Model`.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Key, ModelState, Params
from weightdecay.models import dropout, linen, zoo


class Network(NamedTuple):
    """A network as training sees it.

    Attributes:
      init: ``init(key, inputs) -> (params, model_state)``.
      apply: ``apply(params, model_state, inputs, *, key, train, hyperparameters={}) -> (outputs, model_state)``.
        ``key`` drives dropout and the like, ``train`` is a Python bool, and ``hyperparameters`` are traced numbers by
        name, such as ``{"dropout_rate": rate}``.
    """

    init: Callable[[Key, Any], tuple[Params, ModelState]]
    apply: Callable[..., tuple[Any, ModelState]]


@dataclass(frozen=True)
class Model:
    """A network given by two plain functions.

    Attributes:
      init: ``init(key, inputs) -> params``, any pytree of float arrays.
      apply: ``apply(params, inputs) -> outputs``, with one row an example. It may have further arguments: ``key`` is a
        random key, new at every step; ``train`` a bool; every other one, such as ``dropout_rate``, a number that an
        axis of the grid sets, traced, shape ``()``.

    Examples:
      >>> import jax.numpy as jnp
      >>> linear = Model(
      ...     init=lambda key, inputs: {"kernel": jnp.zeros((inputs.shape[1], 10))},
      ...     apply=lambda params, inputs: inputs @ params["kernel"],
      ... )
    """

    init: Callable[[Key, Any], Params]
    apply: Callable[..., Any]


def network(model: Any) -> Network:
    """Bring a model under the one face.

    Args:
      model: A flax linen module; a flax nnx class, or a function of ``rngs`` that makes an nnx module; an equinox
        class, or a function of ``key`` that makes an equinox module; or a `Model` of plain functions.

    Returns:
      The network.

    Raises:
      TypeError: Anything else; a model of `weightdecay.models` or a `Model` with a field that is none.
      ValueError: A field of a model of `weightdecay.models` that is out of its range.
    """
    if isinstance(model, zoo.OWN):
        zoo.check(model)
    if isinstance(model, nn.Module):
        return Network(*_checked(linen.functions(model)))
    if isinstance(model, Model):
        return Network(*_checked(_plain(model)))
    library = _library(model)
    if library == "nnx":
        from weightdecay.models import nnx

        return Network(*_checked(nnx.functions(model)))
    if library == "equinox":
        from weightdecay.models import equinox

        return Network(*_checked(equinox.functions(model)))
    raise _no_model(model)


def complete(model: Any, num_outputs: int) -> Any:
    """Model with its number of outputs, where it left that to the data.

    Args:
      model: Any model. A linen module with a field ``num_outputs`` of None is completed, and a class or function with
        an argument ``num_outputs`` whose default is None, or which has none; others come back as they are.
      num_outputs: What the data asks for.

    Returns:
      The model.
    """
    if isinstance(model, nn.Module):
        is_open = getattr(model, "num_outputs", 0) is None
    else:
        parameter = _arguments(model).get("num_outputs")
        is_open = parameter is not None and parameter.default in (None, parameter.empty)
    return with_options(model, {"num_outputs": num_outputs}) if is_open else model


def traced_axes(model: Any) -> frozenset[str]:
    """Axes of a grid that a network takes as traced numbers.

    Args:
      model: Any that `network` takes.

    Returns:
      Their names: ``dropout_rate``, or for a `Model` what its ``apply`` takes.
    """
    if not isinstance(model, Model):
        return frozenset({dropout.AXIS})
    return _further(model) - {"key", "train"}


def static_axes(model: Any) -> frozenset[str]:
    """Axes of a grid that set a field of the model; each value makes a network of its own.

    Args:
      model: Any that `network` takes.

    Returns:
      Their names: the fields of a linen module, the arguments of a class or function of nnx or equinox.
    """
    if isinstance(model, nn.Module):
        return linen.fields(model) - {dropout.AXIS}
    return frozenset(_arguments(model)) - {"rngs", "key", dropout.AXIS}


def with_options(model: Any, options: Mapping[str, Any]) -> Any:
    """Model with other values of some fields.

    Args:
      model: Any that `network` takes.
      options: Values by name; a word stands for the activation function of that name where the model holds a function.

    Returns:
      The model; equal for equal options, so that it is compiled once.

    Raises:
      ValueError: A name that is none of `static_axes`, or a word that is no activation function.
    """
    if not options:
        return model
    unknown = sorted(options.keys() - static_axes(model))
    if unknown:
        known = ", ".join(sorted(static_axes(model))) or "none"
        raise ValueError(f"model has no field {unknown[0]!r} that a grid can set; it has: {known}.")
    if isinstance(model, nn.Module):
        present = {name: getattr(model, name) for name in options}
    else:
        present = {name: _arguments(model)[name].default for name in options}
    holds_function = lambda name: callable(present[name]) and present[name] is not inspect.Parameter.empty  # noqa: E731
    values: dict[str, Any] = {
        name: zoo.activation_function(value, argument=f"model.{name}")
        if isinstance(value, str) and holds_function(name)
        else value
        for name, value in options.items()
    }
    return model.clone(**values) if isinstance(model, nn.Module) else _Partial(model, **values)


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
        hyperparameters: Mapping[str, Any] = {},
    ) -> tuple[Any, ModelState]:
        def forward(params: Params, model_state: ModelState, inputs: Any, key: Key, hyperparameters: Any) -> Any:
            return network.apply(params, model_state, inputs, key=key, train=train, hyperparameters=hyperparameters)

        return rewrite(forward)(params, model_state, inputs, key, dict(hyperparameters))

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
        hyperparameters: Mapping[str, Any] = {},
    ) -> tuple[Any, ModelState]:
        outputs, changed = network.apply(
            cast(params), model_state, cast(inputs), key=key, train=train, hyperparameters=hyperparameters
        )
        outputs = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), outputs)
        return outputs, jax.tree.map(lambda after, before: after.astype(before.dtype), changed, model_state)

    return Network(network.init, apply)


class _Partial(functools.partial):
    """`functools.partial` that equals another one of the same function and arguments."""

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Partial) and self._parts() == other._parts()

    @override
    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple[Any, ...]:
        return self.func, self.args, frozenset(self.keywords.items())


def _plain(model: Model) -> tuple[Callable[..., Any], Callable[..., Any]]:
    for name in ("init", "apply"):
        if not callable(getattr(model, name)):
            raise TypeError(f"model.{name} is {getattr(model, name)!r}; give a function, as wd.Model describes it.")
    further = _further(model)

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        params = model.init(key, inputs)
        if not jax.tree.leaves(params):
            raise ValueError(
                f"model.init gives {params!r}, which holds no weights; it must return a tree of float arrays."
            )
        return params, {}

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: Any,
        *,
        key: Key,
        train: bool,
        hyperparameters: Mapping[str, Any] = {},
    ) -> tuple[Any, ModelState]:
        unknown = sorted(hyperparameters.keys() - further)
        if unknown:
            raise ValueError(
                f"grid has an axis {unknown[0]!r}, which model.apply does not take; give it an argument of that name."
            )
        own = {"key": key, "train": train}
        arguments = {name: value for name, value in own.items() if name in further}
        return model.apply(params, inputs, **arguments, **hyperparameters), model_state

    return init, apply


def _further(model: Model) -> frozenset[str]:
    """Arguments of a `Model` behind the weights and the inputs."""
    parameters = _parameters(model.apply)
    return frozenset(list(parameters)[2:]) if callable(model.apply) else frozenset()


def _checked(functions: tuple[Callable[..., Any], Callable[..., Any]]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Functions whose first weights are refused where they cannot be trained."""
    init, apply = functions

    def checked(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        params, model_state = init(key, inputs)
        tree.check_weights(params)
        return params, model_state

    return checked, apply


def _library(model: Any) -> str | None:
    """Library whose modules a class or a function makes; None = neither."""
    arguments = _arguments(model)
    return "nnx" if "rngs" in arguments else "equinox" if "key" in arguments else None


def _arguments(model: Any) -> dict[str, inspect.Parameter]:
    """Arguments of what makes modules: a class of nnx or equinox, or a function; none of what makes none."""
    bare = model
    while isinstance(bare, functools.partial):
        bare = bare.func
    modules = _module_classes()
    if isinstance(bare, type):
        return _parameters(model) if issubclass(bare, modules) else {}
    if isinstance(bare, modules) or isinstance(bare, nn.Module | Model) or not callable(bare):
        return {}
    return _parameters(model)


def _module_classes() -> tuple[type, ...]:
    """Classes of nnx's and equinox's modules, of those that anybody has imported."""
    loaded = (sys.modules.get(name) for name in ("flax.nnx", "equinox"))
    return tuple(library.Module for library in loaded if library is not None)


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Named arguments of a function or a class; what a partial one binds by name has that as its default."""
    if isinstance(function, functools.partial):
        parameters = dict(list(_parameters(function.func).items())[len(function.args) :])
        bound = {
            name: parameters[name].replace(default=value, kind=inspect.Parameter.KEYWORD_ONLY)
            for name, value in function.keywords.items()
            if name in parameters
        }
        return parameters | bound
    try:
        # The metaclass of nnx hides the arguments.
        parameters = inspect.signature(function.__init__ if isinstance(function, type) else function).parameters
    except (TypeError, ValueError):  # built in
        return {}
    named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: p for p in (named[1:] if isinstance(function, type) else named)}


def _no_model(model: Any) -> TypeError:
    hint = (
        "give a flax linen module, such as wd.models.MLP((64, 64)), a flax nnx class or a function of rngs, an equinox "
        "class or a function of key, or wd.Model(init, apply)"
    )
    if isinstance(model, type):
        hint = "it is a class: make an instance, such as wd.models.MLP((64, 64))"
        if issubclass(model, _module_classes()):
            hint = (
                "its __init__ must take rngs (flax nnx) or key (equinox), so that each member makes weights of its own"
            )
    elif isinstance(model, _module_classes()):
        hint = (
            "it has weights already, and each member makes its own: give the class, or a function such as "
            f"lambda rngs: {type(model).__name__}(..., rngs=rngs) (flax nnx) or lambda key: ... (equinox)"
        )
    elif callable(model):
        hint = "a function that makes a model must take rngs (flax nnx) or key (equinox) by that name"
    return TypeError(f"model is {model!r}, of type {type(model).__name__}; {hint}.")
