"""Arrays of numbers out of what people have: tables, rows, columns, batches, and the data sets of other libraries.

Nothing here imports those libraries: a source is known by how it can be read.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from weightdecay.core.types import Integer
from weightdecay.data.encoding import as_inputs, as_targets, is_frame

Names: TypeAlias = str | Integer | Sequence[str] | Sequence[int]
"""A column or a position, or several."""

_OVERHEAD = 200  # bytes that an array takes beside its numbers


def arrays(
    source: Any,
    *,
    inputs: Names | None = None,
    targets: Names | None = None,
    num_examples: Integer | None = None,
    batched: bool | None = None,
    max_bytes: Integer = 2**32,
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets out of what can be read by columns, by rows or by batches.

    - By columns: a pandas DataFrame (words among the inputs as by `one_hot`), a Hugging Face ``datasets.Dataset``, or a
      mapping of names to arrays, as `read_npz` gives it.
    - By rows: a list of rows; a map-style data set of torch, a random-access source or a ``MapDataset`` of grain, or
      whatever else has ``len(source)`` and ``source[index]``. A row is a pair, a tuple or a mapping; None is no row.
    - One after another, rows or batches: a generator, an ``IterDataset`` of grain, a ``DataLoader``.

    Args:
      source: One of these, or a pair of arrays.
      inputs: Column of the inputs by name, or by position in rows that are tuples; several are put side by side as
        features. None: all but the targets; of tuples the first.
      targets: Column of the targets likewise. None: the one column beside the inputs; of tuples the second.
      num_examples: How many to take from the start; None takes all. A source without an end needs it.
      batched: Whether an element holds several examples. None: it does if the source is no sequence and the targets of
        its first element have a dimension; say so where that is wrong, as it is for rows with several labels.
      max_bytes: Largest size that what is read may have; a source that goes on beyond it is refused.

    Returns:
      Inputs ``(examples, ...)`` in their own dtype (float64 from a DataFrame), and targets ``(examples, ...)``, where
      words have become classes 0, 1, 2, ... in sorted order.

    Raises:
      TypeError: A source that is none of these; text among the inputs.
      ValueError: No such column, examples of different shapes, fewer examples than asked for, more than ``max_bytes``.

    Examples:
      >>> rows = [{"size": 1.0, "age": 3, "kind": "wren"}, {"size": 2.0, "age": 1, "kind": "crow"}]
      >>> x, y = arrays(rows, inputs=["size", "age"], targets="kind")
      >>> x.tolist(), y.tolist()
      ([[1.0, 3.0], [2.0, 1.0]], [1, 0])
    """
    is_count = isinstance(num_examples, int | np.integer) and not isinstance(num_examples, bool)
    if num_examples is not None and not (is_count and num_examples >= 1):
        raise ValueError(f"num_examples is {num_examples!r}; give a whole number of at least 1, or None for all.")
    if inputs is None and targets is None and _is_pair(source):
        x, y = as_inputs(source[0]), as_targets(source[1])
    elif is_frame(source):
        own, other = _choose(list(source.columns), inputs, targets)
        x, y = as_inputs(source[_several(own)]), as_targets(source[_several(other)])
    elif (columns := _columns(source, num_examples)) is not None:
        names, column = columns
        own, other = _choose(names, inputs, targets)
        x, y = as_inputs(_beside(column, own)), as_targets(_beside(column, other))
    else:
        return _read(source, inputs, targets, num_examples, batched, max_bytes)
    if len(x) != len(y):
        raise ValueError(f"source has {len(x)} inputs and {len(y)} targets; give one target an example.")
    if num_examples is not None:
        _check_enough(len(x), num_examples)
    return x[:num_examples], y[:num_examples]


def _is_pair(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2


def _columns(source: Any, num_examples: Any) -> tuple[list[Any], Callable[[Any], Any]] | None:
    """Names of the columns of a source that has columns, and what gives one; None for others."""
    if isinstance(source, Mapping):
        if source and all(hasattr(value, "column_names") for value in source.values()):
            names = ", ".join(repr(name) for name in source)
            raise TypeError(
                f"source holds several data sets, {names}; give one of them, as source[{next(iter(source))!r}]."
            )
        return list(source), source.__getitem__
    if hasattr(source, "column_names") and hasattr(source, "with_format") and hasattr(source, "__len__"):
        return list(source.column_names), lambda name: source.with_format("numpy", columns=[name])[:num_examples][name]
    return None


def _choose(names: list[Any], inputs: Any, targets: Any) -> tuple[Any, Any]:
    """A name, or a tuple of names, of the inputs and of the targets."""
    shown = ", ".join(repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")

    def known(argument: str, given: Any) -> Any:
        several = isinstance(given, list | tuple)
        unknown = [name for name in (given if several else (given,)) if name not in names]
        if unknown or (several and not given):
            lacks = f"no {unknown[0]!r}" if unknown else "columns"
            raise ValueError(f"{argument} is {given!r}, but source has {lacks}; give one or several of {shown}.")
        return tuple(given) if several else given

    own = None if inputs is None else known("inputs", inputs)
    other = None if targets is None else known("targets", targets)
    rest = tuple(name for name in names if name not in (*_several(own), *_several(other)))
    if other is None:
        if own is None or len(rest) != 1:
            raise ValueError(f"targets is None; give the name of the column to predict, one of {shown}.")
        return own, rest[0]
    if own is None:
        if not rest:
            raise ValueError(f"targets is {targets!r}, which leaves no inputs; give some of {shown}.")
        return rest[0] if len(rest) == 1 else rest, other
    both = [name for name in _several(own) if name in _several(other)]
    if both:
        raise ValueError(f"inputs and targets both have {both[0]!r}; give each column to one of them.")
    return own, other


def _several(names: Any) -> list[Any]:
    return list(names) if isinstance(names, tuple) else [names]


def _beside(column: Callable[[Any], Any], names: Any) -> Any:
    """A column, or several side by side as features."""
    if not isinstance(names, tuple):
        return column(names)
    parts = [np.asarray(column(name)) for name in names]
    shapes = {str(name): part.shape for name, part in zip(names, parts, strict=True)}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"columns have the shapes {shapes}; give columns of one shape, or one alone.")
    return np.stack(parts, axis=-1)


def _read(
    source: Any, inputs: Any, targets: Any, num_examples: Integer | None, batched: bool | None, max_bytes: Integer
) -> tuple[np.ndarray, np.ndarray]:
    """Examples of a source that gives one element after another."""
    elements, is_sequence = _elements(source, num_examples)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    choice, count, size = None, 0, 0
    for element in elements:
        if element is None:
            continue
        if choice is None:
            choice = _choice(element, inputs, targets)
        try:
            x, y = (np.asarray(_beside(element.__getitem__, names)).copy() for names in choice)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"source gives in example {count} what has no {' and '.join(map(repr, choice))} as the first has "
                f"({type(error).__name__}: {error}); give all in one form."
            ) from error
        if batched is None:
            batched = not is_sequence and y.ndim > 0
        if not batched:
            x, y = x[None], y[None]
        _check_element(x, y, parts, count)
        parts[0].append(x)
        parts[1].append(y)
        count, size = count + len(x), size + x.nbytes + y.nbytes + 2 * _OVERHEAD
        if num_examples is not None and count >= num_examples:
            break
        if size > max_bytes:
            ways = "num_examples if it has no end" if num_examples is None else "a smaller num_examples"
            raise ValueError(
                f"source goes on beyond max_bytes, {max_bytes} bytes, after {count} examples; give {ways}, or a larger "
                "max_bytes."
            )
    if not count:
        raise ValueError("source gives no examples; give at least one (an iterator can be read once alone).")
    if num_examples is not None:
        _check_enough(count, num_examples)
    x, y = (np.concatenate(part)[:num_examples] for part in parts)
    return as_inputs(x), as_targets(y)


def _elements(source: Any, num_examples: Integer | None) -> tuple[Iterator[Any], bool]:
    """What a source gives, one after another, and whether it is a sequence of rows."""
    if isinstance(source, str | bytes | np.ndarray) or not hasattr(source, "__getitem__"):
        if isinstance(source, Iterable) and not isinstance(source, str | bytes | np.ndarray):
            return iter(source), False
        raise TypeError(
            f"source is of type {type(source).__name__}; give a pair (inputs, targets) of arrays, a DataFrame, a "
            "mapping of columns, a sequence of rows, or an iterator of rows or batches."
        )
    try:
        length = len(source)
    except (TypeError, OverflowError):
        return iter(source), False
    if length >= sys.maxsize and num_examples is None:  # grain says so of what it repeats without an end
        raise ValueError("source has no end; give num_examples, how many examples to take.")
    return (source[index] for index in range(length)), True


def _choice(element: Any, inputs: Any, targets: Any) -> tuple[Any, Any]:
    """Where in an element the inputs and the targets are."""
    if isinstance(element, Mapping):
        return _choose(list(element), inputs, targets)
    if not isinstance(element, tuple | list):
        raise TypeError(
            f"source gives elements of type {type(element).__name__}; give pairs (inputs, targets), or mappings with "
            "inputs= and targets= by name."
        )
    if inputs is None and targets is None and len(element) != 2:
        raise ValueError(
            f"source gives {len(element)} parts an element; say which are inputs= and targets=, by position from 0."
        )
    return _choose(list(range(len(element))), 0 if inputs is None else inputs, 1 if targets is None else targets)


def _check_element(x: np.ndarray, y: np.ndarray, parts: tuple[list[np.ndarray], ...], count: int) -> None:
    if x.dtype.kind in "UST":
        raise TypeError("inputs hold text; turn it into numbers first, such as the numbers of its tokens.")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(
            f"source gives a batch with inputs of shape {x.shape} and targets of shape {y.shape}; give as many of "
            "both, or say batched=False if it gives single examples."
        )
    for name, now, before in zip(("inputs", "targets"), (x, y), parts, strict=True):
        if before and now.shape[1:] != before[0].shape[1:]:
            raise ValueError(
                f"{name} have shape {before[0].shape[1:]} in the first example and {now.shape[1:]} in example {count}; "
                "pad or cut them to one shape."
            )
        if before and (now.dtype.kind in "UST") != (before[0].dtype.kind in "UST"):
            raise TypeError(f"{name} are words and numbers, now this, now that; give all as words or all as numbers.")


def _check_enough(count: int, num_examples: Integer) -> None:
    if count < num_examples:
        raise ValueError(
            f"num_examples is {num_examples}, but source ends after {count}; give at most {count}, or None."
        )
