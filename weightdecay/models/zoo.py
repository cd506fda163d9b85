"""Models of our own, flax linen modules: `MLP`, `CNN`, `Transformer`, and a `Dropout` layer whose rate may be traced.

Each takes the activation function as a word, so that a grid may hold it, and the axis ``dropout_rate`` of a grid sets
the rate of all its dropout layers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

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
"""Activation functions by the words that fields and grids hold; ``gelu`` is exact, ``gelu_tanh`` flax's own default."""

_NORMALIZATIONS = (None, "batch", "layer")


class Dropout(nn.Dropout):
    """Dropout layer whose rate may be an array, traced or not; all else is as in flax's ``nn.Dropout``.

    Attributes:
      rate: Probability of a zero, in [0, 1], shape ``()``; may be traced. At 0 the inputs come out as they are.
      broadcast_dims: Axes along which all entries share their fate.
      deterministic: Whether nothing is dropped; here or in the call.
      rng_collection: The random stream.

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

    Each hidden layer is a dense layer, its normalization, the activation function and dropout. With the defaults it is
    dense layers with ``relu`` between them.

    Attributes:
      hidden: Width of each hidden layer.
      num_outputs: Width of the last layer; None takes it from the data when training starts.
      activation: A word of `ACTIVATIONS`, or a function of an array.
      normalization: ``"batch"``, ``"layer"`` or None.
      dropout_rate: In [0, 1]; an axis ``dropout_rate`` of a grid goes before it.
    """

    hidden: Sequence[int] = (64, 64)
    num_outputs: int | None = None
    activation: str | Callable[[Any], Any] = "relu"
    normalization: str | None = None
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> Any:
        """Map a batch, shape ``(examples, ...)``, to outputs, shape ``(examples, num_outputs)``."""
        num_outputs = _given(self.num_outputs)
        hidden = _dense_layers(self, inputs.reshape(inputs.shape[0], -1), train)
        return nn.Dense(num_outputs)(hidden)


class CNN(nn.Module):
    """Convolutional network: blocks of a 3x3 convolution and 2x2 max-pooling, then dense layers.

    Each block is a convolution that keeps height and width, its normalization, the activation function, and pooling
    that halves both. Dropout stands before every dense layer.

    Attributes:
      features: Channels of each block.
      hidden: Width of each hidden dense layer.
      num_outputs: Width of the last layer; None takes it from the data when training starts.
      activation: A word of `ACTIVATIONS`, or a function of an array.
      normalization: ``"batch"``, ``"layer"`` (over the channels) or None.
      dropout_rate: In [0, 1]; an axis ``dropout_rate`` of a grid goes before it.
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
          train: Whether dropout and batch statistics act.

        Returns:
          Outputs, shape ``(examples, num_outputs)``.

        Raises:
          ValueError: Inputs that are no images, or too small for so many blocks.
        """
        num_outputs = _given(self.num_outputs)
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
                f"and width, which take {smallest} x {smallest} at least; give model.features fewer entries."
            )
        return inputs


class Transformer(nn.Module):
    """Transformer that maps a sequence to one output: encoder blocks that normalize first, then the mean over places.

    Integers are tokens and are embedded; real inputs are projected. Positions have an embedding that is learned. A
    block adds to what stands at a place first attention over all places, then a perceptron of one hidden layer, each
    taken of the normalized. Dropout stands behind the embedding, the attention and the perceptron.

    Attributes:
      num_layers: Blocks.
      width: Of what stands at a place; a multiple of ``num_heads``.
      num_heads: Of the attention.
      mlp_width: Hidden width of a block's perceptron; None = 4 times ``width``.
      num_outputs: Width of the last layer; None takes it from the data when training starts.
      vocabulary_size: Tokens are 0 to ``vocabulary_size - 1``; needed for tokens, None for real inputs. A token beyond
        gives nan.
      max_length: Most places; None = as many as all inputs have.
      padding: Token that fills up short sequences: nothing attends to it, and it is left out of the mean. None = none.
      pooling: ``"mean"`` over the places, or ``"first"``, the first place alone.
      activation: A word of `ACTIVATIONS`, or a function of an array.
      normalization: ``"layer"``, ``"batch"`` (over examples and places, padding left out) or None.
      dropout_rate: In [0, 1]; an axis ``dropout_rate`` of a grid goes before it.

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
          inputs: Tokens, integers, shape ``(examples, length)``; or real, shape ``(examples, length, features)``, or
            ``(examples, length)`` for one feature.
          train: Whether dropout and batch statistics act.

        Returns:
          Outputs, shape ``(examples, num_outputs)``.

        Raises:
          ValueError: Inputs that are no sequences, or do not fit ``vocabulary_size``, ``padding`` or ``max_length``.
        """
        num_outputs = _given(self.num_outputs)
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
        shape, whole = _per_example(inputs.shape), jnp.issubdtype(inputs.dtype, jnp.integer)
        if inputs.ndim not in (2, 3):
            raise ValueError(
                f"inputs have shape {shape}, and models.Transformer takes sequences, (examples, length) or (examples, "
                "length, features); reshape them."
            )
        if self.vocabulary_size is None and whole and inputs.ndim == 2:
            raise ValueError(
                f"inputs are integers of shape {shape}, so tokens, and model.vocabulary_size is None; give the number "
                "of tokens, or convert the inputs to floats."
            )
        if self.vocabulary_size is not None and not (whole and inputs.ndim == 2):
            raise ValueError(
                f"inputs have dtype {inputs.dtype} and shape {shape}, and model.vocabulary_size is "
                f"{self.vocabulary_size}: tokens are integers of shape (examples, length); convert the inputs, or give "
                "vocabulary_size=None."
            )
        if self.max_length is not None and inputs.shape[1] > self.max_length:
            raise ValueError(
                f"inputs have shape {shape}, and model.max_length is {self.max_length}; give a max_length of "
                f"{inputs.shape[1]} at least, or cut the sequences."
            )


OWN = (MLP, CNN, Transformer)
"""Classes that `check` knows."""


def activation_function(activation: str | Callable[[Any], Any], *, argument: str = "activation") -> Any:
    """Activation function that a word stands for.

    Args:
      activation: A word of `ACTIVATIONS`, or a function, which comes back as it is.
      argument: Where it was given, for the error message.

    Returns:
      The function.

    Raises:
      TypeError: Neither a word nor a function.
      ValueError: An unknown word.
    """
    known = ", ".join(ACTIVATIONS)
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{argument} is {activation!r}, which is none of {known}; give one of them, or a function."
            )
        return ACTIVATIONS[activation]
    if not callable(activation):
        raise TypeError(
            f"{argument} is {activation!r}; give a function of an array, such as jax.nn.relu, or one of {known}."
        )
    return activation


def check(model: Any) -> None:
    """Refuse fields that make no network.

    Args:
      model: One of `OWN`.

    Raises:
      TypeError: A field of the wrong type.
      ValueError: A field out of its range, an unknown word, or padding without tokens.
    """
    for name in ("features", "hidden"):
        if hasattr(model, name):
            _check_widths(name, getattr(model, name))
    for name in ("num_layers", "width", "num_heads"):
        if hasattr(model, name):
            _check_width(name, getattr(model, name))
    for name in ("num_outputs", "mlp_width", "vocabulary_size", "max_length"):
        if getattr(model, name, None) is not None:
            _check_width(name, getattr(model, name))
    activation_function(model.activation, argument="model.activation")
    if model.normalization not in _NORMALIZATIONS:
        raise ValueError(f'model.normalization is {model.normalization!r}; give "batch", "layer" or None.')
    rate = model.dropout_rate
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number | np.ndarray | jax.Array):
        raise TypeError(f"model.dropout_rate is {rate!r}; give a number in [0, 1], such as 0.1.")
    if isinstance(rate, int | float | np.number) and not 0 <= rate <= 1:
        raise ValueError(f"model.dropout_rate is {rate}; give a number in [0, 1], such as 0.1.")
    if isinstance(model, Transformer):
        _check_transformer(model)


def _check_transformer(model: Transformer) -> None:
    if model.width % model.num_heads:
        raise ValueError(
            f"model.width is {model.width}, no multiple of model.num_heads, {model.num_heads}; give one that is."
        )
    if model.pooling not in ("mean", "first"):
        raise ValueError(f'model.pooling is {model.pooling!r}; give "mean" or "first".')
    if model.padding is None:
        return
    if isinstance(model.padding, bool) or not isinstance(model.padding, int | np.integer):
        raise TypeError(f"model.padding is {model.padding!r}; give a token, such as 0, or None.")
    if model.vocabulary_size is None:
        raise ValueError(
            f"model.padding is {model.padding}, a token, and model.vocabulary_size is None; give the number of tokens, "
            "or padding=None for real inputs."
        )


def _check_widths(name: str, widths: Any) -> None:
    if isinstance(widths, str) or not isinstance(widths, Sequence | np.ndarray):
        layer = "hidden layer, such as (64, 64)" if name == "hidden" else "block, such as (16, 32)"
        raise TypeError(f"model.{name} is {widths!r}; give a width a {layer}, or () for none.")
    for place, width in enumerate(widths):
        _check_width(f"{name}[{place}]", width)


def _check_width(name: str, width: Any) -> None:
    if isinstance(width, bool) or not isinstance(width, int | np.integer):
        raise TypeError(f"model.{name} is {width!r}; give a whole number of at least 1.")
    if width < 1:
        raise ValueError(f"model.{name} is {width}; give a whole number of at least 1.")


def _given(num_outputs: int | None) -> int:
    if num_outputs is None:
        raise ValueError("num_outputs is None; give it, or let training take it from the data.")
    return num_outputs


def _dense_layers(model: MLP | CNN, hidden: Any, train: bool) -> Any:
    """Outputs of a model's hidden dense layers; they become layers of the module that calls."""
    for width in model.hidden:
        hidden = nn.Dense(width)(hidden)
        hidden = _normalized(model.normalization, hidden, train)
        hidden = activation_function(model.activation)(hidden)
        hidden = Dropout(model.dropout_rate)(hidden, deterministic=not train)
    return hidden


def _normalized(normalization: str | None, hidden: Any, train: bool, mask: Any = None) -> Any:
    """Outputs of a normalization layer, which becomes a layer of the module that calls.

    Running averages keep 9 tenths at a step, as torch's do: with flax's own 99 hundredths, a short run would be judged
    by its first steps.
    """
    if normalization == "batch":
        layer = nn.BatchNorm(use_running_average=not train, momentum=0.9)
        return layer(hidden, mask=None if mask is None else mask[..., None])
    return nn.LayerNorm()(hidden) if normalization == "layer" else hidden


def _per_example(shape: Sequence[int]) -> str:
    return f"({', '.join(['examples', *map(str, shape[1:])])})"
