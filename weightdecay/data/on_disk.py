"""Arrays that stay on the disk: rows of a `numpy.memmap`, selected, standardized and converted when they are read.

The rows that are read have the bits that they would have if the whole array had been prepared in memory. Statistics
over all rows are accumulated in blocks, in the order in which NumPy adds rows in memory.
"""

import math
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BLOCK_BYTES = 2**25  # of rows that are in memory at once, in float64


class RowsOnDisk:
    """Rows of an array on the disk, as an array that is read where it is indexed.

    ``source[rows]``, minus ``mean`` and divided by ``scale`` in float64 where these are given, in ``dtype``.

    Attributes:
      source: The array, shape ``(rows of the source, ...)``.
      dtype: Dtype of what is read.
      shape: Shape of the selected rows, ``(rows, ...)``.
    """

    def __init__(
        self,
        source: np.ndarray,
        *,
        dtype: Any,
        rows: Any = None,
        mean: Any = None,
        scale: Any = None,
    ) -> None:
        """Take the array, and what is done to the rows that are read; None = nothing."""
        self.source, self.dtype = source, np.dtype(dtype)
        self._rows, self._mean, self._scale = rows, mean, 1.0 if scale is None else scale
        self.shape = (len(source) if rows is None else len(rows), *source.shape[1:])

    @property
    def is_standardized(self) -> bool:
        """Whether rows are standardized when they are read."""
        return self._mean is not None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read rows: an integer, integers of any shape, a slice or booleans."""
        values = self.source[index] if self._rows is None else self.source[self._rows[index]]
        if self._mean is not None:
            values = (values.astype(np.float64) - self._mean) / self._scale
        return np.asarray(values).astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows into memory."""
        values = self[:]
        return values if dtype is None else values.astype(dtype, copy=False)

    def __repr__(self) -> str:
        """Return the dtype and the shape."""
        return f"RowsOnDisk({self.dtype}{list(self.shape)})"

    def min(self) -> Any:
        """Return the smallest value."""
        return min(block.min() for block in blocks(self))

    def max(self) -> Any:
        """Return the largest value."""
        return max(block.max() for block in blocks(self))

    def selected(self, rows: Any) -> "RowsOnDisk":
        """Return some of the rows, in an order, without reading them."""
        rows = np.asarray(rows) if self._rows is None else self._rows[rows]
        return RowsOnDisk(self.source, dtype=self.dtype, rows=rows, mean=self._mean, scale=self._scale)

    def astype(self, dtype: Any) -> "RowsOnDisk":
        """Return the same rows in another dtype, without reading them."""
        return RowsOnDisk(self.source, dtype=dtype, rows=self._rows, mean=self._mean, scale=self._scale)


def is_on_disk(values: Any) -> bool:
    """Whether an array stays on the disk: a `numpy.memmap`, a view of one, or a `RowsOnDisk`.

    Args:
      values: Anything.

    Returns:
      True or False.
    """
    if isinstance(values, RowsOnDisk):
        return True
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap):
            return isinstance(getattr(values, "_mmap", None), mmap.mmap)
        values = values.base
    return isinstance(values, mmap.mmap)


def in_memory(values: Any) -> Any:
    """Read an array into memory if it is on the disk.

    Args:
      values: An array.

    Returns:
      The array in memory; other arrays as they are.
    """
    return np.array(values) if is_on_disk(values) else values


def selected(values: Any, rows: Any) -> Any:
    """Select rows; what is on the disk is not read.

    Args:
      values: An array, shape ``(rows, ...)``.
      rows: Integers.

    Returns:
      Shape ``(len(rows), ...)``.
    """
    if not is_on_disk(values):
        return values[rows]
    return converted(values, values.dtype).selected(rows)


def converted(values: Any, dtype: Any) -> RowsOnDisk:
    """Convert an array on the disk to another dtype, without reading it.

    Args:
      values: An array for which `is_on_disk` is true.
      dtype: The dtype.

    Returns:
      The same rows.
    """
    return values.astype(dtype) if isinstance(values, RowsOnDisk) else RowsOnDisk(values, dtype=dtype)


def blocks(values: Any) -> Iterator[np.ndarray]:
    """Iterate over an array in blocks of rows; an array in memory is one block.

    Args:
      values: An array, shape ``(rows, ...)``.

    Yields:
      Rows in memory, in their order.
    """
    if not is_on_disk(values):
        yield values
        return
    row_bytes = 8 * max(1, math.prod(values.shape[1:]))
    num_rows = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(values), num_rows):
        yield np.asarray(values[start : start + num_rows])


def moments(values: Any) -> tuple[Any, Any, Any]:
    """Mean, standard deviation and whether all rows are equal, of each feature, in float64.

    Args:
      values: An array on the disk, shape ``(rows, ...)``.

    Returns:
      Three arrays of shape ``(...)``, with the bits of `numpy.mean`, `numpy.std` and a comparison of minimum and
      maximum over the rows in memory.
    """
    if math.prod(values.shape[1:]) == 1:
        # NumPy adds the values of a single feature in pairs; they are eight bytes a row.
        column = np.concatenate([block.astype(np.float64) for block in blocks(values)])
        return column.mean(axis=0), column.std(axis=0), column.min(axis=0) == column.max(axis=0)
    total = _added(values, lambda block: block)
    mean = total / len(values)
    squares = _added(values, lambda block: np.square(block - mean))
    lows, highs = ([of(block, axis=0) for block in blocks(values)] for of in (np.min, np.max))
    return mean, np.sqrt(squares / len(values)), np.min(lows, axis=0) == np.max(highs, axis=0)


def _added(values: Any, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sum of a function of each row, row after row."""
    total = None
    for block in blocks(values):
        rows = function(block.astype(np.float64))
        total = np.add.reduce(rows if total is None else np.concatenate([total[None], rows]), axis=0)
    assert total is not None
    return total
