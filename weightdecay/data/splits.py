"""Division of examples: into training, validation and test examples, or into folds that validate in turn.

A fixed seed decides the division. Classes are stratified and groups stay together. Standardization is fitted on
training examples alone, in float64.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Integer, Scalar
from weightdecay.data import classes as class_labels
from weightdecay.data import on_disk, trees
from weightdecay.data.array_checks import to_float32
from weightdecay.data.classes import check_weights, class_weights
from weightdecay.data.dataset import Data, Scaling, check_examples
from weightdecay.data.encoding import as_inputs, as_labels


def split(
    inputs: Any,
    targets: Any,
    *,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
    standardize: bool | None = None,
    weights: Any = None,
    groups: Any = None,
    stratify: bool | None = None,
    classes: bool | None = None,
    tokens: bool = False,
) -> Data:
    """Split examples into training, validation and test examples; classes are stratified.

    Args:
      inputs: Numbers, shape ``(examples, ...)``, or a pandas DataFrame, whose columns of strings are encoded as by
        `one_hot`. Or a tree of arrays, such as a dictionary, whose floats are standardized and whose integers are not.
        A `numpy.memmap` stays on the disk; its rows are read, standardized and converted when they are used.
      targets: Labels of classes or real numbers, shape ``(examples, ...)``; see ``classes``.
      seed: Decides the split, the choice of ``num_train`` examples and the label noise; 0 to 2**32 - 1.
      validation_size: Fraction of all examples used for validation.
      test_size: Fraction of all examples used for testing.
      num_train: Number of training examples to keep, stratified; None = all.
      label_noise: Fraction of the training labels that are replaced by another class; validation and test labels are
        not changed.
      standardize: Whether the mean of each feature, and of each real target, is subtracted and the result divided by
        the standard deviation, both over the training examples; features that are constant there are only centered. In
        images a feature is one channel of one pixel; images are often scaled by hand (``inputs / 255``) and given with
        ``standardize=False``. None = True, except for tokens.
      weights: Factor of the loss of each example, shape ``(examples,)``, >= 0; or ``"balanced"`` or a mapping from
        classes to weights, as in `class_weights` of all examples. None = all equal.
      groups: Name of the group of each example, shape ``(examples,)``; examples of one group stay in one split, and the
        sizes are then fractions of the groups. None = every example is its own group.
      stratify: Whether each split has the classes in the same proportion. None = True for classes without groups.
      classes: Whether the targets are labels of classes, which are mapped to the classes 0, 1, 2, ... in sorted order;
        the labels become ``Data.class_names``. None = True for strings, truth values and integers, one for each
        example (a column counts as one), and False for floats; integers that look like a quantity are refused, see
        `weightdecay.data.classes.quantity`. Integers with ``classes=False`` are real numbers.
      tokens: Whether the inputs are tokens, for a model with an embedding: integers from 0 that are not standardized.
        Otherwise integers are real numbers.

    Returns:
      Inputs float32, or int32 if they are tokens; targets int32 if they are classes (or integers of several
      dimensions), else float32; with the shapes that were given. With ``weights``, each split is
      ``(inputs, targets, weights)``.

    Raises:
      TypeError: Not numbers.
      ValueError: Examples that are empty, of unequal number, nan or infinite; a fraction or a number that leaves a
        split empty or needs more examples than there are; integer targets that look like a quantity; classes too rare
        to stratify; label noise without classes.

    Examples:
      >>> images, labels = np.zeros((100, 28, 28, 1)), np.arange(100) % 10
      >>> data = split(images, labels, standardize=False)
      >>> data.train[0].shape, data.validation[0].shape, data.test[0].shape
      ((60, 28, 28, 1), (20, 28, 28, 1), (20, 28, 28, 1))
    """
    examples = _examples(inputs, targets, weights, groups, classes, tokens)
    inputs, targets, weights, groups = examples.inputs, examples.targets, examples.weights, examples.groups
    if not (0 < validation_size and 0 < test_size and validation_size + test_size < 1):
        raise ArgumentError(
            "validation_size" if validation_size <= 0 else "test_size",
            f"validation_size is {validation_size} and test_size is {test_size}; give fractions above 0 whose sum is "
            "below 1.",
        )
    checks.number(_as_number(label_noise), "label_noise", at_least=0, at_most=1, allowed="a fraction from 0 to 1")
    _check_seed(seed)
    num_classes = 0 if examples.class_names is None else len(examples.class_names)
    if label_noise > 0 and num_classes < 2:
        raise ArgumentError(
            "label_noise",
            f"label_noise is {label_noise}, but the targets are not labels of at least two classes; give such targets, "
            "or omit label_noise.",
        )
    strata = _strata(examples, groups, stratify)

    num_examples = len(targets)
    if groups is None:
        rest, test = _part(np.arange(num_examples), round(float(test_size) * num_examples), strata, seed)
        train, validation = _part(rest, round(float(validation_size) * num_examples), strata, seed)
    else:
        num_groups = len(np.unique(groups))
        rest, test = _part_groups(np.arange(num_examples), round(float(test_size) * num_groups), groups, seed)
        train, validation = _part_groups(rest, round(float(validation_size) * num_groups), groups, seed)
    if num_train is not None and num_train != len(train):
        smallest = max(num_classes, 1)
        if not smallest <= num_train <= len(train) - smallest:
            raise ArgumentError(
                "num_train",
                f"num_train is {num_train}; give {smallest} to {len(train) - smallest}, or {len(train)}, which is all "
                "of them.",
            )
        _, train = _part(train, int(num_train), strata, seed)

    standardizes = _standardizes(standardize, tokens)
    if targets.dtype.kind == "f" and standardize is not False:
        targets = _standardized(targets, train)
    noisy = targets
    if label_noise > 0:
        noisy = np.array(targets)
        random = np.random.default_rng(int(seed))
        flipped = random.choice(train, size=round(float(label_noise) * len(train)), replace=False)
        shifts = random.integers(1, num_classes, size=len(flipped))
        noisy[flipped] = (targets[flipped] + shifts) % num_classes

    def prepared(name: str, values: Any) -> Any:
        integers = tokens or (trees.is_tree(inputs) and values.dtype.kind in "iub")
        return _narrow(
            name, _standardized(values, train) if standardizes and not integers else values, integers=integers
        )

    ready = trees.mapped(prepared, inputs, "inputs")

    def part(rows: np.ndarray, targets: Any) -> tuple[Any, ...]:
        targets = _narrow("targets", on_disk.selected(targets, rows), integers=targets.dtype.kind == "i")
        of_part = jax.tree.map(lambda array: on_disk.selected(array, rows), ready)
        return (of_part, targets) if weights is None else (of_part, targets, weights[rows])

    return Data(part(train, noisy), part(validation, targets), part(test, targets), class_names=examples.class_names)


def folds(
    inputs: Any,
    targets: Any,
    *,
    num_folds: Integer = 5,
    seed: Integer = 0,
    test_size: Scalar | None = None,
    standardize: bool | None = None,
    weights: Any = None,
    groups: Any = None,
    stratify: bool | None = None,
    classes: bool | None = None,
    tokens: bool = False,
) -> Data:
    """Divide examples into folds for cross-validation: each example validates in one fold and trains in all others.

    Folds are one more axis of a grid, ``fold=range(num_folds)``. They are numbers in addition to the examples, which
    are in memory once, for any number of folds.

    Args:
      inputs: As in `split`; float32 arrays are not copied.
      targets: As in `split`.
      num_folds: Number of folds, at least 2.
      seed: Decides the folds and the test examples; 0 to 2**32 - 1.
      test_size: Fraction of all examples used for testing, which are in no fold; None or 0 = no test examples.
      standardize: As in `split`, in each fold by its own training examples. `Data` contains the examples as they were
        given, and `Data.scaling` what is subtracted and what divides. Losses of real targets are then in the unit of
        the fold's standard deviation.
      weights: As in `split`.
      groups: Name of the group of each example, shape ``(examples,)``; examples of one group are in one fold. None =
        every example is its own group.
      stratify: Whether each fold has the classes in the same proportion. None = True for classes.
      classes: As in `split`.
      tokens: As in `split`.

    Returns:
      Data with ``fold`` and without ``validation``. Inputs and targets have the dtypes of `split`, but are float64
      where float32 would round differences between examples.

    Raises:
      TypeError: Not numbers.
      ValueError: As `split`; fewer examples, examples of a class, or groups than folds.

    Examples:
      >>> data = folds(np.zeros((100, 3)), np.arange(100) % 10, num_folds=4)
      >>> np.bincount(data.fold).tolist(), data.train[0].shape
      ([25, 25, 25, 25], (100, 3))
    """
    examples = _examples(inputs, targets, weights, groups, classes, tokens)
    inputs, targets, weights, groups = examples.inputs, examples.targets, examples.weights, examples.groups
    _check_seed(seed)
    checks.integer(num_folds, "num_folds", at_least=2)
    if test_size is not None:
        allowed = "a fraction above 0 and below 1, or None for no test examples"
        checks.number(_as_number(test_size), "test_size", at_least=0, below=1, allowed=allowed)
    strata = _strata(examples, None, stratify)

    rows, test = np.arange(len(targets)), None
    if test_size:
        if groups is None:
            rows, test = _part(rows, round(float(test_size) * len(rows)), strata, seed)
        else:
            rows, test = _part_groups(rows, round(float(test_size) * len(np.unique(groups))), groups, seed)
    fold = _fold_numbers(
        None if strata is None else strata[rows], None if groups is None else groups[rows], len(rows), num_folds, seed
    )
    in_folds = slice(None) if test is None else rows
    input_mean = input_scale = target_mean = target_scale = None
    standardizes = _standardizes(standardize, tokens)
    if trees.is_tree(inputs):
        inputs, input_mean, input_scale = _fold_scalings(inputs, in_folds, fold, standardizes)
    elif standardizes:
        inputs, input_mean, input_scale = _fold_scaling(inputs, in_folds, fold)
    else:
        inputs = _narrow("inputs", inputs, integers=tokens)
    if targets.dtype.kind == "f" and standardize is not False:
        targets, target_mean, target_scale = _fold_scaling(targets, in_folds, fold)
    else:
        targets = _narrow("targets", targets, integers=targets.dtype.kind == "i")
    scaling = Scaling(input_mean, input_scale, target_mean, target_scale)

    def part(rows: Any) -> tuple[Any, ...]:
        of_part = trees.rows(inputs, rows), targets[rows]
        return of_part if weights is None else (*of_part, weights[rows])

    return Data(
        train=part(in_folds),
        test=None if test is None else part(test),
        fold=fold,
        scaling=None if input_mean is None and target_mean is None else scaling,
        class_names=examples.class_names,
    )


class _Examples(NamedTuple):
    """Checked arrays of the user."""

    inputs: Any  # float or integer, (examples, ...), or a tree of such arrays
    targets: Any  # int32 or float, (examples, ...)
    weights: np.ndarray | None  # float64, (examples,)
    groups: np.ndarray | None  # numbers of groups, (examples,)
    class_names: tuple[Any, ...] | None  # None = the targets are not classes


def _examples(inputs: Any, targets: Any, weights: Any, groups: Any, classes: bool | None, tokens: bool) -> _Examples:
    if isinstance(weights, str | Mapping):
        weights = class_weights(targets, weights)
    inputs, labels = trees.mapped(lambda _, array: as_inputs(array), inputs, "inputs"), as_labels(targets)
    strings = labels.dtype.kind == "U"
    check_examples("", inputs, class_labels.indices(labels)[0] if strings else labels)
    for name, values in (*trees.named(inputs, "inputs"), ("targets", labels)):
        if values.dtype.kind not in "fiubU":
            raise ArgumentTypeError(name, f"{name} have dtype {values.dtype}; give real numbers, in a dtype of NumPy.")
    if tokens:
        for _, values in trees.named(inputs, "inputs"):
            _check_tokens(values)
    targets, class_names = _class_indices(labels, classes)
    if weights is not None:
        weights = check_weights("weights", weights, len(targets))
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (len(targets),):
            raise ArgumentError(
                "groups", f"groups have shape {groups.shape}; give one for each example, shape ({len(targets)},)."
            )
        groups = np.unique(groups, return_inverse=True)[1]
    return _Examples(inputs, targets, weights, groups, class_names)


def _check_tokens(inputs: np.ndarray) -> None:
    if inputs.dtype.kind not in "iu":
        raise ArgumentTypeError("tokens", f"tokens is True, but inputs have dtype {inputs.dtype}; give integers.")
    if inputs.min() < 0 or inputs.max() >= 2**31:
        raise ArgumentError(
            "tokens",
            f"tokens is True, but inputs contain integers from {inputs.min()} to {inputs.max()}; give tokens from 0 "
            "that int32 can represent.",
        )


def _class_indices(labels: np.ndarray, classes: bool | None) -> tuple[Any, tuple[Any, ...] | None]:
    """Targets as int32 or floats, and the names of the classes; None where they are not classes."""
    kind = labels.dtype.kind
    if kind == "f" and classes and (labels == np.rint(labels)).all():
        labels, kind = labels.astype(np.int64), "i"
    if labels.ndim == 2 and labels.shape[1] == 1 and kind != "f" and classes is not False:
        labels = labels[:, 0]
    is_label = labels.ndim == 1 and kind != "f"
    if classes and not is_label:
        raise ArgumentError(
            "classes",
            f"classes is True, but targets have dtype {labels.dtype} and shape {labels.shape}; give one label for each "
            "example, as an integer or a string.",
        )
    if classes is False and kind == "U":
        raise ArgumentError("classes", "classes is False, but targets are strings; give numbers.")
    if kind == "f" or classes is False:
        return (labels if kind == "f" else labels.astype(np.float64)), None
    if is_label:
        if classes is None and kind in "iu" and (description := class_labels.quantity(labels)):
            raise ArgumentError(
                "targets",
                f"targets are integers that look like a quantity ({description}); give classes=True if they are labels "
                "of classes, or classes=False if they are real numbers.",
            )
        return class_labels.indices(labels)
    if kind == "U":
        return class_labels.indices(labels)[0], None
    if labels.min() < -(2**31) or labels.max() >= 2**31:
        raise ArgumentError("targets", "targets contain integers that int32 cannot represent; give floats.")
    return _narrow("targets", labels, integers=True), None


def _as_number(value: Any) -> Any:
    """The number in an array of shape ``()``."""
    return value.item() if getattr(value, "shape", None) == () else value


def _check_seed(seed: Integer) -> None:
    checks.integer(seed, "seed", at_least=0, at_most=2**32 - 1)


def _strata(examples: _Examples, groups: Any, stratify: bool | None) -> np.ndarray | None:
    targets, are_classes = examples.targets, examples.class_names is not None
    if stratify and groups is not None:
        raise ArgumentError(
            "stratify", "stratify is True and groups are given; omit one of them (folds take both, splits only one)."
        )
    if stratify and not are_classes:
        raise ArgumentError(
            "stratify",
            f"stratify is True, but targets have dtype {targets.dtype} and shape {targets.shape}; give one class for "
            "each example, or omit stratify.",
        )
    return targets if are_classes and groups is None and stratify is not False else None


def _standardizes(standardize: bool | None, tokens: bool) -> bool:
    if standardize and tokens:
        raise ArgumentError("standardize", "standardize is True and tokens is True; tokens are not standardized.")
    return not tokens if standardize is None else bool(standardize)


def _narrow(name: str, values: Any, *, integers: bool) -> Any:
    is_standardized = isinstance(values, on_disk.RowsOnDisk) and values.is_standardized
    if not integers and not is_standardized:
        return to_float32(name, values)
    dtype = np.int32 if integers else np.float32
    return on_disk.converted(values, dtype) if on_disk.is_on_disk(values) else np.asarray(values, dtype)


def _part(rows: np.ndarray, size: int, strata: np.ndarray | None, seed: Integer) -> tuple[np.ndarray, np.ndarray]:
    """Choose ``size`` rows by the seed; return the other rows and the chosen ones."""
    from sklearn.model_selection import train_test_split

    stratify = None if strata is None else strata[rows]
    try:
        rest, chosen = train_test_split(rows, test_size=size, random_state=int(seed), stratify=stratify)
    except ValueError as error:
        classes = "" if stratify is None else f" with their {len(np.unique(stratify))} classes in proportion"
        raise ArgumentError(
            "test_size",
            f"{size} examples cannot be chosen from {len(rows)}{classes} ({error}); give more examples or other sizes, "
            "remove rare classes or give stratify=False, and give classes=False if the targets are real numbers.",
        ) from error
    return np.asarray(rest), np.asarray(chosen)


def _part_groups(rows: np.ndarray, size: int, groups: np.ndarray, seed: Integer) -> tuple[np.ndarray, np.ndarray]:
    """Choose ``size`` groups by the seed; return the rows of the other groups and of the chosen ones."""
    present = np.unique(groups[rows])
    if not 0 < size < len(present):
        raise ArgumentError(
            "groups",
            f"groups: {size} cannot be chosen from {len(present)} so that some remain; give more groups or other "
            "sizes.",
        )
    chosen = np.isin(groups[rows], np.random.default_rng(int(seed)).choice(present, size, replace=False))
    return rows[~chosen], rows[chosen]


def _fold_numbers(strata: Any, groups: Any, num_examples: int, num_folds: Integer, seed: Integer) -> np.ndarray:
    """Number of the fold in which each example validates, int32."""
    from sklearn import model_selection

    if num_folds > num_examples:
        raise ArgumentError(
            "num_folds", f"num_folds is {num_folds}, but there are {num_examples} examples; give at most as many."
        )
    if groups is not None and num_folds > (num_groups := len(np.unique(groups))):
        raise ArgumentError(
            "num_folds", f"num_folds is {num_folds}, but there are {num_groups} groups; give at most as many."
        )
    if strata is not None:
        classes, counts = np.unique(strata, return_counts=True)
        if counts.min() < num_folds:
            raise ArgumentError(
                "num_folds",
                f"num_folds is {num_folds}, but class {classes[counts.argmin()]} has {counts.min()} examples to train "
                "and validate on; give fewer folds, remove rare classes, or give stratify=False; give classes=False if "
                "the targets are real numbers.",
            )
    splitter = {
        (False, False): model_selection.KFold,
        (True, False): model_selection.StratifiedKFold,
        (False, True): model_selection.GroupKFold,
        (True, True): model_selection.StratifiedGroupKFold,
    }[strata is not None, groups is not None]
    fold = np.zeros(num_examples, np.int32)
    division = splitter(n_splits=int(num_folds), shuffle=True, random_state=int(seed)).split(fold, strata, groups)
    for number, (_, validating) in enumerate(division):
        fold[validating] = number
    if len(np.unique(fold)) < num_folds:
        raise ArgumentError(
            "num_folds",
            f"num_folds is {num_folds}, but no division of the groups into that many folds with the classes in "
            "proportion was found; give fewer folds, or stratify=False.",
        )
    return fold


def _standardized(values: Any, train: np.ndarray) -> Any:
    if on_disk.is_on_disk(values):
        mean, scale, constant = on_disk.moments(on_disk.selected(values, train))
        scale = np.where(constant | (scale == 0), 1, scale)
        return on_disk.RowsOnDisk(values, dtype=np.float64, mean=mean, scale=scale)
    values = values.astype(np.float64)
    fitted = values[train]
    constant, scale = fitted.min(axis=0) == fitted.max(axis=0), fitted.std(axis=0)
    return (values - fitted.mean(axis=0)) / np.where(constant | (scale == 0), 1, scale)


def _fold_scaling(values: np.ndarray, in_folds: Any, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values as they are stored, and the mean and the scale of each fold.

    Values become float32, except where they are stored with a shift, which float32 would make inexact.
    """
    mean, scale = _fold_moments(values[in_folds], fold)
    if Scaling(mean, scale).stored_inputs(values) is not values:
        return values.astype(np.float64, copy=False), mean, scale
    if values.dtype != np.float32:
        values = values.astype(np.float32)
        mean, scale = _fold_moments(values[in_folds], fold)
    return values, mean, scale


def _fold_scalings(inputs: Any, in_folds: Any, fold: np.ndarray, standardizes: bool) -> tuple[Any, Any, Any]:
    """Inputs that are several arrays, as they are stored, and the means and scales of the floats by name."""
    means, scales = {}, {}

    def stored(name: str, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind in "iub":
            return _narrow(name, values, integers=True)
        if not standardizes:
            return _narrow(name, values, integers=False)
        values, means[name], scales[name] = _fold_scaling(values, in_folds, fold)
        return values

    inputs = trees.mapped(stored, inputs, "inputs")
    return (inputs, means, scales) if means else (inputs, None, None)


def _fold_moments(values: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the examples outside each fold, float64, from sums over each fold."""
    parts = [values[fold == number].astype(np.float64) for number in range(fold.max() + 1)]
    counts = np.array([len(part) for part in parts], float).reshape(-1, *[1] * (values.ndim - 1))
    means, lows, highs = (np.stack([of(part, axis=0) for part in parts]) for of in (np.mean, np.min, np.max))
    squares = np.stack([((part - mean) ** 2).sum(axis=0) for part, mean in zip(parts, means, strict=True)])
    scalings = []
    for number in range(len(parts)):
        others = np.arange(len(parts)) != number
        count = counts[others].sum()
        mean = (counts[others] * means[others]).sum(axis=0) / count
        square = (squares[others] + counts[others] * (means[others] - mean) ** 2).sum(axis=0)
        constant = lows[others].min(axis=0) == highs[others].max(axis=0)
        scalings.append((mean, np.where(constant | (square == 0), 1, np.sqrt(square / count))))
    mean, scale = (np.stack(arrays) for arrays in zip(*scalings, strict=True))
    return mean, scale
