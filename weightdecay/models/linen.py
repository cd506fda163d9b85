"""Networks of flax linen: a module with its batch statistics, random streams and a traced dropout rate."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError

from weightdecay.core.types import Key, ModelState, Params
from weightdecay.models import adapters, dropout
from weightdecay.models.adapters import Functions

_LOSSES = "losses"  # the collection to which networks sow losses
_ATTENTION = (nn.MultiHeadDotProductAttention,)


def functions(model: nn.Module) -> Functions:
    """Return two pure functions of a module.

    Whether it is training is passed in the call if ``__call__`` has an argument for it, and by the fields of the module
    otherwise. All collections except ``params`` and what is sown are model state. Random streams exist in training
    only: the stream ``dropout`` has the key itself, all others a fold of it.

    What ``self.sow("losses", ...)`` adds is summed, in the entry `weightdecay.models.adapters.SOWN` of the model state;
    other sown values, such as ``intermediates``, are dropped.

    Args:
      model: An instance.

    Returns:
      ``init`` and ``forward``.

    Raises:
      TypeError: It has no ``__call__``; when it is initialized, that ``__call__`` has arguments whose values are not
        known, see `weightdecay.models.adapters.bound`.
    """
    if not callable(model):
        raise TypeError(f"model is of {type(model).__name__}, which has no __call__; define it, with the inputs.")
    arguments = adapters.call_arguments(type(model).__call__)
    call_flags = adapters.mode(arguments, train=True)
    field_flags = () if call_flags else adapters.mode(_fields(model), train=True)

    def in_mode(train: bool) -> tuple[nn.Module, dict[str, Any]]:
        options: dict[str, Any] = adapters.mode(field_flags, train=train)
        return model.clone(**options) if options else model, {**adapters.mode(call_flags, train=train)}

    def init(key: Key, inputs: Any) -> tuple[Params, ModelState]:
        params_key, dropout_key = jax.random.split(key)
        module, flags = in_mode(train=False)
        positional, named = adapters.bound(type(model).__call__, inputs, dropout_key)
        variables = module.init({"params": params_key, "dropout": dropout_key}, *positional, **named, **flags)
        state = {name: value for name, value in variables.items() if name not in ("params", _LOSSES)}
        if tuples := [name for name, value in state.items() if _has_tuples(value)]:
            rngs = {"params": params_key, "dropout": dropout_key}
            again = lambda: module.apply(variables, *positional, **named, **flags, rngs=rngs, mutable=tuples)[1]  # noqa: E731
            shapes = jax.eval_shape(again)
            grown = {name for name in tuples if jax.tree.structure(shapes[name]) != jax.tree.structure(state[name])}
            state = {name: value for name, value in state.items() if name not in grown}
        if _LOSSES in variables:
            state |= adapters.with_sown_loss(jnp.zeros(()))
        return variables.get("params", {}), state

    def apply_module(params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool) -> Any:
        state = {name: value for name, value in model_state.items() if name != adapters.SOWN}
        variables, (module, flags) = {"params": params, **state}, in_mode(train)
        positional, named = adapters.bound(type(model).__call__, inputs, key)
        if not train:
            try:
                if adapters.SOWN not in model_state:
                    return module.apply(variables, *positional, **named, **flags), model_state
                outputs, changed = module.apply(variables, *positional, **named, **flags, mutable=[_LOSSES])
                return outputs, model_state | adapters.with_sown_loss(_total(changed, inputs))
            except InvalidRngError as error:
                raise TypeError(
                    f"model draws random numbers in evaluation ({str(error).split(' (')[0]}), as nothing tells it that "
                    "it is not training. Give it an argument or a field named deterministic or train, or give two "
                    "networks: wd.Model.pair(train=Net(..., deterministic=False), evaluate=Net(..., "
                    "deterministic=True))."
                ) from error
        # flax draws from the stream "params" for every name that it does not find.
        rngs = {"dropout": key, "params": jax.random.fold_in(key, 1)}
        mutable = [*state, _LOSSES]
        outputs, changed = module.apply(variables, *positional, **named, **flags, rngs=rngs, mutable=mutable)
        if adapters.SOWN in model_state:
            sown = adapters.with_sown_loss(_total(changed, inputs))
            return outputs, {**model_state, **{name: changed[name] for name in state if name in changed}, **sown}
        if _LOSSES in changed:
            raise TypeError(
                "model sows into the collection 'losses' in training only, so that it is not known when the model is "
                "initialized; call self.sow('losses', ...) in evaluation too, where nothing is trained with it."
            )
        return outputs, {**model_state, **changed}

    def forward(
        params: Params, model_state: ModelState, inputs: Any, key: Key, train: bool, hyperparameters: Mapping[str, Any]
    ) -> tuple[Any, ModelState]:
        if dropout.AXIS not in hyperparameters:
            return apply_module(params, model_state, inputs, key, train)
        layers = _TracedRate(hyperparameters[dropout.AXIS])
        with nn.intercept_methods(layers):
            made = apply_module(params, model_state, inputs, key, train)
            if not layers.called and not train:  # The model may skip them in evaluation.
                jax.eval_shape(lambda: apply_module(params, model_state, inputs, key, train=True))
        if not layers.called:
            raise dropout.no_layer()
        return made

    return init, forward


def trained(model: nn.Module, params: Params, model_state: ModelState) -> nn.Module:
    """Return a module that is bound to its variables, in evaluation mode where its fields say so.

    Args:
      model: An instance.
      params: Its weights.
      model_state: Its other collections.

    Returns:
      The module: ``module(inputs)`` are the outputs. Where its call has an argument for the mode, such as ``train``,
      the caller gives it.
    """
    call_flags = adapters.mode(adapters.call_arguments(type(model).__call__), train=False)
    options: dict[str, Any] = {} if call_flags else {**adapters.mode(_fields(model), train=False)}
    collections = {name: value for name, value in model_state.items() if name != adapters.SOWN}
    return (model.clone(**options) if options else model).bind({"params": params, **collections})


def fields(model: nn.Module) -> frozenset[str]:
    """Names of the fields of a module that a user sets, without flags.

    Args:
      model: An instance.

    Returns:
      The names.
    """
    return frozenset(_fields(model)) - adapters.FLAGS


def _has_tuples(collection: Any) -> bool:
    """Whether a collection may hold what was sown: tuples, to which every call adds a value."""
    is_tuple = lambda node: isinstance(node, tuple)  # noqa: E731
    return any(map(is_tuple, jax.tree.leaves(collection, is_leaf=is_tuple)))


def _total(changed: Mapping[str, Any], inputs: Any) -> Any:
    """Sum of the sown losses; of a value with one number for each example, in the last axis, the mean."""
    num_examples = jax.tree.leaves(inputs)[0].shape[0]
    values = [jnp.asarray(value, float) for value in jax.tree.leaves(changed.get(_LOSSES, ()))]
    return sum(
        (value.sum() / (num_examples if value.shape[-1:] == (num_examples,) else 1) for value in values),
        start=jnp.zeros(()),
    )


def _fields(model: nn.Module) -> list[str]:
    return [name for name, field in model.__dataclass_fields__.items() if field.init and name not in ("parent", "name")]


class _TracedRate:
    """Interceptor that gives every dropout layer one traced rate."""

    def __init__(self, rate: Any) -> None:
        self._rate = rate
        self.called = False

    def __call__(self, layer: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return layer(*args, **kwargs)
        if isinstance(context.module, _ATTENTION) and context.module.dropout_rate > 0:
            raise dropout.inside_attention(type(context.module).__name__)
        if not isinstance(context.module, nn.Dropout):
            return layer(*args, **kwargs)
        self.called = True
        return _dropped(context.module, self._rate, *args, **kwargs)


def _dropped(layer: nn.Dropout, rate: Any, inputs: Any, deterministic: bool | None = None, rng: Any = None) -> Any:
    """Outputs of flax's layer at a traced rate."""
    if nn.merge_param("deterministic", layer.deterministic, deterministic):
        return inputs
    key = layer.make_rng(layer.rng_collection) if rng is None else rng
    return dropout.drop(inputs, rate, key, layer.broadcast_dims)
