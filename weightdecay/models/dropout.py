"""Dropout with a traced rate, so that members that differ in the rate share a compiled program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from weightdecay.core.types import Key

AXIS = "dropout_rate"
"""Axis of a grid that sets the rate of every dropout layer of a network."""


def drop(inputs: Any, rate: Any, key: Key, broadcast_dims: Sequence[int] = ()) -> Any:
    """Set random entries to zero, and divide the others by the fraction that is kept.

    ``inputs * kept / (1 - rate)``, where each entry of ``kept`` is 1 with probability ``1 - rate`` and 0 otherwise.

    Args:
      inputs: Float array of any shape.
      rate: Probability of a zero, in [0, 1], shape ``()``; may be traced.
      key: Random key of ``kept``.
      broadcast_dims: Axes along which ``kept`` is constant.

    Returns:
      Array of the shape and dtype of ``inputs``.

    Numerics:
      The same bits as flax's own dropout layers with the same rate and key. A rate of 0 returns the bits of the inputs;
      a rate of 1 returns zeros, with gradients of zero.
    """
    shape = list(inputs.shape)
    for dim in broadcast_dims:
        shape[dim] = 1
    keep_prob = 1 - rate
    kept = jnp.broadcast_to(jax.random.bernoulli(key, p=keep_prob, shape=shape), inputs.shape)
    # Where nothing is kept, the gradient would be 0 / 0. The result has the dtype of the inputs.
    divisor = jnp.where(keep_prob > 0, keep_prob, 1).astype(inputs.dtype)
    return jnp.where(kept, inputs / divisor, jnp.zeros_like(inputs))


def no_layer() -> ValueError:
    """Return the error for a network without dropout whose rate is to be set."""
    return ValueError(
        f"grid has an axis {AXIS!r}, but the model called no dropout layer; add one, such as "
        "wd.models.Dropout(0.0)(hidden, deterministic=not train), nn.Dropout of flax or that of equinox (a layer that "
        "the model skips at rate 0 does not count), or remove the axis from the grid."
    )


def inside_attention(layer: str) -> ValueError:
    """Return the error for an attention layer with dropout of its own, whose rate cannot be traced."""
    return ValueError(
        f"grid has an axis {AXIS!r}, but {layer} drops attention weights at its own rate, which flax does not allow to "
        "be an array; give it dropout_rate=0.0, and add a dropout layer after it."
    )
