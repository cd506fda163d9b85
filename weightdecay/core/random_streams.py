"""The random streams of a member: one stream for each purpose, all from the member's own seed.

A key follows from the seed and the purpose alone, and not from a member's position in a grid. Members that differ only
in the decay therefore have the same initial weights and the same batches. The keys have an explicit implementation:
with others, such as ``"rbg"``, the numbers of a member depend on the members that are computed next to it.
"""

from typing import Any

import jax
from jax import Array
from jaxtyping import Int

from weightdecay.core.types import Key

IMPLEMENTATION = "threefry2x32"
"""Implementation of all keys, whatever ``jax_default_prng_impl`` is."""

INITIAL_WEIGHTS = 0
BATCHES = 1
FORWARD_PASS = 2
AUGMENTATION = 3
MIXUP = 4


def constant_key() -> Key:
    """Key that is the same for all members, for random numbers that decide nothing.

    Returns:
      A key, shape ``()``.
    """
    return jax.random.key(0, impl=IMPLEMENTATION)


def key(seed: Any, stream: int) -> Key:
    """Key of one stream of a member.

    Args:
      seed: The member's, shape ``()``; may be traced.
      stream: A constant of this module.

    Returns:
      A key, shape ``()``.
    """
    return jax.random.fold_in(jax.random.fold_in(constant_key(), seed), stream)


def epoch_order(seed: Any, epoch: Any, *, num_examples: int) -> Int[Array, " examples"]:
    """Order of the training examples in an epoch, which depends on the seed and the epoch alone.

    Args:
      seed: The member's, shape ``()``; may be traced.
      epoch: Counted from 0, shape ``()``; may be traced.
      num_examples: Number of training examples.

    Returns:
      Indices of the examples, int32, shape ``(num_examples,)``.
    """
    with jax.threefry_partitionable(True):  # the same order in every thread
        order = jax.random.permutation(jax.random.fold_in(key(seed, BATCHES), epoch), num_examples)
    return order.astype("int32")
