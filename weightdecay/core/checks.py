"""Checks of what a user passes, and the errors that name the argument.

Every message has the form ``<argument> is <value>; give <what is allowed>.`` The error carries the name of the
argument, so that the command line can name the option, and a caller can tell which argument was wrong.
"""

import math
import numbers
from collections.abc import Iterable
from typing import Any


class ArgumentError(ValueError):
    """An argument has a wrong value.

    Attributes:
      argument: Name of the argument, as the user wrote it.
    """

    def __init__(self, argument: str, message: str) -> None:
        """Take the name of the argument and the whole message."""
        super().__init__(message)
        self.argument = argument

    def __reduce__(self) -> Any:
        """Return what a copy in another process is made of."""
        return type(self), (self.argument, str(self))


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has a wrong type; also a `ValueError`, so that one ``except`` catches both."""


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python or NumPy; True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a real number of Python or NumPy; True and False are not. nan and infinities are."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def integer(
    value: Any,
    argument: str,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    allowed: str | None = None,
) -> int:
    """Validate an integer.

    Args:
      value: What the user passed.
      argument: Name of the argument, for the message.
      at_least: Smallest allowed value; None = no limit.
      at_most: Largest allowed value; None = no limit.
      allowed: What the message recommends; None = the range in words.

    Returns:
      The same number as a Python int.

    Raises:
      ArgumentTypeError: Not an integer.
      ArgumentError: Out of range.

    Examples:
      >>> import numpy as np
      >>> integer(3, "num_steps", at_least=1)
      3
      >>> integer(0, "num_steps", at_least=1)
      Traceback (most recent call last):
      weightdecay.core.checks.ArgumentError: num_steps is 0; give an integer of at least 1.
    """
    allowed = allowed or f"an integer{_range(at_least, at_most)}"
    if not is_integer(value):
        raise ArgumentTypeError(argument, f"{argument} is {value!r}, of type {type(value).__name__}; give {allowed}.")
    if (at_least is not None and value < at_least) or (at_most is not None and value > at_most):
        raise ArgumentError(argument, f"{argument} is {value}; give {allowed}.")
    return int(value)


def number(
    value: Any,
    argument: str,
    *,
    above: float | int | None = None,
    at_least: float | int | None = None,
    below: float | int | None = None,
    at_most: float | int | None = None,
    allowed: str,
) -> float:
    """Validate a finite real number that is not traced.

    Args:
      value: What the user passed.
      argument: Name of the argument, for the message.
      above: The number must be greater; None = no limit.
      at_least: The number must be greater or equal; None = no limit.
      below: The number must be less; None = no limit.
      at_most: The number must be less or equal; None = no limit.
      allowed: What the message recommends, such as ``"a number in [0, 1]"``.

    Returns:
      The same number as a Python float.

    Raises:
      ArgumentTypeError: Not a real number.
      ArgumentError: Out of range, infinite or nan.

    Examples:
      >>> number(1.5, "test_size", above=0, below=1, allowed="a fraction between 0 and 1")
      Traceback (most recent call last):
      weightdecay.core.checks.ArgumentError: test_size is 1.5; give a fraction between 0 and 1.
    """
    if not is_number(value):
        raise ArgumentTypeError(argument, f"{argument} is {value!r}, of type {type(value).__name__}; give {allowed}.")
    within = (
        math.isfinite(value)
        and (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    if not within:
        raise ArgumentError(argument, f"{argument} is {value}; give {allowed}.")
    return float(value)


def one_of(value: Any, argument: str, allowed: Iterable[Any]) -> Any:
    """Validate that a value is one of a few.

    Args:
      value: What the user passed.
      argument: Name of the argument, for the message.
      allowed: The values.

    Returns:
      The value.

    Raises:
      ArgumentError: It is none of them.

    Examples:
      >>> one_of("bst", "reference", ["best", "no decay"])
      Traceback (most recent call last):
      weightdecay.core.checks.ArgumentError: reference is 'bst'; give one of 'best', 'no decay'.
    """
    allowed = list(allowed)
    if not any(value is one or (type(value) is type(one) and value == one) for one in allowed):
        raise ArgumentError(argument, f"{argument} is {value!r}; give one of {', '.join(map(repr, allowed))}.")
    return value


def _range(at_least: int | None, at_most: int | None) -> str:
    if at_least is not None and at_most is not None:
        return f" from {at_least} to {at_most}"
    if at_least is not None:
        return f" of at least {at_least}"
    return "" if at_most is None else f" of at most {at_most}"
