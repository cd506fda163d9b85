"""Data sets, split into training, validation and test examples; the built-in ones need no download.

Splits are made by a fixed seed and stratified by class, and whatever is fitted (standardization) is fitted on the
training examples alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightdecay.types import Batch, Integer, Scalar


@dataclass(frozen=True)
class Data:
    """Examples to train on, to choose by, and to score the choice once.

    Attributes:
      train: ``(inputs, targets)``, arrays with one row an example.
      validation: ``(inputs, targets)``; every choice is made on these.
      test: ``(inputs, targets)`` or None; looked at once, for what was chosen.
    """

    train: Any
    validation: Any
    test: Any = None

    def batches(self) -> dict[str, Batch]:
        """Return the splits there are by name, as arrays in the precision that JAX computes in."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: Batch(*map(_as_array, split)) for name, split in splits.items() if split is not None}


def digits(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels in [0, 1], ten classes.

    Args:
      seed: Of the split, the choice of ``num_train`` examples and the label noise.
      validation_size: Share of all examples that validates.
      test_size: Share of all examples that tests.
      num_train: Training examples to keep, classes in proportion; None keeps all.
      label_noise: Share of the training labels to replace by another class; validation and test stay clean.

    Returns:
      Inputs float32, shape ``(examples, 64)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: A share or a number that leaves a split empty or asks for more than there is.

    References:
      E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.

    Examples:
      >>> data = digits(num_train=300)
      >>> data.train[0].shape, data.validation[0].shape, data.test[0].shape
      ((300, 64), (359, 64), (359, 64))
    """
    inputs, targets = _load("digits")
    return _split(inputs / 16, targets, seed, validation_size, test_size, num_train, label_noise, standardize=False)


def breast_cancer(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 569 breast tumours, 30 standardized measurements, two classes.

    Args:
      seed: As in `digits`.
      validation_size: As in `digits`.
      test_size: As in `digits`.
      num_train: As in `digits`.
      label_noise: As in `digits`.

    Returns:
      Inputs float32, shape ``(examples, 30)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `digits`.

    References:
      W. Wolberg et al., Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning Repository, 1995.
    """
    return _split(*_load("breast_cancer"), seed, validation_size, test_size, num_train, label_noise)


def wine(
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """scikit-learn's 178 wines, 13 standardized measurements, three classes.

    Args:
      seed: As in `digits`.
      validation_size: As in `digits`.
      test_size: As in `digits`.
      num_train: As in `digits`.
      label_noise: As in `digits`.

    Returns:
      Inputs float32, shape ``(examples, 13)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `digits`.

    References:
      S. Aeberhard & M. Forina, Wine, UCI Machine Learning Repository, 1992.
    """
    return _split(*_load("wine"), seed, validation_size, test_size, num_train, label_noise)


def diabetes(
    *, seed: Integer = 0, validation_size: Scalar = 0.2, test_size: Scalar = 0.2, num_train: Integer | None = None
) -> Data:
    """scikit-learn's 442 diabetes patients, 10 standardized measurements, a standardized real target.

    Args:
      seed: As in `digits`; not stratified.
      validation_size: As in `digits`.
      test_size: As in `digits`.
      num_train: As in `digits`.

    Returns:
      Inputs float32, shape ``(examples, 10)``; targets float32, shape ``(examples,)``, in standard deviations of the
      training targets.

    Raises:
      ValueError: As `digits`.

    References:
      Efron et al., Least Angle Regression, 2004.
    """
    return _split(*_load("diabetes"), seed, validation_size, test_size, num_train, label_noise=0.0)


BUILT_IN: dict[str, Callable[..., Data]] = {fn.__name__: fn for fn in (digits, breast_cancer, wine, diabetes)}
"""The built-in data sets by name."""


def check(data: Any, batch_size: Integer | None) -> None:
    """Refuse data that cannot be trained on.

    Args:
      data: What a user gave.
      batch_size: Examples a step; None = all of them.

    Raises:
      TypeError: No `Data`, or no arrays of numbers in it.
      ValueError: Empty, of unequal length or shape, nan or infinite, or fewer training examples than a batch.
    """
    if not isinstance(data, Data):
        raise TypeError(
            f"data is of type {type(data).__name__}; give wd.data.digits() or "
            "wd.Data(train=(inputs, targets), validation=(inputs, targets), test=None)."
        )
    for name, split in {"train": data.train, "validation": data.validation, "test": data.test}.items():
        if split is None and name == "test":
            continue
        if not isinstance(split, tuple | list) or len(split) != 2:
            raise TypeError(f"data.{name} is of type {type(split).__name__}; give a pair (inputs, targets) of arrays.")
    splits = data.batches()
    for name, batch in splits.items():
        _check_split(name, batch)
        for part in ("inputs", "targets"):
            here, first = getattr(batch, part).shape[1:], getattr(splits["train"], part).shape[1:]
            if here != first:
                raise ValueError(
                    f"data.{name} has {part} of shape (examples, *{here}), data.train has (examples, *{first}); "
                    "every split needs the same shape after the first dimension."
                )
    num_train = len(splits["train"].inputs)
    if batch_size is not None and (not isinstance(batch_size, int | np.integer) or isinstance(batch_size, bool)):
        raise TypeError(f"batch_size is {batch_size!r}; give a whole number of examples, or None for all of them.")
    if batch_size is not None and not 1 <= batch_size <= num_train:
        raise ValueError(
            f"batch_size is {batch_size}, but data.train has {num_train} examples; give 1 to {num_train}, or None for "
            "all of them."
        )


def _check_split(name: str, batch: Batch) -> None:
    for part, values in zip(("inputs", "targets"), batch, strict=True):
        where = f"data.{name} {part}"
        if values.dtype.kind not in "fiub" and not np.issubdtype(values.dtype, np.number):
            raise TypeError(f"{where} have dtype {values.dtype}; give numbers (classes as integers from 0).")
        if values.ndim == 0 or len(values) == 0:
            raise ValueError(f"{where} have shape {values.shape}; give at least one example, one a row.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))
            raise ValueError(
                f"{where} hold {len(bad)} values that are nan or infinite, the first in example {bad[0][0]}; remove "
                "these examples or fill the values in."
            )
    if len(batch.inputs) != len(batch.targets):
        raise ValueError(
            f"data.{name} has {len(batch.inputs)} inputs and {len(batch.targets)} targets; give one target an example."
        )


def _as_array(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype == np.float64 or array.dtype == np.int64:
        from jax.dtypes import canonicalize_dtype

        return array.astype(canonicalize_dtype(array.dtype))
    return array


def _load(name: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")(return_X_y=True)


def _split(
    inputs: np.ndarray,
    targets: np.ndarray,
    seed: Integer,
    validation_size: Scalar,
    test_size: Scalar,
    num_train: Integer | None,
    label_noise: Scalar,
    *,
    standardize: bool = True,
) -> Data:
    from sklearn.model_selection import train_test_split

    if not (0 < validation_size and 0 < test_size and validation_size + test_size < 1):
        raise ValueError(
            f"validation_size is {validation_size} and test_size is {test_size}; give shares above 0 that leave some "
            "to train on."
        )
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise is {label_noise}; give a share between 0 and 1.")
    classes = np.issubdtype(targets.dtype, np.integer)
    targets = targets.astype(np.int32 if classes else np.float64)

    def part(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        stratify = targets[rows] if classes else None
        rest, chosen = train_test_split(rows, test_size=size, random_state=int(seed), stratify=stratify)
        return np.asarray(rest), np.asarray(chosen)

    rest, test = part(np.arange(len(targets)), round(float(test_size) * len(targets)))
    train, validation = part(rest, round(float(validation_size) * len(targets)))
    if num_train is not None and num_train != len(train):
        smallest = len(np.unique(targets)) if classes else 1
        if not smallest <= num_train <= len(train) - smallest:
            raise ValueError(
                f"num_train is {num_train}; give {smallest} to {len(train) - smallest}, or {len(train)}, which is all "
                "of them."
            )
        _, train = part(train, int(num_train))

    inputs = inputs.astype(np.float64)
    if standardize:
        inputs = _standardized(inputs, train)
    if not classes:
        targets = _standardized(targets, train)
    noisy = targets.copy()
    if label_noise > 0:
        random = np.random.default_rng(seed)
        flipped = random.choice(train, size=round(float(label_noise) * len(train)), replace=False)
        num_classes = int(targets.max()) + 1
        noisy[flipped] = (targets[flipped] + random.integers(1, num_classes, size=len(flipped))) % num_classes

    def split(rows: np.ndarray, labels: np.ndarray) -> Batch:
        return Batch(inputs[rows].astype(np.float32), labels[rows].astype(np.int32 if classes else np.float32))

    return Data(split(train, noisy), split(validation, targets), split(test, targets))


def _standardized(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    spread = values[train].std(axis=0)
    return (values - values[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
