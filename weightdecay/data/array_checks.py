"""Checks of single arrays: finite numbers, one row for each example, whose differences float32 keeps."""

from typing import Any

import numpy as np

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.data import on_disk, trees


def check_array(name: str, values: Any) -> None:
    """Check that an array holds finite numbers, one row for each example.

    Args:
      name: Name of the array in messages, such as ``"data.train inputs[tokens]"``.
      values: The array; what is on the disk is read in blocks.

    Raises:
      ArgumentTypeError: Not numbers.
      ArgumentError: Empty, nan or infinite.
    """
    argument = trees.argument_of(name)
    if values.dtype.kind not in "fiub" and not np.issubdtype(values.dtype, np.number):
        raise ArgumentTypeError(
            argument, f"{name} have dtype {values.dtype}; give numbers (classes as integers from 0)."
        )
    if values.ndim == 0 or len(values) == 0:
        raise ArgumentError(argument, f"{name} have shape {values.shape}; give one row for each example.")
    if values.size == 0:
        raise ArgumentError(
            argument, f"{name} have shape {values.shape}, which has no features; give at least one feature."
        )
    if values.dtype.kind == "f":
        _check_finite(name, values)


def _check_finite(name: str, values: Any) -> None:
    number, first, start = 0, 0, 0
    for block in on_disk.blocks(values):
        finite = np.isfinite(block)
        if not finite.all():
            bad = np.argwhere(~finite)
            first = first if number else start + int(bad[0][0])
            number += len(bad)
        start += len(block)
    if number:
        raise ArgumentError(
            trees.argument_of(name),
            f"{name} contain {number} values that are nan or infinite, the first in example {first}; remove these "
            "examples or replace the values.",
        )


def to_float32(name: str, values: Any) -> Any:
    """Convert values to float32; refuse values whose differences would be lost.

    Args:
      name: Name of the values in messages.
      values: Numbers, shape ``(examples, ...)``; float32 arrays are not copied, and what is on the disk stays there.

    Returns:
      float32, same shape.

    Raises:
      ValueError: Finite values that float32 does not hold, or a feature whose standard deviation is of the size of the
        rounding to float32.
    """
    if values.dtype == np.float32:
        return values
    is_exact = values.dtype.itemsize < 4 or values.dtype.kind not in "fiu" or not values.size
    if on_disk.is_on_disk(values):
        narrow = on_disk.converted(values, np.float32)
    else:
        narrow = values.astype(np.float32, copy=False) if is_exact else None
    if is_exact:
        return narrow
    with np.errstate(over="ignore", invalid="ignore"):
        if narrow is None:
            narrow = values.astype(np.float32)
            precise = values.astype(np.float64, copy=False)
            deviation, largest = precise.std(axis=0), np.abs(precise).max(axis=0)
            overflows = (np.isfinite(precise) & ~np.isfinite(narrow)).any()
        else:
            deviation = on_disk.moments(values)[1]
            largest = np.max([np.abs(block.astype(np.float64)).max(axis=0) for block in on_disk.blocks(values)], axis=0)
            overflows = (np.isfinite(largest) & (largest > tree.LARGEST)).any()
        lost = (largest * 2**-24 > 0.01 * deviation) & (deviation > 1e-13 * largest)  # not rounding of a constant
    if overflows or np.any(lost & np.isfinite(largest)):
        number = float(np.max(largest))
        raise ArgumentError(
            name.split(".")[0],
            f"{name} contain values of about {number:.3g}, whose differences float32 cannot represent; subtract the "
            "mean and divide by the standard deviation first, as wd.data.split and wd.data.folds do with "
            "standardize=True.",
        )
    return narrow
