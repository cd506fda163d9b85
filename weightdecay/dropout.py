"""Dropout with a traced rate, so that members that differ in the rate share a compiled program."""

from typing import Any

import jax
import jax.numpy as jnp

from weightdecay.types import Key

AXIS = "dropout_rate"
"""Name of the axis of a grid, and of a network's traced number."""


def drop(inputs: Any, rate: Any, key: Key, broadcast_dims: Any = ()) -> Any:
    """Set entries to zero at random, and divide the others by the share that is kept.

    The numbers are those of ``flax.linen.Dropout`` and ``flax.nnx.Dropout`` with the same rate and key, bit for bit; a
    rate of 0 gives the inputs, bit for bit.

    Args:
      inputs: Float array of any shape.
      rate: Probability of a zero, in [0, 1], shape ``()``; may be traced.
      key: Of the mask.
      broadcast_dims: Axes along which all entries share their fate.

    Returns:
      Array of the shape and dtype of ``inputs``.
    """
    shape = list(inputs.shape)
    for dim in broadcast_dims:
        shape[dim] = 1
    rate = jnp.asarray(rate, jnp.float32)
    keep_prob = 1 - rate
    kept = jnp.broadcast_to(jax.random.bernoulli(key, p=keep_prob, shape=shape), inputs.shape)
    # Where nothing is kept, the gradient would be 0 / 0.
    divisor = jnp.where(keep_prob > 0, keep_prob, 1).astype(inputs.dtype)
    return jnp.where(kept, inputs / divisor, jnp.zeros_like(inputs))
