"""Examples divided: into training, validation and test examples, or into folds that validate in turn.

Divisions are made by a fixed seed, classes in proportion, groups kept whole; whatever is fitted (standardization) is
fitted on training examples alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from weightdecay.core.types import Integer, Scalar
from weightdecay.data.dataset import Data, Scaling, check_examples, check_weights
from weightdecay.data.encoding import as_inputs, as_targets


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
) -> Data:
    """Split a user's own examples; targets that are whole numbers, one an example, are classes and stratify the split.

    Args:
      inputs: Numbers, shape ``(examples, ...)``, or a pandas DataFrame, whose columns of words are taken as by
        `one_hot`. Whole numbers (of 16 bits or more) are taken for tokens: they stay whole and are not standardized.
      targets: Numbers, shape ``(examples, ...)``: classes as integers from 0 (True and False are 1 and 0), or floats.
        Labels that are words become classes: in sorted order they are 0, 1, 2, ...
      seed: Of the split, the choice of ``num_train`` examples and the label noise; 0 to 2**32 - 1.
      validation_size: Share of all examples that validates.
      test_size: Share of all examples that tests.
      num_train: Training examples to keep, classes in proportion; None keeps all.
      label_noise: Share of the training labels to replace by another class; validation and test stay clean.
      standardize: Whether each feature, and each real target, loses its mean and is divided by its standard deviation,
        both over the training examples; what is constant there is only centered. For images a feature is one channel
        of one pixel, so images are often scaled by hand (``inputs / 255``) and given with ``standardize=False``.
        None: all but tokens; True: whole numbers as well, as real numbers.
      weights: How much the loss of each example counts, shape ``(examples,)``, >= 0; or ``"balanced"`` or a mapping of
        classes, as in `class_weights` of all examples that are given. None: all alike.
      groups: One name an example, shape ``(examples,)``; examples of one group stay in one split, and the sizes
        are then shares of the groups. None: every example is its own.
      stratify: Whether classes stay in proportion. None: they do where targets are classes and there are no groups.

    Returns:
      Inputs float32, or int32 where they are tokens; targets int32 where they are whole numbers, else float32; in the
      shapes that were given. With ``weights``, each split is ``(inputs, targets, weights)``.

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
    inputs, targets, weights, groups = _examples(inputs, targets, weights, groups)
    if not (0 < validation_size and 0 < test_size and validation_size + test_size < 1):
        raise ValueError(
            f"validation_size is {validation_size} and test_size is {test_size}; give shares above 0 that leave some "
            "to train on."
        )
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise is {label_noise}; give a share between 0 and 1.")
    _check_seed(seed)
    classes = np.unique(targets) if _are_classes(targets) else np.zeros(0)
    if label_noise > 0 and (len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes)))):
        raise ValueError(
            f"label_noise is {label_noise}, but the targets are not classes 0, 1, 2, ..., one an example; number the "
            "classes from 0, or leave label_noise out."
        )
    strata = _strata(targets, groups, stratify)

    num_examples = len(targets)
    if groups is None:
        rest, test = _part(np.arange(num_examples), round(float(test_size) * num_examples), strata, seed)
        train, validation = _part(rest, round(float(validation_size) * num_examples), strata, seed)
    else:
        num_groups = len(np.unique(groups))
        rest, test = _part_groups(np.arange(num_examples), round(float(test_size) * num_groups), groups, seed)
        train, validation = _part_groups(rest, round(float(validation_size) * num_groups), groups, seed)
    if num_train is not None and num_train != len(train):
        smallest = max(len(classes), 1)
        if not smallest <= num_train <= len(train) - smallest:
            raise ValueError(
                f"num_train is {num_train}; give {smallest} to {len(train) - smallest}, or {len(train)}, which is all "
                "of them."
            )
        _, train = _part(train, int(num_train), strata, seed)

    inputs = _standardized(inputs, train) if _to_standardize(inputs, standardize) else inputs
    if targets.dtype.kind == "f" and standardize is not False:
        targets = _standardized(targets, train)
    noisy = targets.copy()
    if label_noise > 0:
        random = np.random.default_rng(int(seed))
        flipped = random.choice(train, size=round(float(label_noise) * len(train)), replace=False)
        shifts = random.integers(1, len(classes), size=len(flipped))
        noisy[flipped] = (targets[flipped] + shifts) % len(classes)

    def part(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        own = () if weights is None else (weights[rows],)
        return _narrow(inputs[rows]), _narrow(labels[rows]), *own

    return Data(part(train, noisy), part(validation, targets), part(test, targets))


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
) -> Data:
    """Divide a user's own examples into folds for cross-validation: each example validates once and trains otherwise.

    Folds are one more axis of a grid, ``fold=range(num_folds)``. They are numbers beside the examples, which lie in
    memory once, whatever the number of folds.

    Args:
      inputs: As in `split`; float32 arrays are not copied.
      targets: As in `split`.
      num_folds: How many, at least 2.
      seed: Of the folds and the test examples; 0 to 2**32 - 1.
      test_size: Share of all examples that tests and is in no fold; None or 0 holds none out.
      standardize: As in `split`, in each fold by its own training examples; the examples lie in `Data` as they are, and
        `Data.scaling` says what is subtracted and divided by. Losses of real targets are then in the unit of a fold's
        standard deviation.
      weights: As in `split`.
      groups: One name an example, shape ``(examples,)``; examples of one group are in one fold. None: every example is
        its own.
      stratify: Whether classes are in proportion in each fold. None: they are where targets are classes.

    Returns:
      Data with ``fold`` and without ``validation``.

    Raises:
      TypeError: Not numbers.
      ValueError: As `split`; fewer examples, examples of a class, or groups than folds.

    Examples:
      >>> data = folds(np.zeros((100, 3)), np.arange(100) % 10, num_folds=4)
      >>> np.bincount(data.fold).tolist(), data.train[0].shape
      ([25, 25, 25, 25], (100, 3))
    """
    inputs, targets, weights, groups = _examples(inputs, targets, weights, groups)
    _check_seed(seed)
    if isinstance(num_folds, bool) or not isinstance(num_folds, int | np.integer) or num_folds < 2:
        raise ValueError(f"num_folds is {num_folds!r}; give a whole number of at least 2.")
    if test_size is not None and not 0 <= test_size < 1:
        raise ValueError(f"test_size is {test_size}; give a share above 0 and below 1, or None for no test examples.")
    strata = _strata(targets, None, stratify)

    rows, test = np.arange(len(targets)), None
    if test_size:
        if groups is None:
            rows, test = _part(rows, round(float(test_size) * len(rows)), strata, seed)
        else:
            rows, test = _part_groups(rows, round(float(test_size) * len(np.unique(groups))), groups, seed)
    fold = _fold_numbers(
        None if strata is None else strata[rows], None if groups is None else groups[rows], len(rows), num_folds, seed
    )
    scales_targets = targets.dtype.kind == "f" and standardize is not False
    whole = slice(None) if test is None else rows

    if _to_standardize(inputs, standardize):
        inputs = inputs.astype(np.float32, copy=False)
        input_mean, input_scale = _fold_scaling(inputs[whole], fold)
    else:
        inputs, input_mean, input_scale = _narrow(inputs), None, None
    targets = _narrow(targets)
    target_mean, target_scale = _fold_scaling(targets[whole], fold) if scales_targets else (None, None)
    scaling = Scaling(input_mean, input_scale, target_mean, target_scale)

    def part(rows: Any) -> tuple[np.ndarray, ...]:
        own = () if weights is None else (weights[rows],)
        return inputs[rows], targets[rows], *own

    return Data(
        train=part(whole),
        test=None if test is None else part(test),
        fold=fold,
        scaling=None if input_mean is None and target_mean is None else scaling,
    )


def class_weights(targets: Any, weights: str | Mapping[Any, Any] = "balanced") -> np.ndarray:
    """Weights of examples from weights of their classes.

    Balanced, an example of class ``c`` weighs ``num_examples / (num_classes * num_examples_of_c)``, so that all classes
    count alike, as in scikit-learn's ``class_weight="balanced"``.

    Args:
      targets: Classes, shape ``(examples,)``: whole numbers or words.
      weights: ``"balanced"``, or a weight of each class by its name in ``targets``; >= 0.

    Returns:
      float64, shape ``(examples,)``.

    Raises:
      TypeError: Neither.
      ValueError: Targets that are no classes, a class without a weight, or a weight without a class.

    Examples:
      >>> class_weights(["cat", "cat", "cat", "dog"]).round(2).tolist()
      [0.67, 0.67, 0.67, 2.0]
      >>> class_weights([0, 1, 1], {0: 3.0, 1: 1.0}).tolist()
      [3.0, 1.0, 1.0]
    """
    labels = np.asarray(targets)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind == "f":
        raise ValueError(
            f"targets have dtype {labels.dtype} and shape {labels.shape}; give one class an example, as a whole number "
            "or a word."
        )
    classes, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if isinstance(weights, str) and weights == "balanced":
        return (len(labels) / (len(classes) * counts))[which]
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights is {weights!r}; give 'balanced', or a mapping of classes to weights.")
    names = classes.tolist()
    if set(names) != set(weights):
        missing = [repr(name) for name in names if name not in weights]
        unknown = [repr(name) for name in weights if name not in names]
        raise ValueError(
            f"weights have none for the classes {', '.join(missing[:20]) or '(none)'}, and some for "
            f"{', '.join(unknown[:20]) or '(none)'}, which targets do not hold; give one a class."
        )
    return check_weights("weights", np.array([weights[name] for name in names])[which], len(labels))


def _examples(inputs: Any, targets: Any, weights: Any, groups: Any) -> tuple[np.ndarray, np.ndarray, Any, Any]:
    """Arrays that have been checked: inputs and targets, weights or None, numbers of groups or None."""
    if isinstance(weights, str | Mapping):
        weights = class_weights(targets, weights)
    inputs, targets = as_inputs(inputs), as_targets(targets)
    check_examples("", inputs, targets)
    for name, values in {"inputs": inputs, "targets": targets}.items():
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{name} have dtype {values.dtype}; give real numbers, in a dtype of NumPy's own.")
    for name, values in {"inputs": inputs, "targets": targets}.items():
        held = values.dtype.kind in "iu" and values.dtype.itemsize >= 4
        if held and not (-(2**31) <= values.min() and values.max() < 2**31):
            ways = "classes from 0" if name == "targets" else "tokens from 0"
            raise ValueError(f"{name} hold whole numbers that int32 does not hold; give {ways}, or floats.")
    if targets.dtype.kind in "iub":
        targets = targets.astype(np.int32, copy=False)
    if weights is not None:
        weights = check_weights("weights", weights, len(targets))
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (len(targets),):
            raise ValueError(f"groups have shape {groups.shape}; give one an example, shape ({len(targets)},).")
        groups = np.unique(groups, return_inverse=True)[1]
    return inputs, targets, weights, groups


def _check_seed(seed: Integer) -> None:
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; give a whole number from 0 to {2**32 - 1}.")


def _are_classes(targets: np.ndarray) -> bool:
    return targets.dtype == np.int32 and targets.ndim == 1


def _strata(targets: np.ndarray, groups: Any, stratify: bool | None) -> np.ndarray | None:
    if stratify and groups is not None:
        raise ValueError("stratify is True and groups are given; a split keeps one of them, folds keep both.")
    if stratify and not _are_classes(targets):
        raise ValueError(
            f"stratify is True, but targets have dtype {targets.dtype} and shape {targets.shape}; give one class an "
            "example, or leave stratify out."
        )
    return targets if _are_classes(targets) and groups is None and stratify is not False else None


def _is_tokens(inputs: np.ndarray) -> bool:
    return inputs.dtype.kind in "iu" and inputs.dtype.itemsize > 1


def _to_standardize(inputs: np.ndarray, standardize: bool | None) -> bool:
    return not _is_tokens(inputs) if standardize is None else standardize


def _narrow(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32 if _is_tokens(values) else np.float32, copy=False)


def _part(rows: np.ndarray, size: int, strata: np.ndarray | None, seed: Integer) -> tuple[np.ndarray, np.ndarray]:
    """The other rows, and ``size`` that are chosen by the seed."""
    from sklearn.model_selection import train_test_split

    stratify = None if strata is None else strata[rows]
    try:
        rest, chosen = train_test_split(rows, test_size=size, random_state=int(seed), stratify=stratify)
    except ValueError as error:
        classes = "" if stratify is None else f" with their {len(np.unique(stratify))} classes in proportion"
        raise ValueError(
            f"{size} examples cannot be chosen out of {len(rows)}{classes} ({error}); give more examples or other "
            "sizes, leave rare classes out, and give targets that are no classes as floats."
        ) from error
    return np.asarray(rest), np.asarray(chosen)


def _part_groups(rows: np.ndarray, size: int, groups: np.ndarray, seed: Integer) -> tuple[np.ndarray, np.ndarray]:
    """The other rows, and those of ``size`` groups that are chosen by the seed."""
    present = np.unique(groups[rows])
    if not 0 < size < len(present):
        raise ValueError(
            f"groups: {size} cannot be chosen out of {len(present)} so that some are left; give more groups or other "
            "sizes."
        )
    chosen = np.isin(groups[rows], np.random.default_rng(int(seed)).choice(present, size, replace=False))
    return rows[~chosen], rows[chosen]


def _fold_numbers(strata: Any, groups: Any, num_examples: int, num_folds: Integer, seed: Integer) -> np.ndarray:
    """Number of the fold in which each example validates, int32."""
    from sklearn import model_selection

    if num_folds > num_examples:
        raise ValueError(f"num_folds is {num_folds}, but there are {num_examples} examples; give at most as many.")
    if groups is not None and num_folds > (num_groups := len(np.unique(groups))):
        raise ValueError(f"num_folds is {num_folds}, but there are {num_groups} groups; give at most as many.")
    if strata is not None:
        classes, counts = np.unique(strata, return_counts=True)
        if counts.min() < num_folds:
            raise ValueError(
                f"num_folds is {num_folds}, but class {classes[counts.argmin()]} has {counts.min()} examples to train "
                "and validate on; give fewer folds, leave rare classes out, or give stratify=False; give targets that "
                "are no classes as floats."
            )
    kind = {
        (False, False): model_selection.KFold,
        (True, False): model_selection.StratifiedKFold,
        (False, True): model_selection.GroupKFold,
        (True, True): model_selection.StratifiedGroupKFold,
    }[strata is not None, groups is not None]
    fold = np.zeros(num_examples, np.int32)
    divided = kind(n_splits=int(num_folds), shuffle=True, random_state=int(seed)).split(fold, strata, groups)
    for number, (_, validating) in enumerate(divided):
        fold[validating] = number
    if len(np.unique(fold)) < num_folds:
        raise ValueError(
            f"num_folds is {num_folds}, but no division of the groups into so many folds with the classes in "
            "proportion was found; give fewer folds, or stratify=False."
        )
    return fold


def _standardized(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    on = values[train]
    constant = on.min(axis=0) == on.max(axis=0)
    return (values - on.mean(axis=0)) / np.where(constant, 1, on.std(axis=0))


def _fold_scaling(values: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the examples outside of each fold, from sums over each fold."""
    parts = [values[fold == number].astype(np.float64) for number in range(fold.max() + 1)]
    counts = np.array([len(part) for part in parts], float).reshape(-1, *[1] * (values.ndim - 1))
    means, lows, highs = (np.stack([of(part, axis=0) for part in parts]) for of in (np.mean, np.min, np.max))
    squares = np.stack([((part - mean) ** 2).sum(axis=0) for part, mean in zip(parts, means, strict=True)])
    found = []
    for number in range(len(parts)):
        others = np.arange(len(parts)) != number
        count = counts[others].sum()
        mean = (counts[others] * means[others]).sum(axis=0) / count
        square = (squares[others] + counts[others] * (means[others] - mean) ** 2).sum(axis=0)
        constant = lows[others].min(axis=0) == highs[others].max(axis=0)
        found.append((mean, np.where(constant, 1, np.sqrt(square / count))))
    mean, scale = (np.stack(arrays).astype(np.float32) for arrays in zip(*found, strict=True))
    return mean, scale
