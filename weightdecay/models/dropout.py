"""Dropout with a traced rate, so that members that differ in the rate share a compiled program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from weightdecay.core.types import Key

AXIS = "dropout_rate"
"""Axis of a grid that sets the rate of every dropout layer of a network."""


def drop(inputs: Any, rate: Any, key: Key, broadcast_dims: Sequence[int] = ()) -> Any:
    """Set entries to zero at random, and divide the others by the share that is kept.

    ``inputs * kept / (1 - rate)``, where each of ``kept`` is 1 with probability ``1 - rate`` and 0 otherwise.

    Args:
      inputs: Float array of any shape.
      rate: Probability of a zero, in [0, 1], shape ``()``; may be traced.
      key: Of the mask.
      broadcast_dims: Axes along which all entries share their fate.

    Returns:
      Array of the shape and dtype of ``inputs``.

    Numerics:
      The numbers of flax's own dropout layers with the same rate and key, bit for bit. A rate of 0 gives the inputs,
      bit for bit; a rate of 1 gives zeros, with gradients of zero.
    """
    shape = list(inputs.shape)
    for dim in broadcast_dims:
        shape[dim] = 1
    keep_prob = 1 - rate
    kept = jnp.broadcast_to(jax.random.bernoulli(key, p=keep_prob, shape=shape), inputs.shape)
    # Where nothing is kept, the gradient would be 0 / 0. The inputs' dtype holds beside a rate of another one.
    divisor = jnp.where(keep_prob > 0, keep_prob, 1).astype(inputs.dtype)
    return jnp.where(kept, inputs / divisor, jnp.zeros_like(inputs))


def no_layer() -> ValueError:
    """Return the error for a network without dropout whose rate is to be set."""
    return ValueError(
        f"grid has an axis {AXIS!r}, but no dropout layer was met in the model; give it one, such as "
        "wd.models.Dropout(0.0)(hidden, deterministic=not train), flax's nn.Dropout or equinox's; a layer that the "
        "model leaves out at rate 0 is none. Or take the axis out of the grid."
    )


def inside_attention(layer: str) -> ValueError:
    """Return the error for attention that drops weights by itself, at a rate that cannot be traced."""
    return ValueError(
        f"grid has an axis {AXIS!r}, but {layer} drops attention weights at a rate of its own, which flax does not let "
        "be set by an array; give it dropout_rate=0.0, and put a dropout layer behind it."
    )
