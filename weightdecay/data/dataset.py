"""What is trained on: examples in splits or folds, and what must hold of them.

`weightdecay.data.splits` makes them of a user's arrays, `weightdecay.training.step` standardizes the examples of a
fold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core.types import Batch, Integer


class Scaling(NamedTuple):
    """What standardizes a fold, ``(values - mean) / scale``: fitted on the fold's training examples alone."""

    input_mean: Any = None  # (folds, ...), float32; None = inputs stay as they are
    input_scale: Any = None  # (folds, ...), float32, > 0
    target_mean: Any = None  # (folds, ...), float32; None = targets stay as they are
    target_scale: Any = None  # (folds, ...), float32, > 0


@dataclass(frozen=True)
class Data:
    """Examples to train on, to choose by, and to score the choice once.

    A split is ``(inputs, targets)`` or ``(inputs, targets, weights)``: arrays with one row an example. The loss of an
    example counts by its weight, shape ``(examples,)``, >= 0, relative to the others of its split.

    Attributes:
      train: Examples to train on; where there are folds, all of them but the test examples.
      validation: Examples that every choice is made on; None where there are folds.
      test: Examples looked at once, for what was chosen; or None.
      fold: Number of the fold in which each training example validates, int, shape ``(examples,)``, from 0; in all
        others it trains. None where validation examples are given.
      scaling: What standardizes the examples of each fold; None = nothing.
    """

    train: Any
    validation: Any = None
    test: Any = None
    fold: Any = None
    scaling: Scaling | None = None

    @property
    def num_folds(self) -> int | None:
        """How many folds there are; None = validation examples are given."""
        return None if self.fold is None else int(np.max(self.fold)) + 1

    def batches(self) -> dict[str, Batch]:
        """Return the splits there are by name, as arrays in the precision that JAX computes in.

        Weights are float32 with the mean 1 over their split. Where there are folds, ``train`` has them and there is no
        ``validation``.
        """
        splits = {name: _batch(split) for name, split in self._splits()}
        if self.fold is not None:
            splits["train"] = splits["train"]._replace(fold=np.asarray(self.fold, np.int32))
        return splits

    def __repr__(self) -> str:
        """Return the shapes of the arrays, not their numbers."""
        told = [f"{name}: {' and '.join(map(_shape, split))}" for name, split in self._splits()]
        folds = [] if self.fold is None else [f"{self.num_folds} folds"]
        return f"Data({'; '.join([*told, *folds])})"

    def _splits(self) -> Iterator[tuple[str, Any]]:
        for name in ("train", "validation", "test"):
            if (split := getattr(self, name)) is not None:
                yield name, split


def _shape(values: Any) -> str:
    shape = getattr(values, "shape", None)
    return f"{values.dtype}{list(shape)}" if shape is not None and hasattr(values, "dtype") else type(values).__name__


def check(data: Any, batch_size: Integer | None) -> None:
    """Refuse data that cannot be trained on.

    Args:
      data: What a user gave.
      batch_size: Examples a step; None = all of them.

    Raises:
      TypeError: No `Data`, or no arrays of numbers in it.
      ValueError: Empty, of unequal length or shape, nan or infinite, weights or folds that do not fit, or fewer
        training examples than a batch.
    """
    if not isinstance(data, Data):
        raise TypeError(
            f"data is of type {type(data).__name__}; give wd.data.digits() or "
            "wd.Data(train=(inputs, targets), validation=(inputs, targets), test=None)."
        )
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is None and (name == "test" or (name == "validation" and data.fold is not None)):
            continue
        if not isinstance(split, tuple | list) or (len(split) not in (2, 3) and not isinstance(split, Batch)):
            raise TypeError(
                f"data.{name} is of type {type(split).__name__}; give a pair (inputs, targets) of arrays, or "
                "(inputs, targets, weights)."
            )
        if len(split) > 2 and split[2] is not None:
            check_weights(f"data.{name} weights", split[2], len(_as_array(split[0])))
    if data.fold is not None:
        _check_folds(data)
    splits = data.batches()
    for name, batch in splits.items():
        check_examples(f"data.{name} ", batch.inputs, batch.targets)
    _check_shapes(splits)
    num_train = len(splits["train"].inputs)
    where = "data.train has"
    if data.fold is not None:
        num_train -= int(np.bincount(splits["train"].fold).max())
        where = "data has a fold with"
    if batch_size is not None and (not isinstance(batch_size, int | np.integer) or isinstance(batch_size, bool)):
        raise TypeError(f"batch_size is {batch_size!r}; give a whole number of examples, or None for all of them.")
    if batch_size is not None and not 1 <= batch_size <= num_train:
        training = "training examples" if data.fold is not None else "examples"
        raise ValueError(
            f"batch_size is {batch_size}, but {where} {num_train} {training}; give 1 to {num_train}, or None for "
            "all of them."
        )


def check_examples(prefix: str, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Refuse arrays that are no examples.

    Args:
      prefix: Of their names in messages, such as ``"data.train "``.
      inputs: Numbers.
      targets: Numbers.

    Raises:
      TypeError: No numbers.
      ValueError: Empty, unequally many, nan or infinite.
    """
    for part, values in {"inputs": inputs, "targets": targets}.items():
        where = prefix + part
        if values.dtype.kind not in "fiub" and not np.issubdtype(values.dtype, np.number):
            raise TypeError(f"{where} have dtype {values.dtype}; give numbers (classes as integers from 0).")
        if values.ndim == 0 or len(values) == 0:
            raise ValueError(f"{where} have shape {values.shape}; give at least one example, one a row.")
        if values.size == 0:
            raise ValueError(f"{where} have shape {values.shape}: no number an example; give at least one feature.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))
            raise ValueError(
                f"{where} hold {len(bad)} values that are nan or infinite, the first in example {bad[0][0]}; remove "
                "these examples or fill the values in."
            )
    if len(inputs) != len(targets):
        raise ValueError(
            f"{prefix or 'the data '}has {len(inputs)} inputs and {len(targets)} targets; give one target an example."
        )


def check_weights(name: str, weights: Any, num_examples: int) -> np.ndarray:
    """Refuse what are no weights of examples.

    Args:
      name: Of the argument in messages.
      weights: What a user gave.
      num_examples: How many there must be.

    Returns:
      They, float64, shape ``(examples,)``.

    Raises:
      TypeError: No numbers.
      ValueError: Of another number, negative, nan or infinite, or all 0.
    """
    array = np.asarray(weights)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} have dtype {array.dtype}; give one number an example.")
    if array.shape != (num_examples,):
        raise ValueError(f"{name} have shape {array.shape}; give one an example, shape ({num_examples},).")
    array = array.astype(np.float64)
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(f"{name} hold {array[first]} in example {first}; give finite numbers of at least 0.")
    if not array.any():
        raise ValueError(f"{name} are all 0, so that no example counts; give some above 0.")
    return array


def _check_folds(data: Data) -> None:
    if data.validation is not None:
        raise ValueError(
            "data has validation examples, and a fold of each training example as well; give one of the two."
        )
    fold, num_examples = np.asarray(data.fold), len(_as_array(data.train[0]))
    if fold.dtype.kind not in "iu" or fold.shape != (num_examples,):
        raise ValueError(
            f"data.fold has dtype {fold.dtype} and shape {fold.shape}; give one whole number an example of data.train, "
            f"shape ({num_examples},)."
        )
    sizes = np.bincount(fold) if fold.min() >= 0 else np.zeros(1, int)
    if len(sizes) < 2 or not sizes.all():
        raise ValueError(
            f"data.fold holds the numbers {', '.join(map(str, np.unique(fold)[:20]))}; give 0, 1, 2, ... without a "
            "gap, two folds or more."
        )
    if len(data.train) > 2 and data.train[2] is not None:
        weights = np.bincount(fold, np.asarray(data.train[2], np.float64))
        if not weights.all() or np.count_nonzero(weights) < 2:
            raise ValueError(
                f"data.train weights are all 0 in fold {int(np.argmin(weights))}; give some above 0 in every fold."
            )


def _check_shapes(splits: Mapping[str, Batch]) -> None:
    for name, batch in splits.items():
        for part in ("inputs", "targets"):
            here, first = getattr(batch, part).shape[1:], getattr(splits["train"], part).shape[1:]
            if here != first:
                raise ValueError(
                    f"data.{name} has {part} of shape (examples, *{here}), data.train has (examples, *{first}); "
                    "every split needs the same shape after the first dimension."
                )


def _batch(split: Any) -> Batch:
    inputs, targets, weights, *_ = (*split, None)
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        weights = (weights / weights.mean()).astype(np.float32)
    return Batch(_as_array(inputs), _as_array(targets), weights)


def _as_array(values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"data holds rows of unequal length ({error}); give arrays, one row an example.") from error
    if array.dtype == np.float64 or array.dtype == np.int64:
        from jax.dtypes import canonicalize_dtype

        narrow = array.astype(canonicalize_dtype(array.dtype))
        if array.dtype == np.int64 and not np.array_equal(narrow, array):
            raise ValueError("data holds whole numbers beyond int32; number the classes from 0, or give real numbers.")
        return narrow
    return array
