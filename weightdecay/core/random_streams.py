"""The random streams of a member: one stream a purpose, all from the member's own seed.

A key follows from the seed and the purpose alone, never from a member's position in a grid, so that members that differ
in the decay start at the same weights and see the same batches.
"""

from typing import Any

import jax
from jax import Array
from jaxtyping import Int

from weightdecay.core.types import Key

INITIAL_WEIGHTS = 0
BATCHES = 1
FORWARD_PASS = 2
AUGMENTATION = 3
MIXUP = 4


def key(seed: Any, stream: int) -> Key:
    """Key of one of a member's streams.

    Args:
      seed: The member's, shape ``()``; may be traced.
      stream: One of this module's constants.

    Returns:
      A key, shape ``()``.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), stream)


def epoch_order(seed: Any, epoch: Any, *, num_examples: int) -> Int[Array, " examples"]:
    """Order in which an epoch shows the training examples; it depends on the seed and the epoch alone.

    Args:
      seed: The member's, shape ``()``; may be traced.
      epoch: Counted from 0, shape ``()``; may be traced.
      num_examples: Training examples.

    Returns:
      Indices of the examples, int32, shape ``(num_examples,)``.
    """
    order = jax.random.permutation(jax.random.fold_in(key(seed, BATCHES), epoch), num_examples)
    return order.astype("int32")
