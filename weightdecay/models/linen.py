"""Networks of flax linen: modules as they are, with batch statistics, random streams and a traced dropout rate."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from weightdecay.core.types import Key, ModelState, Params
from weightdecay.models import adapters, dropout

_ATTENTION = (nn.MultiHeadDotProductAttention,)


def functions(model: nn.Module) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two pure functions of a module; see `weightdecay.models.network.Network`.

    Whether it trains is told in the call where ``__call__`` has an argument for it, and by the module's fields
    otherwise. All collections but the weights are model state. Random numbers are there in training: the stream
    ``dropout`` has the key itself, all others a fold of it.

    Args:
      model: An instance.

    Returns:
      ``init`` and ``apply``.

    Raises:
      TypeError: It is called with arguments of which nothing is known.
    """
    if not callable(model):
        raise TypeError(f"model is of {type(model).__name__}, which has no __call__; give it one, of the inputs.")
    arguments = adapters.call_arguments(type(model).__call__)
    flags = adapters.mode(arguments, train=True)
    told_by = () if flags else adapters.mode(_fields(model), train=True)

    def told(train: bool) -> tuple[nn.Module, dict[str, Any]]:
        options: dict[str, Any] = adapters.mode(told_by, train=train)
        return model.clone(**options) if options else model, {**adapters.mode(flags, train=train)}

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        params_key, dropout_key = jax.random.split(key)
        module, mode = told(train=False)
        variables = module.init({"params": params_key, "dropout": dropout_key}, inputs, **mode)
        return variables.get("params", {}), {name: value for name, value in variables.items() if name != "params"}

    def forward(params: Params, model_state: ModelState, inputs: Any, key: Key, *, train: bool) -> Any:
        variables, (module, mode) = {"params": params, **model_state}, told(train)
        if not train:
            return module.apply(variables, inputs, **mode), model_state
        # flax draws from the stream "params" for every name that it does not find.
        rngs = {"dropout": key, "params": jax.random.fold_in(key, 1)}
        outputs, changed = module.apply(variables, inputs, **mode, rngs=rngs, mutable=list(model_state))
        return outputs, {**model_state, **changed}

    def apply(
        params: Params,
        model_state: ModelState,
        inputs: Any,
        *,
        key: Key,
        train: bool,
        hyperparameters: Mapping[str, Any] = {},
    ) -> tuple[Any, ModelState]:
        if dropout.AXIS not in hyperparameters:
            return forward(params, model_state, inputs, key, train=train)
        layers = _Traced(hyperparameters[dropout.AXIS])
        with nn.intercept_methods(layers):
            made = forward(params, model_state, inputs, key, train=train)
            if not layers.met and not train:  # They may be left out in evaluation.
                jax.eval_shape(lambda: forward(params, model_state, inputs, key, train=True))
        if not layers.met:
            raise dropout.no_layer()
        return made

    return init, apply


def fields(model: nn.Module) -> frozenset[str]:
    """Names of the fields of a module that a user sets.

    Args:
      model: An instance.

    Returns:
      The names.
    """
    return frozenset(_fields(model)) - adapters.FLAGS


def _fields(model: nn.Module) -> list[str]:
    return [name for name, field in model.__dataclass_fields__.items() if field.init and name not in ("parent", "name")]


class _Traced:
    """Interceptor that gives every dropout layer one traced rate."""

    def __init__(self, rate: Any) -> None:
        self._rate = rate
        self.met = False

    def __call__(self, layer: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return layer(*args, **kwargs)
        if isinstance(context.module, _ATTENTION) and context.module.dropout_rate > 0:
            raise dropout.inside_attention(type(context.module).__name__)
        if not isinstance(context.module, nn.Dropout):
            return layer(*args, **kwargs)
        self.met = True
        return _dropped(context.module, self._rate, *args, **kwargs)


def _dropped(layer: nn.Dropout, rate: Any, inputs: Any, deterministic: bool | None = None, rng: Any = None) -> Any:
    """Outputs of flax's layer, as it computes them, at a traced rate."""
    if nn.merge_param("deterministic", layer.deterministic, deterministic):
        return inputs
    key = layer.make_rng(layer.rng_collection) if rng is None else rng
    return dropout.drop(inputs, rate, key, layer.broadcast_dims)
