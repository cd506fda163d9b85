"""Models of this library, flax linen modules: `MLP`, `CNN`, `Transformer`, and a `Dropout` layer with a traced rate.

Each takes the activation function by its name, so that it can be an axis of a grid. The axis ``dropout_rate`` of a grid
sets the rate of all dropout layers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.text import suggestion
from weightdecay.models import dropout

ACTIVATIONS: Mapping[str, Callable[[Any], Any]] = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "silu": nn.silu,
    "elu": nn.elu,
    "selu": nn.selu,
    "leaky_relu": nn.leaky_relu,
    "softplus": nn.softplus,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
}
"""Activation functions by name; ``gelu`` is exact, ``gelu_tanh`` is the default of flax."""

_NORMALIZATIONS = (None, "batch", "layer")


class Dropout(nn.Dropout):
    """Dropout layer whose rate may be an array, traced or not; otherwise the same as ``nn.Dropout`` of flax.

    Attributes:
      rate: Probability of a zero, in [0, 1], shape ``()``; may be traced. At 0 the inputs are returned unchanged.
      broadcast_dims: Axes along which the dropout mask is constant.
      deterministic: Whether nothing is dropped; here or in the call.
      rng_collection: Name of the random stream.

    Examples:
      >>> layer = Dropout(jnp.array(0.5), deterministic=False)
      >>> print(layer.apply({}, jnp.ones(6), rngs={"dropout": jax.random.key(0)}))
      [0. 2. 2. 0. 0. 0.]
    """

    rate: Any  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]

    @nn.compact
    @override
    def __call__(self, inputs: Any, deterministic: bool | None = None, rng: Any = None) -> Any:
        """Drop entries of an array of any shape."""
        is_zero = isinstance(self.rate, int | float) and self.rate == 0
        if nn.merge_param("deterministic", self.deterministic, deterministic) or is_zero:
            return inputs
        key = self.make_rng(self.rng_collection) if rng is None else rng
        return dropout.drop(inputs, self.rate, key, self.broadcast_dims)


class MLP(nn.Module):
    """Multilayer perceptron; inputs are flattened.

    Each hidden layer is a dense layer, normalization, the activation function and dropout. With the defaults the model
    is dense layers with ``relu`` between them.

    Attributes:
      hidden: Width of each hidden layer.
      num_outputs: Width of the last layer; None = taken from the data when training starts.
      activation: A name in `ACTIVATIONS`, or a function of an array.
      normalization: ``"batch"``, ``"layer"`` or None.
      dropout_rate: In [0, 1]; an axis ``dropout_rate`` of a grid overrides it.
    """

    hidden: Sequence[int] = (64, 64)
    num_outputs: int | None = None
    activation: str | Callable[[Any], Any] = "relu"
    normalization: str | None = None
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> Any:
        """Map a batch, shape ``(examples, ...)``, to outputs, shape ``(examples, num_outputs)``."""
        num_outputs = _checked_num_outputs(self.num_outputs)
        hidden = _dense_layers(self, inputs.reshape(inputs.shape[0], -1), train)
        return nn.Dense(num_outputs)(hidden)


class CNN(nn.Module):
    """Convolutional network: blocks of a 3x3 convolution and 2x2 max-pooling, then dense layers.

    Each block is a convolution that keeps height and width, normalization, the activation function, and pooling that
    halves both. Dropout comes before every dense layer.

    Attributes:
      features: Channels of each block.
      hidden: Width of each hidden dense layer.
      num_outputs: Width of the last layer; None = taken from the data when training starts.
      activation: A name in `ACTIVATIONS`, or a function of an array.
      normalization: ``"batch"``, ``"layer"`` (over the channels) or None.
      dropout_rate: In [0, 1]; an axis ``dropout_rate`` of a grid overrides it.
    """

    features: Sequence[int] = (16, 32)
    hidden: Sequence[int] = (64,)
    num_outputs: int | None = None
    activation: str | Callable[[Any], Any] = "relu"
    normalization: str | None = None
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> Any:
        """Map images to outputs.

        Args:
          inputs: Shape ``(examples, height, width, channels)``, or ``(examples, height, width)`` for one channel.
          train: Whether dropout is active and batch statistics are updated.

        Returns:
          Outputs, shape ``(examples, num_outputs)``.

        Raises:
          ValueError: Inputs that are not images, or too small for the number of blocks.
        """
        num_outputs = _checked_num_outputs(self.num_outputs)
        hidden = self._images(inputs)
        for channels in self.features:
            hidden = nn.Conv(channels, (3, 3))(hidden)
            hidden = _normalized(self.normalization, hidden, train)
            hidden = activation_function(self.activation)(hidden)
            hidden = nn.max_pool(hidden, (2, 2), strides=(2, 2))
        hidden = hidden.reshape(hidden.shape[0], -1)
        hidden = Dropout(self.dropout_rate)(hidden, deterministic=not train)
        hidden = _dense_layers(self, hidden, train)
        return nn.Dense(num_outputs)(hidden)

    @nn.nowrap
    def _images(self, inputs: Any) -> Any:
        shape = inputs.shape
        if len(shape) == 3:
            inputs = inputs[..., None]
        if inputs.ndim != 4:
            raise ValueError(
                f"inputs have shape {_per_example(shape)}, and models.CNN takes images, (examples, height, width, "
                "channels) or (examples, height, width); reshape them, such as inputs.reshape(-1, 8, 8, 1)."
            )
        smallest = 2 ** len(self.features)
        if min(inputs.shape[1:3]) < smallest:
            raise ValueError(
                f"inputs have shape {_per_example(shape)}, too small for {len(self.features)} blocks that halve height "
                f"and width and need at least {smallest} x {smallest}; give model.features fewer entries."
            )
        return inputs


class Transformer(nn.Module):
    """Transformer that maps a sequence to one output: pre-norm encoder blocks, then the mean over the positions.

    Integer inputs are tokens and are embedded; real inputs are projected. Positions have a learned embedding. Each
    block adds attention over all positions, then a perceptron with one hidden layer, both applied to normalized
    activations. Dropout comes after the embedding, the attention and the perceptron.

    Attributes:
      num_layers: Number of blocks.
      width: Size of the activations at a position; a multiple of ``num_heads``.
      num_heads: Attention heads.
      mlp_width: Hidden width of the perceptron of a block; None = 4 times ``width``.
      num_outputs: Width of the last layer; None = taken from the data when training starts.
      vocabulary_size: Tokens are 0 to ``vocabulary_size - 1``; needed for tokens, None for real inputs. A larger token
        gives nan.
      max_length: Maximum number of positions; None = the length of the inputs.
      padding: Token that fills short sequences: it is not attended to, and is excluded from the mean. None = no
        padding.
      pooling: ``"mean"`` over the positions, or ``"first"``, the first position only.
      activation: A name in `ACTIVATIONS`, or a function of an array.
      normalization: ``"layer"``, ``"batch"`` (over examples and positions, without padding) or None.
      dropout_rate: In [0, 1]; an axis ``dropout_rate`` of a grid overrides it.

    References:
      Xiong et al., On Layer Normalization in the Transformer Architecture, 2020.
    """

    num_layers: int = 2
    width: int = 64
    num_heads: int = 4
    mlp_width: int | None = None
    num_outputs: int | None = None
    vocabulary_size: int | None = None
    max_length: int | None = None
    padding: int | None = None
    pooling: str = "mean"
    activation: str | Callable[[Any], Any] = "gelu"
    normalization: str | None = "layer"
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> Any:
        """Map sequences to outputs.

        Args:
          inputs: Integer tokens, shape ``(examples, length)``; or real, shape ``(examples, length, features)``, or
            ``(examples, length)`` for one feature.
          train: Whether dropout is active and batch statistics are updated.

        Returns:
          Outputs, shape ``(examples, num_outputs)``.

        Raises:
          ValueError: Inputs that are not sequences, or do not fit ``vocabulary_size``, ``padding`` or ``max_length``.
        """
        num_outputs = _checked_num_outputs(self.num_outputs)
        self._check_inputs(inputs)
        is_there = jnp.ones(inputs.shape[:2], bool) if self.padding is None else inputs != self.padding
        mask = None if self.padding is None else is_there
        hidden = self._embedded(inputs)
        hidden = Dropout(self.dropout_rate)(hidden, deterministic=not train)
        for _ in range(self.num_layers):
            attended = _normalized(self.normalization, hidden, train, mask)
            attended = nn.MultiHeadDotProductAttention(self.num_heads)(
                attended, attended, mask=None if mask is None else mask[:, None, None, :]
            )
            hidden += Dropout(self.dropout_rate)(attended, deterministic=not train)
            mapped = _normalized(self.normalization, hidden, train, mask)
            mapped = nn.Dense(4 * self.width if self.mlp_width is None else self.mlp_width)(mapped)
            mapped = nn.Dense(self.width)(activation_function(self.activation)(mapped))
            hidden += Dropout(self.dropout_rate)(mapped, deterministic=not train)
        hidden = _normalized(self.normalization, hidden, train, mask)
        if self.pooling == "first":
            return nn.Dense(num_outputs)(hidden[:, 0])
        weights = is_there[..., None].astype(hidden.dtype)
        return nn.Dense(num_outputs)((weights * hidden).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1))

    def _embedded(self, inputs: Any) -> Any:
        if self.vocabulary_size is not None:
            hidden = nn.Embed(self.vocabulary_size, self.width)(inputs)
        else:
            features = inputs[..., None] if inputs.ndim == 2 else inputs
            hidden = nn.Dense(self.width)(features)
        length = inputs.shape[1]
        shape = length if self.max_length is None else self.max_length, self.width
        positions = self.param("position_embedding", nn.initializers.normal(0.02), shape)
        return hidden + positions[:length].astype(hidden.dtype)

    @nn.nowrap
    def _check_inputs(self, inputs: Any) -> None:
        shape, is_integer = _per_example(inputs.shape), jnp.issubdtype(inputs.dtype, jnp.integer)
        if inputs.ndim not in (2, 3):
            raise ValueError(
                f"inputs have shape {shape}, and models.Transformer takes sequences, (examples, length) or (examples, "
                "length, features); reshape them."
            )
        if self.vocabulary_size is None and is_integer and inputs.ndim == 2:
            raise ValueError(
                f"inputs are integers of shape {shape}, so tokens, and model.vocabulary_size is None; give the number "
                "of tokens, or convert the inputs to floats."
            )
        if self.vocabulary_size is not None and not (is_integer and inputs.ndim == 2):
            raise ValueError(
                f"inputs have dtype {inputs.dtype} and shape {shape}, and model.vocabulary_size is "
                f"{self.vocabulary_size}: tokens are integers of shape (examples, length); convert the inputs (give "
                "tokens=True to wd.data.split and wd.data.folds), or give vocabulary_size=None."
            )
        if self.max_length is not None and inputs.shape[1] > self.max_length:
            raise ValueError(
                f"inputs have shape {shape}, and model.max_length is {self.max_length}; give a max_length of "
                f"{inputs.shape[1]} at least, or shorten the sequences."
            )


OWN = (MLP, CNN, Transformer)
"""Classes whose fields `check` validates."""


def activation_function(activation: str | Callable[[Any], Any], *, argument: str = "activation") -> Any:
    """Look up an activation function by its name.

    Args:
      activation: A name in `ACTIVATIONS`, or a function, which is returned unchanged.
      argument: Name of the argument, for the message.

    Returns:
      The function.

    Raises:
      TypeError: Neither a string nor a function.
      ValueError: An unknown name.
    """
    known = ", ".join(ACTIVATIONS)
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ArgumentError(
                argument,
                f"{argument} is {activation!r}; give one of {known}, or a function."
                f"{suggestion(activation, ACTIVATIONS)}",
            )
        return ACTIVATIONS[activation]
    if not callable(activation):
        raise ArgumentTypeError(
            argument,
            f"{argument} is {activation!r}; give a function of an array, such as jax.nn.relu, or one of {known}.",
        )
    return activation


def check(model: Any) -> None:
    """Validate the fields of a model.

    Args:
      model: An instance of one of `OWN`.

    Raises:
      TypeError: A field of the wrong type.
      ValueError: A field out of range, an unknown name, or padding without tokens.
    """
    for name in ("features", "hidden"):
        if hasattr(model, name):
            _check_widths(name, getattr(model, name))
    for name in ("num_layers", "width", "num_heads"):
        if hasattr(model, name):
            checks.integer(getattr(model, name), f"model.{name}", at_least=1)
    for name in ("num_outputs", "mlp_width", "vocabulary_size", "max_length"):
        if getattr(model, name, None) is not None:
            checks.integer(getattr(model, name), f"model.{name}", at_least=1)
    activation_function(model.activation, argument="model.activation")
    checks.one_of(model.normalization, "model.normalization", _NORMALIZATIONS)
    if not isinstance(model.dropout_rate, np.ndarray | jax.Array):
        checks.number(
            model.dropout_rate, "model.dropout_rate", at_least=0, at_most=1, allowed="a number in [0, 1], such as 0.1"
        )
    if isinstance(model, Transformer):
        _check_transformer(model)


def _check_transformer(model: Transformer) -> None:
    if model.width % model.num_heads:
        raise ValueError(
            f"model.width is {model.width}; give a multiple of model.num_heads, which is {model.num_heads}."
        )
    checks.one_of(model.pooling, "model.pooling", ("mean", "first"))
    if model.padding is None:
        return
    checks.integer(model.padding, "model.padding", allowed="a token, such as 0, or None")
    if model.vocabulary_size is None:
        raise ValueError(
            f"model.padding is {model.padding}, a token, and model.vocabulary_size is None; give the number of tokens, "
            "or padding=None for real inputs."
        )


def _check_widths(name: str, widths: Any) -> None:
    if isinstance(widths, str) or not isinstance(widths, Sequence | np.ndarray):
        layer = "hidden layer, such as (64, 64)" if name == "hidden" else "block, such as (16, 32)"
        raise ArgumentTypeError(f"model.{name}", f"model.{name} is {widths!r}; give one width per {layer}, or ().")
    for index, width in enumerate(widths):
        checks.integer(width, f"model.{name}[{index}]", at_least=1)


def _checked_num_outputs(num_outputs: int | None) -> int:
    if num_outputs is None:
        raise ValueError("num_outputs is None; give it, or let training take it from the data.")
    return num_outputs


def _dense_layers(model: MLP | CNN, hidden: Any, train: bool) -> Any:
    """Outputs of the hidden dense layers of a model; the layers belong to the calling module."""
    for width in model.hidden:
        hidden = nn.Dense(width)(hidden)
        hidden = _normalized(model.normalization, hidden, train)
        hidden = activation_function(model.activation)(hidden)
        hidden = Dropout(model.dropout_rate)(hidden, deterministic=not train)
    return hidden


def _normalized(normalization: str | None, hidden: Any, train: bool, mask: Any = None) -> Any:
    """Outputs of a normalization layer, which belongs to the calling module.

    Running averages have a momentum of 0.9, as in torch. With the default of flax, 0.99, the evaluation of a short run
    would depend on its first steps.
    """
    if normalization == "batch":
        layer = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        return layer(hidden, mask=None if mask is None else mask[..., None])
    return nn.LayerNorm()(hidden) if normalization == "layer" else hidden


def _per_example(shape: Sequence[int]) -> str:
    return f"({', '.join(['examples', *map(str, shape[1:])])})"
