"""Labels of classes: consecutive class indices, names, weights, and integers that look like a quantity.

Targets are classes where they are strings, truth values or integers, one for each example. Class indices are
consecutive, 0 to ``num_classes - 1``; the labels that they stand for are the names of the classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from weightdecay.core.checks import ArgumentError, ArgumentTypeError

_FEW = 20  # classes that are accepted without a look at how often each occurs
_YEARS = (1800, 2100)


def indices(labels: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Replace labels by consecutive class indices.

    Args:
      labels: Strings, truth values or integers, shape ``(examples,)``.

    Returns:
      The index of each label, int32, shape ``(examples,)``, and the labels in sorted order.

    Examples:
      >>> indices(np.array([7, -1, 7]))[0].tolist(), indices(np.array([7, -1, 7]))[1]
      ([1, 0, 1], (-1, 7))
    """
    names, index = np.unique(labels, return_inverse=True)
    return index.reshape(labels.shape).astype(np.int32), tuple(names.tolist())


def uncounted(labels: np.ndarray) -> np.ndarray:
    """Determine which labels are below 0 and do not count, as those of examples or positions without a label.

    Args:
      labels: Integers, shape ``(examples,)``.

    Returns:
      bool, shape ``(examples,)``. None of them where there are only two distinct labels, such as -1 and 1, or where all
      are below 0: then they are labels of classes.

    Examples:
      >>> uncounted(np.array([0, 1, 2, -1])).tolist(), uncounted(np.array([-1, 1])).tolist()
      ([False, False, False, True], [False, False])
    """
    below = labels < 0
    if below.any() and (below.all() or len(np.unique(labels)) <= 2):
        return np.zeros_like(below)
    return below


def quantity(labels: np.ndarray) -> str | None:
    """Decide whether integers look like a quantity, such as a price, a year or a count, rather than labels of classes.

    Integers look like labels of classes if one of these holds:

    - They have at most two distinct values.
    - They have at most 20 distinct values, at least half as many as there are integers from the smallest to the
      largest, and at least two examples for each on average. Values from 1800 to 2100 look like years instead.
    - They have more distinct values, at least four fifths of the integers from 0 or 1 to the largest, and at least five
      examples for each on average and two for each at least.

    Args:
      labels: Integers, shape ``(examples,)``.

    Returns:
      A description of the values where they look like a quantity; None where they look like labels of classes.

    Examples:
      >>> quantity(np.arange(100) % 10), quantity(np.array([100001, 100003, 100002, 100001] * 5))
      (None, None)
      >>> quantity(np.arange(200) % 5 * 10000 + 180000)
      '5 distinct values from 180000 to 220000'
    """
    values, counts = np.unique(labels, return_counts=True)
    number, low, high = len(values), int(values[0]), int(values[-1])
    span = high - low + 1
    if number <= 2:
        return None
    if number <= _FEW:
        are_years = _YEARS[0] <= low and high <= _YEARS[1]
        if 2 * number >= span and len(labels) >= 2 * number and not are_years:
            return None
    elif low in (0, 1) and number >= 0.8 * span and len(labels) >= 5 * number and counts.min() >= 2:
        return None
    return f"{number} distinct values from {low} to {high}"


def class_weights(targets: Any, weights: str | Mapping[Any, Any] = "balanced") -> np.ndarray:
    """Weights of examples from weights of their classes.

    Balanced, an example of class ``c`` has the weight ``num_examples / (num_classes * num_examples_of_c)``, so that all
    classes count equally, as with ``class_weight="balanced"`` in scikit-learn.

    Args:
      targets: Classes, shape ``(examples,)``: integers or strings.
      weights: ``"balanced"``, or the weight of each class by its name in ``targets``; >= 0.

    Returns:
      float64, shape ``(examples,)``.

    Raises:
      TypeError: ``weights`` is of another type.
      ValueError: Targets that are not classes, a class without a weight, or a weight without a class.

    Examples:
      >>> class_weights(["cat", "cat", "cat", "dog"]).round(2).tolist()
      [0.67, 0.67, 0.67, 2.0]
      >>> class_weights([0, 1, 1], {0: 3.0, 1: 1.0}).tolist()
      [3.0, 1.0, 1.0]
    """
    labels = np.asarray(targets)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind == "f":
        raise ArgumentError(
            "targets",
            f"targets have dtype {labels.dtype} and shape {labels.shape}; give one class for each example, as an "
            "integer or a string.",
        )
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if isinstance(weights, str) and weights == "balanced":
        return (len(labels) / (len(classes) * counts))[index]
    if not isinstance(weights, Mapping):
        raise ArgumentTypeError(
            "weights", f"weights is {weights!r}; give 'balanced', or a mapping of classes to weights."
        )
    names = classes.tolist()
    if set(names) != set(weights):
        missing = [repr(name) for name in names if name not in weights]
        unknown = [repr(name) for name in weights if name not in names]
        raise ArgumentError(
            "weights",
            f"weights has no weight for the classes {', '.join(missing[:20]) or '(none)'}, and weights for the classes "
            f"{', '.join(unknown[:20]) or '(none)'}, which targets does not contain; give one weight for each class.",
        )
    return check_weights("weights", np.array([weights[name] for name in names])[index], len(labels))


def check_weights(name: str, weights: Any, num_examples: int) -> np.ndarray:
    """Check the weights of examples.

    Args:
      name: Name of the argument in messages.
      weights: What the user passed.
      num_examples: Number of examples.

    Returns:
      The weights, float64, shape ``(examples,)``.

    Raises:
      TypeError: Not numbers.
      ValueError: Another shape, a negative or infinite weight or nan, or all 0.
    """
    argument = name.split()[0]
    array = np.asarray(weights)
    if array.dtype.kind not in "fiub":
        raise ArgumentTypeError(argument, f"{name} have dtype {array.dtype}; give one number for each example.")
    if array.shape != (num_examples,):
        raise ArgumentError(
            argument, f"{name} have shape {array.shape}; give one for each example, shape ({num_examples},)."
        )
    array = array.astype(np.float64)
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ArgumentError(
            argument, f"{name} contain {array[first]} in example {first}; give finite numbers of at least 0."
        )
    if not array.any():
        raise ArgumentError(argument, f"{name} are all 0, so that no example counts; give at least one above 0.")
    return array
