"""Words and tables as arrays of numbers: labels become classes, columns of words become one of 0 and 1 a word."""

import re
import sys
from typing import Any

import numpy as np

from weightdecay.core.types import Integer


def one_hot(frame: Any, *, max_categories: Integer = 1000) -> Any:
    """Table of numbers: a column of words or categories becomes one of 0 and 1 for each of them, ``column=category``.

    Every category has a column, the first one too: with weight decay none of them is redundant.

    Args:
      frame: Columns of numbers, truth values, words or categories, one row an example.
      max_categories: Most categories that a column may have; a column of names or identities has more.

    Returns:
      float64, columns in their order; words in sorted order, categories of a pandas Categorical in its own.

    Raises:
      TypeError: A column of dates or of anything else.
      ValueError: A missing value, columns of one name, or too many categories.

    Examples:
      >>> import pandas as pd
      >>> one_hot(pd.DataFrame({"size": [1, 2], "colour": ["red", "blue"]}))
         size  colour=blue  colour=red
      0   1.0          0.0         1.0
      1   2.0          1.0         0.0
    """
    import pandas as pd

    if not is_frame(frame):
        raise TypeError(f"frame is of type {type(frame).__name__}; give a pandas DataFrame.")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"frame has several columns {twice[0]!r}; give each its own name.")
    made: dict[str, Any] = {}
    for name, column in frame.items():
        missing = column.isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"inputs: column {name!r} has {missing.sum()} missing values, the first in row {missing.argmax()} from "
                "0; fill them in or leave the rows out."
            )
        if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
            if pd.api.types.is_complex_dtype(column.dtype):
                raise TypeError(f"inputs: column {name!r} has dtype {column.dtype}; give real numbers.")
            made[str(name)] = column.to_numpy(np.float64)
            continue
        if isinstance(column.dtype, pd.CategoricalDtype):
            categories = list(column.cat.categories)
        elif all(isinstance(value, str) for value in column):
            categories = sorted(set(column))
        else:
            raise TypeError(
                f"inputs: column {name!r} has dtype {column.dtype}, which is neither numbers nor words; turn it into "
                "numbers, such as days since a date, or leave it out."
            )
        if len(categories) > max_categories:
            raise ValueError(
                f"inputs: column {name!r} has {len(categories)} different words, max_categories is {max_categories}; "
                "leave it out, or call wd.data.one_hot with a larger max_categories."
            )
        for category in categories:
            made[f"{name}={category}"] = (column == category).to_numpy(np.float64)
    return pd.DataFrame(made, index=frame.index)


def as_inputs(inputs: Any) -> np.ndarray:
    """Inputs as an array of numbers.

    Args:
      inputs: What a user gave.

    Returns:
      The array, shape ``(examples, ...)``; float64 from a table.

    Raises:
      TypeError: A sparse matrix.
      ValueError: Rows of unequal length, or missing values.
    """
    if is_frame(inputs):
        return one_hot(inputs).to_numpy(np.float64)
    return _plain("inputs", inputs)


def as_targets(targets: Any) -> np.ndarray:
    """Targets as an array of numbers; words become classes.

    Words that are whole numbers, as ``"7"``, are these numbers; other words are 0, 1, 2, ... in sorted order.

    Args:
      targets: What a user gave.

    Returns:
      The array, shape ``(examples, ...)``.

    Raises:
      TypeError: A sparse matrix; words and numbers together; real numbers written as words.
      ValueError: Rows of unequal length, or missing values.
    """
    if is_frame(targets):
        targets = targets.iloc[:, 0] if targets.shape[1] == 1 else targets.to_numpy()
    words = _plain("targets", targets)
    if words.dtype.kind == "S":
        words = np.char.decode(words, "utf-8")
    if words.dtype.kind != "U":
        return words
    if isinstance(targets, list | tuple):
        odd = [label for label in targets if not isinstance(label, str | bytes | list | tuple | np.ndarray)]
        if odd:
            raise TypeError(
                f"targets hold words and {odd[0]!r}, which is of type {type(odd[0]).__name__}; give all as words, or "
                "all as numbers."
            )
    classes, which = np.unique(words, return_inverse=True)
    if "" in classes:
        raise ValueError("targets hold an empty word; fill it in or leave the example out.")
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in classes):
        return classes.astype(np.int64)[which].reshape(words.shape)
    if all(_is_real(name) for name in classes):
        raise TypeError(
            f"targets hold real numbers written as words, such as {str(classes[0])!r}; give targets.astype(float)."
        )
    return which.astype(np.int32).reshape(words.shape)


def is_frame(source: Any) -> bool:
    """Whether a source is a table of pandas, which is not imported to find out.

    Args:
      source: What a user gave.

    Returns:
      The answer.
    """
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(source, pandas.DataFrame)


def _plain(name: str, values: Any) -> np.ndarray:
    """Array of what is one, without Python objects where these are numbers or words."""
    if hasattr(values, "toarray"):
        raise TypeError(f"{name} is a sparse matrix; give {name}.toarray().")
    if np.ma.is_masked(values):
        raise ValueError(f"{name} hold masked values; fill them in, or leave these examples out.")
    try:
        array = np.asarray(values)
        if array.dtype.kind == "T":
            array = np.array(array.tolist())
        if array.dtype == object and array.ndim:
            if any(_is_missing(value) for value in array.flat if np.ndim(value) == 0):
                raise ValueError("a value is missing")
            kinds = {isinstance(value, str) for value in array.flat}
            if len(kinds) > 1:
                raise TypeError(f"{name} hold words and numbers together; give all as words or all as numbers.")
            array = np.array(array.tolist())
    except ValueError as error:
        raise ValueError(
            f"{name} hold rows of unequal length, or a missing value ({error}); give rows of one length, without None "
            "and nan."
        ) from error
    return array


def _is_real(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither
        return True
