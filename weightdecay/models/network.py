"""Networks of any library behind one interface: `Network`, two pure functions that carry model state and random keys.

flax linen, flax nnx and equinox have a file each; a network that a user defines by two functions is a `Model`.
"""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from typing_extensions import override

from weightdecay.core import random_streams, text, tree
from weightdecay.core.types import Key, ModelState, Params
from weightdecay.models import decoder, dropout, linen, zoo
from weightdecay.models.adapters import Functions

_UNBOUND_AXIS = re.compile(r"unbound axis name: (\w+)")  # in the error of JAX


class Network(NamedTuple):
    """A network as training sees it.

    Attributes:
      init: ``init(key, inputs) -> (params, model_state)``.
      apply: ``apply(params, model_state, inputs, *, key, train, hyperparameters={}) -> (outputs, model_state)``. The
        key drives dropout and other random layers, ``train`` is a Python bool, and ``hyperparameters`` are traced
        numbers by name, such as ``{"dropout_rate": rate}``.
    """

    init: Callable[[Key, Any], tuple[Params, ModelState]]
    apply: Callable[..., tuple[Any, ModelState]]


@dataclass(frozen=True)
class Model:
    """A network defined by two functions.

    Attributes:
      init: ``init(key, inputs) -> params``, any pytree of float arrays.
      apply: ``apply(params, inputs) -> outputs``, with one row per example. It may have more arguments: ``key`` is a
        random key, different at every step; ``train`` is a bool; every other one, such as ``dropout_rate``, is a
        traced number of shape ``()`` that an axis of the grid sets.

    Examples:
      >>> import jax.numpy as jnp
      >>> linear = Model(
      ...     init=lambda key, inputs: {"kernel": jnp.zeros((inputs.shape[1], 10))},
      ...     apply=lambda params, inputs: inputs @ params["kernel"],
      ... )
    """

    init: Callable[[Key, Any], Params]
    apply: Callable[..., Any]

    @staticmethod
    def pair(*, train: Any, evaluate: Any) -> "Pair":
        """Return a model of two networks with the same weights: one that trains and one that evaluates.

        This is for networks whose constructor, or whose configuration, says whether they are training::

            wd.Model.pair(
                train=Transformer(Config(deterministic=False)), evaluate=Transformer(Config(deterministic=True))
            )

        Args:
          train: The network of training steps: any model of the libraries that `fit_grid` takes.
          evaluate: The network of evaluations, of the same kind; it also makes the initial weights.
        """
        return Pair(train, evaluate)


@dataclass(frozen=True)
class Pair:
    """Two networks with the same weights, as `Model.pair` makes it.

    Attributes:
      train: The network of training steps.
      evaluate: The network of evaluations, which also makes the initial weights.
    """

    train: Any
    evaluate: Any


def network(model: Any) -> Network:
    """Return the `Network` of a model.

    Args:
      model: A flax linen module; a flax nnx class, or a function of ``rngs`` that makes an nnx module; an equinox
        class, or a function of ``key`` that makes an equinox module; or a `Model`.

    Returns:
      The network.

    Raises:
      TypeError: Anything else; a field of the wrong type in a model of `weightdecay.models` or a `Model`.
      ValueError: A field of a model of `weightdecay.models` that is out of range.
    """
    if isinstance(model, Pair):
        return _pair(network(model.train), network(model.evaluate))
    if isinstance(model, zoo.OWN):
        zoo.check(model)
    if isinstance(model, decoder.Decoder):
        decoder.check(model)
    if isinstance(model, nn.Module):
        return _network(linen.functions(model))
    if isinstance(model, Model):
        return _network(_functions(model))
    library = _library(model)
    if library == "nnx":
        from weightdecay.models import nnx

        return _network(nnx.functions(model))
    if library == "equinox":
        from weightdecay.models import equinox

        return _network(equinox.functions(model))
    raise _not_a_model(model)


def trained(model: Any, params: Params, model_state: ModelState) -> Any:
    """Return a network with its weights as its own library has it, in evaluation mode.

    Args:
      model: As in `network`.
      params: Its weights.
      model_state: What it has in addition to its weights.

    Returns:
      Of flax linen, the module bound to its variables; of flax nnx and equinox, the module (for an equinox module with
      state, the module and its state); of a `Model`, a function of the inputs.

    Raises:
      TypeError: Anything else.
    """
    if isinstance(model, Pair):
        return trained(model.evaluate, params, model_state)
    if isinstance(model, Model):
        forward = _functions(model)[1]
        key = random_streams.constant_key()
        return lambda inputs: forward(params, model_state, inputs, key, False, {})[0]
    if isinstance(model, nn.Module):
        return linen.trained(model, params, model_state)
    library = _library(model)
    if library == "nnx":
        from weightdecay.models import nnx

        return nnx.trained(model, params, model_state)
    if library == "equinox":
        from weightdecay.models import equinox

        return equinox.trained(model, params, model_state)
    raise _not_a_model(model)


def is_nnx(model: Any) -> bool:
    """Whether a model is a flax nnx class, or a function of ``rngs`` that makes an nnx module."""
    return not isinstance(model, nn.Module | Model | Pair) and _library(model) == "nnx"


def complete(model: Any, num_outputs: int) -> Any:
    """Set the number of outputs of a model that leaves it to the data.

    Args:
      model: Any model. These are completed: a linen module whose field ``num_outputs`` is None, and a class or function
        whose argument ``num_outputs`` has the default None or no default. Others are returned unchanged.
      num_outputs: Number of outputs that the data needs.

    Returns:
      The model.
    """
    if isinstance(model, Pair):
        return Pair(complete(model.train, num_outputs), complete(model.evaluate, num_outputs))
    if isinstance(model, nn.Module):
        is_open = getattr(model, "num_outputs", 0) is None
    else:
        parameter = _arguments(model).get("num_outputs")
        is_open = parameter is not None and parameter.default in (None, parameter.empty)
    return with_options(model, {"num_outputs": num_outputs}) if is_open else model


def traced_axes(model: Any) -> frozenset[str]:
    """Axes of a grid that a network accepts as traced numbers.

    Args:
      model: Any that `network` takes.

    Returns:
      Their names: ``dropout_rate``, or for a `Model` the further arguments of its ``apply``.
    """
    if isinstance(model, Pair):
        return traced_axes(model.train)
    if not isinstance(model, Model):
        return frozenset({dropout.AXIS})
    return _further_arguments(model) - {"key", "train"}


def static_axes(model: Any) -> frozenset[str]:
    """Axes of a grid that set a field of the model; each value makes a separate network.

    Args:
      model: Any that `network` takes.

    Returns:
      Their names: the fields of a linen module, the arguments of a class or function of nnx or equinox.
    """
    if isinstance(model, Pair):
        return static_axes(model.train) & static_axes(model.evaluate)
    if isinstance(model, nn.Module):
        return linen.fields(model) - {dropout.AXIS}
    return frozenset(_arguments(model)) - {"rngs", "key", dropout.AXIS}


def with_options(model: Any, options: Mapping[str, Any]) -> Any:
    """Return a model with other values of some fields.

    Args:
      model: Any that `network` takes.
      options: Values by name. Where the present value is a function, a string is the name of an activation function.

    Returns:
      The model; equal for equal options, so that it is compiled once.

    Raises:
      ValueError: A name that is not in `static_axes`, or an unknown activation function.
    """
    if not options:
        return model
    unknown = sorted(options.keys() - static_axes(model))
    if unknown:
        known = ", ".join(sorted(static_axes(model))) or "none"
        raise ValueError(f"model has no field {unknown[0]!r} that a grid can set; it has: {known}.")
    if isinstance(model, Pair):
        return Pair(with_options(model.train, options), with_options(model.evaluate, options))
    if isinstance(model, nn.Module):
        present = {name: getattr(model, name) for name in options}
    else:
        present = {name: _arguments(model)[name].default for name in options}
    functions = {name for name, value in present.items() if callable(value) and value is not inspect.Parameter.empty}
    values: dict[str, Any] = {
        name: zoo.activation_function(value, argument=f"model.{name}")
        if isinstance(value, str) and name in functions
        else value
        for name, value in options.items()
    }
    return model.clone(**values) if isinstance(model, nn.Module) else _Partial(model, **values)


def rewritten(network: Network, rewrite: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Network:
    """Return a network whose forward pass is rewritten.

    Args:
      network: Any network.
      rewrite: Maps a function of trees of arrays to another with the same arguments and results.

    Returns:
      The network.
    """

    def forward(
        params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool, hyperparameters: Mapping[str, Any]
    ) -> tuple[Any, ModelState]:
        def traced(params: Params, model_state: ModelState, inputs: Any, key: Key, hyperparameters: Any) -> Any:
            return network.apply(params, model_state, inputs, key=key, train=train, hyperparameters=hyperparameters)

        return rewrite(traced)(params, model_state, inputs, key, dict(hyperparameters))

    return Network(network.init, _apply(forward))


def computing_in(network: Network, dtype: Any) -> Network:
    """Return a network that computes in another float dtype: mixed precision.

    Weights and inputs are cast to the dtype before the forward pass; outputs and model state are cast back after it.
    Gradients, weights and state keep their dtypes.

    Args:
      network: Any network.
      dtype: Such as ``"bfloat16"``.

    Returns:
      The network.
    """

    def cast_leaf(leaf: Any) -> Any:
        return jnp.asarray(leaf, dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    def forward(
        params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool, hyperparameters: Mapping[str, Any]
    ) -> tuple[Any, ModelState]:
        params, inputs = jax.tree.map(cast_leaf, (params, inputs))
        outputs, changed = network.apply(
            params, model_state, inputs, key=key, train=train, hyperparameters=hyperparameters
        )
        outputs = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), outputs)
        return outputs, jax.tree.map(lambda after, before: after.astype(before.dtype), changed, model_state)

    return Network(network.init, _apply(forward))


def _apply(forward: Callable[..., tuple[Any, ModelState]]) -> Callable[..., tuple[Any, ModelState]]:
    """Give a forward pass the signature of ``Network.apply``."""

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: Any,
        *,
        key: Key,
        train: bool,
        hyperparameters: Mapping[str, Any] = {},
    ) -> tuple[Any, ModelState]:
        return forward(params, model_state, inputs, key, train, hyperparameters)

    return apply


def _network(functions: Functions) -> Network:
    """Return the network of two functions; weights that cannot be trained raise an error when they are initialized."""
    init, forward = functions

    def checked_init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        params, model_state = _within_axes(init, key, inputs)
        tree.check_weights(params)
        return params, model_state

    return Network(checked_init, _apply(functools.partial(_within_axes, forward)))


def _within_axes(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function within the named axes that it asks for, each of size 1.

    A layer with an ``axis_name``, such as ``nn.BatchNorm(axis_name="batch")``, averages over the devices of a program
    that is mapped over them. A member is trained by one device, so that there is nothing to average over.
    """
    names: list[str] = []
    while True:
        call = functools.partial(function, *arguments)
        for name in names:
            call = functools.partial(_within_axis, call, name)
        try:
            return call()
        except NameError as error:
            unbound = _UNBOUND_AXIS.search(str(error))
            if unbound is None or unbound[1] in names:
                raise
            names.append(unbound[1])


def _within_axis(call: Callable[[], Any], name: str) -> Any:
    outputs = jax.vmap(lambda _: call(), axis_name=name)(jnp.zeros(1))
    return jax.tree.map(lambda array: array[0], outputs)


def _pair(training: Network, evaluating: Network) -> Network:
    """Return the network that trains as the first and evaluates as the second."""

    def forward(
        params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool, hyperparameters: Mapping[str, Any]
    ) -> tuple[Any, ModelState]:
        apply = training.apply if train else evaluating.apply
        hyperparameters = hyperparameters if train else {}  # A network without dropout layers takes no rate.
        return apply(params, model_state, inputs, key=key, train=train, hyperparameters=hyperparameters)

    return Network(evaluating.init, _apply(forward))


class _Partial(functools.partial):
    """A `functools.partial` that is equal to another one with the same function and arguments."""

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Partial) and self._parts() == other._parts()

    @override
    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple[Any, ...]:
        return self.func, self.args, frozenset(self.keywords.items())


def _functions(model: Model) -> Functions:
    for name in ("init", "apply"):
        if not callable(getattr(model, name)):
            raise TypeError(f"model.{name} is {getattr(model, name)!r}; give a function, as wd.Model describes it.")
    further = _further_arguments(model)

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        params = model.init(key, inputs)
        if not jax.tree.leaves(params):
            raise ValueError(
                f"model.init returns {params!r}, which holds no weights; it must return a tree of float arrays."
            )
        return params, {}

    def forward(
        params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool, hyperparameters: Mapping[str, Any]
    ) -> tuple[Any, ModelState]:
        unknown = sorted(hyperparameters.keys() - further)
        if unknown:
            raise ValueError(
                f"grid has an axis {unknown[0]!r}, which model.apply does not take; add an argument of that name."
            )
        available = {"key": key, "train": train}
        arguments = {name: value for name, value in available.items() if name in further}
        return model.apply(params, inputs, **arguments, **hyperparameters), model_state

    return init, forward


def _further_arguments(model: Model) -> frozenset[str]:
    """Arguments of the ``apply`` of a `Model` after the weights and the inputs."""
    parameters = _parameters(model.apply)
    return frozenset(list(parameters)[2:]) if callable(model.apply) else frozenset()


def _library(model: Any) -> str | None:
    """Library whose modules a class or a function makes; None = unknown."""
    arguments = _arguments(model)
    return "nnx" if "rngs" in arguments else "equinox" if "key" in arguments else None


def _arguments(model: Any) -> dict[str, inspect.Parameter]:
    """Arguments of what makes modules, a class of nnx or equinox or a function; empty for anything else."""
    function = model
    while isinstance(function, functools.partial):
        function = function.func
    modules = _module_classes()
    if isinstance(function, type):
        return _parameters(model) if issubclass(function, modules) else {}
    if isinstance(function, modules) or isinstance(function, nn.Module | Model | Pair) or not callable(function):
        return {}
    return _parameters(model)


def _module_classes() -> tuple[type, ...]:
    """Module classes of nnx and equinox, of those libraries that have been imported."""
    loaded = (sys.modules.get(name) for name in ("flax.nnx", "equinox"))
    return tuple(library.Module for library in loaded if library is not None)


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    """Named arguments of a function or a class; an argument bound by `functools.partial` has that default."""
    if isinstance(function, functools.partial):
        parameters = dict(list(_parameters(function.func).items())[len(function.args) :])
        bound = {
            name: parameters[name].replace(default=value, kind=inspect.Parameter.KEYWORD_ONLY)
            for name, value in function.keywords.items()
            if name in parameters
        }
        return parameters | bound
    try:
        # The metaclass of nnx hides the arguments of a class.
        parameters = inspect.signature(function.__init__ if isinstance(function, type) else function).parameters
    except (TypeError, ValueError):  # built in
        return {}
    named = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: p for p in (named[1:] if isinstance(function, type) else named)}


def _not_a_model(model: Any) -> TypeError:
    hint = (
        "give a flax linen module, such as wd.models.MLP((64, 64)), a flax nnx class or a function of rngs, an equinox "
        "class or a function of key, or wd.Model(init, apply)"
    )
    if isinstance(model, type):
        hint = "it is a class; give an instance, such as wd.models.MLP((64, 64))"
        if issubclass(model, _module_classes()):
            hint = "its __init__ must take rngs (flax nnx) or key (equinox), so that each member initializes its own"
    elif isinstance(model, _module_classes()):
        hint = (
            "it has weights already, and each member initializes its own; give the class, or a function such as "
            f"lambda rngs: {type(model).__name__}(..., rngs=rngs) (flax nnx) or lambda key: ... (equinox)"
        )
    elif callable(model):
        hint = "a function that makes a model must have an argument named rngs (flax nnx) or key (equinox)"
    return TypeError(f"model is {text.shortened(model)}, of type {type(model).__name__}; {hint}.")
