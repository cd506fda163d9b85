"""Strings and tables as arrays of numbers: columns of strings become columns of 0 and 1, labels become classes."""

import re
import sys
from typing import Any

import numpy as np

from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Integer
from weightdecay.data import classes


def one_hot(frame: Any, *, max_categories: Integer = 1000) -> Any:
    """Encode a table as numbers: a column of strings becomes one column of 0 and 1 for each string, ``column=string``.

    The first category has a column too: with weight decay no column is redundant.

    Args:
      frame: A pandas DataFrame with columns of numbers, truth values, strings or categories; one row for each example.
      max_categories: Largest number of categories that a column may have; columns of names or identifiers have more.

    Returns:
      A DataFrame of float64, columns in their order; strings in sorted order, categories of a pandas Categorical in
      their own order.

    Raises:
      TypeError: A column of dates or of another type.
      ValueError: A missing value, two columns of the same name, or too many categories.

    Examples:
      >>> import pandas as pd
      >>> one_hot(pd.DataFrame({"size": [1, 2], "colour": ["red", "blue"]}))
         size  colour=blue  colour=red
      0   1.0          0.0         1.0
      1   2.0          1.0         0.0
    """
    import pandas as pd

    if not is_frame(frame):
        raise ArgumentTypeError("frame", f"frame is of type {type(frame).__name__}; give a pandas DataFrame.")
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ArgumentError("frame", f"frame has several columns {repeated[0]!r}; give each column its own name.")
    encoded: dict[str, Any] = {}
    for name, column in frame.items():
        missing = column.isna().to_numpy()
        if missing.any():
            raise ArgumentError(
                "inputs",
                f"inputs: column {name!r} has {missing.sum()} missing values, the first in row {missing.argmax()} "
                "(counted from 0); replace them or remove the rows.",
            )
        if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
            if pd.api.types.is_complex_dtype(column.dtype):
                raise ArgumentTypeError(
                    "inputs", f"inputs: column {name!r} has dtype {column.dtype}; give real numbers."
                )
            encoded[str(name)] = column.to_numpy(np.float64)
            continue
        if isinstance(column.dtype, pd.CategoricalDtype):
            categories = list(column.cat.categories)
        elif all(isinstance(value, str) for value in column):
            categories = sorted(set(column))
        else:
            raise ArgumentTypeError(
                "inputs",
                f"inputs: column {name!r} has dtype {column.dtype}, which is neither numbers nor strings; convert it "
                "to numbers, such as days since a date, or remove it.",
            )
        if len(categories) > max_categories:
            raise ArgumentError(
                "inputs",
                f"inputs: column {name!r} has {len(categories)} different strings, and max_categories is "
                f"{max_categories}; remove the column, or call wd.data.one_hot with a larger max_categories.",
            )
        for category in categories:
            encoded[f"{name}={category}"] = (column == category).to_numpy(np.float64)
    return pd.DataFrame(encoded, index=frame.index)


def as_inputs(inputs: Any) -> np.ndarray:
    """Convert inputs to an array of numbers.

    Args:
      inputs: What the user passed.

    Returns:
      The array, shape ``(examples, ...)``; float64 from a table.

    Raises:
      TypeError: A sparse matrix.
      ValueError: Rows of unequal length, or missing values.
    """
    if is_frame(inputs):
        return one_hot(inputs).to_numpy(np.float64)
    return _plain("inputs", inputs)


def as_labels(targets: Any) -> np.ndarray:
    """Convert targets to an array of numbers or of strings.

    Args:
      targets: What the user passed.

    Returns:
      The array, shape ``(examples, ...)``. Strings that are integers, such as ``"7"``, become these integers.

    Raises:
      TypeError: A sparse matrix; strings and numbers together; real numbers written as strings.
      ValueError: Rows of unequal length, or missing values.
    """
    if is_frame(targets):
        targets = targets.iloc[:, 0] if targets.shape[1] == 1 else targets.to_numpy()
    labels = _plain("targets", targets)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if labels.dtype.kind != "U":
        return labels
    if isinstance(targets, list | tuple):
        others = [label for label in targets if not isinstance(label, str | bytes | list | tuple | np.ndarray)]
        if others:
            raise ArgumentTypeError(
                "targets",
                f"targets contain strings and {others[0]!r}, which is of type {type(others[0]).__name__}; give all as "
                "strings, or all as numbers.",
            )
    names = np.unique(labels)
    if "" in names:
        raise ArgumentError("targets", "targets contain an empty string; replace it or remove the example.")
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names):
        return labels.astype(np.int64)
    if all(_is_real(name) for name in names):
        raise ArgumentTypeError(
            "targets",
            f"targets contain real numbers written as strings, such as {str(names[0])!r}; give targets.astype(float).",
        )
    return labels


def as_targets(targets: Any) -> np.ndarray:
    """Convert targets to an array of numbers; strings become classes.

    Args:
      targets: What the user passed.

    Returns:
      The array, shape ``(examples, ...)``. Strings that are integers, such as ``"7"``, become these integers; other
      strings become 0, 1, 2, ... in sorted order.

    Raises:
      TypeError: As `as_labels`.
      ValueError: As `as_labels`.
    """
    labels = as_labels(targets)
    return classes.indices(labels)[0] if labels.dtype.kind == "U" else labels


def is_frame(source: Any) -> bool:
    """Whether a source is a pandas DataFrame; pandas is not imported for this.

    Args:
      source: What the user passed.

    Returns:
      The answer.
    """
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(source, pandas.DataFrame)


def _plain(name: str, values: Any) -> np.ndarray:
    """Convert values to an array that does not hold Python objects, if they are numbers or strings."""
    if hasattr(values, "toarray"):
        raise ArgumentTypeError(name, f"{name} is a sparse matrix; give {name}.toarray().")
    if np.ma.is_masked(values):
        raise ArgumentError(name, f"{name} contain masked values; replace them, or remove these examples.")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "T":
            array = np.array(array.tolist())
        if array.dtype == object and array.ndim:
            if any(_is_missing(value) for value in array.flat if np.ndim(value) == 0):
                raise ValueError("a value is missing")
            are_strings = {isinstance(value, str) for value in array.flat}
            if len(are_strings) > 1:
                raise ArgumentTypeError(
                    name, f"{name} contain strings and numbers together; give all as strings or all as numbers."
                )
            array = np.array(array.tolist())
    except ArgumentTypeError:
        raise
    except ValueError as error:
        raise ArgumentError(
            name,
            f"{name} contain rows of unequal length, or a missing value ({error}); give rows of equal length, without "
            "None and nan.",
        ) from error
    return array


def _is_real(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # the comparison of pandas.NA has no truth value
        return True
