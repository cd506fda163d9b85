"""Arrays of numbers out of what people have."""

from typing import Any

import numpy as np


def as_inputs(inputs: Any) -> np.ndarray:
    """Inputs as an array of numbers.

    Args:
      inputs: What a user gave.

    Returns:
      The array, shape ``(examples, ...)``.
    """
    return np.asarray(inputs)


def as_targets(targets: Any) -> np.ndarray:
    """Targets as an array of numbers; words become classes.

    Args:
      targets: What a user gave.

    Returns:
      The array, shape ``(examples, ...)``.
    """
    array = np.asarray(targets)
    if array.dtype.kind in "UT" or (array.dtype == object and all(isinstance(label, str) for label in array.flat)):
        return np.unique(array.astype(str), return_inverse=True)[1].astype(np.int32)
    return array
