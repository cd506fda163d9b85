"""Arrays from tables, rows, columns, batches, and the data sets of other libraries.

Those libraries are not imported: a source is recognized by how it can be read.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Integer
from weightdecay.data.encoding import as_inputs, as_targets, is_frame

Names: TypeAlias = str | Integer | Sequence[str] | Sequence[int]
"""Name or index of a column, or of several columns."""

_OVERHEAD = 200  # bytes of an array in addition to its numbers


def arrays(
    source: Any,
    *,
    inputs: Names | None = None,
    targets: Names | None = None,
    num_examples: Integer | None = None,
    batched: bool | None = None,
    max_bytes: Integer = 2**32,
) -> tuple[np.ndarray, np.ndarray]:
    """Read inputs and targets from a source of columns, of rows or of batches.

    - Columns: a pandas DataFrame (strings among the inputs are encoded by `one_hot`), a Hugging Face
      ``datasets.Dataset``, or a mapping from names to arrays, such as `read_npz` returns.
    - Rows: a list of rows; a map-style data set of torch, a random-access source or a ``MapDataset`` of grain, or any
      other object with ``len(source)`` and ``source[index]``. A row is a pair, a tuple or a mapping; None is skipped.
    - Iterators of rows or batches: a generator, an ``IterDataset`` of grain, a ``DataLoader``.

    Args:
      source: One of these, or a pair of arrays.
      inputs: Column of the inputs, by name, or by index in rows that are tuples; several columns are stacked as
        features. None = all columns except the targets, or the first entry of a tuple.
      targets: Column of the targets, given in the same way. None = the only column other than the inputs, or the second
        entry of a tuple.
      num_examples: Number of examples to read from the start; None = all. A source without an end needs a number.
      batched: Whether an element contains several examples. None: it does if the source is an iterator and the targets
        of its first element have a dimension. Give False for rows with several labels.
      max_bytes: Largest allowed size of what is read.

    Returns:
      Inputs ``(examples, ...)`` in their own dtype (float64 from a DataFrame), and targets ``(examples, ...)``; strings
      become the classes 0, 1, 2, ... in sorted order.

    Raises:
      TypeError: A source of another type; strings among the inputs.
      ValueError: No such column, examples of different shapes, fewer than ``num_examples``, more than ``max_bytes``.

    Examples:
      >>> rows = [{"size": 1.0, "age": 3, "kind": "wren"}, {"size": 2.0, "age": 1, "kind": "crow"}]
      >>> x, y = arrays(rows, inputs=["size", "age"], targets="kind")
      >>> x.tolist(), y.tolist()
      ([[1.0, 3.0], [2.0, 1.0]], [1, 0])
    """
    if num_examples is not None:
        allowed = "an integer of at least 1, or None for all"
        num_examples = checks.integer(num_examples, "num_examples", at_least=1, allowed=allowed)
    if inputs is None and targets is None and _is_pair(source):
        x, y = as_inputs(source[0]), as_targets(source[1])
    elif is_frame(source):
        of_inputs, of_targets = _choose(list(source.columns), inputs, targets)
        x, y = as_inputs(source[_as_list(of_inputs)]), as_targets(source[_as_list(of_targets)])
    elif (columns := _columns(source, num_examples)) is not None:
        names, column = columns
        of_inputs, of_targets = _choose(names, inputs, targets)
        x, y = as_inputs(_stacked(column, of_inputs)), as_targets(_stacked(column, of_targets))
    else:
        return _read(source, inputs, targets, num_examples, batched, max_bytes)
    if len(x) != len(y):
        raise ArgumentError(
            "source", f"source has {len(x)} inputs and {len(y)} targets; give one target for each example."
        )
    if num_examples is not None:
        _check_enough(len(x), num_examples)
    return x[:num_examples], y[:num_examples]


def _is_pair(source: Any) -> bool:
    return isinstance(source, tuple) and len(source) == 2


def _columns(source: Any, num_examples: Any) -> tuple[list[Any], Callable[[Any], Any]] | None:
    """Names of the columns of a source and a function that returns a column; None if the source has no columns."""
    if isinstance(source, Mapping):
        if source and all(hasattr(value, "column_names") for value in source.values()):
            names = ", ".join(repr(name) for name in source)
            raise ArgumentTypeError(
                "source",
                f"source contains several data sets, {names}; give one of them, as source[{next(iter(source))!r}].",
            )
        return list(source), source.__getitem__
    if hasattr(source, "column_names") and hasattr(source, "with_format") and hasattr(source, "__len__"):
        return list(source.column_names), lambda name: source.with_format("numpy", columns=[name])[:num_examples][name]
    return None


def _choose(names: list[Any], inputs: Any, targets: Any) -> tuple[Any, Any]:
    """Determine the columns of the inputs and of the targets, each a name or a tuple of names."""
    available = ", ".join(repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")

    def checked(argument: str, given: Any) -> Any:
        several = isinstance(given, list | tuple)
        unknown = [name for name in (given if several else (given,)) if name not in names]
        if unknown or (several and not given):
            missing = f"has no column {unknown[0]!r}" if unknown else "needs at least one column"
            raise ArgumentError(
                argument, f"{argument} is {given!r}, but source {missing}; give one or several of {available}."
            )
        return tuple(given) if several else given

    of_inputs = None if inputs is None else checked("inputs", inputs)
    of_targets = None if targets is None else checked("targets", targets)
    rest = tuple(name for name in names if name not in (*_as_list(of_inputs), *_as_list(of_targets)))
    if of_targets is None:
        if of_inputs is None or len(rest) != 1:
            raise ArgumentError(
                "targets", f"targets is None; give the name of the column to predict, one of {available}."
            )
        return of_inputs, rest[0]
    if of_inputs is None:
        if not rest:
            raise ArgumentError(
                "targets", f"targets is {targets!r}, so that no inputs remain; give some of {available}."
            )
        return rest[0] if len(rest) == 1 else rest, of_targets
    both = [name for name in _as_list(of_inputs) if name in _as_list(of_targets)]
    if both:
        raise ArgumentError("inputs", f"inputs and targets both contain {both[0]!r}; give each column to one of them.")
    return of_inputs, of_targets


def _as_list(names: Any) -> list[Any]:
    return list(names) if isinstance(names, tuple) else [names]


def _stacked(column: Callable[[Any], Any], names: Any) -> Any:
    """Return a column, or several columns stacked as features."""
    if not isinstance(names, tuple):
        return column(names)
    parts = [np.asarray(column(name)) for name in names]
    shapes = {str(name): part.shape for name, part in zip(names, parts, strict=True)}
    if len(set(shapes.values())) > 1:
        raise ArgumentError("inputs", f"columns have the shapes {shapes}; give columns of one shape, or one column.")
    return np.stack(parts, axis=-1)


def _read(
    source: Any, inputs: Any, targets: Any, num_examples: Integer | None, batched: bool | None, max_bytes: Integer
) -> tuple[np.ndarray, np.ndarray]:
    """Read the examples of a source that yields elements."""
    elements, is_sequence = _elements(source, num_examples)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    choice, count, size = None, 0, 0
    for element in elements:
        if element is None:
            continue
        if choice is None:
            choice = _choice(element, inputs, targets)
        try:
            x, y = (np.asarray(_stacked(element.__getitem__, names)).copy() for names in choice)
        except (LookupError, TypeError, AttributeError) as error:
            raise ArgumentError(
                "source",
                f"source yields example {count} without {' and '.join(map(repr, choice))}, which the first example has "
                f"({type(error).__name__}: {error}); give all examples in the same form.",
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
            remedy = "num_examples if it has no end" if num_examples is None else "a smaller num_examples"
            raise ArgumentError(
                "max_bytes",
                f"source has more than max_bytes, {max_bytes} bytes, after {count} examples; give {remedy}, or a "
                "larger max_bytes.",
            )
    if not count:
        raise ArgumentError(
            "source", "source yields no examples; give at least one (an iterator can be read only once)."
        )
    if num_examples is not None:
        _check_enough(count, num_examples)
    x, y = (np.concatenate(part)[:num_examples] for part in parts)
    return as_inputs(x), as_targets(y)


def _elements(source: Any, num_examples: Integer | None) -> tuple[Iterator[Any], bool]:
    """Iterate over the elements of a source; also return whether it is a sequence of rows."""
    if isinstance(source, str | bytes | np.ndarray) or not hasattr(source, "__getitem__"):
        if isinstance(source, Iterable) and not isinstance(source, str | bytes | np.ndarray):
            return iter(source), False
        raise ArgumentTypeError(
            "source",
            f"source is of type {type(source).__name__}; give a pair (inputs, targets) of arrays, a DataFrame, a "
            "mapping of columns, a sequence of rows, or an iterator of rows or batches.",
        )
    try:
        length = len(source)
    except (TypeError, OverflowError):
        return iter(source), False
    if length >= sys.maxsize and num_examples is None:  # the length of an endlessly repeated source of grain
        raise ArgumentError("num_examples", "source has no end; give num_examples, the number of examples to read.")
    return (source[index] for index in range(length)), True


def _choice(element: Any, inputs: Any, targets: Any) -> tuple[Any, Any]:
    """Determine the entries of an element that are the inputs and the targets."""
    if isinstance(element, Mapping):
        return _choose(list(element), inputs, targets)
    if not isinstance(element, tuple | list):
        raise ArgumentTypeError(
            "source",
            f"source yields elements of type {type(element).__name__}; give pairs (inputs, targets), or mappings with "
            "inputs= and targets= by name.",
        )
    if inputs is None and targets is None and len(element) != 2:
        raise ArgumentError(
            "inputs", f"source yields elements of {len(element)} entries; give inputs= and targets= by index, from 0."
        )
    return _choose(list(range(len(element))), 0 if inputs is None else inputs, 1 if targets is None else targets)


def _check_element(x: np.ndarray, y: np.ndarray, parts: tuple[list[np.ndarray], ...], count: int) -> None:
    if x.dtype.kind in "UST":
        raise ArgumentTypeError("inputs", "inputs contain strings; convert them to numbers first, such as tokens.")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ArgumentError(
            "batched",
            f"source yields a batch with inputs of shape {x.shape} and targets of shape {y.shape}; give equally many "
            "of both, or batched=False if it yields single examples.",
        )
    for name, now, before in zip(("inputs", "targets"), (x, y), parts, strict=True):
        if before and now.shape[1:] != before[0].shape[1:]:
            raise ArgumentError(
                name,
                f"{name} have shape {before[0].shape[1:]} in the first example and {now.shape[1:]} in example {count}; "
                "pad or cut them to one shape.",
            )
        if before and (now.dtype.kind in "UST") != (before[0].dtype.kind in "UST"):
            raise ArgumentTypeError(
                name, f"{name} contain strings and numbers together; give all as strings or all as numbers."
            )


def _check_enough(count: int, num_examples: Integer) -> None:
    if count < num_examples:
        raise ArgumentError(
            "num_examples",
            f"num_examples is {num_examples}, but source has only {count} examples; give at most {count}, or None.",
        )
