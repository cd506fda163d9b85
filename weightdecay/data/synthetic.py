"""Synthetic data sets with a known truth: targets of a teacher, classes in the plane, the order of tokens.

Every number follows from the seed. What the docstrings state about the truth holds by construction.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Integer, Scalar
from weightdecay.data.dataset import Data
from weightdecay.data.registry import built_in
from weightdecay.data.splits import split


def teacher_student(
    *,
    num_train: Integer = 200,
    num_validation: Integer = 1000,
    num_test: Integer = 1000,
    num_features: Integer = 50,
    noise_variance: Scalar = 0.25,
    hidden: Sequence[int] = (),
    irrelevant_features: Integer = 0,
    seed: Integer = 0,
) -> Data:
    """Real targets of a random teacher network, with noise: ``y = teacher(x) + sqrt(noise_variance) * e``.

    Inputs and ``e`` are standard normal. A linear teacher is ``w · x`` with ``w ~ N(0, I / num_features)``. A teacher
    with hidden layers is a tanh network with weights ``N(0, 1 / fan_in)``, scaled so that its outputs have the variance
    1. Validation and test targets have the same noise as the training targets, so that the mean squared error of a
    student on them is at best ``noise_variance``.

    For a linear teacher and a linear student without a bias, the best decay is known. The expected weights, given the
    training examples, minimize ``|y - X w|²/num_train + c/2 |w|²`` with
    ``c = 2 * noise_variance * num_features / num_train``. On average over seeds, no other coefficient of `wd.L2` with
    the squared error is better.

    Args:
      num_train: Number of training examples.
      num_validation: Number of validation examples.
      num_test: Number of test examples.
      num_features: Number of features that the teacher uses.
      noise_variance: Variance of the noise, >= 0; the variance of the teacher's outputs is about 1.
      hidden: Widths of the teacher's hidden layers; empty = a linear teacher.
      irrelevant_features: Number of further standard normal features, which the teacher does not use.
      seed: Decides all random numbers.

    Returns:
      Inputs float32, shape ``(examples, num_features + irrelevant_features)``; targets float32, shape ``(examples,)``.

    Raises:
      ValueError: A number out of its range.

    References:
      Krogh & Hertz, A Simple Weight Decay Can Improve Generalization, 1991.

    Examples:
      >>> data = teacher_student(num_train=100, num_features=20, irrelevant_features=5)
      >>> data.train[0].shape, data.train[1].shape
      ((100, 25), (100,))
    """
    sizes = {"num_train": num_train, "num_validation": num_validation, "num_test": num_test}
    _check_counts(1, **sizes, num_features=num_features, **{f"hidden[{at}]": width for at, width in enumerate(hidden)})
    _check_counts(0, irrelevant_features=irrelevant_features)
    if not (noise_variance >= 0 and np.isfinite(noise_variance)):
        raise ArgumentError(
            "noise_variance", f"noise_variance is {noise_variance}; give a finite number of at least 0."
        )
    random = _random(seed, 0)
    widths = [int(width) for width in (num_features, *hidden, 1)]
    layers = [random.normal(0, shape[0] ** -0.5, shape) for shape in itertools.pairwise(widths)]

    def teacher(inputs: np.ndarray) -> np.ndarray:
        for layer in layers[:-1]:
            inputs = np.tanh(inputs @ layer)
        return (inputs @ layers[-1])[:, 0]

    gain = 1.0 if not hidden else 1 / teacher(random.normal(size=(4096, widths[0]))).std()

    def examples(size: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = random.normal(size=(size, widths[0]))
        targets = gain * teacher(inputs) + float(noise_variance) ** 0.5 * random.normal(size=size)
        return inputs.astype(np.float32), targets.astype(np.float32)

    data = Data(train=examples(int(num_train)), validation=examples(int(num_validation)), test=examples(int(num_test)))
    return _widened(data, irrelevant_features, seed)


@built_in
def clusters(
    *,
    num_examples: Integer = 1000,
    num_features: Integer = 20,
    num_informative: Integer = 5,
    num_classes: Integer = 2,
    separation: Scalar = 1.0,
    irrelevant_features: Integer = 0,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """Classes of two Gaussian clusters each, at corners of a cube, by ``make_classification`` of scikit-learn.

    Args:
      num_examples: Number of examples of all splits together.
      num_features: Number of features; those that are not informative are linear combinations of the informative ones.
      num_informative: Number of informative features, the dimension of the cube.
      num_classes: Number of classes, at least 2; classes are equally frequent.
      separation: Half the side of the cube, in standard deviations of a cluster.
      irrelevant_features: Number of further standard normal features, which are independent of the class.
      seed: Decides all random numbers.
      validation_size: As in `split`.
      test_size: As in `split`.
      num_train: As in `split`.
      label_noise: As in `split`.

    Returns:
      Inputs float32, shape ``(examples, num_features + irrelevant_features)``, standardized by the training examples;
      targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `split`, or a number out of its range.

    References:
      I. Guyon, Design of experiments of the NIPS 2003 variable selection benchmark, 2003.
    """
    from sklearn.datasets import make_classification

    _check_counts(1, num_examples=num_examples, num_informative=num_informative)
    _check_counts(int(num_informative), num_features=num_features)
    _check_counts(2, num_classes=num_classes)
    _check_counts(0, irrelevant_features=irrelevant_features)
    if 2 * num_classes > 2**num_informative:
        raise ArgumentError(
            "num_informative",
            f"num_informative is {num_informative}, so that the cube has {2**num_informative} corners, and "
            f"{num_classes} classes need {2 * num_classes}; give a larger num_informative.",
        )
    inputs, targets = make_classification(
        int(num_examples),
        int(num_features),
        n_informative=int(num_informative),
        n_redundant=int(num_features - num_informative),
        n_classes=int(num_classes),
        class_sep=float(separation),
        flip_y=0.0,
        random_state=_seed(seed),
    )
    options = {"validation_size": validation_size, "test_size": test_size, "num_train": num_train}
    data = split(inputs, targets, seed=seed, label_noise=label_noise, classes=True, **options)
    return _widened(data, irrelevant_features, seed)


@built_in
def spirals(
    *,
    num_examples: Integer = 1000,
    num_classes: Integer = 2,
    turns: Scalar = 1.0,
    noise: Scalar = 0.05,
    irrelevant_features: Integer = 0,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """Arms of a spiral in the plane, one for each class; no straight line separates them.

    Arm ``c`` is ``r (cos a, sin a)`` with ``a = 2π (turns r + c / num_classes)`` for ``r`` uniform in [0.1, 1].

    Args:
      num_examples: Number of examples of all splits together.
      num_classes: Number of classes, at least 2; classes are equally frequent.
      turns: Number of turns of an arm around the origin.
      noise: Standard deviation of the normal noise that is added to both coordinates.
      irrelevant_features: As in `clusters`.
      seed: Decides all random numbers.
      validation_size: As in `split`.
      test_size: As in `split`.
      num_train: As in `split`.
      label_noise: As in `split`.

    Returns:
      Inputs float32, shape ``(examples, 2 + irrelevant_features)``, standardized by the training examples; targets
      int32, shape ``(examples,)``.

    Raises:
      ValueError: As `split`, or a number out of its range.

    References:
      Lang & Witbrock, Learning to Tell Two Spirals Apart, 1988.
    """
    _check_counts(1, num_examples=num_examples)
    _check_counts(2, num_classes=num_classes)
    _check_counts(0, irrelevant_features=irrelevant_features)
    if not noise >= 0:
        raise ArgumentError("noise", f"noise is {noise}; give a standard deviation of at least 0.")
    random = _random(seed, 0)
    targets = np.arange(num_examples) % num_classes
    radius = random.uniform(0.1, 1, int(num_examples))
    angle = 2 * np.pi * (float(turns) * radius + targets / num_classes)
    plane = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inputs = plane + float(noise) * random.normal(size=plane.shape)
    options = {"validation_size": validation_size, "test_size": test_size, "num_train": num_train}
    data = split(inputs, targets, seed=seed, label_noise=label_noise, classes=True, **options)
    return _widened(data, irrelevant_features, seed)


def token_order(
    *,
    num_examples: Integer = 2000,
    length: Integer = 16,
    num_tokens: Integer = 20,
    seed: Integer = 0,
    validation_size: Scalar = 0.2,
    test_size: Scalar = 0.2,
    num_train: Integer | None = None,
    label_noise: Scalar = 0.0,
) -> Data:
    """Sequences of tokens, of class 1 where token 0 is before token 1: a task for a network that uses positions.

    Each sequence contains the tokens 0 and 1 exactly once, at two random positions, and other tokens elsewhere. The
    classes are equally frequent, and the number of times that a token occurs is independent of the class.

    Args:
      num_examples: Number of examples of all splits together.
      length: Tokens in each sequence, at least 2.
      num_tokens: Number of different tokens, at least 3; they are 0 to ``num_tokens - 1``.
      seed: Decides all random numbers.
      validation_size: As in `split`.
      test_size: As in `split`.
      num_train: As in `split`.
      label_noise: As in `split`.

    Returns:
      Inputs int32, shape ``(examples, length)``; targets int32, shape ``(examples,)``.

    Raises:
      ValueError: As `split`, or a number out of its range.

    Examples:
      >>> data = token_order(length=6)
      >>> data.train[0].shape, data.train[0].dtype.name
      ((1200, 6), 'int32')
    """
    _check_counts(1, num_examples=num_examples)
    _check_counts(2, length=length)
    _check_counts(3, num_tokens=num_tokens)
    random, shape = _random(seed, 0), (int(num_examples), int(length))
    inputs = random.integers(2, int(num_tokens), shape, dtype=np.int32)
    targets = np.arange(num_examples) % 2
    positions = np.sort(random.permuted(np.broadcast_to(np.arange(length), shape), axis=1)[:, :2], axis=1)
    np.put_along_axis(inputs, positions, np.stack([1 - targets, targets], axis=1).astype(np.int32), axis=1)
    options = {"validation_size": validation_size, "test_size": test_size, "num_train": num_train}
    return split(inputs, targets, seed=seed, label_noise=label_noise, classes=True, tokens=True, **options)


def with_irrelevant_features(data: Data, num_features: Integer, *, seed: Integer = 0) -> Data:
    """Add independent standard normal features that are unrelated to the targets.

    They are a test of decay: an L1 penalty should set their weights to zero.

    Args:
      data: Data with real inputs of shape ``(examples, features)``.
      num_features: Number of features to add, after the existing ones.
      seed: Decides the features.

    Returns:
      New data; targets, weights and folds are unchanged.

    Raises:
      ValueError: Inputs of another shape, or tokens.

    Examples:
      >>> from weightdecay.data.builtin import wine
      >>> with_irrelevant_features(wine(), 7).train[0].shape
      (106, 20)
    """
    _check_counts(1, num_features=num_features)
    num_features = int(num_features)
    changed: dict[str, Any] = {}
    for stream, name in enumerate(("train", "validation", "test"), start=1):
        if (examples := getattr(data, name)) is None:
            continue
        inputs = np.asarray(examples[0])
        if inputs.ndim != 2 or inputs.dtype.kind not in "fb":
            raise ArgumentError(
                "data",
                f"data.{name} has inputs of dtype {inputs.dtype} and shape {inputs.shape}; give real numbers of shape "
                "(examples, features).",
            )
        added = _random(seed, stream).normal(size=(len(inputs), num_features)).astype(np.float32)
        changed[name] = (np.concatenate([inputs, added], axis=1), *examples[1:])
    if data.scaling is not None and data.scaling.input_mean is not None:
        wider = [(0, 0), (0, num_features)]
        changed["scaling"] = data.scaling._replace(
            input_mean=np.pad(data.scaling.input_mean, wider),
            input_scale=np.pad(data.scaling.input_scale, wider, constant_values=1),
        )
    return replace(data, **changed)


def _widened(data: Data, irrelevant_features: Integer, seed: Integer) -> Data:
    return with_irrelevant_features(data, irrelevant_features, seed=seed) if irrelevant_features else data


def _check_counts(at_least: int, **counts: Any) -> None:
    for name, count in counts.items():
        checks.integer(count, name, at_least=at_least)


def _seed(seed: Integer) -> int:
    return checks.integer(seed, "seed", at_least=0, at_most=2**32 - 1)


def _random(seed: Integer, stream: int) -> np.random.Generator:
    return np.random.default_rng([stream, _seed(seed)])
