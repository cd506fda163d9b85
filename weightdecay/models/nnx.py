"""Networks of flax nnx: a module class, or a function of ``rngs`` that makes a module, with a traced dropout rate."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from typing_extensions import override

from weightdecay.core.types import Key, ModelState, Params
from weightdecay.models import adapters, dropout


def functions(factory: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two pure functions of what makes a module; see `weightdecay.models.network.Network`.

    Weights are the module's ``nnx.Param``, model state all its other variables but the random ones, both as nested
    dictionaries by the module's own names, which ``nnx.update`` takes. Each random stream has a fold of the key.

    Args:
      factory: ``factory(rngs=...) -> module``.

    Returns:
      ``init`` and ``apply``.
    """

    def make(rngs: nnx.Rngs) -> nnx.Module:
        module = factory(rngs=rngs)
        if not isinstance(module, nnx.Module):
            raise TypeError(
                f"model gives {module!r}, of type {type(module).__name__}; a function of rngs must make a flax nnx "
                "module."
            )
        return module

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        del inputs
        return _divided(make(nnx.Rngs(key)))

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: Any,
        *,
        key: Key,
        train: bool,
        hyperparameters: Mapping[str, Any] = {},
    ) -> tuple[Any, ModelState]:
        module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        nnx.update(module, params)
        nnx.update(module, model_state)
        nnx.update(module, _random(nnx.to_pure_dict(nnx.state(module, nnx.RngState)), key))
        module.train() if train else module.eval()
        if dropout.AXIS in hyperparameters:
            _set_rate(module, hyperparameters[dropout.AXIS])
        arguments = adapters.call_arguments(type(module).__call__, given=("rngs",))
        mode: dict[str, Any] = adapters.mode(arguments, train=train)
        if "rngs" in arguments and train:
            mode["rngs"] = nnx.Rngs(jax.random.fold_in(key, 0))
        outputs = module(inputs, **mode)  # pyright: ignore[reportCallIssue]
        return outputs, _within(model_state, _divided(module)[1]) if train else model_state

    return init, apply


def _divided(module: nnx.Module) -> tuple[Params, ModelState]:
    _, params, _, model_state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def _within(before: Any, after: Any) -> Any:
    """What has become of a state, without what a forward pass has put beside it."""
    if not isinstance(before, dict):
        return after
    return {name: _within(value, after[name]) for name, value in before.items()}


def _random(state: Any, key: Key) -> Any:
    """Keys and counts of all random streams, as they stand at the beginning of a forward pass."""
    leaves, structure = jax.tree.flatten(state)
    made = []
    for place, leaf in enumerate(leaves, start=1):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            own = jax.random.fold_in(key, place)
            made.append(jax.random.split(own, leaf.shape) if leaf.shape else own)
        else:
            made.append(jnp.zeros(leaf.shape, leaf.dtype))
    return structure.unflatten(made)


class _Traced(nnx.Dropout):
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
    for layer in layers:  # Where else it is held, in a list or a closure, it is the same layer.
        layer.__class__ = _Traced
        layer.rate = nnx.data(rate)
