"""Networks of flax nnx: a module class, or a function of ``rngs`` that makes a module, with a traced dropout rate."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from typing_extensions import override

from weightdecay.core.types import Key, ModelState, Params
from weightdecay.models import adapters, dropout
from weightdecay.models.adapters import Functions


def functions(factory: Callable[..., Any]) -> Functions:
    """Return two pure functions of what makes a module.

    Weights are the ``nnx.Param`` of the module. Model state is all its other variables except the random ones. Both are
    nested dictionaries with the module's own names, which ``nnx.update`` accepts. Each random stream has a fold of the
    key.

    Args:
      factory: ``factory(rngs=...) -> module``.

    Returns:
      ``init`` and ``forward``.
    """

    def make(rngs: nnx.Rngs) -> nnx.Module:
        module = _made(factory, rngs)
        if not isinstance(module, nnx.Module):
            raise TypeError(
                f"model returns {module!r}, of type {type(module).__name__}; a function of rngs must make a flax nnx "
                "module."
            )
        return module

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        del inputs
        return _divided(make(nnx.Rngs(key)))

    def forward(
        params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool, hyperparameters: Mapping[str, Any]
    ) -> tuple[Any, ModelState]:
        module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        nnx.update(module, params)
        nnx.update(module, model_state)
        nnx.update(module, _random(nnx.to_pure_dict(nnx.state(module, nnx.RngState)), key))
        module.train() if train else module.eval()
        if dropout.AXIS in hyperparameters:
            _set_rate(module, hyperparameters[dropout.AXIS])
        arguments = adapters.call_arguments(type(module).__call__)
        positional, named = adapters.bound(type(module).__call__, inputs, key, given=("rngs",))
        options: dict[str, Any] = adapters.mode(arguments, train=train)
        if "rngs" in arguments and train:
            options["rngs"] = nnx.Rngs(jax.random.fold_in(key, 0))
        outputs = module(*positional, **named, **options)  # pyright: ignore[reportCallIssue]
        return outputs, _within(model_state, _divided(module)[1]) if train else model_state

    return init, forward


def trained(factory: Callable[..., Any], params: Params, model_state: ModelState) -> nnx.Module:
    """Return a module with its weights, in evaluation mode.

    Args:
      factory: ``factory(rngs=...) -> module``.
      params: Its weights.
      model_state: Its other variables.

    Returns:
      The module; its random streams begin with the seed 0.
    """
    module = _made(factory, nnx.Rngs(0))
    nnx.update(module, jax.tree.map(jnp.asarray, params))
    nnx.update(module, jax.tree.map(jnp.asarray, model_state))
    module.eval()
    return module


def partition_specs(factory: Callable[..., Any]) -> Any:
    """Return the partitioning that the metadata of each weight names, in the structure of the weights.

    Args:
      factory: As in `functions`.

    Returns:
      Nested dictionaries of `jax.sharding.PartitionSpec`.
    """
    module = nnx.eval_shape(lambda: _made(factory, nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(module, nnx.Param)))


def _made(factory: Callable[..., Any], rngs: nnx.Rngs) -> Any:
    """Make a module; the engine places its weights, so that their metadata needs no mesh around the call."""
    with nnx.use_eager_sharding(False):
        return factory(rngs=rngs)


def _divided(module: nnx.Module) -> tuple[Params, ModelState]:
    _, params, _, model_state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def _within(before: Any, after: Any) -> Any:
    """New values of a state, without the entries that a forward pass has added to it."""
    if not isinstance(before, dict):
        return after
    return {name: _within(value, after[name]) for name, value in before.items()}


def _random(state: Any, key: Key) -> Any:
    """Keys and counts of all random streams at the beginning of a forward pass."""
    leaves, structure = jax.tree.flatten(state)
    values = []
    for number, leaf in enumerate(leaves, start=1):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            folded = jax.random.fold_in(key, number)
            values.append(jax.random.split(folded, leaf.shape) if leaf.shape else folded)
        else:
            values.append(jnp.zeros(leaf.shape, leaf.dtype))
    return structure.unflatten(values)


class _TracedDropout(nnx.Dropout):
    """Dropout layer of flax, at a traced rate."""

    @override
    def __call__(self, inputs: Any, *, deterministic: bool | None = None, rngs: Any = None) -> Any:
        if self.deterministic if deterministic is None else deterministic:
            return inputs
        rngs = self.rngs if rngs is None else rngs
        if isinstance(rngs, nnx.Rngs):
            rngs = rngs[self.rng_collection]
        key = rngs if isinstance(rngs, jax.Array) else rngs()
        return dropout.drop(inputs, self.rate, key, self.broadcast_dims)


def _set_rate(module: nnx.Module, rate: Any) -> None:
    layers = [layer for _, layer in nnx.iter_modules(module)]
    for layer in layers:
        if isinstance(layer, nnx.MultiHeadAttention) and layer.dropout_rate > 0:
            raise dropout.inside_attention(type(layer).__name__)
    layers = [layer for layer in layers if isinstance(layer, nnx.Dropout)]
    if not layers:
        raise dropout.no_layer()
    for layer in layers:  # In place: the module may hold the same layer in a list or a closure as well.
        layer.__class__ = _TracedDropout
        layer.rate = nnx.data(rate)
