"""Types of signatures: weights, coefficients, masks, losses, batches.

Only the tests check shapes, by beartype; at run time these names cost nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

Params: TypeAlias = PyTree
"""Weights: any pytree of float arrays."""

ModelState: TypeAlias = PyTree
"""Arrays that a network carries in addition to its weights and does not differentiate, such as batch statistics."""

Scalar: TypeAlias = float | int | np.number | Float[Array | np.ndarray, ""] | Int[Array | np.ndarray, ""]
"""A real number, shape ``()``: a Python or NumPy number, or a (traced) array."""

Integer: TypeAlias = int | np.integer
"""An integer of Python or NumPy."""

Schedule: TypeAlias = Callable[[Any], Any]
"""A number as a function of the step, ``schedule(count) -> scalar``, as in optax."""

Coefficient: TypeAlias = Any
"""A `Scalar`, a pytree prefix of the weights with one `Scalar` per leaf, or a `Schedule`; may be traced."""

Mask: TypeAlias = PyTree
"""A pytree prefix of the weights with one boolean per leaf; True = this weight decays."""

MaskFn: TypeAlias = Callable[[Params], Mask]

Key: TypeAlias = PRNGKeyArray

Device: TypeAlias = Any
"""A `jax.Device`."""

LossFn: TypeAlias = Callable[[Any, Any], Any]
"""``loss_fn(outputs, targets) -> losses`` with one loss per example, shape ``(examples,)``, or with several of them for
the positions of an example, shape ``(examples, ...)``."""


class Batch(NamedTuple):
    """Examples of a data set. A plain pair ``(inputs, targets)`` works too."""

    inputs: Any  # (examples, ...)
    targets: Any  # (examples, ...)
    weights: Any = None  # of the losses, (examples,), mean 1 over a split; None = equal weights
    fold: Any = None  # fold in which each example validates, int32, (examples,); None = no folds

    @property
    def num_examples(self) -> int:
        """Number of examples, which is the first axis of every array."""
        return jax.tree.leaves(self.inputs)[0].shape[0]

    def first(self) -> "Batch":
        """Return the first example."""
        return jax.tree.map(lambda array: array[:1], self)
