"""Data sets, split into training, validation and test examples; the built-in ones need no download.

Splits are made by a fixed seed and stratified by class, and whatever is fitted (standardization) is fitted on the
training examples alone. `split` makes them of a user's own arrays, which `weightdecay.readers` reads from files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightdecay.readers import read_csv as read_csv
from weightdecay.readers import read_idx as read_idx
from weightdecay.readers import read_npz as read_npz
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


def split(
    inputs: Any,
    targets: Any,
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
    standardize: bool = True,
) -> Data:
    """Split a user's own examples; targets that are whole numbers, one an example, are classes and stratify the split.

    Args:
      inputs: Numbers, shape ``(examples, ...)``.
      targets: Numbers, shape ``(examples, ...)``: classes as integers from 0 (True and False are 1 and 0), or floats.
      seed: Of the split, the choice of ``num_train`` examples and the label noise; 0 to 2**32 - 1.
      validation_size: Share of all examples that validates.
      test_size: Share of all examples that tests.
      num_train: Training examples to keep, classes in proportion; None keeps all.
      label_noise: Share of the training labels to replace by another class; validation and test stay clean.
      standardize: Whether each feature, and each real target, loses its mean and is divided by its standard deviation,
        both over the training examples; what is constant there is only centered. For images a feature is one channel
        of one pixel, so images are often scaled by hand (``inputs / 255``) and given with ``standardize=False``.

    Returns:
      Inputs float32 and targets int32 where they are whole numbers, else float32, in the shapes that were given.

    Raises:
      TypeError: Not numbers.
      ValueError: Empty, unequally many, nan or infinite; a share or a number that leaves a split empty or asks for more
        than there is; classes too rare to stratify by; label noise without classes.

    Examples:
      >>> images, labels = np.zeros((100, 28, 28, 1)), np.arange(100) % 10
      >>> data = split(images, labels, standardize=False)
      >>> data.train[0].shape, data.validation[0].shape, data.test[0].shape
      ((60, 28, 28, 1), (20, 28, 28, 1), (20, 28, 28, 1))
    """
    inputs, targets = np.asarray(inputs), np.asarray(targets)
    _check_examples("", Batch(inputs, targets))
    for name, values in {"inputs": inputs, "targets": targets}.items():
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{name} have dtype {values.dtype}; give real numbers, in a dtype of NumPy's own.")
    if not (0 < validation_size and 0 < test_size and validation_size + test_size < 1):
        raise ValueError(
            f"validation_size is {validation_size} and test_size is {test_size}; give shares above 0 that leave some "
            "to train on."
        )
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise is {label_noise}; give a share between 0 and 1.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; give a whole number from 0 to {2**32 - 1}.")
    whole = targets.dtype.kind in "iub"
    if whole and not (-(2**31) <= targets.min() and targets.max() < 2**31):
        raise ValueError("targets hold whole numbers that int32 does not hold; give classes from 0, or floats.")
    targets = targets.astype(np.int32 if whole else np.float64)
    classes = np.unique(targets) if whole and targets.ndim == 1 else np.zeros(0)
    if label_noise > 0 and (len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes)))):
        raise ValueError(
            f"label_noise is {label_noise}, but the targets are not classes 0, 1, 2, ..., one an example; number the "
            "classes from 0, or leave label_noise out."
        )

    rest, test = _part(np.arange(len(targets)), round(float(test_size) * len(targets)), targets, seed)
    train, validation = _part(rest, round(float(validation_size) * len(targets)), targets, seed)
    if num_train is not None and num_train != len(train):
        smallest = max(len(classes), 1)
        if not smallest <= num_train <= len(train) - smallest:
            raise ValueError(
                f"num_train is {num_train}; give {smallest} to {len(train) - smallest}, or {len(train)}, which is all "
                "of them."
            )
        _, train = _part(train, int(num_train), targets, seed)

    if standardize:
        inputs = _standardized(inputs.astype(np.float64), train)
        targets = targets if whole else _standardized(targets, train)
    noisy = targets.copy()
    if label_noise > 0:
        random = np.random.default_rng(seed)
        flipped = random.choice(train, size=round(float(label_noise) * len(train)), replace=False)
        shifts = random.integers(1, len(classes), size=len(flipped))
        noisy[flipped] = (targets[flipped] + shifts) % len(classes)

    def batch(rows: np.ndarray, labels: np.ndarray) -> Batch:
        return Batch(inputs[rows].astype(np.float32), labels[rows].astype(np.int32 if whole else np.float32))

    return Data(batch(train, noisy), batch(validation, targets), batch(test, targets))


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
    return split(
        inputs / 16,
        targets,
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
        standardize=False,
    )


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
    return split(
        *_load("breast_cancer"),
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
    )


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
    return split(
        *_load("wine"),
        seed=seed,
        validation_size=validation_size,
        test_size=test_size,
        num_train=num_train,
        label_noise=label_noise,
    )


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
    return split(
        *_load("diabetes"), seed=seed, validation_size=validation_size, test_size=test_size, num_train=num_train
    )


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
        _check_examples(f"data.{name} ", batch)
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


def _check_examples(prefix: str, batch: Batch) -> None:
    for part, values in zip(("inputs", "targets"), batch, strict=True):
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
    if len(batch.inputs) != len(batch.targets):
        raise ValueError(
            f"{prefix or 'the data '}has {len(batch.inputs)} inputs and {len(batch.targets)} targets; give one target "
            "an example."
        )


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


def _load(name: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")(return_X_y=True)


def _part(rows: np.ndarray, size: int, targets: np.ndarray, seed: Integer) -> tuple[np.ndarray, np.ndarray]:
    """The other rows, and ``size`` that are chosen by the seed."""
    from sklearn.model_selection import train_test_split

    stratify = targets[rows] if targets.dtype == np.int32 and targets.ndim == 1 else None
    try:
        rest, chosen = train_test_split(rows, test_size=size, random_state=int(seed), stratify=stratify)
    except ValueError as error:
        classes = "" if stratify is None else f" with their {len(np.unique(stratify))} classes in proportion"
        raise ValueError(
            f"{size} examples cannot be chosen out of {len(rows)}{classes} ({error}); give more examples or other "
            "sizes, leave rare classes out, and give targets that are no classes as floats."
        ) from error
    return np.asarray(rest), np.asarray(chosen)


def _standardized(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    spread = values[train].std(axis=0)
    return (values - values[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
