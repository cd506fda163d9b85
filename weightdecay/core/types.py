"""The words that signatures are written in: what a weight, a coefficient, a mask or a loss is.

Shapes are checked by beartype in the tests alone; at run time these names cost nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray, PyTree

Params: TypeAlias = PyTree
"""Weights: any pytree of float arrays."""

ModelState: TypeAlias = PyTree
"""What a network carries beside its weights and does not differentiate (batch statistics)."""

Scalar: TypeAlias = float | int | np.number | Float[Array | np.ndarray, ""] | Int[Array | np.ndarray, ""]
"""A real number, shape ``()``: a Python or NumPy number, or a (traced) array."""

Integer: TypeAlias = int | np.integer
"""A whole number: a Python or a NumPy one."""

Schedule: TypeAlias = Callable[[Any], Any]
"""A number as a function of the step, ``schedule(count) -> scalar``, as optax has them."""

Coefficient: TypeAlias = Any
"""A `Scalar`, a pytree prefix of the weights with a `Scalar` a leaf, or a `Schedule`; may be traced."""

Mask: TypeAlias = PyTree
"""A pytree prefix of the weights with a bool a leaf; True = this weight decays."""

MaskFn: TypeAlias = Callable[[Params], Mask]

Key: TypeAlias = PRNGKeyArray

Device: TypeAlias = Any
"""A `jax.Device`."""

LossFn: TypeAlias = Callable[[Any, Any], Any]
"""``loss_fn(outputs, targets) -> losses`` with one loss an example, shape ``(examples,)``."""


class Batch(NamedTuple):
    """Some examples of a data set; a plain ``(inputs, targets)`` pair serves as well."""

    inputs: Any  # (examples, ...)
    targets: Any  # (examples, ...)
    weights: Any = None  # of their losses, (examples,), mean 1 over a split; None = all alike
    fold: Any = None  # in which each validates, int32, (examples,); None = no folds
