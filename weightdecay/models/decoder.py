"""`Decoder`: a causal transformer that predicts the next token at each position, flax linen."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError
from weightdecay.models.zoo import Dropout, activation_function

_ROTARY_BASE = 10_000.0
_POSITIONS = ("rotary", "learned")


class Decoder(nn.Module):
    """Decoder that predicts the next token at each position from the tokens up to it.

    Tokens are embedded. Each block adds causal attention, then a perceptron with one hidden layer, both applied to
    normalized activations; after the last block comes one more normalization. The logits of a position are a dense
    layer of its activations, or, with ``tied``, their products with the embeddings of all tokens. Dropout comes after
    the embedding, the attention and the perceptron.

    With the default mask the kernels decay, and the embeddings do not, whether they are tied or not.

    Attributes:
      num_layers: Number of blocks.
      width: Size of the activations at a position; a multiple of ``num_heads``.
      num_heads: Attention heads; with rotary positions the width of a head, ``width / num_heads``, is even.
      mlp_width: Hidden width of the perceptron of a block; None = 4 times ``width``.
      num_outputs: Size of the vocabulary: tokens are 0 to ``num_outputs - 1``, and a larger token gives nan. None =
        taken from the data when training starts.
      positions: ``"rotary"``: the queries and the keys are rotated by angles in proportion to their position; or
        ``"learned"``: an embedding of each position is added to that of the token.
      max_length: Maximum number of positions with learned ones; None = the length of the inputs.
      tied: Whether the embeddings of the tokens are the weights of the logits as well.
      activation: A name in `weightdecay.models.ACTIVATIONS`, or a function of an array.
      dropout_rate: In [0, 1]; an axis ``dropout_rate`` of a grid overrides it.

    References:
      Radford et al., Language Models are Unsupervised Multitask Learners, 2019. Su et al., RoFormer: Enhanced
      Transformer with Rotary Position Embedding, 2021, arXiv:2104.09864. Press & Wolf, Using the Output Embedding to
      Improve Language Models, 2017, arXiv:1608.05859.
    """

    num_layers: int = 2
    width: int = 64
    num_heads: int = 4
    mlp_width: int | None = None
    num_outputs: int | None = None
    positions: str = "rotary"
    max_length: int | None = None
    tied: bool = True
    activation: str | Callable[[Any], Any] = "gelu"
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs: Any, train: bool = False) -> Any:
        """Map tokens to the logits of the next ones.

        Args:
          inputs: Integer tokens, shape ``(examples, length)``.
          train: Whether dropout is active.

        Returns:
          Logits, shape ``(examples, length, num_outputs)``; those of a position depend on no later token.

        Raises:
          ValueError: Inputs that are not integers of two dimensions, or more positions than ``max_length``.
        """
        self._check_inputs(inputs)
        assert self.num_outputs is not None
        embedding = nn.Embed(self.num_outputs, self.width)
        hidden = embedding(inputs.astype(jnp.int32))
        if self.positions == "learned":
            hidden = hidden + self._position_embedding(inputs.shape[1]).astype(hidden.dtype)
        hidden = Dropout(self.dropout_rate)(hidden, deterministic=not train)
        for _ in range(self.num_layers):
            attended = CausalAttention(self.num_heads, rotary=self.positions == "rotary")(nn.LayerNorm()(hidden))
            hidden += Dropout(self.dropout_rate)(attended, deterministic=not train)
            mapped = nn.Dense(4 * self.width if self.mlp_width is None else self.mlp_width)(nn.LayerNorm()(hidden))
            mapped = nn.Dense(self.width)(activation_function(self.activation)(mapped))
            hidden += Dropout(self.dropout_rate)(mapped, deterministic=not train)
        hidden = nn.LayerNorm()(hidden)
        return embedding.attend(hidden) if self.tied else nn.Dense(self.num_outputs)(hidden)

    def _position_embedding(self, length: int) -> Any:
        shape = length if self.max_length is None else self.max_length, self.width
        return self.param("position_embedding", nn.initializers.normal(0.02), shape)[:length]

    @nn.nowrap
    def _check_inputs(self, inputs: Any) -> None:
        if self.num_outputs is None:
            raise ValueError("num_outputs is None; give it, or let training take it from the data.")
        if inputs.ndim != 2 or not jnp.issubdtype(inputs.dtype, jnp.integer):
            shape = ", ".join(["examples", *map(str, inputs.shape[1:])])
            raise ValueError(
                f"inputs have dtype {inputs.dtype} and shape ({shape}), and models.Decoder takes tokens, integers of "
                "shape (examples, length), such as wd.data.tokens(source, length=64)."
            )
        if self.positions == "learned" and self.max_length is not None and inputs.shape[1] > self.max_length:
            raise ValueError(
                f"inputs have {inputs.shape[1]} positions, and model.max_length is {self.max_length}; give a "
                f"max_length of {inputs.shape[1]} at least, or shorten the windows."
            )


class CausalAttention(nn.Module):
    """Attention of each position to itself and the earlier ones.

    Attributes:
      num_heads: Number of heads.
      rotary: Whether queries and keys are rotated by their positions.
    """

    num_heads: int
    rotary: bool = True

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        """Map activations, shape ``(examples, length, width)``, to others of the same shape."""
        length, width = inputs.shape[1:]
        heads = self.num_heads, width // self.num_heads
        query, key, value = (nn.DenseGeneral(heads, name=name)(inputs) for name in ("query", "key", "value"))
        if self.rotary:
            query, key = rotated(query), rotated(key)
        mask = jnp.tril(jnp.ones((length, length), bool))
        attended = nn.dot_product_attention(query, key, value, mask=mask)
        return nn.DenseGeneral(width, axis=(-2, -1), name="out")(attended)


def rotated(features: Any) -> Any:
    """Rotate pairs of features by angles in proportion to the position.

    The pair of the features ``i`` and ``i + width / 2`` at position ``p`` is rotated by ``p / 10000^(2i / width)``
    radians. The product of a rotated query and a rotated key depends on their positions through the distance alone.

    Args:
      features: Shape ``(examples, length, heads, width)``; the width of a head is even.

    Returns:
      The same shape and dtype.

    References:
      Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, arXiv:2104.09864.
    """
    length, width = features.shape[1], features.shape[-1]
    frequencies = _ROTARY_BASE ** (-np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None, None] * frequencies
    cos, sin = (jnp.asarray(of_angle, features.dtype) for of_angle in (np.cos(angles), np.sin(angles)))
    first, second = jnp.split(features, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def check(model: Decoder) -> None:
    """Validate the fields of a decoder.

    Args:
      model: The decoder.

    Raises:
      TypeError: A field of the wrong type.
      ValueError: A field out of range, or an unknown name.
    """
    for name in ("num_layers", "width", "num_heads"):
        checks.integer(getattr(model, name), f"model.{name}", at_least=1)
    for name in ("mlp_width", "num_outputs", "max_length"):
        if getattr(model, name) is not None:
            checks.integer(getattr(model, name), f"model.{name}", at_least=1)
    checks.one_of(model.positions, "model.positions", _POSITIONS)
    checks.one_of(model.tied, "model.tied", (True, False))
    activation_function(model.activation, argument="model.activation")
    if not isinstance(model.dropout_rate, np.ndarray | jax.Array):
        checks.number(
            model.dropout_rate, "model.dropout_rate", at_least=0, at_most=1, allowed="a number in [0, 1], such as 0.1"
        )
    per_head, rest = divmod(model.width, model.num_heads)
    if rest:
        raise ArgumentError(
            "model.width",
            f"model.width is {model.width}; give a multiple of model.num_heads, which is {model.num_heads}.",
        )
    if model.positions == "rotary" and per_head % 2:
        raise ArgumentError(
            "model.num_heads",
            f"model.num_heads is {model.num_heads} for a width of {model.width}, so that a head is {per_head} wide; "
            "rotary positions need an even number, or give positions='learned'.",
        )
